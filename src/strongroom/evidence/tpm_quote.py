"""TPM 2.0 quotes: TPMS_ATTEST and TPMT_SIGNATURE, parsed strictly, and PCR arithmetic.

Specs: TCG TPM 2.0 Library, Part 2: Structures, 10.12 (attestation) and 11.3.4 (signatures).
Shared by every TEE whose evidence holds a TPM quote. Parsing believes nothing; `check_signature`
is the only judgement here. Only the SHA-256 bank is read.

TPMS_ATTEST  magic u32 = ff 54 43 47 (made inside a TPM)   type u16 = 8018 (quote)
             qualifiedSigner TPM2B_NAME    extraData TPM2B_DATA
             clock u64  resetCount u32  restartCount u32  safe u8    firmwareVersion u64
             TPML_PCR_SELECTION: count u32 = 1, hash u16 = 000b, size u8 = 3, bitmap
             pcrDigest TPM2B_DIGEST
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from strongroom.crypto.x509 import PublicKey

MAX_QUOTE = 1024
MAX_SIGNATURE = 2048
PCR_BYTES = 32
ZERO = bytes(PCR_BYTES)
H_CRTM_START = bytes(31) + b"\x04"  # PCR 0 when an H-CRTM event came before start-up (locality 4)

_MAGIC = 0xFF544347
_QUOTE = 0x8018
_SHA256 = 0x000B
_RSASSA = 0x0014
_ECDSA = 0x0018
_MAX_NAME = 68  # TPM2B_NAME: algorithm and the largest digest
_MAX_EXTRA = 64
_BITMAP = 3
_MAX_ECC = 32
_MAX_RSA = 1024


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A parsed TPMS_ATTEST of type quote.

    extra_data: what the caller had signed along. clock: milliseconds that the TPM has run.
    selection: PCR numbers in ascending order. pcr_digest: SHA-256 over their values.
    """

    raw: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int
    selection: tuple[int, ...]
    pcr_digest: bytes


@dataclass(frozen=True, kw_only=True)
class EcdsaSignature:
    """ECDSA with SHA-256: two integers, not yet range-checked."""

    r: int
    s: int


@dataclass(frozen=True, kw_only=True)
class RsaSignature:
    """RSASSA-PKCS1-v1_5 with SHA-256."""

    raw: bytes


def parse_quote(data: bytes) -> Quote:
    """Parse TPMS_ATTEST bytes. Raises `Malformed`."""
    if len(data) > MAX_QUOTE:
        raise Malformed(f"quote: {len(data)} bytes, at most {MAX_QUOTE} allowed", code="too-large")
    reader = Reader(data, "quote")
    if reader.u32() != _MAGIC:
        raise Malformed("quote: magic is not that of a structure made inside a TPM", code="bad-magic")
    if reader.u16() != _QUOTE:
        raise Malformed("quote: an attestation of another type", code="wrong-type")
    _sized(reader, "qualified signer", _MAX_NAME)
    extra_data = _sized(reader, "extra data", _MAX_EXTRA)
    clock, reset_count, restart_count, safe = reader.u64(), reader.u32(), reader.u32(), reader.u8()
    if safe > 1:
        raise Malformed("quote: the clock's safe flag is neither 0 nor 1", code="bad-value")
    firmware = reader.u64()
    if reader.u32() != 1 or reader.u16() != _SHA256 or reader.u8() != _BITMAP:
        raise Malformed("quote: expected one selection of the SHA-256 bank", code="bad-selection")
    bitmap = int.from_bytes(reader.take(_BITMAP), "little")
    pcr_digest = _sized(reader, "PCR digest", PCR_BYTES)
    reader.done()
    if len(pcr_digest) != PCR_BYTES:
        raise Malformed("quote: the PCR digest is not 32 bytes", code="bad-value")
    return Quote(
        raw=data,
        extra_data=extra_data,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware=firmware,
        selection=tuple(index for index in range(8 * _BITMAP) if bitmap >> index & 1),
        pcr_digest=pcr_digest,
    )


def parse_signature(data: bytes) -> EcdsaSignature | RsaSignature:
    """Parse TPMT_SIGNATURE bytes: ECDSA or RSASSA, SHA-256. Raises `Malformed`."""
    if len(data) > MAX_SIGNATURE:
        raise Malformed(f"signature: {len(data)} bytes, at most {MAX_SIGNATURE} allowed", code="too-large")
    reader = Reader(data, "signature")
    scheme, hash_algorithm = reader.u16(), reader.u16()
    if scheme not in (_ECDSA, _RSASSA) or hash_algorithm != _SHA256:
        raise Malformed("signature: neither ECDSA nor RSASSA with SHA-256", code="unknown-algorithm")
    signature: EcdsaSignature | RsaSignature
    if scheme == _ECDSA:
        signature = EcdsaSignature(
            r=int.from_bytes(_sized(reader, "r", _MAX_ECC), "big"),
            s=int.from_bytes(_sized(reader, "s", _MAX_ECC), "big"),
        )
    else:
        signature = RsaSignature(raw=_sized(reader, "RSA signature", _MAX_RSA))
    reader.done()
    return signature


def check_signature(signature: EcdsaSignature | RsaSignature, key: PublicKey, message: bytes) -> None:
    """Raise `Refused` unless `signature` over `message` is by `key`; r and s are range-checked."""
    if isinstance(signature, EcdsaSignature):
        key.verify_p256(r=signature.r, s=signature.s, message=message)
    else:
        key.verify_rsa(signature.raw, message)


def split_pcrs(data: bytes, selection: tuple[int, ...]) -> dict[int, bytes]:
    """Cut concatenated PCR values apart, in the order of `selection`. Raises `Malformed`."""
    if len(data) != PCR_BYTES * len(selection):
        raise Malformed(f"PCR values: {len(data)} bytes for {len(selection)} PCRs", code="bad-length")
    return {index: data[place * PCR_BYTES : (place + 1) * PCR_BYTES] for place, index in enumerate(selection)}


def extend(value: bytes, measurement: bytes) -> bytes:
    """The value of a PCR after `measurement` (32 bytes) is extended into it. Raises `Refused`."""
    if len(value) != PCR_BYTES or len(measurement) != PCR_BYTES:
        raise Refused("extending a PCR: expected 32 bytes each", code="bad-length")
    return hashlib.sha256(value + measurement).digest()


def _sized(reader: Reader, what: str, limit: int) -> bytes:
    size = reader.u16()
    if size > limit:
        raise Malformed(f"{what}: {size} bytes, at most {limit} allowed", code="too-large")
    return reader.take(size)
