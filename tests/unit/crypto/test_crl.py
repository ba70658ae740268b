"""Revocation lists: which kinds of signatures count, and what the X.509 library does not understand is a refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509 as library
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from strongroom.crypto.pki import crl, x509
from strongroom.errors import Malformed, Refused
from strongroom_testing.vendors import certificate_maker as maker

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SHA384 = hashes.SHA384()


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return maker.new_key()


@cache
def authority(key) -> x509.Certificate:
    request = maker.Request(subject="CA", key=key, ca=True, begins=NOW - DAY, ends=NOW + DAY)
    return x509.parse(maker.issue(request, "CA", ec_key()))


def listed(issuer: x509.Certificate, key, over=SHA384, **scheme) -> bytes:
    """A list in the name of `issuer` and of its key, signed by `key`."""
    named = library.AuthorityKeyIdentifier.from_issuer_public_key(issuer.library.public_key())
    return (
        library.CertificateRevocationListBuilder()
        .issuer_name(issuer.library.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_extension(library.CRLNumber(3), critical=False)
        .add_extension(named, critical=False)
        .sign(key, over, **scheme)
        .public_bytes(serialization.Encoding.DER)
    )


@pytest.mark.parametrize(
    "over", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name
)
def test_each_scheme_counts_with_sha_2(over):
    by_ec = authority(ec_key())
    by_rsa = authority(rsa_key())
    crl.check_issued(crl.parse(listed(by_ec, ec_key(), over)), by_ec)
    for scheme in (padding.PKCS1v15(), padding.PSS(padding.MGF1(over), over.digest_size)):
        crl.check_issued(crl.parse(listed(by_rsa, rsa_key(), over, rsa_padding=scheme)), by_rsa)


def test_no_other_hash_counts():
    by_ec = authority(ec_key())
    by_rsa = authority(rsa_key())
    good = listed(by_rsa, rsa_key(), hashes.SHA256())
    sha256 = bytes.fromhex("2a864886f70d01010b")  # sha256WithRSAEncryption; of MD5 and SHA-1: ...04 and ...05
    assert good.count(sha256) == 2
    for issuer, data in (
        (by_ec, listed(by_ec, ec_key(), hashes.SHA224())),
        (by_ec, listed(by_ec, ec_key(), hashes.SHA3_256())),
        (by_ec, listed(by_ec, ec_key(), hashes.SHA3_384())),
        (by_ec, listed(by_ec, ec_key(), hashes.SHA3_512())),
        (by_ec, listed(by_ec, ed25519.Ed25519PrivateKey.generate(), None)),
        (by_rsa, listed(by_rsa, rsa_key(), hashes.SHA224())),
        (by_rsa, good.replace(sha256, sha256[:-1] + b"\x04")),
        (by_rsa, good.replace(sha256, sha256[:-1] + b"\x05")),
    ):
        with pytest.raises(Refused, match="expected a signature with SHA-256, SHA-384 or SHA-512") as caught:
            crl.check_issued(crl.parse(data), issuer)
        assert caught.value.code == "bad-list"


def test_a_signature_that_the_library_cannot_verify_is_none():
    """Forged, of another kind of key, or with parameters of PSS that nobody knows: refused, and no traceback."""
    by_ec = authority(ec_key())
    by_rsa = authority(rsa_key())
    scheme = padding.PSS(padding.MGF1(SHA384), 48)
    pss = listed(by_rsa, rsa_key(), rsa_padding=scheme)
    mask, sha384 = bytes.fromhex("06092a864886f70d010108"), bytes.fromhex("0609608648016503040202")
    assert (pss.count(mask), pss.count(sha384)) == (2, 4)
    front, inner, outer = pss.split(mask)
    unknown = sha384[:-1] + b"\x7f"
    for issuer, data in (
        (by_ec, listed(by_ec, maker.new_key())),
        (by_ec, listed(by_ec, ec.generate_private_key(ec.SECP256R1()))),
        (by_ec, listed(by_ec, rsa_key())),
        (by_rsa, listed(by_rsa, ec_key())),
        (by_rsa, pss.replace(mask, mask[:-1] + b"\x09")),
        (by_rsa, mask.join((front, inner.replace(sha384, unknown, 1), outer.replace(sha384, unknown, 1)))),
        (by_rsa, pss.replace(bytes.fromhex("a203020130"), bytes.fromhex("a20302017f"))),
    ):
        assert data != pss
        with pytest.raises(Refused, match="signature does not verify") as caught:
            crl.check_issued(crl.parse(data), issuer)
        assert caught.value.code == "bad-list"


def test_what_the_library_refuses_to_read_is_malformed():
    """A version that there is not, an extension twice, and another algorithm inside than outside."""
    by_ec = authority(ec_key())
    good = listed(by_ec, ec_key())
    number, key = library.CRLNumber.oid, library.AuthorityKeyIdentifier.oid
    assert (number.dotted_string, key.dotted_string) == ("2.5.29.20", "2.5.29.35")
    for bad in (
        good.replace(b"\x02\x01\x01", b"\x02\x01\x02", 1),
        good.replace(b"\x06\x03\x55\x1d\x14", b"\x06\x03\x55\x1d\x23"),
        good.replace(bytes.fromhex("2a8648ce3d040303"), bytes.fromhex("2a8648ce3d040302"), 1),
    ):
        assert bad != good
        with pytest.raises(Malformed, match="revocation list: expected a CRL in DER, got other bytes"):
            crl.parse(bad)
