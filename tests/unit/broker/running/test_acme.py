"""ACME at a broker: certificates for a room's own keys, as long as the room's verdict and contract stand, each in the ledger."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.api.broker import app
from strongroom.broker.administration.withdraw import withdraw
from strongroom.broker.running.renewal import renewal
from strongroom.model import messages, record
from strongroom.model.contracts.certificate_terms import CertificateTerms, Interface
from strongroom_testing import acme_client, contracts, http_calls
from strongroom_testing.acme_client import b64
from strongroom_testing.brokers import NAMES

TERMS = CertificateTerms(names=NAMES, lifetime_seconds=3600, interfaces=(Interface.ACME,))


class Client:
    """An ACME client in a room, over HTTP."""

    def __init__(self, world, account):
        self.app = app.build(world.broker, readiness=app.Readiness(lambda: None))
        self.account = account
        self.key = acme_client.Key()
        self.kid = ""
        self.directory = json.loads(self.call("GET", account.directory).content)

    def call(self, method, url, body=b""):
        return http_calls.call(self.app, method, "/acme/" + url.partition("/acme/")[2], body)

    def post(self, url, payload):
        nonce = self.call("HEAD", self.directory["newNonce"]).headers["replay-nonce"]
        return self.call("POST", url, acme_client.request(self.key, url, payload, nonce=nonce, kid=self.kid))

    def register(self):
        url = self.directory["newAccount"]
        bound = acme_client.binding(self.key.jwk, url, kid=self.account.kid, key=self.account.key)
        answer = self.post(url, {"externalAccountBinding": bound})
        assert answer.status_code == 201, answer.content
        self.kid = answer.headers["location"]

    def order(self, *names):
        answer = self.post(
            self.directory["newOrder"], {"identifiers": [{"type": "dns", "value": name} for name in names]}
        )
        assert answer.status_code == 201, answer.content
        return answer.headers["location"], json.loads(answer.content)

    def finalize(self, order, csr):
        return self.post(order["finalize"], {"csr": b64(csr)})


def request(names, *, key=None, signer=None):
    """A certificate request (DER); signed by another key than its own where `signer` is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())
    data = made.public_bytes(serialization.Encoding.DER)
    return data if signer is None else data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture
def room(world):
    return world.room(world.agreement(lambda one: contracts.changed(one, certificate=TERMS)))


@pytest.fixture
def client(world, room):
    nonce = world.challenge(room.agreement).nonce
    answer = world.release(room.request(nonce, names=NAMES))
    assert isinstance(answer, messages.ReleaseAnswer)
    sealed = messages.account_info(room.binding(nonce))
    made = Client(world, messages.parse_external_account(room.kem.open(answer.account, info=sealed)))
    made.register()
    return made


def entries(world, room):
    return [record.parse(entry) for _, entry in world.store.ledger.of_run(room.keys.run_id)]


def test_a_room_gets_a_certificate_for_a_key_of_its_own(world, room, client):
    where, order = client.order(NAMES[0])
    key = ec.generate_private_key(ec.SECP256R1())
    done = json.loads(client.finalize(order, request(NAMES[:1], key=key)).content)
    assert done["status"] == "valid"
    chain = client.post(done["certificate"], None)
    assert chain.headers["content-type"] == "application/pem-certificate-chain"
    leaf, issuer, root = x509.load_pem_x509_certificates(chain.content)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert leaf.public_key() == key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(NAMES[0])]  # and no SPIFFE ID: no evidence is bound to this key
    ends = record.parse(world.store.ledger.of_run(room.keys.run_id)[0][1]).body["verdict"]["expires"]
    assert f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}" <= ends
    last = entries(world, room)[-1]
    assert (last.kind, last.body["names"]) == (record.RecordKind.CERTIFICATE, [NAMES[0]])
    again = json.loads(client.finalize(order, request(NAMES[:1])).content)
    assert client.post(again["certificate"], None).content == chain.content
    assert json.loads(client.post(where, None).content)["status"] == "valid"
    assert len(entries(world, room)) == 2


def test_rule_40_a_request_for_other_names_or_anothers_key_gets_nothing(world, room, client):
    _, order = client.order(NAMES[0])
    for csr in (
        request(NAMES),
        request((NAMES[1],)),
        request((NAMES[0], "evil.example")),
        request(()),
        request(NAMES[:1], signer="another"),
        b"no request",
    ):
        answer = client.finalize(order, csr)
        assert answer.status_code in (400, 403)
        assert answer.headers["content-type"] == "application/problem+json"
    assert len(entries(world, room)) == 1


def test_rule_41_nothing_is_issued_once_the_verdict_has_ended(world, room, client):
    _, order = client.order(NAMES[0])
    world.clock.advance(timedelta(days=2))
    answer = client.finalize(order, request(NAMES[:1]))
    assert json.loads(answer.content)["type"] == "urn:ietf:params:acme:error:unauthorized"
    assert len(entries(world, room)) == 1


def test_a_renewal_lets_the_same_account_go_on(world, room, client):
    world.clock.advance(timedelta(minutes=59))
    nonce = world.challenge(room.agreement).nonce
    asyncio.run(renewal(world.broker, room.request(nonce, names=NAMES)))
    world.clock.advance(timedelta(minutes=30))
    _, order = client.order(NAMES[0])
    assert client.finalize(order, request(NAMES[:1])).status_code == 200


def test_rule_41_a_withdrawn_contract_issues_nothing(world, room, client):
    _, order = client.order(NAMES[0])
    asyncio.run(withdraw(world.broker, room.agreement.encode()))
    assert client.finalize(order, request(NAMES[:1])).status_code == 403
    assert [entry.kind for entry in entries(world, room)] == [record.RecordKind.RELEASE]


def test_a_room_without_acme_in_its_contract_gets_no_account(world):
    room = world.room(world.agreement())
    answer = world.release(room.request(world.challenge(room.agreement).nonce, names=NAMES))
    assert answer.account == b""


def test_what_is_not_there_is_a_problem_with_a_nonce(world, client):
    for url in (client.directory["revokeCert"], client.directory["keyChange"]):
        answer = client.post(url, {})
        assert answer.status_code == 404
        assert answer.headers["replay-nonce"]


def test_rule_59_a_program_that_orders_without_end_gets_so_many_certificates(world, room, client):
    """Each is an entry of the owner's ledger for good."""
    most = world.broker.budgets.certificates
    for _ in range(most):
        _, order = client.order(NAMES[0])
        assert client.finalize(order, request(NAMES[:1])).status_code == 200
    size = world.store.ledger.size()
    assert size == most + 1
    _, order = client.order(NAMES[0])
    answer = client.finalize(order, request(NAMES[:1]))
    assert (answer.status_code, json.loads(answer.content)["type"]) == (
        429,
        "urn:ietf:params:acme:error:rateLimited",
    )
    assert world.store.ledger.size() == size
    world.clock.advance(timedelta(seconds=TERMS.lifetime_seconds / 8))
    _, order = client.order(NAMES[0])
    assert client.finalize(order, request(NAMES[:1])).status_code == 200
