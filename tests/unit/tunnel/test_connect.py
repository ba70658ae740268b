"""From outside to a room: its evidence is judged here, and nothing leads to it before."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

import strongroom
from strongroom.crypto import sign
from strongroom.errors import Misuse, PolicyDenied, Refused, Unavailable
from strongroom.model import tunnel
from strongroom.model.tunnel import Wants
from strongroom.tunnel import connect as connecting
from strongroom_testing import tunnels
from tests.unit.tunnel.serving import Served


@pytest.fixture
def served(web):
    made = []

    def serve(room=web, **changes):
        made.append(Served(room, **changes))
        return made[-1]

    yield serve
    for one in made:
        one.close()


def connect(world, agreement, at, **options):
    return strongroom.connect("web:http", agreement=agreement, at=at, now=lambda: world.scene.now, **options)


def ask(address, data=b"hello"):
    with socket.create_connection(address, timeout=tunnels.PATIENCE) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(1 << 16), b""))


def test_a_room_is_verified_and_then_reached(world, agreement, web, served):
    there = served()
    with connect(world, agreement, there.at, trust=world.anchors) as connection:
        steps = {step.name: step for step in connection.verification.steps}
        assert connection.verification.status == "simulated"
        assert connection.is_simulated
        assert connection.verification.failed == ()
        assert {step.status for step in steps.values()} == {"verified", "simulated"}
        assert [name for name, step in steps.items() if step.status == "simulated"] == [
            "verdict.alice",
            "verdict.bob",
        ]
        assert list(steps)[:4] == ["contract.approved", "contract.signatures", "parties.alice", "parties.bob"]
        assert list(steps)[-3:] == ["brokers.complete", "records", "tunnel.statement"]
        assert web.room.keys.run_id in steps["tunnel.statement"].got
        assert there.connections == 1  # which waits for whoever comes first
        assert [ask(connection.address) for _ in range(3)] == [b"HELLO"] * 3
        assert there.connections == 3
        assert ask(connection.address, bytes(300_000)) == bytes(300_000)


def test_a_room_that_has_attested_again_is_verified_by_that(world, agreement, served):
    """Its brokers' renewals stand in the place of the releases, from the first connection on."""
    room = tunnels.renewed_by_brokers(tunnels.room(world, agreement, tunnels.WEB))
    with connect(world, agreement, served(room).at, trust=world.anchors) as connection:
        assert connection.verification.failed == ()
        assert connection.verification.status == "simulated"
        assert ask(connection.address) == b"HELLO"


def test_rule_39_without_trust_nobody_can_tell_who_the_parties_are(world, agreement, served):
    with connect(world, agreement, served().at) as connection:
        (step,) = [each for each in connection.verification.steps if each.status == "cannot tell"]
        assert step.name == "parties"
        assert agreement.contract.digest in step.got
        document = json.loads(json.dumps(connection.verification.to_json()))
        assert document["status"] == "simulated"
        assert document["command"].startswith("strongroom connect web:http ")


def denied(world, agreement, at, **options):
    with pytest.raises(PolicyDenied) as caught:
        connect(world, agreement, at, **options)
    return caught.value


def test_evidence_that_is_not_the_recorded_is_refused(world, agreement, web, served):
    first = web.proof.releases[0]
    parts = {name: part[:-1] + bytes([part[-1] ^ 1]) for name, part in first.evidence.parts.items()}
    lied = replace(
        web.proof,
        releases=(replace(first, evidence=replace(first.evidence, parts=parts)), *web.proof.releases[1:]),
    )
    there = served(proofs=tunnels.proofs(lied))
    failure = denied(world, agreement, there.at)
    assert failure.code == "room-not-verified"
    assert [check.name for check in failure.verdict.failed] == ["record.alice", "verdict.alice"]
    assert there.connections in {0, 1}  # the room has nothing against who is outside; nothing was sent


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda proof: replace(proof, releases=proof.releases[:1]), ["brokers.complete"]),
        (lambda proof: replace(proof, releases=proof.releases[:1] * 2), ["brokers.complete"]),
        (
            lambda proof: replace(proof, manifests=proof.manifests[:1]),
            ["manifest.image", "manifests.only"],
        ),
    ],
)
def test_what_is_missing_is_refused(world, agreement, web, served, change, names):
    there = served(proofs=tunnels.proofs(change(web.proof)))
    failed = [check.name for check in denied(world, agreement, there.at).verdict.failed]
    assert set(names) <= set(failed)


def test_releases_to_two_rooms_are_refused(world, agreement, web, served):
    other = tunnels.room(world, agreement, tunnels.WEB)
    mixed = replace(web.proof, releases=(web.proof.releases[0], other.proof.releases[1]))
    failure = denied(world, agreement, served(proofs=tunnels.proofs(mixed)).at)
    assert "room.same" in [check.name for check in failure.verdict.failed]


def test_another_contract_is_refused(world, agreement, served):
    other = tunnels.room(world, tunnels.agreement(world, id="trains"), tunnels.WEB)
    failure = denied(world, agreement, served(other).at)
    assert failure.code == "tunnel-refused"
    assert [check.name for check in failure.verdict.failed] == ["tunnel.statement"]
    failure = denied(world, agreement, served(other, contract=agreement.contract).at)
    assert failure.code == "room-not-verified"


def test_another_room_of_the_contract_is_refused(world, agreement, db, served):
    failure = denied(world, agreement, served(db, role=tunnels.WEB).at)
    assert "record.alice" in [check.name for check in failure.verdict.failed]


def test_a_stranger_with_a_whole_genuine_proof_is_refused(world, agreement, web, served):
    there = served()
    there.room = replace(web)
    there.room.signs = sign.generate().sign
    failure = denied(world, agreement, there.at)
    assert failure.code == "tunnel-signature"
    assert [check.name for check in failure.verdict.failed] == ["tunnel.statement"]


def test_parties_that_the_reader_does_not_know_are_refused(world, agreement, served):
    from strongroom.model import identity

    stranger = identity.generate("alice").party()
    failure = denied(world, agreement, served().at, trust=(stranger,))
    assert [check.name for check in failure.verdict.failed] == ["parties.alice"]


def test_another_run_than_the_one_meant_is_refused(world, agreement, web, served):
    assert denied(world, agreement, served().at, run="run-" + "0" * 32).code == "tunnel-run"
    with connect(world, agreement, served().at, run=web.room.keys.run_id) as connection:
        assert connection.verification.status == "simulated"


def test_a_verdict_that_has_ended_is_refused(world, agreement, served):
    late = world.scene.now + timedelta(days=3)
    with pytest.raises(PolicyDenied) as caught:
        strongroom.connect("web:http", agreement=agreement, at=served().at, now=lambda: late)
    assert [check.name for check in caught.value.verdict.failed] == ["records"]


def test_a_port_that_the_contract_has_not_or_not_for_those_outside(world, agreement):
    for where in ("web:ftp", "db:sql", "nowhere:http", "web", ""):
        with pytest.raises(Refused) as caught:
            strongroom.connect(where, agreement=agreement, at="127.0.0.1:1")
        assert caught.value.code == "tunnel-port"


def test_where_nobody_or_no_tunnel_answers(world, agreement, tmp_path):
    with pytest.raises(Unavailable, match="refused"):
        connect(world, agreement, "127.0.0.1:1")
    with pytest.raises(Unavailable, match="No such file"):
        connect(world, agreement, str(tmp_path / "socket"))
    with pytest.raises(Unavailable, match="No such file"):
        connect(world, agreement, f"unix:{tmp_path / 'socket'}")
    with pytest.raises(Misuse, match="no address"):
        connect(world, agreement, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def hang_up():
            link, _ = plain.accept()
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.close()

        worker = threading.Thread(target=hang_up)
        worker.start()
        failure = denied(world, agreement, f"127.0.0.1:{plain.getsockname()[1]}")
        worker.join()
        assert failure.code == "tunnel-tls"


def test_a_room_that_is_not_ready_yet_is_no_refusal(world, agreement):
    """Its node takes the connection, and has nowhere to lead it."""
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def hang_up():
            link, _ = plain.accept()
            link.recv(1)
            link.shutdown(socket.SHUT_RDWR)
            link.close()

        worker = threading.Thread(target=hang_up)
        worker.start()
        with pytest.raises(Unavailable) as caught:
            connect(world, agreement, f"127.0.0.1:{plain.getsockname()[1]}")
        worker.join()
    assert caught.value.code == "tunnel-cut"


def test_a_room_that_turns_bad_gets_no_second_connection(world, agreement, web, served):
    there = served()
    with connect(world, agreement, there.at) as connection:
        assert ask(connection.address) == b"HELLO"
        there.room = replace(web)
        there.room.signs = sign.generate().sign
        with contextlib.suppress(ConnectionResetError):
            assert ask(connection.address) == b""
        deadline = time.monotonic() + tunnels.PATIENCE
        while connection.verification.status != "refused" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert connection.verification.status == "refused"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        ("80", ("127.0.0.1", 80)),
        ("", None),
        ("a:b", None),
        (":1", None),
        ("a:65536", None),
    ],
)
def test_addresses(text, address):
    if address is None:
        with pytest.raises(Misuse, match="no address"):
            connecting.read_address(text)
    else:
        assert connecting.read_address(text) == address


def test_once_and_a_unix_socket(world, agreement, web, tmp_path, served):
    there = served()
    connection = connect(world, agreement, there.at, listen=("::1", 0))
    worker = threading.Thread(target=lambda: connection.serve(once=True))
    worker.start()
    assert ask(connection.address) == b"HELLO"
    worker.join(timeout=tunnels.PATIENCE)
    assert not worker.is_alive()
    connection.close()


def test_a_proof_has_what_was_asked_for(web):
    data = web.proof.encode(Wants.RECORDS)
    with pytest.raises(Exception, match="evidence of at least one release"):
        tunnel.parse_proof(data, wants=Wants.EVIDENCE)
