"""Certificates beside an SNP report: by name, in lists, and in the table that a host hands to the guest.

The table (GHCB 2.03, extended guest request): 24 bytes an entry: which (a GUID), where, how long; an entry of zeros ends it; the contents stand behind. GUIDs are met in
both orders of their bytes: as text has them (Linux, go-sev-guest), and with the first three fields turned (Rust's uuid).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ENTRY = struct.Struct("<16sII")
_MOST = 16  # entries
_GUIDS = {
    "63da758de6644564adc5f4b93be8accd": "vcek",
    "a8074bc2a25a483eaae639c045a0b8a1": "vlek",
    "4ab7b379bbac4fe4a02f05aef327c782": "ask",
    "c0b406a4a803495297433fb6014cd0ae": "ark",
    "92f81bc358114d3d97ffd19f88dc67ea": "crl",
}


def _turned(guid: bytes) -> bytes:
    return guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]


_KINDS = {
    order: name
    for text, name in _GUIDS.items()
    for guid in (bytes.fromhex(text),)
    for order in (guid, _turned(guid))
}


def begins(data: bytes) -> bool:
    """Whether `data` begins like a table of certificates."""
    return data[:16] in _KINDS


def entries(data: bytes) -> dict[str, bytes]:
    """The contents by name (vcek, vlek, ask, ark, crl), as far as they are whole; others are passed over."""
    out: dict[str, bytes] = {}
    for at in range(0, min(len(data) - _ENTRY.size + 1, _MOST * _ENTRY.size), _ENTRY.size):
        kind, start, size = _ENTRY.unpack_from(data, at)
        if not any(kind):
            break
        entry = data[start : start + size]
        if kind in _KINDS and size and len(entry) == size:
            out.setdefault(_KINDS[kind], entry)
    return out


def of_names(names: dict[str, bytes]) -> dict[str, bytes]:
    """The endorsements in certificates by their names (vcek, vlek, ask, asvk, ark, crl)."""
    veks = [names[kind] for kind in ("vcek", "vlek") if kind in names]
    signers = [names[kind] for kind in ("ask", "asvk") if kind in names]
    roots = [names["ark"]] if "ark" in names else []
    return _parts(veks, signers, roots) | ({"crl": names["crl"]} if "crl" in names else {})


def of_chain(
    chain: Any, *, certificate: Callable[[object], bytes], run: Callable[[object], bytes]
) -> dict[str, bytes]:
    """The same of a chain as JSON has it: by name, in a list by kind or in order, or the table.

    certificate, run: read a certificate and bytes, of whatever form. Raises as they do, and `TypeError`, `KeyError`.
    """
    if not chain:
        return {}
    if isinstance(chain, dict):
        return of_names(
            {
                name.lower(): certificate(certificate_text)
                for name, certificate_text in chain.items()
                if certificate_text
            }
        )
    if isinstance(chain, list) and all(isinstance(item, dict) for item in chain):
        kinds = [str(item["cert_type"]).lower() for item in chain[:_MOST]]
        named = zip(kinds, chain, strict=False)
        return of_names({kind: certificate(item["data"]) for kind, item in named if kinds.count(kind) == 1})
    if isinstance(chain, list) and not all(isinstance(item, int) for item in chain):
        ders = [certificate(item) for item in chain[:_MOST]]
        return _parts(ders[:1], ders[1:2], ders[2:3])
    return of_names(entries(run(chain)))


def _parts(veks: list[bytes], signers: list[bytes], roots: list[bytes]) -> dict[str, bytes]:
    """What each is there of once: the certificate of the chip's key, and AMD's two together."""
    certificates = {"vek": veks[0]} if len(veks) == 1 else {}
    return certificates | ({"issuers": signers[0] + roots[0]} if len(signers) == len(roots) == 1 else {})
