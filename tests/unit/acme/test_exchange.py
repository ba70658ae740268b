"""ACME by attestation: who gets an account, what it may order, and what clients and attackers may not do."""

import dataclasses
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.acme import exchange, nonces, tokens
from strongroom.crypto import jws
from strongroom.errors import Malformed, Refused
from strongroom.model.contracts.certificate_terms import BOTH
from strongroom_testing import acme_client
from strongroom_testing.acme_client import Key, b64

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
BASE = "https://broker.example:8443/acme"
WEB = tokens.AccountRoom(
    run_id="run-" + "1" * 32,
    contract_digest="sha256:" + "ab" * 32,
    contract_id="flights",
    room="web",
    names=("web.flights.example", "www.flights.example"),
    usages=BOTH,
    lifetime_seconds=3600,
)


class Client:
    """A client of an exchange, as RFC 8555 tells it to be; each step can be bent."""

    def __init__(self, kind="ES256"):
        key = os.urandom(32)
        self.tokens = tokens.TokenMaker(key)
        self.server = exchange.Exchange(
            base=BASE,
            tokens=self.tokens,
            nonces=nonces.ReplayNonces(key, random=os.urandom),
            random=os.urandom,
        )
        self.key = Key(kind)
        self.kid = ""

    def signed(self, where, payload, *, key=None, kid="its own", **changed):
        """A request's bytes. changed: of its header."""
        nonce = changed.pop("nonce", self.server.nonces.make(NOW))
        kid = self.kid if kid == "its own" else kid
        return acme_client.request(key or self.key, where, payload, nonce=nonce, kid=kid or "", **changed)

    def binding(self, *, attested=WEB, jwk=None, key=None, **changed):
        kid, secret = self.tokens.external_account(attested)
        where = f"{BASE}/new-account"
        return acme_client.binding(
            jwk or self.key.jwk,
            changed.pop("url", where),
            kid=changed.pop("kid", kid),
            key=key or secret,
            **changed,
        )

    def register(self, **binding):
        body = self.signed(
            f"{BASE}/new-account", {"externalAccountBinding": self.binding(**binding)}, kid=None
        )
        answer = self.server.new_account(body, NOW)
        self.kid = answer.location
        return answer

    def order(self, *names):
        identifiers = [{"type": "dns", "value": name} for name in names]
        return self.server.new_order(self.signed(f"{BASE}/new-order", {"identifiers": identifiers}), NOW)


@pytest.fixture
def client():
    return Client()


def path(url):
    """The parts of an URL below the base."""
    return url.removeprefix(f"{BASE}/").split("/")


@pytest.mark.parametrize("kind", ["ES256", "EdDSA", "RS256"])
def test_a_room_registers_orders_and_finalizes(kind):
    client = Client(kind)
    assert client.register().status == 201
    answer = client.order("web.flights.example")
    order = json.loads(answer.body)
    assert (answer.status, order["status"]) == (201, "ready")
    [url] = order["authorizations"]
    _, token, number = path(url)
    shown = json.loads(client.server.authorization(token, number, client.signed(url, None), NOW).body)
    assert shown["status"] == "valid"
    assert shown["identifier"] == {"type": "dns", "value": "web.flights.example"}
    request = client.signed(order["finalize"], {"csr": b64(b"a request")})
    ordered, csr = client.server.finalize(token, request, NOW)
    assert (csr, ordered.attested) == (b"a request", WEB)
    done = client.server.order_answer(ordered, issued=True)
    url = json.loads(done.body)["certificate"]
    assert client.server.certificate(path(url)[1], client.signed(url, None), NOW) == ordered


def test_rule_40_names_are_the_contracts_alone(client):
    client.register()
    for name in ("www.flights.example.evil", "*.flights.example", "flights.example", "WEB.flights.example"):
        with pytest.raises(Refused) as failure:
            client.order("web.flights.example", name)
        assert failure.value.code == "other-name"
        assert b"rejectedIdentifier" in exchange.problem(failure.value).body


def test_no_account_without_the_rooms_external_account(client):
    with pytest.raises(Refused) as failure:
        client.server.new_account(client.signed(f"{BASE}/new-account", {}), NOW)
    assert b"externalAccountRequired" in exchange.problem(failure.value).body
    kid, _ = tokens.TokenMaker(os.urandom(32)).external_account(WEB)  # of another broker
    for bent in (
        {"key": b"guessed" * 4},
        {"kid": kid},
        {"kid": ""},
        {"jwk": Key().jwk},
        {"alg": "none"},
        {"alg": "ES256"},
    ):
        with pytest.raises(Refused, match=r"external account|external-account"):
            client.register(**bent)
    with pytest.raises(Malformed, match="made for another URL"):
        client.register(url="https://elsewhere.example/acme/new-account")


def test_a_kid_is_no_account_and_an_account_no_order(client):
    client.register()
    kid, _ = client.tokens.external_account(WEB)
    account = path(client.kid)[1]
    order = path(json.loads(client.order("web.flights.example").body)["finalize"])[1]
    for read, token in (
        (client.tokens.read_account, kid),
        (client.tokens.read_account, order),
        (client.tokens.read_order, account),
        (client.tokens.read_external_account, account),
        (client.tokens.read_account, account[:-1] + ("A" if account[-1] != "A" else "B")),
        (client.tokens.read_account, "." + account),
        (client.tokens.read_account, "x" * (tokens.MAX_BYTES + 1)),
    ):
        with pytest.raises(Refused) as failure:
            read(token)
        assert failure.value.code == "unknown-token"


def test_an_order_is_its_accounts_alone(client):
    client.register()
    url = json.loads(client.order("web.flights.example").body)["finalize"]
    client.key, client.kid = Key(), ""
    client.register()
    with pytest.raises(Refused) as failure:
        client.server.finalize(path(url)[1], client.signed(url, {"csr": b64(b"x")}), NOW)
    assert failure.value.code == "unknown-token"


def test_rule_18_a_nonce_counts_once_and_not_for_ever(client):
    client.register()
    body = client.signed(f"{BASE}/new-order", {"identifiers": [{"type": "dns", "value": WEB.names[0]}]})
    client.server.new_order(body, NOW)
    late = client.signed(f"{BASE}/new-order", {})
    for replayed, now in ((body, NOW), (late, NOW + timedelta(seconds=nonces.SECONDS))):
        with pytest.raises(Refused) as failure:
            client.server.new_order(replayed, now)
        assert b"badNonce" in exchange.problem(failure.value).body
    for forged in ("", "AAAA", b64(b"\xff" * 32)):
        assert not client.server.nonces.use(forged, NOW, run="run-1")


def test_when_too_many_nonces_are_used_none_is_forgotten_early(client, monkeypatch):
    monkeypatch.setattr(nonces, "MOST_USED", 2)
    one, two, three = (client.server.nonces.make(NOW) for _ in range(3))
    assert client.server.nonces.use(one, NOW, run="run-1")
    assert client.server.nonces.use(two, NOW, run="run-1")
    assert not client.server.nonces.use(three, NOW, run="run-1")
    assert not client.server.nonces.use(one, NOW, run="run-1")
    later = NOW + timedelta(seconds=nonces.SECONDS)
    assert client.server.nonces.use(client.server.nonces.make(later), later, run="run-1")


def test_rule_59_who_proves_nothing_uses_up_no_nonces(client, monkeypatch):
    """Anybody gets nonces. Ten thousand requests of a stranger's, and no room had a certificate for five minutes."""
    monkeypatch.setattr(nonces, "MOST_USED", 8)
    client.register()
    stranger = Key()
    orders, accounts = f"{BASE}/new-order", f"{BASE}/new-account"
    for _ in range(20):
        for ask, body in (
            (client.server.new_order, client.signed(orders, {}, key=stranger)),
            (
                client.server.new_account,
                client.signed(accounts, {}, key=stranger, kid=None, jwk=stranger.jwk),
            ),
            (
                client.server.new_account,
                client.signed(
                    accounts,
                    {"externalAccountBinding": client.binding(jwk=stranger.jwk, key=bytes(32))},
                    key=stranger,
                    kid=None,
                    jwk=stranger.jwk,
                ),
            ),
        ):
            with pytest.raises(Refused):
                ask(body, NOW)
    assert client.order("web.flights.example").status == 201


def test_rule_59_one_run_uses_up_no_others_nonces(client, monkeypatch):
    monkeypatch.setattr(nonces, "MOST_USED_EACH", 3)
    used = [client.server.nonces.use(client.server.nonces.make(NOW), NOW, run="run-1") for _ in range(5)]
    assert used == [True, True, True, False, False]
    assert client.server.nonces.use(client.server.nonces.make(NOW), NOW, run="run-2")
    later = NOW + timedelta(seconds=nonces.SECONDS)
    assert client.server.nonces.use(client.server.nonces.make(later), later, run="run-1")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"url": f"{BASE}/new-account"}, "where it was sent"),
        ({"alg": "none"}, "expected the algorithm ES256"),
        ({"alg": "HS256"}, "expected the algorithm ES256"),
        ({"alg": "RS256"}, "expected the algorithm ES256"),
        ({"crit": ["exp"]}, "crit"),
        ({"b64": False}, "crit"),
        ({"jwk": {"kty": "oct", "k": "AA"}}, "has a jwk"),
        ({"kid": f"{BASE}/account/x.y"}, "not one of this broker's"),
        ({"kid": "https://elsewhere.example/account/1"}, "not one of this broker's"),
        ({"nonce": None}, "nonce"),
    ],
)
def test_rule_24_the_key_decides_the_algorithm_and_headers_decide_nothing(client, changed, told):
    client.register()
    with pytest.raises((Refused, Malformed)) as failure:
        client.server.new_order(client.signed(f"{BASE}/new-order", {}, **changed), NOW)
    assert told in failure.value.message
    assert exchange.problem(failure.value).status in (400, 403)


def test_another_key_signs_nothing_for_an_account(client):
    client.register()
    with pytest.raises(Refused) as failure:
        client.server.new_order(client.signed(f"{BASE}/new-order", {}, key=Key()), NOW)
    assert failure.value.code == "bad-signature"


def test_every_bent_byte_of_a_request_is_an_error_of_ours(client):
    client.register()
    body = client.signed(f"{BASE}/new-order", {"identifiers": [{"type": "dns", "value": WEB.names[0]}]})
    for at in range(0, len(body), 7):
        bent = bytearray(body)
        bent[at] ^= 1
        with pytest.raises((Malformed, Refused), match=r"request|external|account|order|UTF-8|JSON"):
            client.server.new_order(bytes(bent), NOW)
    for garbage in (b"", b"[]", b"{}", b'{"protected": 1, "payload": "", "signature": ""}', b"\xff"):
        with pytest.raises(Malformed, match="request"):
            jws.parse(garbage)


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        {},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "EC", "crv": "P-256", "x": b64(bytes(32)), "y": b64(bytes(32))},
        {"kty": "OKP", "crv": "X25519", "x": b64(bytes(32))},
        {"kty": "RSA", "n": b64(b"\xff" * 64), "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\0" + b"\xff" * 256), "e": "AQAB"},
        {"kty": "RSA", "n": b64(b"\xff" * 256), "e": "Aw"},
        {"kty": "oct", "k": "AA"},
    ],
)
def test_keys_that_are_none_are_malformed(jwk):
    with pytest.raises(Malformed, match="jwk"):
        jws.read_jwk(jwk)


def test_a_private_key_is_refused_and_the_thumbprint_is_of_the_rfc():
    key = Key()
    with pytest.raises(Malformed, match="private"):
        jws.read_jwk({**key.jwk, "d": "AA"})
    members = json.dumps(key.jwk, sort_keys=True, separators=(",", ":")).encode()
    thumbprint = jws.read_jwk({**key.jwk, "use": "sig"}).thumbprint
    assert thumbprint == b64(hashlib.sha256(members).digest())


def test_an_account_of_another_generation_keeps_to_its_names(client):
    """A contract whose next version gives fewer names: the old kid still says the old ones, so that issuing asks for standing."""
    client.register(attested=dataclasses.replace(WEB, names=("web.flights.example",)))
    with pytest.raises(Refused, match="no name"):
        client.order("www.flights.example")
