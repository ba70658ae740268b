"""Hand-written DER against the X.509 library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from strongroom.crypto import digest, spki
from strongroom.crypto.pki import certificates, csr
from strongroom.errors import Malformed

NAMES = ("room.example", "a" * 63 + ".example")


def test_request_is_what_the_library_reads():
    key = csr.generate()
    request = x509.load_der_x509_csr(key.request(NAMES))
    assert request.is_signature_valid
    found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(found.get_values_for_type(x509.DNSName)) == NAMES
    assert list(request.subject) == []
    der = request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert der == key.public


def test_request_is_what_brokers_read():
    key = csr.generate()
    assert certificates.read_request(key.request(NAMES)) is not None


def test_private_key_and_certificates_as_pem():
    key = csr.generate()
    loaded = serialization.load_pem_private_key(key.pem(), None)
    assert loaded.private_numbers() == key.key.private_numbers()
    made = _certificate(ec.generate_private_key(ec.SECP256R1()))
    pem = csr.pem_certificate(made.public_bytes(serialization.Encoding.DER))
    assert x509.load_pem_x509_certificate(pem) == made


def test_repr_shows_no_key():
    assert "PrivateKey" not in repr(csr.generate())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "ed25519", "rsa"],
)
def test_spki_of_certificates_of_all_kinds(key):
    made = _certificate(key)
    wanted = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = made.public_bytes(serialization.Encoding.DER)
    assert spki.of_certificate(der) == wanted
    assert spki.digest_of_certificate(der) == digest.sha256(wanted)
    for cut in (0, 1, 10, len(der) // 2, len(der) - 1):
        with pytest.raises(Malformed, match="bytes wanted at offset"):
            spki.of_certificate(der[:cut])
    with pytest.raises(Malformed, match="1 trailing bytes"):
        spki.of_certificate(der + b"\x00")


def test_der_refuses_loose_lengths():
    for bad, why in (
        (b"\x30\x80", "expected a length of 1 to 4 bytes, got"),
        (b"\x30\x81\x05" + b"x" * 5, "DER: length .* is not in its shortest form"),
        (b"\x30\x82\x00\xff" + b"x" * 255, "DER: length .* is not in its shortest form"),
        (b"\x1f\x81\x01\x00", "DER: tag 0x1f, of more than one byte"),
    ):
        with pytest.raises(Malformed, match=why):
            spki.of_certificate(bad)


def _certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm)
