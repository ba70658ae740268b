"""Small enclave images for tests, and who signs them."""

from __future__ import annotations

import functools
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.bases.formats import eif
from strongroom.crypto import image_signer
from tests.samples import NOW

KERNEL = b"kernel" * 100
CMDLINE = b"reboot=k panic=30 pci=off console=ttyS0"
RAMDISKS = (b"bootstrap" * 50, b"application" * 70, b"more" * 9)
METADATA = eif.metadata(name="room", version="1", kernel="6.12.1-cloud-amd64", tool_version="0.1.0")


def pems(curve: ec.EllipticCurve | None = None) -> tuple[bytes, bytes]:
    """A private key and its certificate, PEM."""
    key = ec.generate_private_key(curve or ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=30))
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded, made.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)


@functools.cache
def signer() -> image_signer.ImageSigner:
    return image_signer.load(*pems())


def small(**changed: object) -> bytes:
    parts = {"kernel": KERNEL, "cmdline": CMDLINE, "ramdisks": RAMDISKS, "metadata": METADATA}
    return eif.build(**{**parts, **changed})
