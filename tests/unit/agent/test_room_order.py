"""The order of a room's acts, and how it tells of its failures."""

from __future__ import annotations

import json
import os
import time

import pytest

from strongroom.agent import attest, init, room
from strongroom.agent.disks import reads
from strongroom.errors import PolicyDenied, Refused, StrongroomError
from strongroom.model.endorsements import NONE
from strongroom.model.room.channel import Start
from strongroom.model.verdict import Check, Words
from tests.unit.agent.handover import Handover, StillClock
from tests.unit.agent.node_end import NodeEnd


class Recording:
    """Hardware that notes what it is asked, and stops at the first evidence."""

    brought = NONE

    def __init__(self, log, *, bind=None) -> None:
        self.log, self.bind = log, bind

    def bind_contract(self, contract):
        self.log.append(("bind", contract))
        if self.bind is not None:
            raise self.bind

    def entropy(self):
        self.log.append(("entropy",))
        return bytes(32)

    def evidence(self, binding, start):
        raise AssertionError("no evidence is wanted here")


@pytest.fixture
def node():
    made = NodeEnd({})
    yield made
    made.close()


def live(node, handover, monkeypatch, *, bind=None, manifests=None, failed_read=False):
    log = []
    record, kernel = os.pipe()
    if failed_read:
        os.write(kernel, b"x")
    monkeypatch.setattr(init, "watch", lambda seconds: log.append(("watch", seconds)))
    monkeypatch.setattr(init, "add_entropy", lambda data: log.append(("mixed",)))
    made = attest.make_keys

    def make_keys(*kind):
        log.append(("keys",))
        return made(*kind)

    monkeypatch.setattr(attest, "make_keys", make_keys)
    given = {"image": handover.image, "data-0": handover.data} if manifests is None else manifests
    start = Start(
        agreement=handover.agreement.encode(), room="main", launch_record=b"", issuers=b"", manifests=given
    )
    node.control(**json.loads(start.encode()))
    with pytest.raises(StrongroomError) as caught:
        room.run(node.channel, Recording(log, bind=bind), None, reads.ReadWatch(record), StillClock())  # type: ignore[arg-type]
    os.close(record)
    os.close(kernel)
    return [one[0] for one in log], caught.value


def test_contract_is_bound_before_there_is_a_key(node, monkeypatch):
    log, cause = live(node, Handover(), monkeypatch)
    assert log == ["bind", "watch", "entropy", "mixed", "keys"]
    assert cause.code == "cut-off"  # nobody answers for alice


def test_no_key_is_asked_for_once_a_read_of_the_base_has_failed(node, monkeypatch):
    monkeypatch.setattr(attest, "attest", lambda *_: pytest.fail("a broker was asked"))
    _, cause = live(node, Handover(), monkeypatch, failed_read=True)
    assert cause.code == "data-corrupted"


def test_contract_is_bound_even_when_it_is_then_refused(node, monkeypatch):
    log, cause = live(node, Handover(signers=("alice",)), monkeypatch)
    assert (log, cause.code) == (["bind"], "not-approved")


def test_no_key_is_made_when_binding_fails(node, monkeypatch):
    log, cause = live(node, Handover(), monkeypatch, bind=Refused("no", code="pcr-in-use"))
    assert (log, cause.code) == (["bind"], "pcr-in-use")


def test_no_key_is_made_for_other_manifests(node, monkeypatch):
    log, cause = live(node, Handover(), monkeypatch, manifests={})
    assert (log, cause.code) == (["bind"], "no-manifest")


def test_no_key_is_made_in_a_room_with_less_memory_than_its_program_is_to_have(node, monkeypatch):
    handover = Handover()
    agreed = handover.agreement.contract.rooms[0].memory_mib
    figures = {b"MemTotal:": (agreed << 20) - 1, b"MemAvailable:": 1 << 40}
    monkeypatch.setattr(init, "_memory", figures.get, raising=False)
    log, cause = live(node, handover, monkeypatch)
    assert (log, cause.code) == (["bind"], "too-little-memory")
    assert f"alone is to have {agreed}" in cause.message


def told(node):
    for _ in range(100):
        for one in node.controls:
            if one["kind"] == "failed":
                return one
        time.sleep(0.01)
    raise AssertionError("nothing was told")


def test_a_denial_is_told_with_its_checks(node):
    words = Words(expected="x", got="y", hint="h")
    check = Check(name="a.b", expected=None, got=[1, {"a": "b"}], ok=False, words=words)
    room.report(node.channel, PolicyDenied("denied", verdict=(check,), hint="look"))
    message = told(node)
    assert (message["code"], message["message"], message["hint"]) == ("denied", "denied", "look")
    assert message["checks"] == [check.to_message()]


def test_a_defect_tells_its_place_and_not_its_words(node):
    try:
        raise ValueError("the secret word")
    except ValueError as cause:
        room.report(node.channel, cause)
    message = told(node)
    assert message["code"] == "defect"
    assert "ValueError at" in message["message"]
    assert "secret" not in str(message)
