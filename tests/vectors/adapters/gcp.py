"""Google vTPM cases: quotes, signatures, PCRs, a certificate and a log, each known by its content, not by its name.

A case of several quotes (one a bank) is accepted if each is; a quote of the SHA-1 bank is left out, and a note says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.errors import Malformed
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
    path = _path([*_certificates(files.values()), *_certificates(collateral.values())])
    notes = [f"{name}: not read" for name, data in files.items() if not _known(data)]
    quotes = {name: data for name, data in files.items() if data.startswith(_QUOTE)}
    counted = {name: data for name, data in quotes.items() if _read(data)[0] != "sha1"}
    notes += [
        f"{name}: of the SHA-1 bank, which counts for nothing, left out" for name in quotes.keys() - counted
    ]
    loaded = [
        Loaded(
            now=datetime.fromisoformat(case["verify_at"])
            if case["verify_at"]
            else path[0].not_valid_before_utc,
            evidence=Evidence(tee="gcp", parts=_parts(name, data, files, path)),
            binding=Preset(values={"extra_data": _nonce(case, files, data)}),
        )
        for name, data in (counted or quotes).items()
    ]
    if not loaded:
        raise Malformed("none of the evidence files is a TPM quote")
    first, *others = loaded
    for name, data in files.items():
        if data[:8] in _TD_QUOTES:
            first = _with_td_quote(first, data, folder, case)
            if first.endorsements is NONE:
                notes.append(f"{name}: no collateral of its time; its own certificates and signatures hold")
    return replace(first, others=tuple(others), notes=tuple(notes))


def _parts(
    name: str, quote: bytes, files: dict[str, bytes], path: list[x509.Certificate]
) -> dict[str, bytes]:
    parts = {
        "quote": quote,
        "signature": _signature(name, quote, files, path[0]),
        "ak-certificate": path[0].public_bytes(Encoding.DER),
        "issuers": b"".join(one.public_bytes(Encoding.DER) for one in path[1:]),
        "pcrs": _pcrs(files, quote),
    }
    for data in filter(_is_log, files.values()):
        parts["event-log"] = data
    return parts


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
    try:
        for data in contents:
            if data.lstrip().startswith(b"-----BEGIN CERTIFICATE-----"):
                out += x509.load_pem_x509_certificates(data)
            elif data[:2] == b"\x30\x82" and len(data) == 4 + int.from_bytes(data[2:4], "big"):
                out.append(x509.load_der_x509_certificate(data))
    except ValueError as cause:
        raise Malformed(f"a certificate does not parse: {cause}") from None
    return out


def _path(certificates: list[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf, then its issuers in order; the first certificate that is no issuer of another is the leaf."""
    issuers = {one.issuer.public_bytes() for one in certificates}
    leaves = [one for one in certificates if one.subject.public_bytes() not in issuers]
    if not leaves:
        raise Malformed("no certificate of an attestation key")
    path = [leaves[0]]
    while above := [one for one in certificates if one.subject == path[-1].issuer and one not in path]:
        path.append(above[0])
    return path


def _read(quote: bytes) -> tuple[str, list[int], bytes, int]:
    """Bank, PCR numbers, extra data, and the size of the PCR digest, of a quote with one selection."""
    offset = 8 + int.from_bytes(quote[6:8], "big")
    size = int.from_bytes(quote[offset : offset + 2], "big")
    extra = quote[offset + 2 : offset + 2 + size]
    offset += 2 + size + 25 + 4
    bank, _ = _BANKS.get(int.from_bytes(quote[offset : offset + 2], "big"), ("unknown", 0))
    bitmap = int.from_bytes(quote[offset + 3 : offset + 6], "little")
    digest = int.from_bytes(quote[offset + 6 : offset + 8], "big")
    return bank, [index for index in range(24) if bitmap >> index & 1], extra, digest


def _signature(name: str, quote: bytes, files: dict[str, bytes], leaf: x509.Certificate) -> bytes:
    """TPMT_SIGNATURE of the quote: the file of the same stem, else the only one.

    One that is bare, DER of ECDSA or the bytes of RSA, is put into TPM's form, with the hash of the PCR digest.
    """
    found = {one: data for one, data in files.items() if _is_signature(data)}
    stem = name.split(".", maxsplit=1)[0]
    data = next((data for one, data in found.items() if one.split(".", maxsplit=1)[0] == stem), None)
    data = next(iter(found.values()), b"") if data is None else data
    if data[:1] == b"\x30":
        try:
            size = (getattr(leaf.public_key(), "key_size", 256) + 7) // 8
            sized = [number.to_bytes(size, "big") for number in decode_dss_signature(data)]
        except (ValueError, OverflowError, UnsupportedAlgorithm) as cause:
            raise Malformed(
                f"{name}: its signature is no pair of numbers of the key's curve: {cause}"
            ) from None
        over = b"\x00\x0c" if _read(quote)[3] == 48 else b"\x00\x0b"
        return b"\x00\x18" + over + b"".join(size.to_bytes(2, "big") + one for one in sized)
    return data


def _pcrs(files: dict[str, bytes], quote: bytes) -> bytes:
    """The selected values that the case gives, of the bank's length; one that it lacks is lacking here too."""
    bank, selection, _, _ = _read(quote)
    size = dict(_BANKS.values()).get(bank, 0)
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


def _nonce(case: dict, files: dict[str, bytes], quote: bytes) -> bytes:
    """What the case expects the quote to carry: its label's word, its own JSON's; else what the quote carries."""
    told = case["expected"].get("fields", {})
    if "nonce" in told:
        return bytes.fromhex(told["nonce"])
    bank, _, carried, _ = _read(quote)
    quotes = [told.get("quote", {}), *(one["quote"] for one in told.get("quotes", ()) if one["bank"] == bank)]
    for one in quotes:
        if "extra_data" in one:
            return bytes.fromhex(one["extra_data"])
    for data in files.values():
        if data.lstrip().startswith(b"{") and isinstance(nonce := json.loads(data).get("nonce"), str):
            return bytes.fromhex(nonce)
    return carried


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
