"""Certificates: names from the contract alone, no longer than the verdict, and only for `Accepted`."""

from __future__ import annotations

import ast
import inspect
import secrets
import typing
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.authority import issue
from strongroom.crypto import digest, tls
from strongroom.crypto.pki import certificates, issuers, key_signer
from strongroom.crypto.pki.leaf import EVIDENCE_OID
from strongroom.errors import Malformed
from strongroom.model import messages, verdict
from strongroom_testing import brokers, contracts
from strongroom_testing.contracts import changed


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def issued(world, *, change=None, names=brokers.NAMES):
    deal = world.agreement(change)
    room = world.room(deal)
    asked = room.ask(world.challenge(deal).nonce, csr=room.csr(names))
    answer = world.release(asked.encode())
    leaf, issuer, _root = (x509.load_der_x509_certificate(der) for der in answer.certificates)
    return room, asked, answer, leaf, issuer


def test_the_profile(world):
    room, asked, answer, leaf, issuer = issued(world)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == brokers.NAMES
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"spiffe://flights.strongroom/room/main/run/{room.keys.run_id}"
    ]
    assert len(list(names)) == 3
    subject = {one.oid: one.value for one in leaf.subject}
    assert subject == {
        NameOID.COMMON_NAME: room.keys.run_id,
        NameOID.ORGANIZATIONAL_UNIT_NAME: "SIMULATED",
    }
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    critical = {one.oid for one in leaf.extensions if one.critical}
    assert critical == {x509.BasicConstraints.oid, x509.KeyUsage.oid}
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    oid = x509.ObjectIdentifier(EVIDENCE_OID)
    evidence = leaf.extensions.get_extension_for_oid(oid).value.value
    assert evidence == b"\x04\x20" + digest.raw(digest.sha256(asked.evidence.encode()))
    assert (
        leaf.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        == room.keys.tls
    )
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(x509.load_der_x509_certificate(answer.certificates[2]))
    assert digest.sha256(answer.certificates[2]) == world.settings.address.authority
    assert 0 < leaf.serial_number < 1 << 127


def test_the_issuer_signs_leaves_only_and_the_root_issuers_only(world):
    _, _, answer, _, _ = issued(world)
    for der, below in ((answer.certificates[1], 0), (answer.certificates[2], 1)):
        authority = x509.load_der_x509_certificate(der)
        basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, below)
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.key_cert_sign
        assert not usage.digital_signature


def test_rule_40_names_come_from_the_contract_and_nothing_from_the_request(world):
    """Asked for one name, in the name of others, with every extension that would widen it: as if none of it had been asked."""
    *_, plain, _ = issued(world)
    room = world.room(world.agreement())
    asked = answer_to(world, request_for_all(room, brokers.NAMES[:1]), room)
    leaf = x509.load_der_x509_certificate(asked.certificates[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == brokers.NAMES
    assert {one.oid for one in leaf.subject} == {one.oid for one in plain.subject}
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == room.keys.run_id
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    varying = (x509.SubjectAlternativeName.oid, x509.ObjectIdentifier(EVIDENCE_OID))
    same = [[one for one in each.extensions if one.oid not in varying] for each in (leaf, plain)]
    assert same[0] == same[1]
    assert len(list(leaf.extensions)) == len(list(plain.extensions))
    # And a name that the contract does not give is refused, wherever it stands.
    for names, common in (((brokers.NAMES[0], "other.example"), ""), (brokers.NAMES, "other.example")):
        room = world.room(world.agreement())
        other = answer_to(world, request_for_all(room, names, common=common), room)
        assert isinstance(other, messages.DenialAnswer)
        failed = [one["name"] for one in other.verdict["checks"] if not one["ok"]]
        assert failed == ["certificate.names", "evidence.verified"]  # which was not looked at then


def answer_to(world, csr, room):
    return world.release(room.ask(world.challenge(room.agreement).nonce, csr=csr).encode())


def request_for_all(room, names, *, common=""):
    """A certificate request by the room's TLS key that asks for all that requests can ask for."""
    wanted = (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.EMAIL_ADDRESS)
    subject = [x509.NameAttribute(one, "mallory@example.org") for one in wanted]
    if common:
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common))
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign"), True,
    )  # fmt: skip
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    for extension in (
        x509.SubjectAlternativeName([x509.DNSName(one) for one in names]),
        x509.BasicConstraints(ca=True, path_length=9),
        x509.KeyUsage(**usage, encipher_only=False, decipher_only=False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.OCSP_SIGNING]),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
    ):
        builder = builder.add_extension(extension, critical=True)
    key = serialization.load_der_private_key(room.tls.der, None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("seconds", [60, 600, 86_400])
@pytest.mark.parametrize("verdict", [30, 300, 86_400])
def test_rule_41_a_certificate_never_outlives_its_terms_nor_its_verdict(world, seconds, verdict):
    def lasting(one):
        return changed(one, certificate=replace(one.rooms[0].certificate, lifetime_seconds=seconds))

    budgets = replace(world.broker.budgets, verdict_lifetime=timedelta(seconds=verdict))
    brief = replace(world, broker=replace(world.broker, budgets=budgets))
    *_, answer, leaf, _ = issued(brief, change=lasting)
    assert leaf.not_valid_after_utc == contracts.NOW + timedelta(seconds=min(seconds, verdict))
    assert leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ") <= answer.verdict["expires"]
    assert leaf.not_valid_before_utc == contracts.NOW - timedelta(minutes=1)


def test_rule_41_the_end_of_the_contract_ends_the_certificate(world):
    def short(one):
        limits = replace(one.limits, not_after=contracts.NOW + timedelta(seconds=90))
        return replace(one, limits=limits)

    *_, leaf, _ = issued(world, change=short)
    assert leaf.not_valid_after_utc == contracts.NOW + timedelta(seconds=90)


def test_hardware_is_not_called_simulated(world):
    """The unit follows the claims, whatever the contract allows."""
    deal = world.agreement()
    room = world.room(deal)
    answer = world.release(room.request(world.challenge(deal).nonce))
    assert answer.verdict["claims"]["simulated"] is True
    accepted = made_accepted(world, room, deal, simulated=False)
    der = sign_for(world, accepted, deal).leaf
    subject = x509.load_der_x509_certificate(der).subject
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME) == []


def made_accepted(world, room, deal, *, simulated):
    from strongroom.model.claims import Claims

    claims = Claims(
        tee="tpm",
        simulated=simulated,
        root="",
        machine="",
        contract_digest=None,
        registers={},
        debug=False,
        memory_guard=True,
        facts={},
        not_checked=(),
    )
    return verdict.Accepted(
        contract_digest=deal.contract.digest,
        binding=room.binding(bytes(32)),
        claims=claims,
        checks=(),
        decided=contracts.NOW,
        expires=contracts.NOW + timedelta(hours=1),
    )


def sign_for(world, accepted, deal):
    return issue.issue(
        accepted,
        world.broker.authority.issuer(deal.contract, world.settings.address.authority),
        contract_id=deal.contract.id,
        terms=deal.contract.rooms[0].certificate,
        evidence_digest="sha256:" + "0" * 64,
        now=contracts.NOW,
        random=secrets.token_bytes,
    )


@pytest.mark.parametrize(
    ("spki", "why"),
    [
        (b"", "the room's TLS key: expected a SubjectPublicKeyInfo in DER"),
        (b"junk", "the room's TLS key: expected a SubjectPublicKeyInfo in DER"),
        ("x25519", "the room's TLS key: expected a key on P-256 or P-384, Ed25519, or RSA of 3072 bits"),
    ],
)
def test_keys_of_another_kind_get_no_certificate(world, spki, why):
    if spki == "x25519":
        spki = (
            x25519.X25519PrivateKey.generate()
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    deal = world.agreement()
    room = world.room(deal)
    room.keys = replace(room.keys, tls=spki)
    with pytest.raises(Malformed, match=why):
        sign_for(world, made_accepted(world, room, deal, simulated=True), deal)


def test_issue_takes_accepted_and_nothing_else():
    hints = typing.get_type_hints(issue.issue, globalns={**vars(issue), **names_of_types()})
    assert hints["accepted"] is verdict.Accepted


def names_of_types():
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.authority.roots import ContractIssuer
    from strongroom.model import identifiers
    from strongroom.model.contracts.certificate_terms import CertificateTerms

    given = {
        "Accepted": verdict.Accepted,
        "Callable": Callable,
        "CertificateTerms": CertificateTerms,
        "ContractIssuer": ContractIssuer,
        "datetime": datetime,
    }
    return {**vars(identifiers), **given}


def test_only_the_broker_s_release_calls_issue():
    from strongroom.broker import release

    tree = ast.parse(inspect.getsource(release))
    calls = [
        one for one in ast.walk(tree) if isinstance(one, ast.Call) and ast.unparse(one.func) == "issue.issue"
    ]
    assert [ast.unparse(one.args[0]) for one in calls] == ["accepted"]


def test_requests_are_read_strictly(world):
    room = world.room(world.agreement())
    good = room.csr(brokers.NAMES)
    assert certificates.read_request(good).names == brokers.NAMES
    version = good.index(b"\x02\x01\x00") + 2
    later = good[:version] + b"\x02" + good[version + 1 :]
    for bad, why in (
        (b"", "expected PKCS#10 in DER"),
        (b"junk", "expected PKCS#10 in DER"),
        (good[:-1], "expected PKCS#10 in DER"),
        (good + b"\0", "expected PKCS#10 in DER"),
        (later, "expected PKCS#10 in DER"),
    ):
        with pytest.raises(Malformed, match=why):
            certificates.read_request(bad)


def test_an_address_in_a_request_shows_as_a_name(world):
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    other = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))])
    der = (
        builder.add_extension(other, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert certificates.read_request(der).names == ("IPAddress:10.0.0.1",)


def test_an_authority_whose_key_is_another_is_refused():
    key, other = (key_signer.held(tls.generate()) for _ in range(2))
    der = issuers.make_root(key, name="a", now=contracts.NOW, random=secrets.token_bytes)
    certificates.Signer(key, der)
    with pytest.raises(Malformed, match="its certificate is not of its key"):
        certificates.Signer(other, der)
