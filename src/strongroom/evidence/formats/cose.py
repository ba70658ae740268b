"""COSE_Sign1 (RFC 9052, section 4.2): one signature over one payload, strictly.

Tag 18 may stand before it. The protected header is the algorithm and nothing else, the unprotected header
is empty, the payload is there. ECDSA alone (RFC 9053, section 2.1): ES256 by P-256 keys, ES384 by P-384
keys; the signature is r ‖ s. Algorithm and key have to fit: neither chooses the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import cbor, unexpected
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from strongroom.crypto.public_key import PublicKey

ES256 = -7
ES384 = -35
TAG_SIGN1 = 18
_PROTECTED = {b"\xa1\x01\x26": ES256, b"\xa1\x01\x38\x22": ES384}  # {1: algorithm}, in its one encoding
_CURVES = {ES256: "secp256r1", ES384: "secp384r1"}
_SIZES = {ES256: 64, ES384: 96}
_CONTEXT = b"\x84\x6aSignature1"


@dataclass(frozen=True, kw_only=True)
class Sign1:
    """A parsed COSE_Sign1, nothing of it verified."""

    protected: bytes
    algorithm: int
    payload: bytes
    signature: bytes

    def signed(self) -> bytes:
        """The Sig_structure: what the signature is over. No external data."""
        return b"".join(
            (
                _CONTEXT,
                _head(len(self.protected)),
                self.protected,
                b"\x40",
                _head(len(self.payload)),
                self.payload,
            )
        )


def parse(data: bytes, what: str, *, max_bytes: int = cbor.MAX_BYTES) -> Sign1:
    """Parse a COSE_Sign1 of its own, tagged or not. Raises `Malformed`."""
    return read(cbor.loads(data, what, tags=frozenset({TAG_SIGN1}), max_bytes=max_bytes), what)


def read(value: cbor.Value, what: str) -> Sign1:
    """Read a decoded COSE_Sign1, tagged or not. Raises `Malformed`."""
    if isinstance(value, cbor.Tagged) and value.tag == TAG_SIGN1:
        value = value.value
    if not isinstance(value, tuple) or len(value) != 4:
        raise Malformed(f"{what}: expected a COSE_Sign1, an array of four, got {unexpected.kind(value)}")
    protected, unprotected, payload, signature = value
    if not isinstance(protected, bytes) or protected not in _PROTECTED:
        raise Malformed(
            f"{what}: expected a protected header with the algorithm ES256 or ES384 and no more, got {unexpected.kind(protected)}"
        )
    if unprotected != {}:
        raise Malformed(f"{what}: expected an empty unprotected header, got {unexpected.kind(unprotected)}")
    algorithm = _PROTECTED[protected]
    if not isinstance(payload, bytes) or not payload:
        raise Malformed(f"{what}: expected a payload of at least 1 byte, got {unexpected.kind(payload)}")
    if not isinstance(signature, bytes) or len(signature) != _SIZES[algorithm]:
        raise Malformed(
            f"{what}: expected a signature of {_SIZES[algorithm]} bytes, got {unexpected.kind(signature)}"
        )
    return Sign1(protected=protected, algorithm=algorithm, payload=payload, signature=signature)


def check(signature: Sign1, key: PublicKey) -> None:
    """Raise `Refused` unless the signature is by `key`."""
    if key.kind != _CURVES[signature.algorithm]:
        raise Refused(
            f"algorithm {signature.algorithm} with a key of {key.kind}, expected {_CURVES[signature.algorithm]}",
            code="wrong-key",
        )
    key.verify_ecdsa(signature.signature, signature.signed())


def _head(size: int) -> bytes:
    """The head of a byte string of `size` bytes."""
    if size < 24:
        return bytes((0x40 | size,))
    if size < 1 << 8:
        return bytes((0x58, size))
    return b"\x59" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x5a" + size.to_bytes(4, "big")
