"""What one address may take of a broker's connections and bodies, so that others are served meanwhile."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from strongroom.api import budgets
from strongroom.api.broker import app as app_module
from strongroom.model import messages
from strongroom_testing import brokers, http_calls

BASE = http_calls.BASE


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def application(world, limits=None):
    return app_module.build(world.broker, readiness=app_module.Readiness(lambda: None), budgets=limits)


async def post(app, address, path, body):
    async with httpx.AsyncClient(transport=http_calls.Transport(app, peer=address), base_url=BASE) as client:
        return (await client.post(path, content=body)).status_code


def test_nobody_is_a_peer_too():
    assert budgets.peer(None) == ""


def test_rule_59_a_body_without_a_first_line_is_not_read_to_its_end(world):
    taken = []

    async def endless():
        while True:
            taken.append(1)
            yield bytes(600)

    assert asyncio.run(post(application(world), "192.0.2.1", "/v1/releases", endless())) == 413
    assert len(taken) <= 3


def test_rule_59_one_address_holds_no_more_than_its_share_of_all_bodies(world):
    """Somebody sends as much as may be sent, over many connections, and never ends; others are served meanwhile."""
    app = application(world, budgets.ConnectionBudgets(bodies=400_000, body_seconds=2))
    ask = messages.encode_challenge_request(world.agreement().contract.digest)
    head = world.room(world.agreement()).request(world.challenge(world.agreement()).nonce)

    async def stalled():
        yield head[:100_000] + bytes(max(0, 90_000 - len(head)))
        await asyncio.sleep(1)

    async def all_of_it():
        flood = [asyncio.create_task(post(app, "192.0.2.1", "/v1/releases", stalled())) for _ in range(8)]
        await asyncio.sleep(0.3)
        others = [await post(app, "192.0.2.2", "/v1/challenges", ask) for _ in range(3)]
        others.append(await post(app, "192.0.2.2", "/v1/releases", bytes(90_000)))
        return others, await asyncio.gather(*flood)

    others, flood = asyncio.run(all_of_it())
    assert others == [200, 200, 200, 413]
    assert flood.count(503) == 7


def test_shares_are_given_back():
    shares = budgets.Shares(10, 2)
    assert shares.take("a", 5)
    assert not shares.take("a", 1)
    assert shares.take("b", 5)
    assert not shares.take("c", 1)
    shares.give_back("a", 5)
    assert shares.take("c", 5)
    assert not shares.take("a", 1)
