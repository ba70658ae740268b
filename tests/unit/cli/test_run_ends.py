"""How a run that brought nothing home ends: what it cost, what to type, and that no result is in its way or lost."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace

import pytest

from strongroom.cli.rooms import run_ends
from strongroom.encoding import canonical
from strongroom.errors import Conflict, Misuse, PolicyDenied, Unavailable
from strongroom.model.binding import Binding, RoomKeys
from strongroom.node import run, run_cost, run_status
from strongroom.node.run_cost import Cost
from tests import samples

CONTRACT = samples.a_contract()
KEYS = RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216)
BINDING = Binding(
    nonce=b"n" * 32, contract_digest=CONTRACT.digest, keys=KEYS, role="main", audience=samples.DIGEST
)
GONE = Unavailable("gone", code="room-died")


def lines(folder, failure=GONE, **options):
    end = run_cost.read(folder, CONTRACT, "main", failure)
    options = {"phase": "attested:alice", "interrupted": False, "before": {}, **options}
    return end, "\n".join(run_ends.tell(end, contract=CONTRACT, **options))


def test_a_room_that_was_never_started_cost_nothing(tmp_path):
    end, told = lines(tmp_path, phase="")
    assert end.costs == {"alice": Cost.UNUSED}
    assert "before a room was started" in told
    assert "cost       no run was used" in told
    assert "next       the same command again" in told


def test_keys_that_were_released_cost_a_run_which_has_a_name(tmp_path):
    (tmp_path / "evidence-alice.json").write_bytes(b"{}")
    (tmp_path / "release-alice.json").write_bytes(canonical.dumps({"binding": BINDING.to_json()}))
    end, told = lines(tmp_path, interrupted=True, before={"alice": 0})
    assert end.costs == {"alice": Cost.USED}
    assert f"run        {KEYS.run_id}, without a receipt" in told
    assert "ended      you stopped it while the room was at attested:alice" in told
    assert "a run was used at the broker of alice: 1 of 1" in told
    assert "no run is left" in told
    assert "--replaces FILE --runs N" in told


def test_an_answer_that_did_not_arrive_may_have_cost_a_run(tmp_path):
    (tmp_path / "evidence-alice.json").write_bytes(b"{}")
    end, told = lines(tmp_path)
    assert end.costs == {"alice": Cost.UNKNOWN}
    assert "may have counted a run" in told
    assert "contract check FILE --ask" in told


def test_a_denial_cost_nothing(tmp_path):
    (tmp_path / "evidence-alice.json").write_bytes(b"{}")
    end, told = lines(tmp_path, PolicyDenied("denied", verdict=None))
    assert end.costs == {"alice": Cost.UNUSED}
    assert "no run was used" in told


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"binding": {}}'])
def test_a_release_that_does_not_parse_is_one_without_a_name(tmp_path, content):
    (tmp_path / "release-alice.json").write_bytes(content)
    end, told = lines(tmp_path)
    assert (end.run_id, end.costs) == ("", {"alice": Cost.USED})
    assert "run        " not in told


def status(folder, state):
    (folder / "status.json").write_text(json.dumps({"format": run_status.FORMAT, "state": state}))


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_what_a_failed_attempt_left_is_moved_aside_whole(tmp_path, state):
    out = tmp_path / "run"
    for number in (1, 2):
        with run.taken(out):
            assert [one.name for one in out.iterdir() if not one.name.startswith("attempt-")] == []
            status(out, state)
            (out / "evidence-alice.json").write_text(str(number))
    with run.taken(out):
        pass
    assert (out / "attempt-1/evidence-alice.json").read_text() == "1"
    assert (out / "attempt-2/evidence-alice.json").read_text() == "2"


@pytest.mark.parametrize("state", ["done", "running"])
def test_a_result_is_never_written_over(tmp_path, state):
    status(tmp_path, state)
    (tmp_path / "out-0.tar.age").write_text("precious")
    with pytest.raises(Misuse, match="never written over"), run.taken(tmp_path):
        pass
    assert (tmp_path / "out-0.tar.age").read_text() == "precious"


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": "another"}'])
def test_a_folder_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "notes").write_text("mine")
    if content is not None:
        (tmp_path / "status.json").write_text(content)
    with pytest.raises(Misuse, match="of no run"), run.taken(tmp_path):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_two_runs_do_not_share_a_folder(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another run uses this folder"), run.taken(tmp_path):
            pass
    finally:
        os.close(fd)


def done(tmp_path, **options):
    options = {"good": True, "outputs": True, "before": {}, "contract": CONTRACT, "room": "main", **options}
    return "\n".join(run_ends.tell_done(tmp_path, **options))


def test_a_run_that_is_done_says_what_it_cost_and_who_opens_what_left(tmp_path):
    told = done(tmp_path, before={"alice": 0})
    assert f"cost       a run was used at the broker of alice: 1 of {CONTRACT.limits.runs}" in told
    assert f"`strongroom open {tmp_path / 'out-0.tar.age'} --identity NAME.identity`" in told
    assert f"`strongroom proof export {tmp_path} --out run.proof`" in done(tmp_path, outputs=False)


def test_a_program_that_failed_cost_a_run_and_another_takes_another_folder(tmp_path):
    several = replace(CONTRACT, limits=replace(CONTRACT.limits, runs=3))
    told = done(tmp_path, good=False, contract=several)
    assert "cost       a run was used at the broker of alice" in told
    assert "next       mend what the log tells; then the same command with another --out" in told


def test_where_the_program_failed_in_the_last_run_a_version_with_more_is_what_helps(tmp_path):
    told = done(tmp_path, good=False, before={"alice": CONTRACT.limits.runs - 1})
    assert "no run is left" in told
    assert "--replaces FILE --runs N" in told
