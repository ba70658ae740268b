"""How a contract stands at a broker: what a denied release would say, without a trace, and nothing to strangers."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.broker.administration.withdraw import withdraw
from strongroom.broker.standing import standing
from strongroom.broker.workers import READING_EACH
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Unavailable
from strongroom.model import messages
from strongroom_testing.contracts import changed
from strongroom_testing.vendors import fake_tpm


def asked(world, agreement, *earlier):
    request = messages.StandingRequest(
        room="main", agreement=agreement.encode(), earlier=tuple(one.encode() for one in earlier)
    )
    answer = asyncio.run(standing(world.broker, request.encode()))
    return messages.parse_standing(answer.encode())


def failed(told):
    return [one.name for one in told.checks if not one.ok]


def test_a_contract_that_would_be_served_stands_and_leaves_no_trace(world):
    agreement = world.agreement()
    told = asked(world, agreement)
    assert failed(told) == []
    assert [one.name for one in told.checks] == [
        "own.signature", "own.entry", "own.disk", "request.role", "contract.withdrawn", "contract.version", "contract.replaces", "contract.paused", "keys.present",
        "contract.approvals", "contract.approvals.alice", "contract.approvals.bob", "contract.validity", "contract.runs",
    ]  # fmt: skip
    assert told.time == world.clock()
    assert world.store.ledger.size() == 0
    assert world.store.runs_by_room() == []
    assert world.store.versions() == []


@pytest.mark.parametrize("kind", ["runs", "validity", "version", "withdrawn", "keys", "approvals"])
def test_whatever_denies_every_room_is_said_before_as_it_is_said_to_a_room(world, kind):
    """The same checks, by name and data, as the release that is denied for them."""
    agreement = world.agreement(runs=1)
    if kind == "runs":
        assert isinstance(world.ask(agreement), messages.ReleaseAnswer)
    elif kind == "validity":
        world.clock.advance(timedelta(days=3))
    elif kind == "version":
        agreement = world.agreement(lambda one: replace(one, version=3, replaces=fake_tpm.digest("x")))
    elif kind == "withdrawn":
        asyncio.run(withdraw(world.broker, agreement.encode()))
    elif kind == "keys":
        other = fake_tpm.digest("another disk")
        agreement = world.agreement(
            lambda one: changed(one, datasets=(replace(one.rooms[0].datasets[0], manifest_digest=other),))
        )
    else:
        agreement = world.agreement(signers=("alice",))
    told = asked(world, agreement)
    assert failed(told)
    denied = world.ask(agreement)
    assert isinstance(denied, messages.DenialAnswer)
    said = {one["name"]: one for one in denied.verdict["checks"]}
    assert [one.to_json() for one in told.checks] == [said[one.name] for one in told.checks]


def test_earlier_versions_count_as_in_a_release(world):
    first = world.agreement()
    second = world.agreement(lambda one: replace(one, version=2, replaces=first.contract.digest))
    assert failed(asked(world, second)) == ["contract.version"]
    assert failed(asked(world, second, first)) == []


def test_rule_43_a_contract_that_the_brokers_party_did_not_sign_is_told_that_and_nothing_else(world):
    told = asked(world, world.agreement(signers=("bob",)))
    assert [one.name for one in told.checks] == ["own.signature"]
    assert failed(told) == ["own.signature"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", canonical.dumps({"agreement": "AA==", "earlier": [], "more": 1})]
)
def test_what_is_no_question(world, body):
    with pytest.raises(Malformed, match="standing request"):
        asyncio.run(standing(world.broker, body))


def test_rule_59_questions_of_one_address_leave_others_their_place_and_are_parsed_beside_the_loop(
    world, monkeypatch
):
    agreement, go, parsed_by = world.agreement(), threading.Event(), set()
    body = messages.StandingRequest(room="main", agreement=agreement.encode()).encode()
    parse = messages.parse_standing_request

    def slowly(data):
        parsed_by.add(threading.current_thread())
        go.wait(60)
        return parse(data)

    monkeypatch.setattr(messages, "parse_standing_request", slowly)

    async def flood():
        many = [
            asyncio.ensure_future(standing(world.broker, body, peer="192.0.2.1")) for _ in range(READING_EACH)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await standing(world.broker, body, peer="192.0.2.1")
        assert caught.value.code == "too-many-readers"
        other = asyncio.ensure_future(standing(world.broker, body, peer="192.0.2.2"))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*many)
        return await other

    assert failed(asyncio.run(flood())) == []
    assert threading.main_thread() not in parsed_by
