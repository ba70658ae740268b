"""TPM 2.0 quotes: TPMS_ATTEST and TPMT_SIGNATURE, parsed strictly, and PCR arithmetic.

Specs: TCG TPM 2.0 Library, Part 1: Architecture, 32.3 (what a quote digests); Part 2: Structures, 10.12
(attestation) and 11.3 (signatures). Shared by every TEE whose evidence holds a TPM quote. Parsing believes
nothing; `check_signature`, `check_binding` and `check_pcrs` are the only judgements here. One bank a quote,
SHA-256 or SHA-384. What comes again from quote to quote (the selection with its digest, the values of the
PCRs) is read once and kept by its exact bytes.

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
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from strongroom.errors import EvidenceRefused, Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.crypto.public_key import PublicKey
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
_CLOCK = struct.Struct(">QIIBQ")
_COUNT = struct.Struct(">I")
_BANK = struct.Struct(">HB3s")
_SCHEME = struct.Struct(">HHH")
_MAX_ECC = 48
_SCHEMES = {
    _ECDSA: _MAX_ECC,
    _RSASSA: 1024,
    _RSAPSS: 1024,
}  # and the most bytes that a part of a signature has
_SPEC_ATTEST = "TCG TPM 2.0 Library, Part 2"
_SPEC = "TCG TPM 2.0 Library, Part 1, 32.3"


class QuotedPcrs(NamedTuple):
    """The end of a quote: the bank, the PCR numbers in ascending order, the digest (32 or 48 bytes) over their values."""

    bank: str
    selection: tuple[int, ...]
    digest: bytes


class TpmQuote(NamedTuple):
    """A parsed TPMS_ATTEST of type quote. (Named tuples, here and below: one is made of every quote that is judged.)

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


class EcdsaSignature(NamedTuple):
    """ECDSA over `hash`: two integers, not yet range-checked."""

    r: int
    s: int
    hash: str = "sha256"


class RsaSignature(NamedTuple):
    """RSASSA-PKCS1-v1_5, or RSASSA-PSS where `pss`, over `hash`."""

    raw: bytes
    hash: str = "sha256"
    pss: bool = False


def parse_quote(data: bytes) -> TpmQuote:
    """Parse TPMS_ATTEST bytes. Raises `Malformed`."""
    if len(data) > MAX_QUOTE:
        raise Malformed(f"quote: {len(data)} bytes, at most {MAX_QUOTE} allowed", code="too-large")
    try:
        magic, kind, name = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Malformed(
                f"quote: magic {magic:#010x}, expected {_MAGIC:#x}, of a structure made inside a TPM",
                code="bad-magic",
            )
        if kind != _QUOTE:
            raise Malformed(
                f"quote: an attestation of type {kind:#06x}, expected {_QUOTE:#x} (quote)", code="wrong-type"
            )
        (extra,) = _SIZE.unpack_from(data, _HEAD.size + name)
        if name > _MAX_NAME or extra > _MAX_EXTRA:
            raise Malformed(
                f"quote: a signer of {name} bytes and extra data of {extra}, at most {_MAX_NAME} and {_MAX_EXTRA} allowed",
                code="too-large",
            )
        start = _HEAD.size + name + _SIZE.size
        offset = start + extra
        clock, reset_count, restart_count, safe, firmware = _CLOCK.unpack_from(data, offset)
        if safe > 1:
            raise Malformed(f"quote: the clock's safe flag: expected 0 or 1, got {safe}", code="bad-value")
        bank, selection, pcr_digest = _quoted(data[offset + _CLOCK.size :])
    except struct.error:
        raise Malformed("quote: cut short", code="truncated") from None
    return TpmQuote(
        data,
        data[start:offset],
        clock,
        reset_count,
        restart_count,
        safe == 1,
        firmware,
        bank,
        selection,
        pcr_digest,
    )


@functools.lru_cache(maxsize=256)
def _quoted(tail: bytes) -> QuotedPcrs:
    """What follows the clock: the one bank of which PCRs are selected, which, and their digest, to the last byte.

    Banks of which no PCR is selected are passed over.
    """
    (count,) = _COUNT.unpack_from(tail)
    if not 0 < count <= _MAX_BANKS:
        raise Malformed(f"quote: {count} PCR selections, expected 1 to {_MAX_BANKS}", code="bad-selection")
    offset = _COUNT.size
    chosen: list[tuple[str | None, bytes]] = []
    for _ in range(count):
        algorithm, size, bitmap = _BANK.unpack_from(tail, offset)
        if size != _BITMAP:
            raise Malformed(
                f"quote: a PCR selection of {size} bytes, expected {_BITMAP}, for 24 PCRs",
                code="bad-selection",
            )
        if any(bitmap):
            chosen.append((_HASHES.get(algorithm), bitmap))
        offset += _BANK.size
    bank, bitmap = chosen[0] if len(chosen) == 1 else (None, b"")
    if bank is None:
        raise Malformed(
            f"quote: expected PCRs of one bank, SHA-256 or SHA-384, got {len(chosen)} banks or another one",
            code="bad-selection",
        )
    (size,) = _SIZE.unpack_from(tail, offset)
    digest = tail[offset + _SIZE.size :]
    if len(digest) != size:
        raise Malformed(
            f"quote: a PCR digest of {size} bytes announced, {len(digest)} there", code="trailing-bytes"
        )
    if size not in _DIGESTS:
        raise Malformed(f"quote: a PCR digest of {size} bytes, expected 32 or 48", code="bad-value")
    bits = int.from_bytes(bitmap, "little")
    selection = tuple(index for index in range(8 * _BITMAP) if bits >> index & 1)
    return QuotedPcrs(bank, selection, digest)


def parse_signature(data: bytes) -> EcdsaSignature | RsaSignature:
    """Parse TPMT_SIGNATURE bytes: ECDSA, RSASSA or RSAPSS, SHA-256 or SHA-384. Raises `Malformed`."""
    if len(data) > MAX_SIGNATURE:
        raise Malformed(f"signature: {len(data)} bytes, at most {MAX_SIGNATURE} allowed", code="too-large")
    try:
        scheme, algorithm, size = _SCHEME.unpack_from(data)
        hash_name = _HASHES.get(algorithm)
        if scheme not in _SCHEMES or hash_name is None:
            raise Malformed(
                f"signature: expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384, got scheme {scheme:#06x}, hash {algorithm:#06x}",
                code="unknown-algorithm",
            )
        first, end = _sized(data, _SCHEME.size, size, _SCHEMES[scheme])
        if scheme != _ECDSA:
            signature: EcdsaSignature | RsaSignature = RsaSignature(first, hash_name, scheme == _RSAPSS)
        else:
            (size,) = _SIZE.unpack_from(data, end)
            second, end = _sized(data, end + _SIZE.size, size, _MAX_ECC)
            r, s = int.from_bytes(first, "big"), int.from_bytes(second, "big")
            signature = EcdsaSignature(r, s, hash_name)
    except struct.error:
        raise Malformed("signature: cut short", code="truncated") from None
    if end != len(data):
        raise Malformed(f"signature: {len(data) - end} trailing bytes", code="trailing-bytes")
    return signature


def check_signature(
    signature: EcdsaSignature | RsaSignature,
    key: PublicKey,
    message: bytes,
    *,
    by: str = "the certified attestation key",
    hint: str = "",
) -> None:
    """Raise `EvidenceRefused` (`signature`) unless `signature` over `message`, a quote, is by `key`; r and s are range-checked."""
    try:
        if isinstance(signature, EcdsaSignature):
            key.verify_rs(r=signature.r, s=signature.s, message=message, hash=signature.hash)
        else:
            key.verify_rsa(signature.raw, message, hash=signature.hash, pss=signature.pss)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected=f"a signature over the quote by {by}",
            got=cause.message,
            hint=hint,
            source=_SPEC_ATTEST,
        ) from None


def check_binding(quote: TpmQuote, binding: Bound) -> None:
    """Raise `EvidenceRefused` (`binding`) unless the quote's extra data are exactly those that `binding` states."""
    expected = binding.value("extra_data")
    if quote.extra_data != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex() or "nothing",
            got=quote.extra_data.hex() or "nothing",
            hint="the quote is for another nonce, contract, key or audience: evidence cannot be used again",
            source="docs/verdicts.md, What evidence is bound to",
        )


def check_pcrs(
    quote: TpmQuote, signature: EcdsaSignature | RsaSignature, values: bytes
) -> Mapping[int, bytes]:
    """The quoted PCRs by number, cut from `values` (ascending). Raises `Malformed`, or `EvidenceRefused` (`pcr-values`).

    The digest is by the hash of the scheme that signed, which is not always the hash of the bank.
    """
    pcrs, got = _values(values, quote.selection, BANKS[quote.bank], signature.hash)
    if got != quote.pcr_digest:
        raise EvidenceRefused(
            "pcr-values",
            expected=quote.pcr_digest.hex(),
            got=got.hex(),
            hint="give the PCR values as they were when the TPM quoted them",
            source=_SPEC,
        )
    return pcrs


@functools.lru_cache(maxsize=256)
def _values(
    data: bytes, selection: tuple[int, ...], size: int, hash: str
) -> tuple[Mapping[int, bytes], bytes]:
    """PCR values apart and their digest: a machine's stay as they are from quote to quote, hence kept."""
    return MappingProxyType(split_pcrs(data, selection, size)), hashlib.new(hash, data).digest()


def split_pcrs(data: bytes, selection: tuple[int, ...], size: int = PCR_BYTES) -> dict[int, bytes]:
    """Cut concatenated PCR values apart, in the order of `selection`. Raises `Malformed`."""
    if len(data) != size * len(selection):
        raise Malformed(
            f"PCR values: {len(data)} bytes, expected {size * len(selection)} for {len(selection)} PCRs",
            code="bad-length",
        )
    return {index: data[place * size : (place + 1) * size] for place, index in enumerate(selection)}


def extend(value: bytes, measurement: bytes) -> bytes:
    """The value of a SHA-256 PCR after `measurement` (32 bytes) is extended into it. Raises `Refused`."""
    if len(value) != PCR_BYTES or len(measurement) != PCR_BYTES:
        raise Refused("extending a PCR: expected 32 bytes each", code="bad-length")
    return hashlib.sha256(value + measurement).digest()


def _sized(data: bytes, start: int, size: int, limit: int) -> tuple[bytes, int]:
    """The `size` bytes at `start`, and where they end."""
    if size > limit:
        raise Malformed(f"signature: {size} bytes, at most {limit} allowed", code="too-large")
    end = start + size
    if end > len(data):
        raise Malformed("signature: cut short", code="truncated")
    return data[start:end], end
