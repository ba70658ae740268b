"""The signature section of an enclave image: PCR 0, signed by whoever publishes the image.

Spec: aws-nitro-enclaves-image-format, version 4; RFC 9052 (COSE_Sign1). CBOR as AWS's tool writes it, byte strings
spelt out as arrays of numbers. Nitro refuses to start an image whose signature is not over its PCR 0, and extends PCR 8
with the certificate; nobody asks whether the certificate is in date, or who issued it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto.pki import x509
from strongroom.encoding import cbor, cbor_writer, pem
from strongroom.errors import Malformed, Refused
from strongroom.evidence.formats import cose

if TYPE_CHECKING:
    from strongroom.crypto.image_signer import ImageSigner

MAX_SECTION = 32 * 1024
_MAX_ITEMS = 16 * 1024
_PCR_BYTES = 48
_PROTECTED = b"\xa1\x01\x38\x22"  # {1: ES384}
_WHAT = "EIF signature"


@dataclass(frozen=True, kw_only=True)
class EifSignature:
    """A parsed section, nothing of it verified. certificate: DER. pcr0: what the signature is over."""

    certificate: bytes
    signed: cose.Sign1
    pcr0: bytes


def make(pcr0: bytes, signer: ImageSigner) -> bytes:
    """The section's bytes."""
    payload = _record("register_index", 0, "register_value", tuple(pcr0))
    bare = cose.Sign1(protected=_PROTECTED, algorithm=cose.ES384, payload=payload, signature=b"")
    signature = signer.sign(bare.signed())
    message = cbor_writer.dumps((bare.protected, {}, payload, signature))
    certificate = pem.encode(signer.certificate, b"CERTIFICATE")
    record = _record("signing_certificate", tuple(certificate), "signature", tuple(message))
    return b"\x81" + record


def parse(data: bytes) -> EifSignature:
    """Parse a section with one signature, of PCR 0. Raises `Malformed`."""
    value = cbor.loads(data, _WHAT, max_bytes=MAX_SECTION, max_items=_MAX_ITEMS)
    if not isinstance(value, tuple) or len(value) != 1:
        raise Malformed(f"{_WHAT}: expected an array of one", code="bad-signatures")
    record = cbor.Map(value[0], _WHAT)
    certificate = _bytes(record, "signing_certificate")
    signed = cose.parse(_bytes(record, "signature"), _WHAT)
    record.done()
    payload = cbor.Map(cbor.loads(signed.payload, _WHAT), _WHAT)
    payload.integer("register_index", low=0, high=0)
    pcr0 = _bytes(payload, "register_value")
    payload.done()
    if len(pcr0) != _PCR_BYTES or signed.algorithm != cose.ES384:
        raise Malformed(f"{_WHAT}: expected an ES384 signature of a PCR of 48 bytes", code="bad-signatures")
    (der,) = pem.decode(certificate, b"CERTIFICATE", what=_WHAT, max_blocks=1, max_bytes=MAX_SECTION)
    return EifSignature(certificate=der, signed=signed, pcr0=pcr0)


def check(signature: EifSignature, pcr0: bytes) -> None:
    """Raise `Refused` unless `signature` is over `pcr0` by its certificate's key; `Malformed`: no certificate."""
    if signature.pcr0 != pcr0:
        raise Refused(
            "EIF signature: it is over another PCR 0 than the image's",
            code="bad-signature",
            hint="the image was changed after it was signed: build and sign it again",
        )
    cose.check(signature.signed, x509.parse(signature.certificate).key)


def _record(first: str, first_value: cbor.Value, second: str, second_value: cbor.Value) -> bytes:
    """A map of two in the order of the fields, not of their names: so AWS's tool writes them."""
    return b"\xa2" + b"".join(cbor_writer.dumps(item) for item in (first, first_value, second, second_value))


def _bytes(source: cbor.Map, key: str) -> bytes:
    items = source.items(key, low=1, high=_MAX_ITEMS)
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 255 for item in items):
        raise source.bad(key, "an array of bytes")
    return bytes(item for item in items if isinstance(item, int))
