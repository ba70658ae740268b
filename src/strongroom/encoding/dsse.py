"""Dead Simple Signing Envelope (DSSE 1.0): the only signed wrapper in this project.

https://github.com/secure-systems-lab/dsse/blob/master/envelope.md
Signatures are over PAE(type, payload), never over a re-serialised payload.
This file knows the format; who must have signed is for the callers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

MAX_SIGNATURES = 32  # as many as a contract may have parties (model/contracts/contract.py)


@dataclass(frozen=True, kw_only=True)
class DsseSignature:
    """One signature. `keyid` is a hint at the key that verifies it: nobody signed the hint, and it proves nothing."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Payload bytes, their media type and the signatures over both."""

    payload_type: str
    payload: bytes
    signatures: tuple[DsseSignature, ...]

    @cached_property
    def verified(self) -> dict[bytes, DsseSignature | None]:
        """The signature by a key (raw), or None, for the keys that were asked about (`model/signatures.py`)."""
        return {}

    def pae(self) -> bytes:
        """The bytes that are signed (DSSE: Pre-Authentication Encoding)."""
        return pae(self.payload_type, self.payload)

    def encode(self) -> bytes:
        """The envelope as canonical JSON."""
        return canonical.dumps(
            {
                "payloadType": self.payload_type,
                "payload": fields.format_data(self.payload),
                "signatures": [
                    {"keyid": signature.keyid, "sig": fields.format_data(signature.sig)}
                    for signature in self.signatures
                ],
            }
        )


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return `DSSEv1 len(type) type len(payload) payload`, lengths in decimal bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(data: bytes, *, payload_type: str, max_payload: int) -> Envelope:
    """Parse an envelope that must hold `payload_type`. Raises `Malformed`."""
    limit = max_payload * 2 + MAX_SIGNATURES * 1024 + 1024
    top = fields.Fields(canonical.loads(data, what="envelope", max_bytes=limit), "envelope")
    kind = top.text("payloadType", max_length=200)
    if kind != payload_type:
        raise Malformed(
            f"envelope.payloadType: expected {payload_type}, got {kind[:80]!r}", code="wrong-type"
        )
    payload = top.data("payload", max_bytes=max_payload)
    signatures = []
    for item in top.objects("signatures", max_items=MAX_SIGNATURES):
        signatures.append(
            DsseSignature(keyid=item.text("keyid", max_length=200), sig=item.data("sig", max_bytes=8192))
        )
        item.done()
    top.done()
    return Envelope(payload_type=kind, payload=payload, signatures=tuple(signatures))
