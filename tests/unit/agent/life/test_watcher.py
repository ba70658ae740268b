"""A room's watch at a broker, over a real TLS connection through a room's channel."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from strongroom.agent.life import watcher as watching
from strongroom.agent.life.watcher import Watcher
from strongroom.model.party import BrokerAddress
from strongroom.model.watch import WatchState
from tests.unit.agent.node_end import NodeEnd, TlsServer


class Broker:
    """Answers watches as it is told, in order; the last answer again and again."""

    def __init__(self, folder, *answers):
        self.answers, self.asked = list(answers), []
        self.server = TlsServer(folder, self.answer)
        host, port = self.server.address
        self.address = BrokerAddress(
            url=f"https://{host}:{port}",
            pin=self.server.pin,
            authority="sha256:" + "0" * 64,
            ledger_key=bytes(32),
        )

    def answer(self, path, body):
        self.asked.append((path, body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def said(state):
    return 200, json.dumps({"state": state, "time": "2026-12-01T12:00:00Z"}).encode()


@pytest.fixture
def watched(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.01)
    made = []

    def make(*answers, address=lambda address: address):
        broker = Broker(tmp_path, *answers)
        node = NodeEnd({"alice": broker.server.address})
        ended = []
        watcher = Watcher(
            node.channel.carrier, "alice", address(broker.address), request=lambda: b"{}", ended=ended.append
        )
        made.append((broker, node, watcher))
        return broker, node, watcher, ended

    yield make
    for broker, node, watcher in made:
        watcher.close()
        node.close()
        broker.server.close()


def turn(node, watcher, until):
    end = time.monotonic() + 30
    while not until() and time.monotonic() < end:
        watcher.step(time.monotonic())
        node.channel.carrier.turn(0.02)
    assert until()


def test_it_asks_again_and_again_until_something_ends_the_run(watched):
    broker, node, watcher, ended = watched(said("stands"), said("stands"), said("paused"))
    turn(node, watcher, lambda: ended)
    assert ended == [WatchState.PAUSED]
    assert broker.asked == [("/v1/watches", b"{}")] * 3


@pytest.mark.parametrize("odd", [(503, b"{}"), (200, b"no"), b"SSH-2.0\r\n\r\n", None])
def test_a_broker_that_answers_something_else_is_asked_again_and_ends_nothing(watched, odd):
    _, node, watcher, ended = watched(odd, odd, said("withdrawn"))
    turn(node, watcher, lambda: ended)
    assert ended == [WatchState.WITHDRAWN]


def test_whoever_has_another_key_is_not_listened_to(watched):
    def other(address):
        return replace(address, pin="sha256:" + "1" * 64)

    broker, node, watcher, ended = watched(said("paused"), address=other)
    tried = []
    turn(node, watcher, lambda: tried.append(1) or len(tried) > 100)
    assert (ended, broker.asked) == ([], [])


def test_a_broker_that_is_away_is_tried_ever_later(watched):
    _, node, watcher, ended = watched(said("stands"))
    node.routes.clear()
    watcher.step(100.0)
    for _ in range(50):
        node.channel.carrier.turn(0.02)
    assert watcher.step(100.5) == pytest.approx(100.5 + 0.01)
    assert ended == []


def test_an_answer_that_never_comes_is_given_up(watched):
    _, _, watcher, _ = watched(said("stands"))
    due = watcher.step(5.0)
    assert due == 5.0 + watching.PATIENCE
    watcher.step(due + 1)
    assert watcher._open is None


def test_a_broker_that_answers_at_once_is_not_asked_without_a_pause(watched, monkeypatch):
    """Each question is a TLS connection of the room's: a broker of another party's could have it do nothing else."""
    monkeypatch.setattr(watching, "FIRST_PAUSE", 1.0)
    broker, node, watcher, _ = watched(said("stands"))
    for _ in range(400):
        watcher.step(50.0)
        node.channel.carrier.turn(0.01)
        if watcher._open is None:
            break
    assert watcher.step(50.5) == 51.0
    assert len(broker.asked) == 1
