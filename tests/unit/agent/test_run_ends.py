"""A run that began ends in a receipt, and nothing leaves before it is recorded: acts 5 to 11 with two real brokers.

The room's own code lives here from hello to the end; the disks and the program are stood in for, so that each act
can fail in every way that a program, a disk, a broker or the agent itself can make it fail.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from strongroom.agent import attest, finish, init, outputs, program, room
from strongroom.crypto import age
from strongroom.encoding import fields
from strongroom.errors import Malformed, Refused, StrongroomError, Unavailable
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import room_terms
from strongroom.model.receipt import Outcome
from strongroom.node import relay
from strongroom.node import room as node_room
from strongroom_testing.contracts import changed
from tests.unit.agent.two_brokers import Mapper


def ends(outcome=Outcome.EXITED, **changes):
    """A program that starts, and ends so."""

    def run(channel, terms, released, keys, guard, reads, progress):
        progress.started = time.monotonic()
        end = program.Ended(
            outcome=outcome, exit_status=0, details=(), started=progress.started, ended=time.monotonic()
        )
        return replace(end, **changes)

    return run


def fails(cause, *, started):
    """A run in which the agent meets `cause`."""

    def run(channel, terms, released, keys, guard, reads, progress):
        if started:
            progress.started = time.monotonic()
        raise cause

    return run


def raises(cause):
    def act(*_args, **_options):
        raise cause

    return act


def logged(one):
    return changed(one, logs=room_terms.Logs(recipients=("bob",), max_bytes=1000))


def test_outputs_reach_the_node_only_after_every_broker_has_recorded_the_receipt(house, monkeypatch):
    monkeypatch.setattr(room, "_run", ends(log=b"words"))
    house.live(logged)
    assert house.left() == ["log.age", "out-0.tar.age"]
    for party in ("alice", "bob"):
        assert not {"log.age", "out-0.tar.age"} & set(house.seen[party]), party
        assert len(house.receipts()[party]) == 1
    assert "receipt-alice.json" in house.seen["bob"]
    (receipt,) = house.receipts()["alice"]
    assert [one.sealed_bytes for one in receipt.outputs] == [len(house.node.files["out-0.tar.age"])]


@pytest.mark.parametrize("party", ["alice", "bob"])
def test_a_broker_that_cannot_be_reached_keeps_everything_in_the_room_and_is_named(house, monkeypatch, party):
    def run(*args):
        house.node.routes.pop(party)  # the power, the network or the broker: cut while the program runs
        return ends(log=b"words")(*args)

    monkeypatch.setattr(room, "_run", run)
    with pytest.raises(Unavailable) as caught:
        house.live(logged)
    assert caught.value.code == "receipt-not-recorded"
    assert party in caught.value.message
    assert house.left() == []
    assert "receipt.json" in house.node.files
    other = {"alice": "bob", "bob": "alice"}[party]
    assert list(house.receipts()) == [other]
    assert {"kind": "phase", "name": f"receipt-waits:{party}"}.items() <= {
        key: value
        for one in house.node.controls
        if one.get("name") == f"receipt-waits:{party}"
        for key, value in one.items()
    }.items()


def test_a_broker_that_comes_back_within_the_contracts_time_lets_the_outputs_leave(house, monkeypatch):
    address = house.node.routes["bob"]

    def run(*args):
        house.node.routes.pop("bob")
        return ends()(*args)

    monkeypatch.setattr(room, "_run", run)
    monkeypatch.setattr(
        finish.post_receipt,
        "__kwdefaults__",
        {**finish.post_receipt.__kwdefaults__, "pause": lambda _: house.node.routes.update(bob=address)},
    )
    house.live(lambda one: replace(one, receipts=contract_model.ReceiptTerms(wait_seconds=60)))
    assert house.left() == ["out-0.tar.age"]
    assert set(house.receipts()) == {"alice", "bob"}


@pytest.mark.parametrize(
    ("looks", "run"),
    [
        (1, ends(log=b"words")),  # while the program runs
        (2, ends(log=b"words")),  # while its outputs are sealed
        (1, fails(OSError(5, "Input/output error"), started=True)),  # and the agent itself meets it
        (1, fails(Unavailable("mounting the disk", code="mount"), started=False)),
    ],
)
def test_acts_6_to_9_a_read_that_failed_lets_nothing_leave_and_is_recorded(house, monkeypatch, looks, run):
    house.reads.after = looks
    monkeypatch.setattr(room, "_run", run)
    house.live(logged)
    assert house.left() == []
    assert told(house) == {party: [(Outcome.DATA_CORRUPTED, ("read-failed",))] for party in ("alice", "bob")}
    for receipts in house.receipts().values():
        assert (receipts[0].outputs, receipts[0].exit_status) == ((), 0)


LIES = {
    "garbage": lambda status, answer: (200, b"\xff\x00"),
    "other json": lambda status, answer: (200, b'{"entry": [[[]]]}'),
    "another entry": lambda status, answer: (200, replace(answer, entry=answer.entry + b" ").encode()),
    "a forged checkpoint": lambda status, answer: (
        200,
        replace(answer, checkpoint=answer.checkpoint.replace("\u2014 ", "\u2014 x", 1)).encode(),
    ),
    "hung up": lambda status, answer: None,
    "an error": lambda status, answer: (503, b"{}"),
}


@pytest.mark.parametrize("lie", LIES)
def test_act_10_whatever_a_broker_answers_the_receipt_stands_at_the_other_and_nothing_leaves(
    house, monkeypatch, lie
):
    monkeypatch.setattr(room, "_run", ends())
    house.twists["alice", "/v1/receipts"] = LIES[lie]
    with pytest.raises(StrongroomError) as caught:
        house.live()
    assert caught.value.code == "receipt-not-recorded"
    assert house.left() == []
    assert "receipt.json" in house.node.files
    assert len(house.receipts()["bob"]) == 1


def test_act_10_brokers_that_talk_much_are_named_to_the_operator_all_the_same(house, monkeypatch):
    monkeypatch.setattr(room, "_run", ends())
    words = b'{"error": {"code": "full", "message": "%s", "hint": ""}}' % (b"m" * 4096)
    for party in ("alice", "bob"):
        house.twists[party, "/v1/receipts"] = lambda status, answer: (503, words)
    with pytest.raises(Unavailable) as caught:
        house.live()
    room.report(house.node.channel, caught.value)
    house.left()
    (message,) = [one for one in house.node.controls if one["kind"] == "failed"]
    del message["kind"]
    shown = relay._failure(fields.Fields(message, "room's message"), "")
    assert shown.code == "receipt-not-recorded"
    assert "missing: alice, bob." in shown.message


def test_act_10_brokers_that_dawdle_take_no_time_of_those_that_come_after_them(house, monkeypatch):
    given = []

    def post(*_):
        raise Unavailable("nothing came in time", code="timed-out")

    monkeypatch.setattr(init, "watch", given.append)
    monkeypatch.setattr(room, "_run", ends())
    monkeypatch.setattr(attest, "post_receipt", post)
    with pytest.raises(Unavailable, match="its receipt is not recorded"):
        house.live()
    dawdling = 2 * (attest.CONNECT_SECONDS + attest.ANSWER_SECONDS)
    assert given[-1] >= room.CLOSING_SECONDS + dawdling
    assert node_room.BROKER_SECONDS >= attest.CONNECT_SECONDS + attest.ANSWER_SECONDS


@pytest.mark.parametrize("year", [1, 1969, 9000, 9999])
@pytest.mark.parametrize("party", ["alice", "bob"])
def test_act_5_a_broker_whose_clock_leaves_the_calendar_gives_no_keys_that_count(
    house, monkeypatch, party, year
):
    house.twists[party, "/v1/challenges"] = lambda status, answer: (
        200,
        answer.encode().replace(answer.time.strftime("%Y-%m-%dT").encode(), f"{year:04}-12-31T".encode()),
    )
    monkeypatch.setattr(room, "_run", raises(AssertionError("no program runs")))
    with pytest.raises(Malformed, match="expected a time in the years 1970 to 8999"):
        house.live()
    # At bob's it is too late for alice, whose keys are in the room: she has a receipt that says so.
    expected = {} if party == "alice" else {"alice": [(Outcome.NOT_STARTED, ("keys-refused",))]}
    assert told(house) == expected


def told(house):
    return {
        party: [(one.outcome, one.details) for one in receipts]
        for party, receipts in house.receipts().items()
    }


def test_act_5_a_denial_by_the_second_broker_is_told_and_the_first_has_a_receipt(house, monkeypatch):
    house.twists["bob", "/v1/releases"] = lambda status, answer: (
        403,
        b'{"error": {"code": "denied", "message": "denied by platform.debug", "hint": ""}}',
    )
    with pytest.raises(Refused, match="the broker of bob: denied by platform"):
        house.live()
    assert told(house) == {"alice": [(Outcome.NOT_STARTED, ("keys-refused",))]}
    assert house.left() == []


def test_act_6_a_disk_that_another_writer_made_is_told_apart_from_a_room_that_is_not_ready(
    house, monkeypatch
):
    """Its owner seals it again; for anything else somebody has to look at the machine."""
    monkeypatch.setattr(room, "_open", raises(Refused("asks for more", code="unsupported-disk")))
    with pytest.raises(Refused, match="asks for more"):
        house.live()
    expected = [(Outcome.NOT_STARTED, ("unsupported-disk",))]
    assert told(house) == {"alice": expected, "bob": expected}


FAULTS = [
    OSError(5, "Input/output error", "/run/room/data-0/secret-name"),
    MemoryError(),
    RecursionError(),
    ValueError("a secret word"),
    UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"),
    Malformed("the launcher reports too much", code="warden"),
    Unavailable("the room's time is up", code="timed-out"),
    Refused("no erofs behind the key", code="wrong-disk-key"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("cause", FAULTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("act", ["_open", "_run"])
def test_acts_6_and_7_whatever_fails_before_the_program_starts_is_told_and_recorded(
    house, monkeypatch, cause, act
):
    monkeypatch.setattr(room, act, raises(cause))
    with pytest.raises(type(cause)):
        house.live(logged)
    expected = [(Outcome.NOT_STARTED, ("room-not-ready",))]
    assert told(house) == {"alice": expected, "bob": expected}


@pytest.mark.parametrize("cause", FAULTS, ids=lambda one: type(one).__name__)
def test_act_7_whatever_fails_once_the_program_runs_is_recorded_and_its_words_stay_in_the_sealed_log(
    house, monkeypatch, cause
):
    monkeypatch.setattr(room, "_run", fails(cause, started=True))
    house.live(logged)
    detail = "stopped" if getattr(cause, "code", "") == "timed-out" else "defect"
    expected = [(Outcome.AGENT_FAILED, (detail,))]
    assert told(house) == {"alice": expected, "bob": expected}
    assert house.left() == ["log.age"]
    log = house.world.scene.bob.age.open(house.node.files["log.age"])
    assert type(cause).__name__.encode() in log
    assert b"secret" not in log
    assert "secret" not in str(house.node.controls)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("C", (Outcome.DATA_CORRUPTED, ("image-corrupted",))),
        ("", (Outcome.DATA_CORRUPTED, ("image-corrupted",))),
        (OSError(5, "secret"), (Outcome.AGENT_FAILED, ("defect",))),
        (Unavailable("status"), (Outcome.AGENT_FAILED, ("defect",))),
    ],
    ids=str,
)
def test_act_8_a_disk_that_is_not_sound_or_does_not_say_so_lets_nothing_leave(
    house, monkeypatch, status, outcome
):
    monkeypatch.setattr(Mapper, "status_text", status)
    monkeypatch.setattr(room, "_run", ends(log=b"words", exit_status=77))
    house.live()
    assert told(house) == {"alice": [outcome], "bob": [outcome]}
    assert house.left() == []
    assert house.receipts()["bob"][0].exit_status == 0


def test_act_6_a_corrupted_disk_is_named_by_its_place(house, monkeypatch):
    def second(mapper, terms, released, opened, find):
        opened.append(None)
        raise Refused("flights is not what its manifest says", code="data-corrupted")

    monkeypatch.setattr(room, "_open", second)
    house.live()
    assert told(house)["alice"] == [(Outcome.DATA_CORRUPTED, ("data-0-corrupted",))]


@pytest.mark.parametrize("cause", FAULTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("place", [(outputs, "list_folder"), (outputs, "_content"), (age, "seal_stream")])
def test_act_9_whatever_fails_while_outputs_are_sealed_lets_none_leave_and_is_recorded(
    house, monkeypatch, cause, place
):
    monkeypatch.setattr(room, "_run", ends(log=b"words"))
    monkeypatch.setattr(*place, raises(cause))
    house.live()
    # What interrupts the age library inside comes out of it as a failure of its own.
    stopped = getattr(cause, "code", "") == "timed-out" and place[1] != "_content"
    expected = [(Outcome.AGENT_FAILED, ("stopped" if stopped else "defect",))]
    assert told(house) == {"alice": expected, "bob": expected}
    assert house.left() == []


def test_act_9_folders_too_deep_for_any_path_are_an_outcome(house, monkeypatch):
    monkeypatch.setattr(room, "_run", ends())
    opened = os.open(f"{init.ROOM}/out", os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=opened)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(opened)
    house.live()
    expected = [(Outcome.OUTPUT_TOO_LARGE, ("output-depth",))]
    assert told(house) == {"alice": expected, "bob": expected}


def test_exit_status_is_as_coarse_as_the_contract_says(house, monkeypatch):
    def coarse(one):
        return replace(
            one, disclosure=replace(one.disclosure, exit_status=contract_model.ExitStatus.ZERO_OR_ONE)
        )

    for status, shown in ((0, 0), (1, 1), (77, 1), (255, 1)):
        monkeypatch.setattr(room, "_run", ends(exit_status=status))
        house.live(coarse)
        assert house.receipts()["alice"][-1].exit_status == shown
    monkeypatch.setattr(room, "_run", ends(exit_status=77))
    house.live()
    assert house.receipts()["alice"][-1].exit_status == 77
