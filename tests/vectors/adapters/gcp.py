"""Google vTPM cases: quotes, signatures, PCRs, a certificate and a log, each known by its content, not by its name.

A case of several quotes (one a bank) is accepted if each is; a quote of the SHA-1 bank is left out, and a note says so.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from tests.vectors.adapters import dcap
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

_BANKS = {0x4: ("sha1", 20), 0xB: ("sha256", 32), 0xC: ("sha384", 48)}
_QUOTE = bytes.fromhex("ff5443478018")
# Version 4 or 5, an ECDSA P-256 key, TDX.
_TD_QUOTES = (bytes.fromhex("0400020081000000"), bytes.fromhex("0500020081000000"))
_SCHEMES = (0x14, 0x16, 0x18)


def load(folder: Path, case: dict) -> Loaded:
    files = {name: (folder / name).read_bytes() for name in case["evidence_files"]}
    collateral = {name: (folder / name).read_bytes() for name in case["collateral_files"]}
    leaf, issuers = _chain([*_certificates(files.values()), *_certificates(collateral.values())])
    notes = [f"{name}: not read" for name, data in files.items() if not _known(data)]
    loaded = []
    for name, quote in files.items():
        if not quote.startswith(_QUOTE):
            continue
        bank, selection, extra = _read(quote)
        if bank == "sha1":
            notes.append(f"{name}: a quote of the SHA-1 bank, which counts for nothing, left out")
            continue
        parts = {
            "quote": quote,
            "signature": _signature(name, files),
            "ak-certificate": leaf,
            "issuers": issuers,
            "pcrs": _pcrs(files, bank, selection),
        }
        for data in filter(_is_log, files.values()):
            parts["event-log"] = data
        loaded.append(
            Loaded(
                now=datetime.fromisoformat(case["verify_at"]),
                evidence=Evidence(tee="gcp", parts=parts),
                binding=Preset(values={"extra_data": _nonce(case, bank, extra)}),
                notes=tuple(notes),
            )
        )
    first, *others = loaded
    for name, data in files.items():
        if data[:8] in _TD_QUOTES:
            first = _with_td_quote(first, data, folder, case)
            if first.endorsements is NONE:
                notes.append(f"{name}: no collateral of its time; its own certificates and signatures hold")
    return replace(first, others=tuple(others), notes=tuple(notes))


def _with_td_quote(loaded: Loaded, quote: bytes, folder: Path, case: dict) -> Loaded:
    """The same with its TDX quote and the collateral of the TDX case that the label names.

    Without that case, the quote's certificates and signatures are verified here, and refused here where they do not hold.
    """
    bound = dcap.report_data(quote)
    beside = folder.parents[1] / case["expected"].get("fields", {}).get("tdx_case", "-")
    endorsements = dcap.endorsements_of(beside) if beside.is_dir() else NONE
    if endorsements is NONE:
        evidence = Evidence(tee="tdx", parts={"quote": quote})
        dcap.authenticate(evidence, Preset(values={"report_data": bound}), loaded.now)
        return loaded
    return replace(
        loaded,
        evidence=Evidence(tee="gcp", parts={**loaded.evidence.parts, "td-quote": quote}),
        endorsements=endorsements,
        binding=Preset(values={**loaded.binding.values, "report_data": bound}),
    )


def _certificates(contents) -> list[x509.Certificate]:
    out = []
    for data in contents:
        if data.lstrip().startswith(b"-----BEGIN CERTIFICATE-----"):
            out += x509.load_pem_x509_certificates(data)
        elif data[:2] == b"\x30\x82" and len(data) == 4 + int.from_bytes(data[2:4], "big"):
            out.append(x509.load_der_x509_certificate(data))
    return out


def _chain(certificates: list[x509.Certificate]) -> tuple[bytes, bytes]:
    """The leaf, then its issuers in order, in DER; the first one that is no issuer of another is the leaf."""
    issuers = {one.issuer.public_bytes() for one in certificates}
    leaf = next(one for one in certificates if one.subject.public_bytes() not in issuers)
    path, last = [leaf], leaf
    while above := [
        one
        for one in certificates
        if one.subject.public_bytes() == last.issuer.public_bytes() and one not in path
    ]:
        last = above[0]
        path.append(last)
    return path[0].public_bytes(Encoding.DER), b"".join(one.public_bytes(Encoding.DER) for one in path[1:])


def _read(quote: bytes) -> tuple[str, list[int], bytes]:
    """Bank, PCR numbers and extra data, of a quote with one selection."""
    offset = 8 + int.from_bytes(quote[6:8], "big")
    size = int.from_bytes(quote[offset : offset + 2], "big")
    extra = quote[offset + 2 : offset + 2 + size]
    offset += 2 + size + 25 + 4
    bank, _ = _BANKS.get(int.from_bytes(quote[offset : offset + 2], "big"), ("unknown", 0))
    bitmap = int.from_bytes(quote[offset + 3 : offset + 6], "little")
    return bank, [index for index in range(24) if bitmap >> index & 1], extra


def _signature(quote: str, files: dict[str, bytes]) -> bytes:
    """TPMT_SIGNATURE of the quote: the file of the same stem, else the only one; DER of ECDSA is rewritten."""
    found = {name: data for name, data in files.items() if _is_signature(data)}
    stem = quote.split(".", maxsplit=1)[0]
    data = next((data for name, data in found.items() if name.split(".", maxsplit=1)[0] == stem), None)
    data = next(iter(found.values())) if data is None else data
    if data[0] != 0x30:
        return data
    sized = (number.to_bytes(32, "big") for number in decode_dss_signature(data))
    return b"\x00\x18\x00\x0b" + b"".join(b"\x00\x20" + one for one in sized)


def _pcrs(files: dict[str, bytes], bank: str, selection: list[int]) -> bytes:
    """The selected values that the case gives, of the bank's length; one that it lacks is lacking here too."""
    size = hashlib.new(bank).digest_size
    for data in files.values():
        values = _values(data)
        if values and all(len(value) == size for value in values.values()):
            return b"".join(values[index] for index in selection if index in values)
    return b""


def _values(data: bytes) -> dict[int, bytes]:
    if not data.lstrip().startswith(b"{"):
        return {}
    told = json.loads(data)
    if not all(key.isdigit() and isinstance(value, str) for key, value in told.items()):
        return {}
    return {int(key): bytes.fromhex(value) for key, value in told.items()}


def _nonce(case: dict, bank: str, carried: bytes) -> bytes:
    """What the case expects the quote to carry; where it tells nothing, what the quote carries."""
    told = case["expected"].get("fields", {})
    if "nonce" in told:
        return bytes.fromhex(told["nonce"])
    quotes = [told.get("quote", {}), *(one["quote"] for one in told.get("quotes", ()) if one["bank"] == bank)]
    return next((bytes.fromhex(one["extra_data"]) for one in quotes if "extra_data" in one), carried)


def _is_signature(data: bytes) -> bool:
    if data[:1] == b"\x30":
        return len(data) < 140 and len(data) == 2 + data[1]
    return int.from_bytes(data[:2], "big") in _SCHEMES and int.from_bytes(data[2:4], "big") in _BANKS


def _is_log(data: bytes) -> bool:
    return data[32:48] == b"Spec ID Event03\0"


def _known(data: bytes) -> bool:
    return bool(
        data.startswith(_QUOTE)
        or data[:8] in _TD_QUOTES
        or _is_signature(data)
        or _is_log(data)
        or _values(data)
        or data.lstrip().startswith(b"-----BEGIN")
        or data[:2] == b"\x30\x82"
    )
