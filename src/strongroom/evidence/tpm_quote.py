"""TPM 2.0 quotes: TPMS_ATTEST and TPMT_SIGNATURE, parsed strictly, and PCR arithmetic.

Specs: TCG TPM 2.0 Library, Part 1: Architecture, 32.3 (what a quote digests); Part 2: Structures, 10.12
(attestation) and 11.3 (signatures). Shared by every TEE whose evidence holds a TPM quote. Parsing believes
nothing; `check_signature`, `check_binding` and `check_pcrs` are the only judgements here. One bank a quote,
SHA-256 or SHA-384.

TPMS_ATTEST  magic u32 = ff 54 43 47 (made inside a TPM)   type u16 = 8018 (quote)
             qualifiedSigner TPM2B_NAME    extraData TPM2B_DATA
             clock u64  resetCount u32  restartCount u32  safe u8    firmwareVersion u64
             TPML_PCR_SELECTION: count u32, each hash u16, size u8 = 3, bitmap; one of them selects anything
             pcrDigest TPM2B_DIGEST, by the hash of the signature's scheme
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding.reader import Reader
from strongroom.errors import EvidenceRefused, Malformed, Refused

if TYPE_CHECKING:
    from strongroom.crypto.x509 import PublicKey
    from strongroom.model.binding import Bound

MAX_QUOTE = 1024
MAX_SIGNATURE = 2048
MAX_PCRS = 24 * 48
PCR_BYTES = 32
ZERO = bytes(PCR_BYTES)
H_CRTM_START = bytes(31) + b"\x04"  # PCR 0 when an H-CRTM event came before start-up (locality 4)
BANKS = {"sha256": 32, "sha384": 48}
"""The PCR banks that are read, and the bytes of a value. SHA-1 counts for nothing."""

_MAGIC = 0xFF544347
_QUOTE = 0x8018
_HASHES = {0x000B: "sha256", 0x000C: "sha384"}
_RSASSA = 0x0014
_RSAPSS = 0x0016
_ECDSA = 0x0018
_MAX_NAME = 68  # TPM2B_NAME: algorithm and the largest digest
_MAX_EXTRA = 64
_MAX_BANKS = 16
_BITMAP = 3
_DIGESTS = frozenset(BANKS.values())
_HEAD = struct.Struct(">IHH")
_SIZE = struct.Struct(">H")
_CLOCK = struct.Struct(">QIIBQI")
_BANK = struct.Struct(">HB3s")
_MAX_ECC = 48
_MAX_RSA = 1024
_SPEC = "TCG TPM 2.0 Library, Part 1, 32.3"


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A parsed TPMS_ATTEST of type quote.

    extra_data: what the caller had signed along. clock: milliseconds that the TPM has run. bank: `sha256` or
    `sha384`. selection: PCR numbers in ascending order. pcr_digest: over their values, 32 or 48 bytes.
    """

    raw: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int
    bank: str
    selection: tuple[int, ...]
    pcr_digest: bytes


@dataclass(frozen=True, kw_only=True)
class EcdsaSignature:
    """ECDSA over `hash`: two integers, not yet range-checked."""

    r: int
    s: int
    hash: str = "sha256"


@dataclass(frozen=True, kw_only=True)
class RsaSignature:
    """RSASSA-PKCS1-v1_5, or RSASSA-PSS where `pss`, over `hash`."""

    raw: bytes
    hash: str = "sha256"
    pss: bool = False


def parse_quote(data: bytes) -> Quote:
    """Parse TPMS_ATTEST bytes. Raises `Malformed`."""
    if len(data) > MAX_QUOTE:
        raise Malformed(f"quote: {len(data)} bytes, at most {MAX_QUOTE} allowed", code="too-large")
    try:
        magic, kind, size = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Malformed("quote: magic is not that of a structure made inside a TPM", code="bad-magic")
        if kind != _QUOTE:
            raise Malformed("quote: an attestation of another type", code="wrong-type")
        offset = _HEAD.size + _at_most(size, "qualified signer", _MAX_NAME)
        (size,) = _SIZE.unpack_from(data, offset)
        start, offset = offset + 2, offset + 2 + _at_most(size, "extra data", _MAX_EXTRA)
        clock, reset_count, restart_count, safe, firmware, count = _CLOCK.unpack_from(data, offset)
        extra_data = data[start:offset]
        if safe > 1:
            raise Malformed("quote: the clock's safe flag is neither 0 nor 1", code="bad-value")
        bank, selection, offset = _selection(data, offset + _CLOCK.size, count)
        (size,) = _SIZE.unpack_from(data, offset)
    except struct.error:
        raise Malformed("quote: cut short", code="truncated") from None
    pcr_digest = data[offset + 2 :]
    if len(pcr_digest) != size:
        raise Malformed("quote: it does not end with its PCR digest", code="trailing-bytes")
    if size not in _DIGESTS:
        raise Malformed("quote: the PCR digest is not 32 or 48 bytes", code="bad-value")
    return Quote(
        raw=data,
        extra_data=extra_data,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware=firmware,
        bank=bank,
        selection=selection,
        pcr_digest=pcr_digest,
    )


def parse_signature(data: bytes) -> EcdsaSignature | RsaSignature:
    """Parse TPMT_SIGNATURE bytes: ECDSA, RSASSA or RSAPSS, SHA-256 or SHA-384. Raises `Malformed`."""
    if len(data) > MAX_SIGNATURE:
        raise Malformed(f"signature: {len(data)} bytes, at most {MAX_SIGNATURE} allowed", code="too-large")
    reader = Reader(data, "signature")
    scheme, hash_name = reader.u16(), _HASHES.get(reader.u16())
    if scheme not in (_ECDSA, _RSASSA, _RSAPSS) or hash_name is None:
        raise Malformed("signature: not ECDSA or RSA with SHA-256 or SHA-384", code="unknown-algorithm")
    signature: EcdsaSignature | RsaSignature
    if scheme == _ECDSA:
        signature = EcdsaSignature(
            r=int.from_bytes(_sized(reader, "r", _MAX_ECC), "big"),
            s=int.from_bytes(_sized(reader, "s", _MAX_ECC), "big"),
            hash=hash_name,
        )
    else:
        raw = _sized(reader, "RSA signature", _MAX_RSA)
        signature = RsaSignature(raw=raw, hash=hash_name, pss=scheme == _RSAPSS)
    reader.done()
    return signature


def check_signature(signature: EcdsaSignature | RsaSignature, key: PublicKey, message: bytes) -> None:
    """Raise `Refused` unless `signature` over `message` is by `key`; r and s are range-checked."""
    if isinstance(signature, EcdsaSignature):
        key.verify_rs(r=signature.r, s=signature.s, message=message, hash=signature.hash)
    else:
        key.verify_rsa(signature.raw, message, hash=signature.hash, pss=signature.pss)


def check_binding(quote: Quote, binding: Bound) -> None:
    """Raise `EvidenceRefused` (`binding`) unless the quote's extra data are exactly those that `binding` states."""
    expected = binding.value("extra_data")
    if quote.extra_data != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex() or "nothing",
            got=quote.extra_data.hex() or "nothing",
            hint="the quote is for another nonce, contract, key or audience: evidence cannot be used again",
            source="model/binding.py",
        )


def check_pcrs(quote: Quote, signature: EcdsaSignature | RsaSignature, values: bytes) -> dict[int, bytes]:
    """The quoted PCRs by number, cut from `values` (ascending). Raises `Malformed`, or `EvidenceRefused` (`pcr-values`).

    The digest is by the hash of the scheme that signed, which is not always the hash of the bank.
    """
    pcrs = split_pcrs(values, quote.selection, BANKS[quote.bank])
    got = hashlib.new(signature.hash, values).digest()
    if got != quote.pcr_digest:
        raise EvidenceRefused("pcr-values", expected=quote.pcr_digest.hex(), got=got.hex(), source=_SPEC)
    return pcrs


def split_pcrs(data: bytes, selection: tuple[int, ...], size: int = PCR_BYTES) -> dict[int, bytes]:
    """Cut concatenated PCR values apart, in the order of `selection`. Raises `Malformed`."""
    if len(data) != size * len(selection):
        raise Malformed(f"PCR values: {len(data)} bytes for {len(selection)} PCRs", code="bad-length")
    return {index: data[place * size : (place + 1) * size] for place, index in enumerate(selection)}


def extend(value: bytes, measurement: bytes) -> bytes:
    """The value of a SHA-256 PCR after `measurement` (32 bytes) is extended into it. Raises `Refused`."""
    if len(value) != PCR_BYTES or len(measurement) != PCR_BYTES:
        raise Refused("extending a PCR: expected 32 bytes each", code="bad-length")
    return hashlib.sha256(value + measurement).digest()


def _selection(data: bytes, offset: int, count: int) -> tuple[str, tuple[int, ...], int]:
    """The one bank of which PCRs are selected, which, and where the list ends. Banks of which none is are passed over."""
    if not 0 < count <= _MAX_BANKS:
        raise Malformed(f"quote: {count} PCR selections", code="bad-selection")
    chosen: list[tuple[str | None, bytes]] = []
    for _ in range(count):
        algorithm, size, bitmap = _BANK.unpack_from(data, offset)
        if size != _BITMAP:
            raise Malformed("quote: a selection is not of 24 PCRs", code="bad-selection")
        if any(bitmap):
            chosen.append((_HASHES.get(algorithm), bitmap))
        offset += _BANK.size
    bank, bitmap = chosen[0] if len(chosen) == 1 else (None, b"")
    if bank is None:
        raise Malformed("quote: expected PCRs of one bank, SHA-256 or SHA-384", code="bad-selection")
    return bank, _selected(bitmap), offset


@functools.lru_cache(maxsize=256)
def _selected(bitmap: bytes) -> tuple[int, ...]:
    bits = int.from_bytes(bitmap, "little")
    return tuple(index for index in range(8 * _BITMAP) if bits >> index & 1)


def _at_most(size: int, what: str, limit: int) -> int:
    if size > limit:
        raise Malformed(f"quote: {what}: {size} bytes, at most {limit} allowed", code="too-large")
    return size


def _sized(reader: Reader, what: str, limit: int) -> bytes:
    size = reader.u16()
    if size > limit:
        raise Malformed(f"{what}: {size} bytes, at most {limit} allowed", code="too-large")
    return reader.take(size)
