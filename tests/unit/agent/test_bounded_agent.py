"""What a program, a node or a broker can make the agent hold is bounded: a room whose agent has no memory left ends
without a receipt, since the kernel has nothing else to kill.
"""

from __future__ import annotations

import os
import tracemalloc
from types import SimpleNamespace

import pytest

from strongroom.agent import attest, container, finish, http, init, outputs, program, room
from strongroom.errors import Refused, StrongroomError, Unavailable
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import room_terms
from strongroom.model.room import channel as wire
from strongroom.model.room import destination
from strongroom.streams import mux
from strongroom.streams.socket_end import SocketEnd
from tests import samples

MOST_HELD = 48 << 20
MEMORY = 1 << 30


def links_through_links(folder):
    """Each link's text has 1300 parts and leads over the next link."""
    text = b"/".join([b"aa/.."] * 650)
    for number in range(3000):
        os.symlink(b"l%05d/" % (number + 1) + text, b"l%05d" % number, dir_fd=folder)


def short_links_that_end_deep(folder):
    os.symlink(b"/".join([b"n" * 250] * 15), b"d", dir_fd=folder)
    for number in range(18_000):
        os.symlink(b"d/%d" % number, b"x%d" % number, dir_fd=folder)


def long_paths(folder):
    below = os.dup(folder)
    for _ in range(14):
        os.mkdir(b"n" * 250, dir_fd=below)
        deeper = os.open(b"n" * 250, os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    for number in range(18_000):
        os.symlink(b"x", b"m" * 200 + b"%d" % number, dir_fd=below)
    os.close(below)


@pytest.mark.parametrize(
    ("plant", "code"),
    [(links_through_links, ""), (short_links_that_end_deep, ""), (long_paths, "output-entries")],
)
def test_act_9_no_tree_of_few_bytes_takes_much_of_the_agents_memory(tmp_path, plant, code):
    top = os.open(tmp_path, os.O_RDONLY)
    plant(top)
    os.close(top)
    got, left_out = "", True
    tracemalloc.start()
    try:
        left_out = outputs.list_folder(str(tmp_path), MEMORY).left_out
    except Refused as cause:
        got = cause.code
    finally:
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert held < MOST_HELD
    assert (got, left_out) == (code, True)


@pytest.mark.parametrize("log_bytes", [None, 1 << 20, 1 << 30])
def test_act_7_what_a_program_prints_is_kept_in_no_memory_of_the_agents_reserve(
    tmp_path, monkeypatch, log_bytes
):
    logs = None if log_bytes is None else room_terms.Logs(recipients=("bob",), max_bytes=log_bytes)
    own = samples.a_room(memory_mib=1 << 20, logs=logs, certificate=None)
    terms = SimpleNamespace(contract=samples.a_contract(), room=own)
    seen = {}
    monkeypatch.setattr(init, "available_memory", lambda: MEMORY)
    monkeypatch.setattr(init, "make_cgroup", lambda memory: seen.update(memory=memory) or "")
    launch = container.ContainerLaunch(
        arguments=("/bin/true",), environment={}, working_directory="/", uid=0, gid=0, groups=(), image="", datasets={},
        out="", tls="", scratch=str(tmp_path / "scratch"), root_bytes=4096, tmp_bytes=4096, cgroup="",
    )  # fmt: skip
    monkeypatch.setattr(room, "make_launch", lambda *_: launch)
    monkeypatch.setattr(room, "prepare_out", lambda *_: None)
    monkeypatch.setattr(program, "run", lambda *_, **options: seen.update(options))
    monkeypatch.setattr(init, "allow_sockets", lambda: None)
    room._run(SimpleNamespace(carrier=None), terms, [], None, None, None, room._Progress())
    log = bytearray()
    while len(log) < seen["log_bytes"]:
        log += bytes(1 << 16)
    assert seen["memory"] + log.__alloc__() <= MEMORY - init.AGENT_RESERVE
    assert seen["log_bytes"] == min(log_bytes or 0, MEMORY // 8)


def test_act_10_the_node_has_room_for_every_try_of_the_longest_wait_at_the_most_brokers(monkeypatch):
    parties = tuple(f"party-{number}" for number in range(contract_model.MAX_PARTIES))
    now, tried = [0.0], []
    nobody = SocketEnd(None)
    room, node = (mux.Mux(side, lambda _: None) for side in (mux.Side.ROOM, mux.Side.NODE))
    pipe, decoder = memoryview(bytearray(wire.PIECE)), wire.Decoder()

    def post(_channel, _contract, party, _envelope):
        tried.append(party)
        room.dial(destination.Destination(kind=destination.Kind.BROKER, name=party), nobody)
        for one, other in ((room, node), (node, room)):
            for frame in decoder.feed(bytes(pipe[: one.fill(pipe)])):
                other.receive(frame.type, frame.stream, memoryview(frame.payload))
        raise Unavailable("nobody answers", code="cut-off")

    monkeypatch.setattr(attest, "post_receipt", post)
    with pytest.raises(Unavailable) as caught:
        finish.post_receipt(
            None,
            None,
            b"",
            parties=parties,
            wait_seconds=86_400,
            clock=lambda: now[0],
            pause=lambda seconds: now.__setitem__(0, now[0] + seconds),
        )
    assert caught.value.code == "receipt-not-recorded"
    assert len(tried) > 80_000
    assert (room.open_streams, node.open_streams) == (0, 0)


@pytest.mark.parametrize("status", [200, 503])
def test_act_10_no_brokers_answer_takes_the_memory_that_sealed_outputs_leave(monkeypatch, status):
    class Connection:
        def __init__(self, *_, **_options):
            pass

        def post(self, _path, _body, *, max_answer, timeout):
            body = b'{"entry":[' + b"[]," * (max_answer // 3 - 10) + b"[]]}"
            return http.BrokerAnswer(status=status, body=body)

        def close(self):
            pass

    monkeypatch.setattr(http, "BrokerConnection", Connection)
    contract = SimpleNamespace(party=lambda _name: SimpleNamespace(broker=samples.broker()))
    tracemalloc.start()
    try:
        with pytest.raises(StrongroomError, match=r"ledger proof|no explanation"):
            attest.post_receipt(None, contract, "alice", b"")
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < init.AGENT_RESERVE // 4
    monkeypatch.setattr(init, "available_memory", lambda: MEMORY)
    assert MEMORY - init.sealing_memory() > init.AGENT_RESERVE // 2
