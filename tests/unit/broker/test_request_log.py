"""What a broker tells its owner of requests: entries one by one, all else in sums, whatever strangers do."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.api.broker import app as app_module
from strongroom.broker import request_log
from strongroom.broker.request_log import Recorded, RequestKind, RequestLog, Summed
from strongroom.cli.broker import request_lines
from strongroom.model import messages
from strongroom_testing import brokers, http_calls


class Heard:
    """A reader of the log, and the log."""

    def __init__(self, clock, *, size=0):
        self.events = []
        self.log = RequestLog(self.events.append, clock=clock, size=size)

    def all(self):
        self.log.close()
        return self.events


@pytest.fixture
def served(tmp_path):
    """A broker's application with a log, as `broker serve` has them."""
    with brokers.world(tmp_path) as made:
        heard = Heard(made.clock)
        world = replace(made, broker=replace(made.broker, request_log=heard.log))
        app = app_module.build(world.broker, readiness=app_module.Readiness(lambda: None))
        yield world, app, heard
        heard.log.close()


def call(app, method, path, body=b"", peer="203.0.113.7"):
    return http_calls.call(app, method, path, body, peer=peer)


def nonce(world, app, agreement):
    asked = messages.encode_challenge_request(agreement.contract.digest)
    return messages.parse_challenge(call(app, "POST", "/v1/challenges", asked).content).nonce


def lines(events):
    return [request_lines._text(one) for one in events]


def test_a_release_a_denial_and_a_receipt_are_a_line_each_with_who_what_and_why(served):
    world, app, heard = served
    agreement = world.agreement(runs=1)
    room = world.room(agreement)
    assert call(app, "POST", "/v1/releases", room.request(nonce(world, app, agreement))).status_code == 200
    late = world.room(agreement)
    assert call(app, "POST", "/v1/releases", late.request(nonce(world, app, agreement))).status_code == 403
    assert call(app, "POST", "/v1/receipts", room.receipt(world.clock.now)).status_code == 200
    told = heard.all()
    assert [(one.index, one.peer) for one in told] == [
        (0, "203.0.113.7"),
        (1, "203.0.113.7"),
        (2, "203.0.113.7"),
    ]
    released, denied, received = lines(told)
    for line, run in ((released, room), (denied, late), (received, room)):
        assert run.keys.run_id in line
        assert "from 203.0.113.7" in line
    assert "entry 0  flights sha256:" in released
    assert released.endswith(": released")
    assert "entry 1  flights sha256:" in denied
    assert "denied: contract.runs: expected fewer than 1 runs so far, got 1 runs so far" in denied
    assert received.endswith("receipt: exited, status 0")
    objects = [json.loads(request_lines._json(one)) for one in told]
    assert [one["decision"] for one in objects] == ["released", "denied", "recorded"]
    assert [one["entry"] for one in objects] == [0, 1, 2]
    assert objects[1]["reason"]["name"] == "contract.runs"
    assert objects[0]["contract"] == {"id": "flights", "digest": agreement.contract.digest}


def test_a_stranger_at_full_speed_makes_sums_and_no_line_of_its_own(served):
    world, app, heard = served
    agreement = world.agreement()
    foreign = world.room(agreement).request(bytes(32))
    for at in range(300):
        assert call(app, "POST", "/v1/releases", foreign, peer=f"198.51.100.{at % 5}").status_code == 403
        assert call(app, "POST", "/v1/receipts", b"junk").status_code in (400, 422)
        world.clock.advance(timedelta(seconds=1))
    told = heard.all()
    assert all(isinstance(one, Summed) for one in told)
    # 300 seconds: sums after 1, 2, 4 … 60 s, then one a minute; the thread may look less often than that.
    assert 1 <= len(told) <= 12
    assert sum(one.requests for one in told) == 600
    assert {kind for one in told for kind, _ in one.kinds} == {
        RequestKind(request="release", contract_id="", reason="nonce.fresh"),
        RequestKind(request="receipt", contract_id="", reason="not-json"),
    }
    assert told[-1].busiest[0][0] == "203.0.113.7"


def test_a_contract_that_nobody_here_signed_gives_its_texts_to_no_line(served):
    world, app, heard = served
    strange = world.agreement(lambda one: replace(one, id="look-here"), signers=("bob",))
    body = world.room(strange).request(nonce(world, app, strange))
    call(app, "POST", "/v1/releases", body)
    (one,) = heard.all()
    assert one.kinds == ((RequestKind(request="release", contract_id="", reason="own.signature"), 1),)
    assert "look-here" not in request_lines._text(one)


def test_a_denial_beyond_the_budgets_is_counted_under_its_contract_and_reason(tmp_path):
    with brokers.world(tmp_path, budgets=brokers.Budgets(denials=1)) as made:
        heard = Heard(made.clock)
        world = replace(made, broker=replace(made.broker, request_log=heard.log))
        app = app_module.build(world.broker, readiness=app_module.Readiness(lambda: None))
        agreement = world.agreement(runs=1)
        for _ in range(4):
            call(app, "POST", "/v1/releases", world.room(agreement).request(nonce(world, app, agreement)))
        released, denied, summed = heard.all()
    assert [released.index, denied.index] == [0, 1]
    assert summed.kinds == (
        (RequestKind(request="release", contract_id="flights", reason="contract.runs"), 2),
    )


def test_a_recorded_receipt_that_comes_again_is_counted(served):
    world, app, heard = served
    agreement = world.agreement()
    room = world.room(agreement)
    call(app, "POST", "/v1/releases", room.request(nonce(world, app, agreement)))
    body = room.receipt(world.clock.now)
    for _ in range(5):
        assert call(app, "POST", "/v1/receipts", body).status_code == 200
    told = heard.all()
    assert [one.index for one in told if isinstance(one, Recorded)] == [0, 1]
    (summed,) = (one for one in told if isinstance(one, Summed))
    assert summed.kinds == ((RequestKind(request="receipt", contract_id="", reason="recorded-before"), 4),)


def test_what_a_room_asks_for_writes_no_line_and_no_terminal_code(served):
    world, app, heard = served
    agreement = world.agreement()
    room = world.room(agreement)
    evil = "evil\x1b[2Jname\n2026-12-01T00:00:00Z  entry 9: released.example"
    csr = room.csr(("evil.example",), common_name=evil[:60])
    asked = room.ask(nonce(world, app, agreement), csr=csr)
    assert call(app, "POST", "/v1/releases", asked.encode()).status_code == 403
    (one,) = heard.all()
    for line in (request_lines._text(one), request_lines._json(one)):
        assert line.isprintable()
        assert "certificate.names" in line
        assert len(line) <= request_lines.MOST * 4


def test_no_line_holds_a_secret(served):
    world, app, heard = served
    agreement = world.agreement()
    room = world.room(agreement)
    call(app, "POST", "/v1/releases", room.request(nonce(world, app, agreement)))
    for one in heard.all():
        for line in (request_lines._text(one), request_lines._json(one)):
            for secret in (brokers.DISK_KEY, room.signing.raw, room.tls.der, brokers.PASSPHRASE):
                assert secret.hex()[:16] not in line
                assert secret.decode("latin-1")[:16] not in line


def test_a_reader_who_is_slow_delays_nobody_and_lost_lines_are_counted(world, monkeypatch):
    monkeypatch.setattr(request_log, "QUEUED", 8)
    reading, held = threading.Event(), []

    def slow(event):
        reading.wait(60)
        held.append(event)

    log = RequestLog(slow, clock=world.clock)
    proved = messages.LedgerProof(entry=b"{}", index=0, hashes=(), checkpoint="")
    for index in range(50):
        log.recorded(replace(proved, index=index), request="release", peer="a", contract_id="")
    reading.set()
    while not any(isinstance(one, Summed) for one in held):
        world.clock.advance(timedelta(seconds=2))
    log.close()
    told = [one for one in held if isinstance(one, Recorded)]
    assert sum(one.untold for one in held if isinstance(one, Summed)) == 50 - len(told)
    assert len(told) <= 10
    assert "line(s) lost" in request_lines._text(next(one for one in held if isinstance(one, Summed)))


def test_what_is_kept_is_bounded_whatever_comes(world):
    log = RequestLog(clock=world.clock)
    for at in range(5000):
        log.counted(request="release", reason=f"reason-{at}", peer=f"peer-{at}")
    made = log.due(world.clock.now, last=True)
    assert made.requests == 5000
    assert len(made.kinds) == request_log.KINDS + 1
    assert made.addresses == request_log.ADDRESSES
    assert made.kinds[0] == (
        RequestKind(request="other", contract_id="", reason="other"),
        5000 - request_log.KINDS,
    )
    proved = messages.LedgerProof(entry=b"", index=0, hashes=(), checkpoint="")
    for index in range(request_log.REMEMBERED + 10):
        log.recorded(replace(proved, index=index), request="receipt", peer="", contract_id="")
        if index % 1000 == 0:
            while not log._events.empty():
                log._events.get_nowait()
    assert len(log._noted) == request_log.REMEMBERED
    log.recorded(replace(proved, index=3), request="receipt", peer="", contract_id="")
    assert log.due(world.clock.now, last=True).kinds[0][0].reason == "recorded-before"


def test_sums_come_ever_later_and_at_once_again_after_quiet(world):
    log, waited = RequestLog(clock=world.clock), []
    for _ in range(200):
        log.counted(request="release", reason="nonce.fresh", peer="a")
        world.clock.advance(timedelta(seconds=1))
        if (made := log.due(world.clock.now)) is not None:
            waited.append(round((made.until - made.since).total_seconds()))
    assert waited[:6] == [1, 2, 4, 8, 16, 32]
    assert set(waited[6:]) == {60}
    log.due(world.clock.now, last=True)
    world.clock.advance(timedelta(seconds=200))
    assert log.due(world.clock.now) is None
    log.counted(request="release", reason="nonce.fresh", peer="a")
    world.clock.advance(timedelta(seconds=1))
    assert log.due(world.clock.now) is not None


def test_entries_from_before_are_no_news(world):
    heard = Heard(world.clock, size=5)
    proved = messages.LedgerProof(entry=b"{}", index=4, hashes=(), checkpoint="")
    heard.log.recorded(proved, request="receipt", peer="", contract_id="")
    heard.log.recorded(replace(proved, index=5), request="receipt", peer="", contract_id="")
    assert [type(one) for one in heard.all()] == [Recorded, Summed]


def test_nobody_who_reads_is_no_trouble(world, monkeypatch):
    def broken(_fd, _data):
        raise BrokenPipeError

    monkeypatch.setattr(request_lines.os, "write", broken)
    for as_json in (False, True):
        request_lines.printer(as_json=as_json)(summed(world))


def summed(world):
    log = RequestLog(clock=world.clock)
    log.counted(request="release", reason="nonce.fresh", peer="a")
    return log.due(world.clock.now, last=True)


def test_an_entry_that_cannot_be_shown_silences_none_of_those_after_it(world):
    told = []

    def tell(event):
        if isinstance(event, Recorded) and event.index == 0:
            raise ValueError("of a form that nobody foresaw")
        told.append(event)

    log = RequestLog(tell, clock=world.clock)
    for index in range(2):
        log.recorded(
            messages.LedgerProof(entry=b"{}", index=index, hashes=(), checkpoint=""),
            request="release",
            peer="192.0.2.1",
            contract_id="",
        )
    log.close()
    assert [one.index for one in told if isinstance(one, Recorded)] == [1]
    assert sum(one.untold for one in told if isinstance(one, Summed)) == 1
