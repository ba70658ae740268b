"""The routes: exactly those of the table, each with its authentication, and errors in one shape."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.api import budgets
from strongroom.api.broker import app as app_module
from strongroom.api.broker import routes
from strongroom.broker.budgets import Budgets
from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Unavailable
from strongroom.ledger import checkpoint, merkle, proof, tiles
from strongroom.model import messages
from strongroom_testing import brokers, contracts
from strongroom_testing.http_calls import call


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def application(world, *, why=None, limits=None):
    return app_module.build(world.broker, readiness=app_module.Readiness(lambda: why), budgets=limits)


def released(world, app):
    agreement = world.agreement()
    room = world.room(agreement)
    ask = messages.encode_challenge_request(agreement.contract.digest)
    nonce = messages.parse_challenge(call(app, "POST", "/v1/challenges", ask).content).nonce
    answer = call(app, "POST", "/v1/releases", room.request(nonce))
    assert answer.status_code == 200, answer.content
    return room, nonce, messages.parse_release_answer(answer.content)


def test_rule_43_the_application_has_exactly_the_routes_of_the_table(world):
    app = application(world)
    found = {(one.name, one.path, frozenset(one.methods)) for one in app.routes}
    wanted = set()
    for row in routes.ROUTES:
        methods = {row.method, "HEAD"} if row.method == "GET" else {row.method}
        wanted.add((row.name, row.path, frozenset(methods)))
    assert found == wanted
    assert len({row.name for row in routes.ROUTES}) == len(routes.ROUTES)


def test_the_page_of_brokers_lists_every_route_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "brokers.md").read_text()
    listed = re.findall(r"^\| `([A-Z]+) (/(?:v1|acme)/[^`?]*)", page, re.MULTILINE)
    paths = [re.sub(r"\{(\w+)(:path)?\}", lambda name: name[1].upper(), row.path) for row in routes.ROUTES]
    assert listed == [(row.method, path) for row, path in zip(routes.ROUTES, paths, strict=True)]


def test_rule_43_every_route_without_authentication_is_on_this_list():
    """Whoever adds one must also say so here."""
    public = {row.name for row in routes.ROUTES if row.auth is routes.Auth.NONE}
    reading = {"health", "checkpoint", "tile", "proof", "consistency", "run", "result"}
    certificates = {"authority", "crl", "contract-crl", "ocsp"}
    assert public == {"challenge", "standing", "acme-directory", "acme-nonce", *reading, *certificates}
    assert all(row.why for row in routes.ROUTES)


def test_rule_43_a_question_how_a_contract_stands_is_answered_and_changes_nothing(world):
    agreement = world.agreement()
    asked = messages.StandingRequest(room="main", agreement=agreement.encode()).encode()
    answer = call(application(world), "POST", "/v1/standings", asked)
    assert answer.status_code == 200
    assert all(one.ok for one in messages.parse_standing(answer.content).checks)
    assert world.store.ledger.size() == 0


ROOM = ("room", "nonce", "receipt")


@pytest.mark.parametrize("row", routes.ROUTES, ids=lambda row: row.name)
def test_rule_43_every_route_called_with_nothing_gives_nothing_away(world, row):
    app = application(world)
    released(world, app)
    before = (world.store.ledger.size(), world.store.runs_by_room())
    path = row.path.replace("{path:path}", "0/000").replace("{run}", "run-" + "0" * 32)
    path = path.replace("{contract}", "sha256:" + "0" * 64)
    answer = call(app, row.method, path, b"{}" if row.method == "POST" else b"")
    if row.name in ("health", "checkpoint", "authority", "crl", "acme-directory", "acme-nonce"):
        assert answer.status_code == 200
    elif row.name == "acme":  # whose errors have the form of RFC 7807
        assert answer.status_code == 404
        assert set(answer.json()) == {"type", "detail", "status"}
    else:
        assert answer.status_code in (400, 404)
        assert set(answer.json()) == {"error"}
    assert brokers.DISK_KEY[:8] not in answer.content
    assert (world.store.ledger.size(), world.store.runs_by_room()) == before


@pytest.mark.parametrize("row", [row for row in routes.ROUTES if row.auth is routes.Auth.EVIDENCE])
def test_rule_43_routes_with_evidence_refuse_a_request_without_a_nonce_of_theirs(world, row):
    app = application(world)
    agreement = world.agreement()
    answer = call(app, row.method, row.path, world.room(agreement).request(bytes(32)))
    assert answer.status_code == 403
    top = answer.json()
    assert top["error"]["code"] == "denied"
    assert top["ledger"] is None
    assert "nonce.fresh" in top["error"]["message"]
    assert world.store.ledger.size() == 0


@pytest.mark.parametrize("row", [row for row in routes.ROUTES if row.auth is routes.Auth.ROOM_SIGNATURE])
def test_rule_43_routes_with_a_room_s_signature_refuse_any_other(world, row):
    app = application(world)
    room, _, _ = released(world, app)
    forged = room.receipt(contracts.NOW, key=sign.generate())
    answer = call(app, row.method, row.path, forged)
    assert answer.status_code == 403
    assert call(app, row.method, row.path, room.receipt(contracts.NOW)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/redoc", "/openapi.json", "/v1", "/v1/keys", "/v1/releases/", "/metrics", "/V1/health"],
)
def test_there_is_no_other_route(world, path):
    answer = call(application(world), "GET", path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "no-route"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(world, method):
    answer = call(application(world), method, "/v1/releases")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "wrong-method"


def test_a_release_over_http(world):
    room, nonce, answer = released(world, application(world))
    assert room.open(answer, nonce) == {brokers.manifest_digest(world.disk): brokers.DISK_KEY}


def test_a_denial_is_403_with_verdict_and_proof(world):
    app = application(world)
    agreement = world.agreement(signers=("alice",))
    ask = messages.encode_challenge_request(agreement.contract.digest)
    nonce = messages.parse_challenge(call(app, "POST", "/v1/challenges", ask).content).nonce
    answer = call(app, "POST", "/v1/releases", world.room(agreement).request(nonce))
    assert answer.status_code == 403
    denial = brokers.parse_denial(answer.content)
    assert denial.verdict["result"] == "denied"
    proof.verify(denial.ledger, world.broker.notary.public)
    error = answer.json()["error"]
    assert "contract.approvals" in error["message"]
    assert error["hint"]


@pytest.mark.parametrize(
    ("path", "limit"), [(row.path, row.limit) for row in routes.ROUTES if row.method == "POST"]
)
def test_rule_59_oversize_bodies_are_refused_unread(world, path, limit):
    app = application(world)
    path = path.replace("{path:path}", "new-order")
    announced = call(app, "POST", path, b"{}", headers={"Content-Length": str(limit + 1)})
    assert announced.status_code == 413
    assert announced.headers["connection"] == "close"

    async def endless():
        for _ in range(limit // 65536 + 2):
            yield bytes(65536)

    streamed = call(app, "POST", path, endless())
    assert streamed.status_code == 413
    assert streamed.json()["error"]["code"] == "too-large"
    exactly = call(app, "POST", path, b"\n" + b" " * (limit - 1))
    assert exactly.status_code == 400


def test_rule_59_a_first_line_that_is_no_good_is_answered_before_more_is_read(world):
    app = application(world)
    agreement = world.agreement()
    good = world.room(agreement).request(world.challenge(agreement).nonce)
    bad = world.room(agreement).request(bytes(32))
    sent = []

    async def pieces(body):
        for start in range(0, len(body), 512):
            sent.append(start)
            yield body[start : start + 512]

    answer = call(app, "POST", "/v1/releases", pieces(bad))
    assert (answer.status_code, answer.headers["connection"]) == (403, "close")
    assert "nonce.fresh" in answer.json()["error"]["message"]
    assert len(sent) == 1
    junk = call(app, "POST", "/v1/releases", pieces(b"x" * 100 + b"\n" + bytes(5000)))
    assert junk.status_code == 400
    assert len(sent) == 2
    assert call(app, "POST", "/v1/releases", pieces(good)).status_code == 200


def test_an_address_that_keeps_sending_nonces_of_nobody_waits_for_its_no(tmp_path, monkeypatch):
    """Its next try is a new connection, and a TLS handshake costs more than the no."""
    monkeypatch.setattr(app_module, "PAUSE", 0.5)
    with brokers.world(tmp_path, budgets=Budgets(failures=1)) as world:
        app, agreement = application(world), world.agreement()

        def took(body):
            begun = time.monotonic()
            answer = call(app, "POST", "/v1/releases", body)
            return answer.status_code, time.monotonic() - begun >= 0.5

        bad, good = (
            world.room(agreement).request(one) for one in (bytes(32), world.challenge(agreement).nonce)
        )
        assert [took(bad), took(bad)] == [(403, False), (403, True)]
        assert call(app, "POST", "/v1/releases", good).status_code == 200


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:202", "192.0.2.2"),
        (":", ":"),
    ],
)
def test_a_peer_is_an_address_or_the_network_of_one_host(host, peer):
    assert budgets.peer((host, 1)) == peer


@pytest.mark.parametrize("length", ["-1", "1e9", "９", "9" * 13, "x"])
def test_odd_content_lengths_are_refused(world, length):
    answer = call(
        application(world), "POST", "/v1/challenges", b"", headers={"Content-Length": length.encode()}
    )
    assert answer.status_code in (400, 413)


def test_rule_59_a_body_that_trickles_is_cut_off(world):
    app = application(world, limits=budgets.ConnectionBudgets(body_seconds=0.2))

    async def slow():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    answer = call(app, "POST", "/v1/challenges", slow())
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "slow-body"


def test_rule_59_a_request_that_takes_too_long_as_a_whole_is_ended(world):
    class Stuck:
        ledger = world.store.ledger

        async def write(self, _work):
            await asyncio.sleep(60)

    app = app_module.build(
        replace(world.broker, store=Stuck()),
        readiness=app_module.Readiness(lambda: None),
        budgets=budgets.ConnectionBudgets(request_seconds=0.2),
    )
    ask = messages.encode_challenge_request(world.agreement().contract.digest)
    answer = call(app, "POST", "/v1/challenges", ask)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "too-slow"


def test_rule_59_all_bodies_together_are_bounded(world):
    app = application(world, limits=budgets.ConnectionBudgets(bodies=100_000, share=1))
    answer = call(app, "POST", "/v1/releases", bytes(200_000))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "overloaded"
    # What was held is given back.
    assert call(app, "POST", "/v1/releases", bytes(90_000)).status_code == 413
    assert call(app, "POST", "/v1/releases", bytes(90_000)).status_code == 413


def test_rule_56_not_ready_until_warm(world):
    cold = call(application(world, why="starting"), "GET", "/v1/health")
    assert cold.status_code == 503
    assert cold.json() == {"ready": False, "why": "starting"}
    warm = call(application(world), "GET", "/v1/health")
    assert (warm.status_code, warm.json()) == (200, {"ready": True})


def test_unavailable_is_503_and_a_defect_tells_nothing(world, caplog):
    class Broken:
        ledger = world.store.ledger

        def __init__(self, cause):
            self.cause = cause

        async def write(self, _work):
            raise self.cause

    ask = messages.encode_challenge_request(world.agreement().contract.digest)
    for cause, status, code in (
        (Unavailable("store: full", code="disk-full", hint="free space"), 503, "disk-full"),
        (RuntimeError("secret " + brokers.PASSPHRASE.decode()), 500, "defect"),
    ):
        app = app_module.build(
            replace(world.broker, store=Broken(cause)), readiness=app_module.Readiness(lambda: None)
        )
        answer = call(app, "POST", "/v1/challenges", ask)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
    assert "secret" not in answer.text
    assert "secret" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_rule_51_a_wrong_request_does_not_come_back_in_the_answer(world):
    body = b'{"contract": "' + b"CANARY" * 10 + b'"}'
    answer = call(application(world), "POST", "/v1/challenges", body)
    assert answer.status_code == 400
    assert b"CANARY" not in answer.content
    assert answer.json()["error"]["hint"]


def fill(world, count):
    async def append():
        await asyncio.gather(
            *(
                world.store.write(lambda tx, at=at: tx.ledger.append(b"e%d" % at, run_id=""))
                for at in range(count)
            )
        )

    asyncio.run(append())


def test_the_ledger_reads_as_tlog_tiles(world):
    fill(world, 300)
    app = application(world)
    note = call(app, "GET", "/v1/ledger/checkpoint").text
    size = checkpoint.verify(note, world.broker.notary.public).size
    assert size == 300
    full = call(app, "GET", "/v1/ledger/tile/entries/000").content
    rest = call(app, "GET", "/v1/ledger/tile/entries/001.p/44").content
    assert full + rest == b"".join(
        len(one).to_bytes(2, "big") + one for one in (b"e%d" % at for at in range(300))
    )
    hashes = call(app, "GET", "/v1/ledger/tile/0/000").content
    hashes += call(app, "GET", "/v1/ledger/tile/0/001.p/44").content
    assert hashes == b"".join(merkle.leaf_hash(b"e%d" % at) for at in range(300))
    above = call(app, "GET", "/v1/ledger/tile/1/000.p/1").content
    assert above == world.store.ledger.node(8, 0)
    assert tiles.format_index(1) == "001"


def test_a_tile_of_large_entries_is_read_in_pieces(world):
    """15 MB for any anonymous request: of them a broker holds a few entries at a time."""
    from strongroom.api.broker import ledger

    large = [bytes([at]) * 60_000 for at in range(20)]

    async def append():
        await asyncio.gather(
            *(world.store.write(lambda tx, one=one: tx.ledger.append(one, run_id="")) for one in large)
        )

    asyncio.run(append())
    asked = []

    class Counting(type(world.store.ledger)):
        def leaves(self, start, count):
            asked.append((start, count))
            return super().leaves(start, count)

    counting = Counting(world.store._readers, world.store._nodes)
    store = type("Store", (), {"ledger": counting})
    length, told = ledger.tile(replace(world.broker, store=store), "entries/000.p/20")
    pieces = list(told)
    assert asked == [(0, 8), (8, 8), (16, 4)], "each entry is read once"
    assert length == sum(map(len, pieces))
    assert len(pieces) == 3
    assert max(map(len, pieces)) <= tiles.AT_ONCE * 65_537
    assert b"".join(pieces) == call(application(world), "GET", "/v1/ledger/tile/entries/000.p/20").content
    assert sorted(b"".join(pieces)) == sorted(b"".join(len(one).to_bytes(2, "big") + one for one in large))


@pytest.mark.parametrize(
    "path",
    [
        "0/002",
        "0/001",
        "entries/001.p/45",
        "1/000",
        "0/000.p/256",
        "0/0",
        "-1/000",
        "0/..%2f000",
        "0/%2e%2e/0/000",
        "64/000",
        "entries/000/",
        "0/x000/000",
        "0/000.p/0",
    ],
)
def test_rule_45_tiles_that_are_none_are_refused(world, path):
    fill(world, 300)
    assert call(application(world), "GET", "/v1/ledger/tile/" + path).status_code in (400, 404)


def test_proofs_of_inclusion_and_consistency(world):
    fill(world, 37)
    app, ledger = application(world), world.store.ledger
    for index, size in ((0, 1), (0, 37), (36, 37), (17, 20)):
        answer = call(app, "GET", f"/v1/ledger/proof?index={index}&size={size}")
        one = messages.parse_ledger_proof(answer.content)
        note = checkpoint.verify(one.checkpoint, world.broker.notary.public)
        assert (one.entry, note.size) == (b"e%d" % index, size)
        merkle.verify_inclusion(one.entry, index, size, one.hashes, note.root)
    for first, second in ((1, 37), (16, 37), (36, 37), (37, 37), (0, 5)):
        answer = call(app, "GET", f"/v1/ledger/consistency?from={first}&to={second}").json()
        path = tuple(fields.Fields({"h": one}, "t").data("h", max_bytes=32) for one in answer["hashes"])
        roots = [merkle.root(ledger, one) for one in (first, second)]
        merkle.verify_consistency(first, roots[0], second, roots[1], path)


@pytest.mark.parametrize(
    "query",
    [
        "proof",
        "proof?index=0",
        "proof?index=37&size=37",
        "proof?index=0&size=38",
        "proof?index=-1&size=3",
        "proof?index=00&size=3",
        "proof?index=0&size=99999999999999999999",
        "consistency?from=3&to=2",
        "consistency?from=1&to=38",
        "consistency",
    ],
)
def test_proofs_of_what_is_not_there(world, query):
    fill(world, 37)
    assert call(application(world), "GET", "/v1/ledger/" + query).status_code in (400, 404)


def test_the_records_of_a_run(world):
    app = application(world)
    room, _, _ = released(world, app)
    call(app, "POST", "/v1/receipts", room.receipt(contracts.NOW))
    fill(world, 3)
    answer = json.loads(call(app, "GET", f"/v1/ledger/run/{room.keys.run_id}").content)
    kinds = []
    for item in answer["entries"]:
        one = messages.read_ledger_proof(fields.Fields(item, "entry"))
        entry, note = proof.verify(one, world.broker.notary.public)
        kinds.append(entry.kind.value)
        assert (entry.run_id, note.size) == (room.keys.run_id, 5)
    assert kinds == ["release", "receipt"]


@pytest.mark.parametrize("run", ["", "x", "run-", "run-" + "g" * 32, "run-" + "0" * 33, "%00", "..%2f.."])
def test_rule_45_runs_that_are_none_are_refused(world, run):
    assert call(application(world), "GET", "/v1/ledger/run/" + run).status_code in (400, 404)


NONCE = "ab" * 16


@pytest.mark.parametrize(
    ("form", "media", "head"),
    [
        ("", "application/eat+jwt", b"eyJ"),
        ("&form=jwt", "application/eat+jwt", b"eyJ"),
        ("&form=cwt", "application/eat+cwt", b"\xd2"),
    ],
)
def test_a_result_is_told_to_whoever_asks(world, form, media, head):
    app = application(world)
    room, _, _ = released(world, app)
    before = world.store.ledger.size()
    answer = call(app, "GET", f"/v1/results/{room.keys.run_id}?audience=database&nonce={NONCE}{form}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content.startswith(head)
    assert world.store.ledger.size() == before


@pytest.mark.parametrize(
    "query",
    [
        "",
        "audience=database",
        f"nonce={NONCE}",
        f"audience=&nonce={NONCE}",
        f"audience=a%20b&nonce={NONCE}",
        f"audience={'a' * 257}&nonce={NONCE}",
        "audience=database&nonce=ab",
        f"audience=database&nonce={NONCE.upper()}",
        f"audience=database&nonce={'ab' * 65}",
        f"audience=database&nonce={NONCE}&form=xml",
        f"audience=database&nonce={NONCE}&alg=none",
        f"audience=database&nonce={NONCE}0",
    ],
)
def test_rule_43_a_result_without_whom_it_is_for_and_a_fresh_nonce_is_not_given(world, query):
    app = application(world)
    room, _, _ = released(world, app)
    answer = call(app, "GET", f"/v1/results/{room.keys.run_id}?{query}")
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize(
    "run", ["run-x", "RUN-" + "0" * 32, "run-" + "0" * 31, "run-" + "A" * 32, "..", "run-" + "0" * 33]
)
def test_rule_45_a_run_s_name_is_a_run_s_name(world, run):
    answer = call(application(world), "GET", f"/v1/results/{run}?audience=a&nonce={NONCE}")
    assert answer.status_code in (400, 404)
    unknown = call(application(world), "GET", f"/v1/results/run-{'0' * 32}?audience=a&nonce={NONCE}")
    assert unknown.status_code == 404


def test_rule_41_a_result_of_a_verdict_that_has_ended_is_refused(world):
    app = application(world)
    room, _, answer = released(world, app)
    world.clock.now = fields.Fields(answer.verdict, "verdict").time("expires")
    told = call(app, "GET", f"/v1/results/{room.keys.run_id}?audience=a&nonce={NONCE}")
    assert told.status_code == 403
    assert told.json()["error"]["code"] == "verdict-ended"
