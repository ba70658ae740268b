"""Local rooms (`tpm`): a TPM 2.0 quote over a measured launch → Claims.

Specs: TCG TPM 2.0 Library, Part 2 (structures); TCG PC Client Platform Firmware Profile 1.06 (event
log, H-CRTM); Linux IMA (`boot_aggregate`); RFC 5280 (certificates); `model/room/launch.py` (launch record).

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        exactly the seven parts, no endorsements, nothing over its size
  2 chain.*      the attestation key (AK) is certified for a TPM's AK, in date, up to one of `roots`
  3 quote        made inside a TPM, of PCRs 0 to 12 in the SHA-256 bank, without trailing bytes
  4 signature    by the AK over the quote; r and s in range
  5 binding      the quote's extra data are SHA-256 of the binding's digest: this nonce, contract,
                 these keys, this audience
  6 pcr-values   the PCR values given are those quoted
  7 launch       PCR 0 began as the H-CRTM measurement of the launch record; every event of the firmware's
                 log follows, with one separator in each of PCRs 0 to 7, and ends at the quoted value;
                 PCRs 8, 9, 11 are untouched; PCR 10 holds the kernel's boot aggregate and nothing else
  8 contract     PCR 12 is the contract's digest, extended once and first

Not checked here: firmware, kernel, initrd, command line, machine, memory guard, which root, which
machine. Those are compared with the contract (strongroom/appraisal); they are in the claims.
Not checked anywhere: see NOT_CHECKED below, which every claim carries.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.crypto.pki import x509
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import eventlog, tpm_quote
from strongroom.model.claims import Claims
from strongroom.model.identifiers import ContractDigest
from strongroom.model.room import launch

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "tpm"
PARTS = {
    "quote": tpm_quote.MAX_QUOTE,
    "signature": tpm_quote.MAX_SIGNATURE,
    "ak-certificate": x509.MAX_CERTIFICATE,
    "issuers": x509.MAX_PATH * x509.MAX_CERTIFICATE,
    "pcrs": 13 * tpm_quote.PCR_BYTES,
    "event-log": eventlog.MAX_LOG,
    "launch-record": launch.MAX_BYTES,
}
SELECTION = tuple(range(13))
CONTRACT_PCR = 12
IMA_PCR = 10
# TCG EK Credential Profile: tcg-kp-AIKCertificate. By it the issuer says that the key is a restricted
# signing key of a TPM, which signs what the TPM itself made and no bytes from outside.
AK_PURPOSE = "2.23.133.8.3"

NOT_CHECKED = (
    "that hardware isolates the room: where the claims say simulated, the TPM is a program of the operator's",
    "that the attestation key lives in the TPM of a given endorsement key: the AK's issuer vouches for it",
    "revocation of certificates: the node's authority publishes none",
    "option ROMs: the firmware measures them into PCR 2, which is shown and has no reference value",
    "guest memory size, processor model and devices: not part of the launch record",
    "debug: a TPM has no such field; a debug console would show in the command line's digest",
)

_SPEC_PFP = "TCG PC Client Platform Firmware Profile 1.06"
_SPEC_TPM = "TCG TPM 2.0 Library, Part 2"
_FIRMWARE_PCRS = range(8)
_CHAIN_CHECKS = {
    "untrusted-root": "chain.root",
    "expired": "chain.validity",
    "not-yet-valid": "chain.validity",
    "wrong-purpose": "chain.purpose",
}


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of a local room. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    # 1 parts
    _check_parts(evidence, endorsements)
    parts = evidence.parts
    # 2 chain
    path = _chain(parts["ak-certificate"], parts["issuers"], roots, now)
    # 3 quote
    quote = tpm_quote.parse_quote(parts["quote"])
    if quote.selection != SELECTION or quote.bank != "sha256":
        raise EvidenceRefused(
            "quote",
            expected="PCRs 0 to 12 of the sha256 bank",
            got=f"{quote.bank} PCRs " + ", ".join(str(index) for index in quote.selection),
            hint="ask the TPM for a quote of these PCRs",
            source=_SPEC_TPM,
        )
    # 4 signature
    signature = tpm_quote.parse_signature(parts["signature"])
    tpm_quote.check_signature(signature, path.leaf.key, quote.raw)
    # 5 binding
    tpm_quote.check_binding(quote, binding)
    # 6 pcr-values
    tpm_quote.check_pcrs(quote, signature, parts["pcrs"])
    # 7 launch, 8 contract
    claims = _launched(
        path.leaf.der,
        path.root.der,
        parts["launch-record"],
        parts["event-log"],
        parts["pcrs"],
        binding.value("contract"),
        quote.firmware,
    )
    return claims.with_facts(
        {
            "clock_ms": quote.clock,
            "reset_count": quote.reset_count,
            "restart_count": quote.restart_count,
            "clock_safe": quote.safe,
        }
    )


@functools.lru_cache(maxsize=256)
def _launched(
    leaf: bytes, root: bytes, record: bytes, log: bytes, values: bytes, contract: bytes, firmware: int
) -> Claims:
    """Checks 7 and 8, and the claims but for the quote's clock.

    leaf, root: of a verified path. values: those of `SELECTION` that are quoted. Of all this nothing is new in the next quote
    of a room: kept by exact bytes. A refusal is never kept.
    """
    pcrs = tpm_quote.split_pcrs(values, SELECTION)
    # 7 launch
    parsed = _check_launch(record, log, pcrs)
    # 8 contract
    bound = tpm_quote.extend(tpm_quote.ZERO, contract)
    if pcrs[CONTRACT_PCR] != bound:
        raise EvidenceRefused(
            "contract",
            expected=f"PCR {CONTRACT_PCR} = {bound.hex()}",
            got=pcrs[CONTRACT_PCR].hex(),
            hint="the room was started under another contract, or measured something else before it",
            source="docs/tee/tpm.md, What is measured into which PCR",
        )
    return _claims(
        x509.parse_cached(leaf),
        x509.parse_cached(root),
        pcrs,
        parsed,
        ContractDigest(digest.text(contract)),
        firmware,
    )


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    parts = evidence.parts
    if parts.keys() != PARTS.keys():
        raise EvidenceRefused(
            "parts",
            expected=", ".join(sorted(PARTS)),
            got=", ".join(sorted(parts))[:400] or "nothing",
            hint="give exactly these parts, each under its name",
        )
    for name, limit in PARTS.items():
        if len(parts[name]) > limit:
            raise Malformed(
                f"{TEE} evidence: {name}: {len(parts[name])} bytes, at most {limit} allowed", code="too-large"
            )
    if endorsements.parts:
        raise EvidenceRefused(
            "parts", expected="no endorsements", got=", ".join(sorted(endorsements.parts))[:400]
        )


def _chain(leaf: bytes, issuers: bytes, roots: frozenset[str], now: datetime) -> x509.Path:
    try:
        return x509.verify_path(leaf, issuers, roots=roots, purpose=AK_PURPOSE, now=now)
    except Refused as cause:
        raise EvidenceRefused(
            _CHAIN_CHECKS.get(cause.code, "chain.path"),
            expected="an attestation key certificate, in date, that leads to one of "
            + ", ".join(sorted(roots)[:4]),
            got=cause.message,
            hint="the node's certificates and the roots that the contract names do not belong together, "
            "or the certificate needs renewal",
            source="RFC 5280, section 6; TCG EK Credential Profile",
        ) from None


def _check_launch(record: bytes, log: bytes, pcrs: dict[int, bytes]) -> launch.LaunchRecord:
    parsed, predicted = _predict(record, log)
    for index, values in predicted.items():
        if pcrs[index] not in values:
            raise EvidenceRefused(
                f"launch.pcr-{index}",
                expected=" or ".join(value.hex() for value in values),
                got=pcrs[index].hex(),
                hint="the launch record and the firmware's event log do not explain what the TPM measured",
                source=_SPEC_PFP,
            )
    return parsed


@functools.lru_cache(maxsize=64)
def _predict(record: bytes, log: bytes) -> tuple[launch.LaunchRecord, dict[int, tuple[bytes, ...]]]:
    """What PCRs 0 to 11 may be after this launch. Rooms of one base give the same bytes, hence kept."""
    events = eventlog.parse(log)
    for index in _FIRMWARE_PCRS:
        _check_separator(events, index)
    start = dict.fromkeys(range(IMA_PCR), tpm_quote.ZERO)
    start[0] = tpm_quote.extend(tpm_quote.H_CRTM_START, hashlib.sha256(record).digest())
    if any(event.pcr not in _FIRMWARE_PCRS for event in events):
        raise EvidenceRefused(
            "launch.event-log",
            expected="events of PCRs 0 to 7 alone",
            got=", ".join(sorted({str(event.pcr) for event in events})),
            source=_SPEC_PFP,
        )
    values = eventlog.replay(events, start)
    predicted: dict[int, tuple[bytes, ...]] = {index: (value,) for index, value in values.items()}
    predicted[IMA_PCR] = (tpm_quote.ZERO, *_boot_aggregates(values))
    predicted[IMA_PCR + 1] = (tpm_quote.ZERO,)
    parsed = launch.parse(record)
    if parsed.encode() != record:
        raise Malformed(
            "launch record: expected canonical JSON, got the same in another form", code="not-canonical"
        )
    return parsed, predicted


def _check_separator(events: tuple[eventlog.Event, ...], index: int) -> None:
    """The firmware's measurements of a PCR end with one separator: nothing was added after hand-over."""
    kinds = [event.type for event in events if event.pcr == index]
    if kinds.count(eventlog.SEPARATOR) != 1 or kinds[-1] != eventlog.SEPARATOR:
        raise EvidenceRefused(
            "launch.event-log",
            expected=f"exactly one separator in PCR {index}, as its last event",
            got=f"{kinds.count(eventlog.SEPARATOR)} separators among {len(kinds)} events",
            source=_SPEC_PFP,
        )


def _boot_aggregates(values: dict[int, bytes]) -> tuple[bytes, ...]:
    """PCR 10 after Linux measured PCRs 0 to 9 as its `boot_aggregate`, in either default template.

    A template's digest is over its fields, each after its length as 4 little-endian bytes: `ima-ng` has
    algorithm and digest, then the name; `ima-sig` an empty signature too.
    """
    aggregate = hashlib.sha256(b"".join(values[index] for index in range(10))).digest()
    fields = (b"sha256:\0" + aggregate, b"boot_aggregate\0")
    return tuple(
        tpm_quote.extend(
            tpm_quote.ZERO,
            hashlib.sha256(b"".join(struct.pack("<I", len(part)) + part for part in template)).digest(),
        )
        for template in (fields, (*fields, b""))
    )


def _claims(
    ak: x509.Certificate,
    root: x509.Certificate,
    pcrs: dict[int, bytes],
    record: launch.LaunchRecord,
    contract_digest: ContractDigest,
    firmware: int,
) -> Claims:
    facts: dict[str, str | int | bool] = {
        "tpm_firmware": f"{firmware:016x}",
        "ak_subject": ak.subject,
        "ak_key": ak.key.kind,
        "ak_serial": f"{ak.serial:x}",
        "root_subject": root.subject,
    }
    facts.update({f"pcr_{index}": value.hex() for index, value in pcrs.items()})
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root.digest),
        root=root.digest,
        machine=ak.spki_digest,
        contract_digest=contract_digest,
        registers=record.reference(),
        debug=False,
        memory_guard=record.memory_guard,
        facts=facts,
        not_checked=NOT_CHECKED,
    )
