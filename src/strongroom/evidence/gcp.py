"""Google Compute Engine (`gcp`): a quote by the virtual TPM that Google gives to an instance → Claims.

Specs: TCG TPM 2.0 Library, Part 2 (structures); TCG PC Client Platform Firmware Profile 1.06 (event log);
RFC 5280 (certificates); google/go-tpm-tools (what the certificate says of the instance); those of `tdx` and `snp`.
Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        the five parts; perhaps the event log; perhaps a TDX quote (with its CCEL) or an SNP report, and then
                 its vendor's endorsements; no other; nothing over its size
  2 chain.*      the attestation key (AK) is certified, in date, up to one of `roots`
  3 instance     the certificate names one instance of Google's
  4 quote        made inside a TPM, of PCRs of the SHA-256 or the SHA-384 bank, without trailing bytes
  5 signature    by the AK over the quote; r and s in range
  6 binding      the quote's extra data are those expected
  7 pcr-values   the PCR values given are those quoted
  8 event-log    where there is a log, its replay explains every quoted PCR that it names
  9 hardware     where there is a TDX quote or an SNP report, `tdx` or `snp` verifies it: every check of theirs, by
                 their names, bound by its report data to the same binding

Not checked here: any measurement, which instance, secure boot, debug, TCB. Those are compared with the contract
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED.
The TPM is Google's, outside of the room: its quote proves what Google's firmware and the guest measured to those who
believe Google. That the memory is closed to Google is proved by a TDX quote or an SNP report alone.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from strongroom.crypto import digest
from strongroom.crypto.pki import x509
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import ccel, eventlog_efi, gcp_instance, tpm_quote
from strongroom.evidence.load import verifier
from strongroom.evidence.memo import Long
from strongroom.model.claims import Claims
from strongroom.model.evidence import Evidence
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements

TEE = "gcp"
PARTS = {
    "quote": tpm_quote.MAX_QUOTE,
    "signature": tpm_quote.MAX_SIGNATURE,
    "ak-certificate": x509.MAX_CERTIFICATE,
    "issuers": x509.MAX_PATH * x509.MAX_CERTIFICATE,
    "pcrs": tpm_quote.MAX_PCRS,
}
LOG, TD_QUOTE, TD_LOG, SNP_REPORT = "event-log", "td-quote", "ccel", "snp-report"
MAX_REPORT = 64 * 1024
CONTRACT_PCR = 12
_LIMITS = {
    **PARTS,
    LOG: eventlog_efi.MAX_LOG,
    TD_QUOTE: MAX_REPORT,
    TD_LOG: ccel.MAX_LOG,
    SNP_REPORT: MAX_REPORT,
}
# By the part that holds its report: the TEE, whose file is loaded when it is asked for, and how its verifier calls these parts.
_HARDWARE: dict[str, tuple[str, dict[str, str]]] = {
    TD_QUOTE: ("tdx", {TD_QUOTE: "quote", TD_LOG: "ccel"}),
    SNP_REPORT: ("snp", {SNP_REPORT: "report"}),
}

UNSHIELDED = "that the instance's memory is closed to Google: no TDX quote and no SNP report was given"
UNTIED = "that the hardware's report and the TPM are of one instance: both answer one nonce; nothing signed says more"
NOT_FRESH = "that the quote is fresh: no extra data were expected in it"
NOT_CHECKED = (
    "that the attestation key lives in the TPM of a given endorsement key: Google, who makes both, vouches for it",
    "revocation: Google's certificates of attestation keys name no list",
)
_BOOT_PCRS = frozenset(range(8))
_REGISTERS = tuple(f"pcr{index}" for index in range(24))
_FACTS = tuple(f"pcr_{index}" for index in range(24))
_SPEC_INSTANCE = "google/go-tpm-tools, server/verify.go"
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
    """Claims of an instance's virtual TPM. Raises `EvidenceRefused`, or `Malformed` when a part does not parse.

    binding: `extra_data` of the quote, `report_data` of the hardware's report. roots: digests of the keys (or
    certificates) of roots, Google's and the hardware vendor's. endorsements: those of `tdx` or `snp`, where there is
    such a report.
    """
    # 1 parts
    report = _check_parts(evidence, endorsements)
    parts = evidence.parts
    # 2 chain
    path = _chain(parts["ak-certificate"], parts["issuers"], roots, now)
    # 3 instance
    _stated(path.leaf.der, path.root.der)
    # 4 quote
    quote = tpm_quote.parse_quote(parts["quote"])
    # 5 signature
    signature = tpm_quote.parse_signature(parts["signature"])
    tpm_quote.check_signature(signature, path.leaf.key, quote.raw)
    # 6 binding
    tpm_quote.check_binding(quote, binding)
    # 7 pcr-values
    pcrs = tpm_quote.check_pcrs(quote, signature, parts["pcrs"])
    # 8 event-log
    log = None if LOG not in parts else Long(parts[LOG])
    machine = _Machine(path.leaf.der, path.root.der, quote.firmware, quote.bank, quote.selection)
    contract_digest = _contract(quote.bank, pcrs, binding)
    unasked = () if quote.extra_data else (NOT_FRESH,)
    measured, boot = _measured(machine, parts["pcrs"], log, contract_digest, unasked)
    claims = measured.with_facts(
        {
            "tpm.clock_ms": quote.clock,
            "tpm.reset_count": quote.reset_count,
            "tpm.restart_count": quote.restart_count,
            "tpm.clock_safe": quote.safe,
        }
    )
    # 9 hardware
    if report is None:
        return claims
    hardware = _hardware(report, evidence, endorsements, binding=binding, roots=roots, now=now)
    return _shielded(claims, boot, hardware)


class _Machine(NamedTuple):
    """Whose PCRs are quoted, and which: certificates (DER) of a verified path, what the quote says but for its clock."""

    leaf: bytes
    root: bytes
    firmware: int
    bank: str
    selection: tuple[int, ...]


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> str | None:
    """The part that holds the hardware's report, None where there is none."""
    parts = evidence.parts
    known, report = _named(frozenset(parts))
    if not known:
        raise EvidenceRefused(
            "parts",
            expected=f"{', '.join(sorted(PARTS))}; perhaps {LOG}; perhaps {TD_QUOTE} ({TD_LOG} with it) or {SNP_REPORT}",
            got=", ".join(sorted(parts))[:400] or "nothing",
            hint="give exactly these parts, each under its name",
        )
    for name, part in parts.items():
        if len(part) > _LIMITS[name]:
            raise Malformed(
                f"{TEE} evidence: {name}: {len(part)} bytes, at most {_LIMITS[name]} allowed",
                code="too-large",
            )
    if endorsements.parts and report is None:
        raise EvidenceRefused(
            "parts", expected="no endorsements", got=", ".join(sorted(endorsements.parts))[:400]
        )
    return report


@functools.lru_cache(maxsize=16)
def _named(names: frozenset[str]) -> tuple[bool, str | None]:
    """Whether evidence may consist of parts with these names, and which of them holds the hardware's report."""
    reports = names & _HARDWARE.keys()
    known = (
        PARTS.keys() <= names <= _LIMITS.keys()
        and len(reports) <= 1
        and (TD_LOG not in names or TD_QUOTE in names)
    )
    return known, next(iter(reports), None)


def _hardware(
    report: str,
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of the TDX quote or the SNP report in the part `report`."""
    tee, names = _HARDWARE[report]
    inner = {name: evidence.parts[ours] for ours, name in names.items() if ours in evidence.parts}
    return verifier(tee)(Evidence(tee=tee, parts=inner), endorsements, binding=binding, roots=roots, now=now)


def _chain(leaf: bytes, issuers: bytes, roots: frozenset[str], now: datetime) -> x509.Path:
    try:
        # Google marks no certificate of an attestation key with a purpose; the instance extension tells it apart.
        return x509.verify_path(leaf, issuers, roots=roots, purpose=None, now=now)
    except Refused as cause:
        raise EvidenceRefused(
            _CHAIN_CHECKS.get(cause.code, "chain.path"),
            expected="an attestation key certificate, in date, that leads to one of "
            + ", ".join(sorted(roots)[:4]),
            got=cause.message,
            hint="give the certificates from the attestation key's issuer to Google's root, in that order",
            source="RFC 5280, section 6",
        ) from None


@functools.lru_cache(maxsize=256)
def _stated(leaf: bytes, root: bytes) -> tuple[gcp_instance.Instance, dict[str, str | int | bool]]:
    """The instance that the certificate names, and the facts that certificates alone give. They are of a verified path,
    hence kept by their exact bytes.
    """
    certificate, authority = x509.parse_cached(leaf), x509.parse_cached(root)
    value = certificate.extension(gcp_instance.OID)
    if value is None:
        raise EvidenceRefused(
            "instance",
            expected=f"extension {gcp_instance.OID}, which names the instance",
            got="no such extension",
            hint="a certificate of Google's, but not that of an instance's attestation key",
            source=_SPEC_INSTANCE,
        )
    instance = gcp_instance.parse(value)
    return instance, {
        "zone": instance.zone,
        "project_number": str(instance.project_number),  # 64 bits: more than records hold as a number
        "project_id": instance.project_id,
        "instance_id": str(instance.instance_id),
        "instance_name": instance.instance_name,
        **instance.flags,
        "tpm.root": authority.spki_digest,
        "tpm.machine": certificate.spki_digest,
        "ak_subject": certificate.subject,
        "ak_key": certificate.key.kind,
        "ak_serial": f"{certificate.serial:x}",
        "root_subject": authority.subject,
    }


def _contract(bank: str, pcrs: Mapping[int, bytes], binding: Bound) -> ContractDigest | None:
    """The contract that PCR 12 was extended with, once and first, as in local rooms (SHA-256 bank)."""
    value = pcrs.get(CONTRACT_PCR, tpm_quote.ZERO)
    if bank != "sha256" or value == tpm_quote.ZERO:
        return None
    try:
        contract = binding.value("contract")
    except EvidenceRefused:  # who verifies for another protocol has no contract
        return None
    return (
        ContractDigest(digest.text(contract)) if value == tpm_quote.extend(tpm_quote.ZERO, contract) else None
    )


@functools.lru_cache(maxsize=64)
def _measured(
    machine: _Machine,
    values: bytes,
    log: Long | None,
    contract_digest: ContractDigest | None,
    unasked: tuple[str, ...],
) -> tuple[Claims, frozenset[str]]:
    """Check 8, and the virtual TPM's claims but for the quote's clock; besides, the names of the facts that the log gave.

    Of all this nothing is new in the next quote of a machine: kept by exact bytes. A refusal is never kept.
    """
    bank = machine.bank
    pcrs = tpm_quote.split_pcrs(values, machine.selection, tpm_quote.BANKS[bank])
    boot = {} if log is None else eventlog_efi.explain(log.data, bank, pcrs)
    instance, stated = _stated(machine.leaf, machine.root)
    root = x509.parse_cached(machine.root).spki_digest
    shown = {index: value.hex() for index, value in pcrs.items()}
    unlogged = () if boot else ("what the firmware measured: no event log was given",)
    claims = Claims(
        tee=TEE,
        # Google's test machines have certificates of the same authority.
        simulated=not (pinned.is_hardware(TEE, root) and instance.production),
        root=root,
        machine=x509.parse_cached(machine.leaf).spki_digest,
        contract_digest=contract_digest,
        registers=_registers(bank, shown, contract_digest),
        debug=False,
        memory_guard=False,
        facts={
            **stated,
            "tpm.bank": bank,
            "tpm.firmware": f"{machine.firmware:016x}",
            **{_FACTS[index]: value for index, value in shown.items()},
            **boot,
        },
        not_checked=(UNSHIELDED, *NOT_CHECKED, *unasked, *unlogged),
        tcb={"gce.security": instance.security_version},
    )
    return claims, frozenset(boot)


def _shielded(tpm: Claims, boot: frozenset[str], hardware: Claims) -> Claims:
    """Claims of the hardware's report and the virtual TPM together: root, machine and status are the hardware's."""
    others_not_checked = tuple(line for line in tpm.not_checked if line != UNSHIELDED)
    return replace(
        hardware,
        tee=TEE,
        simulated=hardware.simulated or tpm.simulated,
        contract_digest=hardware.contract_digest or tpm.contract_digest,
        registers={**hardware.registers, **tpm.registers},
        # Where both have logs, facts from the TPM's log are named `tpm.…`.
        facts={
            **{f"tpm.{name}" if name in boot else name: value for name, value in tpm.facts.items()},
            **hardware.facts,
            "hardware": hardware.tee,
        },
        not_checked=(UNTIED, *hardware.not_checked, *others_not_checked),
        tcb={**hardware.tcb, **tpm.tcb},
    )


def _registers(bank: str, shown: dict[int, str], contract_digest: ContractDigest | None) -> dict[str, str]:
    """Those of PCRs 0 to 7 that are quoted, and every other that was extended; not PCR 12 where it holds the contract alone."""
    digits = 2 * tpm_quote.BANKS[bank]
    blank = ("0" * digits, "f" * digits)
    return {
        _REGISTERS[index]: value
        for index, value in shown.items()
        if (index in _BOOT_PCRS or value not in blank) and not (contract_digest and index == CONTRACT_PCR)
    }
