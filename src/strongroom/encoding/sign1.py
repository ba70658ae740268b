"""COSE_Sign1 (RFC 9052, section 4.2) with a header of several entries, as CWTs and signed CoRIMs have it.

This file knows the format: which algorithm and whose key is for the callers, who pin both. Evidence of TEEs is read by
`evidence/formats/cose.py`, which is narrower. The unprotected header must be empty: nothing in it is signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.encoding import cbor, cbor_writer, unexpected
from strongroom.errors import Malformed

TAG = 18
ALGORITHM, CRITICAL, CONTENT_TYPE, KEY_ID = 1, 2, 3, 4
EDDSA = -8
_MAX_PROTECTED = 4096
_MAX_SIGNATURE = 1024


@dataclass(frozen=True, kw_only=True)
class Message:
    """A parsed COSE_Sign1, nothing of it verified. header: the protected one, decoded from `protected`."""

    protected: bytes
    header: dict[int | str, cbor.Value]
    payload: bytes
    signature: bytes

    def signed(self) -> bytes:
        """The Sig_structure: what the signature is over. No external data."""
        return cbor_writer.dumps(("Signature1", self.protected, b"", self.payload))

    def encode(self) -> bytes:
        """The tagged message."""
        return cbor_writer.dumps(cbor.Tagged(TAG, (self.protected, {}, self.payload, self.signature)))


def make(header: dict[int | str, cbor.Value], payload: bytes) -> Message:
    """A message without its signature."""
    return Message(protected=cbor_writer.dumps(header), header=header, payload=payload, signature=b"")


def parse(data: bytes, what: str, *, max_bytes: int) -> Message:
    """Parse a tagged COSE_Sign1. A critical header entry is refused: none is understood. Raises `Malformed`."""
    value = cbor.loads(data, what, tags=frozenset({TAG}), max_bytes=max_bytes)
    if not isinstance(value, cbor.Tagged) or not isinstance(value.value, tuple) or len(value.value) != 4:
        raise Malformed(f"{what}: expected a COSE_Sign1, tag {TAG} over an array of four")
    protected, unprotected, payload, signature = value.value
    if not isinstance(protected, bytes) or not 0 < len(protected) <= _MAX_PROTECTED:
        raise Malformed(
            f"{what}: expected a protected header of 1 to {_MAX_PROTECTED} bytes, got {unexpected.kind(protected)}"
        )
    if unprotected != {}:
        raise Malformed(f"{what}: expected an empty unprotected header, got {unexpected.kind(unprotected)}")
    if not isinstance(payload, bytes) or not payload:
        raise Malformed(f"{what}: expected a payload of at least 1 byte, got {unexpected.kind(payload)}")
    if not isinstance(signature, bytes) or not 0 < len(signature) <= _MAX_SIGNATURE:
        raise Malformed(
            f"{what}: expected a signature of 1 to {_MAX_SIGNATURE} bytes, got {unexpected.kind(signature)}"
        )
    header = cbor.loads(protected, f"{what} header", max_bytes=_MAX_PROTECTED)
    if not isinstance(header, dict) or CRITICAL in header:
        raise Malformed(
            f"{what}: expected a header without critical entries (a map without key {CRITICAL}, crit)"
        )
    return Message(protected=protected, header=header, payload=payload, signature=signature)
