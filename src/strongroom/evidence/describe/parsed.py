"""What a verifier's parser found, field by field: for every TEE whose parts parse into dataclasses.

Byte strings are shown in hexadecimal, structures within by their place (`leaf.subject`). Runs on anything that the
parsers give, so that a new TEE is described as soon as it has one.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

from strongroom.crypto import digest, public_key
from strongroom.crypto.pki import x509
from strongroom.encoding import fields, pem
from strongroom.evidence import cca, nitro
from strongroom.evidence.formats import azure_hcl, dcap_quote, eventlog_efi, nvgpu_spdm, snp_report, tpm_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Lines = Iterator[tuple[str, str, str]]

MAX_LINES = 2000
_MAX_DEPTH = 8
_LONGEST = 512  # bytes that are shown whole; of longer ones the size and the digest
# What is parsed twice over, or is the raw form of what stands beside it.
_RAW = frozenset({"signed", "raw"})
_MEANINGS = {
    "report_data": "what the evidence is bound to",
    "measurement": "of the guest at its launch",
    "host_data": "given by the host at launch",
    "mr_td": "of the trust domain at its build",
    "mr_enclave": "of the enclave",
    "mr_signer": "digest of the enclave's author's key",
    "mr_config_id": "given by the host at launch",
    "chip_id": "the machine's name in contracts",
    "extra_data": "what the quote is bound to",
    "nonce": "what the evidence is bound to",
    "challenge": "what the token is bound to",
    "user_data": "what the document may be bound to",
    "carried": "the report data in the hardware's report",
    "bound": "the hash of the runtime data: both must be the same",
}


def lines(parsed: object) -> Lines:
    """(name, value, meaning) of every field of a parsed structure, at most `MAX_LINES`."""
    for count, (name, value) in enumerate(_walk("", parsed, 0)):
        if count == MAX_LINES:
            yield "more", "-", f"only {MAX_LINES} fields are shown"
            return
        yield name, value, _MEANINGS.get(name.rpartition(".")[2], "")


def _walk(at: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, public_key.PublicKey):
        yield at, f"{value.kind}, {public_key.key_digest(value)}"
    elif (names := _names(value)) and depth < _MAX_DEPTH:
        for name in names:
            if name not in _RAW:
                yield from _walk(f"{at}.{name}" if at else name, getattr(value, name), depth + 1)
    elif isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, item in value.items():
            yield from _walk(f"{at}[{key}]", item, depth + 1)
    elif isinstance(value, tuple) and value and all(isinstance(number, int) for number in value):
        yield at, " ".join(str(number) for number in value)
    elif isinstance(value, tuple | list) and depth < _MAX_DEPTH:
        for index, item in enumerate(value):
            yield from _walk(f"{at}[{index}]", item, depth + 1)
    else:
        yield at, _shown(value)


def _names(value: object) -> tuple[str, ...]:
    """The names of the fields of a dataclass or of a named tuple; of anything else none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return tuple(field.name for field in dataclasses.fields(value))
    return getattr(value, "_fields", ()) if isinstance(value, tuple) else ()


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        if len(value) > _LONGEST:
            return f"{len(value)} bytes, {digest.sha256(value)}"
        return value.hex() or "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return fields.format_time(value)
    return str(value)[:_LONGEST] or "empty"


def _of(parse: Callable[[bytes], object]) -> Callable[[bytes], Lines]:
    return lambda data: lines(parse(data))


def _quote(data: bytes) -> Lines:
    """An Intel quote, shown by its own describer; its PCK certificates besides."""
    rows: list[tuple[str, str, str]] = []
    dcap_quote.describe(data, line=lambda name, value, why: rows.append((name, value, why)))
    yield from rows
    certified = dcap_quote.certification((quote := dcap_quote.parse(data)).version, quote.certified)
    if certified.data.startswith(b"-----BEGIN"):
        for index, der in enumerate(
            pem.decode(
                certified.data, b"CERTIFICATE", what="PCK certificates", max_blocks=8, max_bytes=1 << 16
            )
        ):
            yield from _certificate(f"PCK chain [{index}]", der)


def certificates(data: bytes) -> Lines:
    """Certificates in DER, one after the other: names, dates and digests."""
    for index, der in enumerate(x509.split(data)):
        yield from _certificate(f"[{index}]", der)


def _certificate(at: str, der: bytes) -> Lines:
    certificate = x509.parse(der)
    yield f"{at} subject", certificate.subject or "-", ""
    yield f"{at} issued by", certificate.issuer, ""
    yield (
        f"{at} valid",
        f"{fields.format_time(certificate.not_before)} to {fields.format_time(certificate.not_after)}",
        "",
    )
    yield f"{at} key", certificate.key.kind, certificate.spki_digest


def _snp(data: bytes) -> Lines:
    report = snp_report.parse(data)
    yield from lines(report)
    for name, value in {
        **snp_report.policy_facts(report.policy),
        **snp_report.platform_facts(report.platform_info),
    }.items():
        yield name, _shown(value), ""


def _pcrs(data: bytes) -> Lines:
    size = 48 if len(data) % 48 == 0 and len(data) % 32 else 32
    for index in range(len(data) // size):
        yield (
            f"value {index}",
            data[index * size : (index + 1) * size].hex(),
            "in the order of the quoted PCRs",
        )


def _log(data: bytes) -> Lines:
    for event in eventlog_efi.parse(data, padded=True).events:
        yield from lines(event)


PARTS: dict[str, dict[str, Callable[[bytes], Lines]]] = {
    "azure": {
        "hcl-report": _of(azure_hcl.parse),
        "quote": _of(tpm_quote.parse_quote),
        "signature": _of(tpm_quote.parse_signature),
        "pcrs": _pcrs,
        "td-quote": _quote,
    },
    "cca": {"token": _of(cca.parse)},
    "gcp": {
        "quote": _of(tpm_quote.parse_quote),
        "signature": _of(tpm_quote.parse_signature),
        "ak-certificate": certificates,
        "issuers": certificates,
        "pcrs": _pcrs,
        "event-log": _log,
    },
    "nitro": {"document": _of(nitro.parse)},
    "nvgpu": {"report": _of(nvgpu_spdm.parse), "certificates": certificates},
    "sgx": {"quote": _quote},
    "snp": {"report": _snp},
    "tdx": {"quote": _quote, "ccel": _log},
}
OPTIONAL = frozenset({"td-quote", "ccel", "event-log"})
"""Parts that are there for some machines only."""
