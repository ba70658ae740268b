"""What a room's certificate signs, against a well-known builder: not one byte differs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import tls
from strongroom.crypto.pki import certificates, issuers, key_signer
from strongroom.crypto.pki.leaf import EVIDENCE_OID, Leaf
from strongroom.errors import Malformed
from tests.effort import examples

NOW = datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)
CA = tls.generate()
AUTHORITY = issuers.make_root(
    key_signer.held(CA), name="alice's authority", now=NOW, random=lambda n: bytes([1] * n)
)
SIGNER = certificates.Signer(key_signer.held(CA), AUTHORITY)
KEYS = [
    *(ec.generate_private_key(curve).public_key() for curve in (ec.SECP256R1(), ec.SECP384R1())),
    ed25519.Ed25519PrivateKey.generate().public_key(),
    rsa.generate_private_key(public_exponent=65_537, key_size=3072).public_key(),
]


def spki(key, point=serialization.PublicFormat.SubjectPublicKeyInfo) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, point)


def made(**changes) -> Leaf:
    standard = {
        "common_name": "run-" + "0" * 32,
        "unit": "",
        "dns_names": ("room.example",),
        "uri": "spiffe://flights.strongroom/run/run-" + "0" * 32,
        "spki": spki(KEYS[0]),
        "evidence_digest": "sha256:" + hashlib.sha256(b"evidence").hexdigest(),
        "not_before": NOW,
        "not_after": NOW + timedelta(hours=1),
    }
    return Leaf(**{**standard, **changes})


def by_the_library(leaf: Leaf, serial: int) -> bytes:
    """The TBSCertificate that the library's builder makes."""
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.unit:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, leaf.unit))
    authority = x509.load_der_x509_certificate(AUTHORITY)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    names = [*(x509.DNSName(name) for name in leaf.dns_names), x509.UniformResourceIdentifier(leaf.uri)]
    usage = [False] * 9
    usage[0] = True
    evidence = b"\x04\x20" + bytes.fromhex(leaf.evidence_digest.removeprefix("sha256:"))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(parts))
        .issuer_name(authority.subject)
        .public_key(serialization.load_der_public_key(leaf.spki))
        .serial_number(serial)
        .not_valid_before(leaf.not_before)
        .not_valid_after(leaf.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server
                + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
            ),
            critical=False,
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(EVIDENCE_OID), evidence), critical=False
        )
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .tbs_certificate_bytes
    )


text = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=64).filter(
    lambda one: len(one.encode()) <= 64
)


@examples(60)
@given(
    common_name=text,
    unit=st.one_of(st.just(""), text),
    purposes=st.sampled_from([(True, True), (True, False), (False, True)]),
    dns_names=st.lists(st.from_regex(r"[a-z0-9-]{1,30}(\.[a-z]{2,9}){0,3}", fullmatch=True), max_size=40).map(
        tuple
    ),
    not_before=st.integers(0, 4_000_000_000).map(lambda one: datetime.fromtimestamp(one, UTC)),
    seconds=st.integers(1, 10**9),
    key=st.sampled_from(KEYS),
    serial=st.binary(min_size=20, max_size=20).filter(any),
)
def test_a_leaf_is_signed_over_the_very_bytes_that_a_library_would_sign(
    common_name, unit, purposes, dns_names, not_before, seconds, key, serial
):
    leaf = made(
        common_name=common_name,
        unit=unit,
        server=purposes[0],
        client=purposes[1],
        dns_names=dns_names,
        not_before=not_before,
        not_after=not_before + timedelta(seconds=seconds),
        spki=spki(key),
    )
    issued = x509.load_der_x509_certificate(
        SIGNER.issue(leaf, serial=tls.serial(lambda count: serial[:count]))
    )
    issued.verify_directly_issued_by(x509.load_der_x509_certificate(AUTHORITY))
    assert issued.tbs_certificate_bytes == by_the_library(leaf, issued.serial_number)


def test_a_key_is_written_anew_however_its_point_was_spelt():
    key = KEYS[0]
    compressed = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    plain = spki(key)
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    head = plain.removesuffix(b"\x03\x42\x00" + point)[2:]
    body = head + b"\x03" + bytes([len(compressed) + 1]) + b"\x00" + compressed
    short = b"\x30" + bytes([len(body)]) + body
    assert serialization.load_der_public_key(short) == key
    issued = x509.load_der_x509_certificate(SIGNER.issue(made(spki=short), serial=5))
    assert spki(issued.public_key()) in issued.tbs_certificate_bytes


@pytest.mark.parametrize("curve", [0, 1])
def test_a_key_whose_point_is_not_on_its_curve_gets_no_certificate(curve):
    bent = bytearray(spki(KEYS[curve]))
    bent[-1] ^= 1
    with pytest.raises(Malformed, match="the room's TLS key: expected a SubjectPublicKeyInfo in DER"):
        SIGNER.issue(made(spki=bytes(bent)), serial=5)


@pytest.mark.parametrize("changes", [{"dns_names": ("bücher.example",)}, {"uri": "spiffe://bücher/run"}])
def test_names_that_no_certificate_holds_are_refused(changes):
    with pytest.raises(Malformed, match="not ASCII"):
        SIGNER.issue(made(**changes), serial=5)
