"""Roots, and the issuers of contracts below them: constrained, the same everywhere, and believed by others' verifiers."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from strongroom.authority import issue
from strongroom.authority.roots import Authority, Root, RootState, constraints
from strongroom.crypto import digest, tls
from strongroom.crypto.pki import certificates, issuers, key_signer
from strongroom.crypto.pki.leaf import Leaf
from strongroom_testing import contracts
from tests import samples

SECRET = secrets.token_bytes(32)
KEY = key_signer.held(tls.generate())
DER = issuers.make_root(KEY, name="alice", now=contracts.NOW, random=secrets.token_bytes)
ROOT = Root(state=RootState.CURRENT, signer=certificates.Signer(KEY, DER))


def authority(*roots, secret=SECRET):
    return Authority(roots or (ROOT,), secret=secret)


def two_rooms(**changes):
    plain = samples.a_room()
    other = replace(
        plain, name="db", certificate=replace(plain.certificate, names=("db.flights.example",), trust_domain="rooms.example")
    )  # fmt: skip
    return samples.a_contract(rooms=(plain, other), **changes)


def leaf(issuer, *, names=("room.flights.example",), uri="spiffe://flights.strongroom/room/main/run/x"):
    key = tls.generate()
    described = Leaf(
        common_name="run-x",
        unit="",
        dns_names=names,
        uri=uri,
        spki=key.spki,
        evidence_digest="sha256:" + "00" * 32,
        not_before=issuer.not_after.replace(year=issuer.not_after.year - 1),
        not_after=issuer.not_after,
    )
    return issuer.signer.issue(described, serial=7)


def by_openssl(tmp_path, chain, *, purpose="sslserver"):
    """What a verifier that is not ours says of leaf, issuer and root."""
    for name, der in zip(("leaf", "issuer", "root"), chain, strict=True):
        (tmp_path / f"{name}.pem").write_bytes(tls.pem_certificate(der))
    verify = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-no_check_time",
        "-CAfile",
        "root.pem",
    ]
    return subprocess.run(
        [*verify, "-untrusted", "issuer.pem", "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_rule_40_an_issuer_is_constrained_to_its_contracts_names(tmp_path):
    issuer = authority().issuer(two_rooms(), ROOT.digest)
    certificate = x509.load_der_x509_certificate(issuer.certificate)
    extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    assert [name.value for name in extension.value.permitted_subtrees] == [
        "db.flights.example",
        "room.flights.example",
        "flights.strongroom",
        "rooms.example",
    ]
    assert [str(name.value) for name in extension.value.excluded_subtrees] == ["0.0.0.0/0", "::/0"]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    good = by_openssl(tmp_path, (leaf(issuer), issuer.certificate, issuer.root))
    assert good.returncode == 0, good.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ("bank.example",)},
        {"names": ("room.flights.example", "bank.example")},
        {"names": ("flights.example",)},
        {"uri": "spiffe://other.strongroom/room/main/run/x"},
        {"uri": "spiffe://flights.strongroom.example/room/main/run/x"},
    ],
)
def test_rule_40_whoever_had_an_issuers_key_could_certify_no_other_name(tmp_path, changes):
    issuer = authority().issuer(two_rooms(), ROOT.digest)
    verified = by_openssl(tmp_path, (leaf(issuer, **changes), issuer.certificate, issuer.root))
    assert verified.returncode != 0
    assert "permitted subtree violation" in verified.stderr


def test_an_issuer_lasts_as_long_as_its_contract():
    contract = two_rooms()
    certificate = x509.load_der_x509_certificate(authority().issuer(contract, ROOT.digest).certificate)
    assert certificate.not_valid_after_utc == contract.limits.not_after
    assert certificate.not_valid_before_utc <= contract.limits.not_before


def test_each_process_and_each_restored_copy_has_the_same_issuer():
    ours, theirs = (authority().issuer(two_rooms(), ROOT.digest) for _ in range(2))
    assert ours.certificate == theirs.certificate
    assert ours.signer.key.spki == theirs.signer.key.spki


def test_another_contract_another_root_and_another_secret_have_another_issuer():
    other = key_signer.held(tls.generate())
    der = issuers.make_root(other, name="alice", now=contracts.NOW, random=secrets.token_bytes)
    second = Root(state=RootState.PREVIOUS, signer=certificates.Signer(other, der))
    keys = {
        authority().issuer(two_rooms(), ROOT.digest).signer.key.spki,
        authority().issuer(samples.a_contract(), ROOT.digest).signer.key.spki,
        authority(second).issuer(two_rooms(), second.digest).signer.key.spki,
        authority(secret=bytes(32)).issuer(two_rooms(), ROOT.digest).signer.key.spki,
    }
    assert len(keys) == 4


def test_no_issuer_stands_below_a_root_that_is_not_the_owners():
    assert authority().issuer(two_rooms(), samples.DIGEST) is None
    assert authority().issuer_key(samples.DIGEST, samples.DIGEST) is None


def test_issuers_are_kept_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr("strongroom.authority.roots._MOST", 2)
    ours = authority()
    first = ours.issuer(two_rooms(), ROOT.digest)
    assert ours.issuer(two_rooms(), ROOT.digest) is first
    for version in (2, 3):
        ours.issuer(two_rooms(version=version, replaces=samples.DIGEST), ROOT.digest)
    again = ours.issuer(two_rooms(), ROOT.digest)
    assert again is not first
    assert again.certificate == first.certificate


def test_a_spiffe_id_is_in_the_trust_domain_that_the_contract_says():
    assert issue.spiffe_id("flights", "db", "run-1") == "spiffe://flights.strongroom/room/db/run/run-1"
    ours = issue.spiffe_id("flights", "db", "run-1", "rooms.example")
    assert ours == "spiffe://rooms.example/contract/flights/room/db/run/run-1"
    assert constraints(two_rooms()).domains == ("flights.strongroom", "rooms.example")


def test_a_key_is_of_its_secret_and_its_context_alone():
    first = key_signer.derived(SECRET, "label", b"a", b"b")
    assert first.spki == key_signer.derived(SECRET, "label", b"a", b"b").spki
    others = (
        key_signer.derived(SECRET, "label", b"ab"),
        key_signer.derived(SECRET, "other", b"a", b"b"),
        key_signer.derived(bytes(32), "label", b"a", b"b"),
    )
    assert first.spki not in {other.spki for other in others}
    assert first.sign(b"x") == first.sign(b"x")
    assert "EllipticCurve" not in repr(first)


def test_lists_are_numbered_and_read_by_our_own_reader():
    from datetime import timedelta

    from strongroom.crypto.pki import crl
    from strongroom.crypto.pki import x509 as own

    issuer = authority().issuer(two_rooms(), ROOT.digest)
    until = contracts.NOW + timedelta(hours=1)
    data = issuers.make_list(issuer.signer, [(7, contracts.NOW)], number=12, now=contracts.NOW, until=until)
    revocations = crl.parse(data)
    crl.check_issued(revocations, own.parse(issuer.certificate))
    assert revocations.number == 12
    assert (revocations.this_update, revocations.next_update) == (contracts.NOW, until)
    assert revocations.revokes(own.parse(leaf(issuer)))
    assert digest.sha256(issuer.root) == ROOT.digest
