"""Dstack's attestations in SCALE (version 0): what hardware signed in them, named as its newer form names it.

Kinds by their number (dstack-attest/src/attestation.rs, AttestationQuote): 0 TDX, 1 TDX at Google with a virtual TPM's
quote beside, 2 Nitro enclave, 3 SEV-SNP with its certificates, 4 NitroTPM. SCALE: a vector is its number of items in
compact form, then they; numbers that are not in their shortest form are refused.
"""

from __future__ import annotations

from typing import Any

from strongroom.evidence.wrappings import snp

_LEAST = 48  # bytes: nothing shorter is evidence
_MOST = 16  # certificates, or quotes of a TPM
_GOOGLE, _SNP = 1, 3
_NAMES = {0: "quote", 2: "nsm_quote", 4: "attestation_doc"}
_TPM_QUOTE = b"\xff\x54\x43\x47\x80\x18"
_QUOTE_HEADS = frozenset((b"\3\0", b"\4\0", b"\5\0"))
_NITRO_HEADS = frozenset((b"\x84", b"\xd2"))


def read(data: bytes) -> dict[str, Any] | None:
    """What is signed by hardware in dstack's attestation in SCALE (version 0), named as its newer form names it.

    What stands behind it (events, report data, configuration) is dstack's own and not signed as it stands.
    """
    if len(data) < _LEAST or data[0] != 0:
        return None
    if data[1] == _GOOGLE:
        # The quote was optional once, and there.
        quote = next((candidate for at in (3, 2) if (candidate := _quote_at(data, at)) is not None), None)
        return None if quote is None else {"quote": quote, "tpm_quote": _tpm_quotes(data)}
    if data[1] == _SNP:
        return _snp_at(data, 2)
    name = _NAMES.get(data[1])
    quote = None if name is None else _quote_at(data, 2)
    return None if name is None or quote is None else {name: quote}


def _quote_at(data: bytes, at: int) -> bytes | None:
    """The run of bytes at `at` where it may be a quote or a document."""
    quote, _ = _sized(data, at)
    return (
        quote if len(quote) >= _LEAST and (quote[:2] in _QUOTE_HEADS or quote[:1] in _NITRO_HEADS) else None
    )


def _snp_at(data: bytes, at: int) -> dict[str, Any] | None:
    """A report, and the certificates behind it as far as they are whole."""
    report, at = _sized(data, at)
    if len(report) != snp.SIZE:
        return None
    chain: list[bytes] = []
    count, at = _compact(data, at)
    for _ in range(min(count, _MOST)):
        certificate, at = _sized(data, at)
        if not certificate:
            break
        chain.append(certificate)
    return {"report": report, "cert_chain": chain}


def _tpm_quotes(data: bytes) -> list[bytes]:
    """Quotes of a virtual TPM behind the processor's: their own magic, with their size before it."""
    out: list[bytes] = []
    at = data.find(_TPM_QUOTE)
    while at >= 0 and len(out) < _MOST:
        sized = (_sized(data, at - back) for back in (1, 2) if at >= back)
        out += [run for run, _ in sized if run.startswith(_TPM_QUOTE)]
        at = data.find(_TPM_QUOTE, at + 1)
    return out


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes at `at`, after their number; none where they are cut short. And where they end."""
    size, start = _compact(data, at)
    run = data[start : start + size]
    return (run, start + size) if len(run) == size else (b"", len(data))


def _compact(data: bytes, at: int) -> tuple[int, int]:
    """A number in SCALE's compact form, and where it ends; 0 where there is none, or it is not in its shortest form."""
    if at >= len(data) or (mode := data[at] & 3) == 3:
        return 0, len(data)
    end = at + (1 << mode)
    size = int.from_bytes(data[at:end], "little") >> 2
    return (size, end) if size >= (0, 1 << 6, 1 << 14)[mode] else (0, len(data))
