"""Evidence field by field, for people: what each part says of itself, nothing of it verified.

A part that does not parse is described by that. Values are texts that are fit for a terminal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.crypto.pki import x509
from strongroom.encoding import fields
from strongroom.errors import Malformed
from strongroom.evidence import tpm
from strongroom.evidence.describe import parsed
from strongroom.evidence.formats import eventlog, tpm_quote
from strongroom.model.room import launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.evidence import Evidence

    Lines = Iterator[tuple[str, str, str]]

_EVENT_NAMES = {
    eventlog.SEPARATOR: "separator",
    eventlog.ACTION: "action",
    eventlog.EVENT_TAG: "tagged event",
}
_PCR_MEANINGS = {
    0: "the launch record (H-CRTM), then the firmware's separator",
    1: "the firmware's tables",
    2: "option ROMs",
    4: "what the firmware boots",
    10: "the kernel's boot aggregate of PCRs 0 to 9",
    12: "the contract's digest, extended by the agent before anything else",
}


@dataclass(frozen=True, kw_only=True)
class ShownField:
    """One value of evidence: in which part, its name, its value, and what it means ("" if plain)."""

    part: str
    name: str
    value: str
    meaning: str = ""

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {"part": self.part, "name": self.name, "value": self.value, "meaning": self.meaning}


def describe(evidence: Evidence) -> tuple[ShownField, ...]:
    """Every field of `evidence` and of its attached devices, part by part in the verifier's order. Never raises."""
    out = list(_parts(evidence))
    for place, device in enumerate(evidence.devices):
        out += [replace(row, part=f"device {place} ({device.tee}): {row.part}") for row in _parts(device)]
    return tuple(out)


def _parts(evidence: Evidence) -> Iterator[ShownField]:
    known = _DESCRIBERS.get(evidence.tee, {})
    for part in (*known, *(name for name in evidence.parts if name not in known)):
        if part not in evidence.parts:
            if evidence.tee != tpm.TEE and part in parsed.OPTIONAL:
                continue
            yield ShownField(part=part, name="missing", value="-", meaning="the verifier demands it")
            continue
        data = evidence.parts[part]
        yield ShownField(part=part, name="size", value=f"{len(data)} bytes", meaning=digest.sha256(data))
        if part not in known:
            yield ShownField(part=part, name="unknown", value="-", meaning="the verifier refuses it")
            continue
        try:
            for name, value, why in known[part](data):
                yield ShownField(part=part, name=name, value=value, meaning=why)
        except Malformed as cause:
            yield ShownField(part=part, name="malformed", value="-", meaning=cause.message)


def _quote(data: bytes) -> Lines:
    quote = tpm_quote.parse_quote(data)
    yield (
        "extra data",
        quote.extra_data.hex(),
        "SHA-256 of the binding's digest: nonce, contract, keys, audience",
    )
    yield "PCRs", " ".join(str(index) for index in quote.selection), "which registers are signed"
    yield "PCR bank", quote.bank, ""
    yield "PCR digest", quote.pcr_digest.hex(), "over their values"
    yield "clock", f"{quote.clock} ms", "how long this TPM has run"
    yield "resets", str(quote.reset_count), "how often it was started"
    yield "restarts", str(quote.restart_count), "how often it was suspended"
    yield "clock safe", "yes" if quote.safe else "no", "whether the clock cannot have gone back"
    yield "TPM firmware", f"{quote.firmware:016x}", ""


def _signature(data: bytes) -> Lines:
    signature = tpm_quote.parse_signature(data)
    if isinstance(signature, tpm_quote.EcdsaSignature):
        yield "algorithm", f"ECDSA, {signature.hash}", ""
        yield "r", f"{signature.r:064x}", ""
        yield "s", f"{signature.s:064x}", ""
    else:
        yield "algorithm", f"{'RSASSA-PSS' if signature.pss else 'RSASSA-PKCS1-v1_5'}, {signature.hash}", ""
        yield "value", signature.raw.hex(), ""


def _leaf(data: bytes) -> Lines:
    yield from _certificate(x509.parse(data), machine=True)


def _issuers(data: bytes) -> Lines:
    chain = x509.split(data)
    for index, der in enumerate(chain):
        is_root = index == len(chain) - 1
        yield "root" if is_root else "issuer", digest.sha256(der), "contracts name it" if is_root else ""
        yield from _certificate(x509.parse(der), machine=False)


def _certificate(certificate: x509.Certificate, *, machine: bool) -> Lines:
    yield "subject", certificate.subject, ""
    yield "issued by", certificate.issuer, ""
    yield (
        "valid",
        f"{fields.format_time(certificate.not_before)} to {fields.format_time(certificate.not_after)}",
        "",
    )
    yield "key", certificate.key.kind, ""
    if machine:
        yield (
            "machine",
            certificate.spki_digest,
            "digest of the attestation key: the machine's name in contracts",
        )


def _pcrs(data: bytes) -> Lines:
    for index, value in tpm_quote.split_pcrs(data, tpm.SELECTION).items():
        yield f"PCR {index}", value.hex(), _PCR_MEANINGS.get(index, "")


def _event_log(data: bytes) -> Lines:
    for event in eventlog.parse(data):
        shown = event.data.decode() if event.type == eventlog.ACTION else event.data[:40].hex()
        yield f"PCR {event.pcr}", event.digest.hex(), f"{_EVENT_NAMES[event.type]}: {shown[:120]}"


def _launch_record(data: bytes) -> Lines:
    record = launch.parse(data)
    for name, value in record.reference().items():
        yield name, value, ""
    yield "memory guard", "on" if record.memory_guard else "off", "as the node says, in the measured record"


_DESCRIBERS: dict[str, dict[str, Callable[[bytes], Lines]]] = {
    **parsed.PARTS,
    tpm.TEE: {
        "quote": _quote,
        "signature": _signature,
        "ak-certificate": _leaf,
        "issuers": _issuers,
        "pcrs": _pcrs,
        "event-log": _event_log,
        "launch-record": _launch_record,
    },
}
