"""Azure confidential VMs (`azure`), over SEV-SNP and over TDX: the virtual TPM that their paravisor keeps → Claims.

Specs: Azure, "Guest attestation for confidential VMs"; `azure_hcl.py` (HCL report, runtime data); TCG TPM 2.0 Library,
Part 2 (`tpm_quote.py`); and those of `snp` and `tdx`, which verify the hardware's report.

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        exactly the parts, nothing over its size; for TDX a td-quote, for SNP none
  2 hcl          the hardware's report in the HCL report carries the hash of the runtime data, and zeros after it
  3 quote        made inside a TPM, of PCRs of one bank, PCRs 0 to 7 among them, without trailing bytes
  4 signature    RSASSA by the attestation key that the runtime data name, over the quote
  5 binding      the quote's extra data are what `binding` states
  6 pcr-values   the PCR values given are those quoted
  7 hardware     `snp` or `tdx` verifies the report, with that hash for its report data: every check of theirs, by
                 their names, the vendor's endorsements and `roots` included

Only all seven together say something: 2 to 6 tie the quote to a report that nobody has believed before 7.
Not checked here: PCRs, measurement, debug, TCB, secure boot, console, which machine or VM. Those are policy
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import azure_hcl, tpm_quote
from strongroom.evidence.load import verifier
from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements

TEE = "azure"
HCL, TD_QUOTE = "hcl-report", "td-quote"
PARTS = {
    HCL: azure_hcl.MAX_BYTES,
    "quote": tpm_quote.MAX_QUOTE,
    "signature": tpm_quote.MAX_SIGNATURE,
    "pcrs": tpm_quote.MAX_PCRS,
}
MAX_TD_QUOTE = 64 * 1024
CONTRACT_PCR = 12

NOT_CHECKED = (
    "what the PCRs' events were: no event log is read, the values are for reference values",
    "the paravisor, which keeps the TPM inside the VM's own isolation: its measurement is for reference values",
)
NOT_FRESH = "that the quote is fresh: no extra data were expected in it"

_SPEC = "Azure, guest attestation for confidential VMs"
_SPEC_TPM = "TCG TPM 2.0 Library, Part 2"
_BOOT_PCRS = range(8)
_PCR_NAMES = tuple(f"pcr{index}" for index in range(24))
_PCR_FACTS = tuple(f"pcr_{index}" for index in range(24))
_REPORTS = {"snp": "report", "tdx": "quote"}
"""By the hardware's TEE, the part of its evidence that is the report."""


@dataclass(frozen=True, kw_only=True)
class VouchedQuote:
    """What checks 1 to 6 found: a quote by the TPM of whichever VM the hardware's report vouches for.

    Not `Claims`: nothing is to be decided on it. hardware: the evidence for `snp` or `tdx`, which must be bound to
    `hcl.bound`.
    """

    hcl: azure_hcl.Hcl
    quote: tpm_quote.TpmQuote
    pcrs: Mapping[int, bytes]
    hardware: Evidence


def attest(evidence: Evidence, *, binding: Bound) -> VouchedQuote:
    """Checks 1 to 6, for who verifies the hardware's report otherwise. Raises as `verify`."""
    # 1 parts
    _check_sizes(evidence)
    parts = evidence.parts
    # 2 hcl
    hcl = runtime(parts[HCL])
    hardware = _hardware(parts, hcl)
    # 3 quote
    quote = tpm_quote.parse_quote(parts["quote"])
    if not set(_BOOT_PCRS) <= set(quote.selection):
        raise EvidenceRefused(
            "quote",
            expected="PCRs 0 to 7, perhaps more",
            got="PCRs " + ", ".join(str(index) for index in quote.selection),
            hint="ask the TPM for a quote of these PCRs",
            source=_SPEC_TPM,
        )
    # 4 signature
    signature = tpm_quote.parse_signature(parts["signature"])
    tpm_quote.check_signature(
        signature,
        hcl.runtime.ak,
        quote.raw,
        by=f"{azure_hcl.AK} of the runtime data",
        hint="quote and HCL report are of two TPMs, or of one before and after its reset",
    )
    # 5 binding
    tpm_quote.check_binding(quote, binding)
    # 6 pcr-values
    pcrs = tpm_quote.check_pcrs(quote, signature, parts["pcrs"])
    return VouchedQuote(hcl=hcl, quote=quote, pcrs=pcrs, hardware=hardware)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of a confidential VM. Raises `EvidenceRefused`, or `Malformed` when a part does not parse.

    endorsements: those of `snp` or of `tdx`, as the report's kind asks.
    """
    quoted = attest(evidence, binding=binding)
    # 7 hardware
    hardware = verifier(quoted.hcl.tee)(
        quoted.hardware,
        endorsements,
        binding=Preset(values={"report_data": quoted.hcl.bound}),
        roots=roots,
        now=now,
    )
    return _claims(quoted, hardware, binding)


def runtime(data: bytes) -> azure_hcl.Hcl:
    """An HCL report whose hardware report carries the hash of its runtime data; who signed that is not asked here."""
    hcl = azure_hcl.parse(data)
    if hcl.carried != hcl.bound:
        raise EvidenceRefused(
            "hcl",
            expected=f"report data {hcl.bound.hex()}, the {hcl.hash} of the runtime data",
            got=hcl.carried.hex(),
            hint="the runtime data, and with them the attestation key, are not those that the hardware vouches for",
            source=_SPEC,
        )
    return hcl


def _check_sizes(evidence: Evidence) -> None:
    names = evidence.parts.keys()
    if names - {TD_QUOTE} != PARTS.keys():
        raise EvidenceRefused(
            "parts",
            expected=", ".join(sorted(PARTS)) + f", and for TDX {TD_QUOTE}",
            got=", ".join(sorted(names))[:400] or "nothing",
            hint="give exactly these parts, each under its name",
            source=_SPEC,
        )
    for name, data in evidence.parts.items():
        limit = PARTS.get(name, MAX_TD_QUOTE)
        if len(data) > limit:
            raise Malformed(
                f"{TEE} evidence: {name}: {len(data)} bytes, at most {limit} allowed", code="too-large"
            )


def _hardware(parts: dict[str, bytes], hcl: azure_hcl.Hcl) -> Evidence:
    """The evidence for the hardware's own verifier: the report itself, or the quote that stands for it."""
    if (TD_QUOTE in parts) is not (hcl.tee == "tdx"):
        raise EvidenceRefused(
            "parts",
            expected=f"a {TD_QUOTE} for TDX, and none for SNP",
            got=f"{hcl.tee} with{'' if TD_QUOTE in parts else 'out'} a {TD_QUOTE}",
            source=_SPEC,
        )
    name = _REPORTS[hcl.tee]
    return Evidence(tee=hcl.tee, parts={name: parts[TD_QUOTE] if hcl.tee == "tdx" else hcl.report})


def _claims(quoted: VouchedQuote, hardware: Claims, binding: Bound) -> Claims:
    hcl, quote = quoted.hcl, quoted.quote
    contract_digest = _contract(quoted, binding)
    facts: dict[str, str | int | bool] = {
        **hardware.facts,
        "hardware": hcl.tee,
        "hcl.version": hcl.version,
        "tpm.bank": quote.bank,
        "tpm.clock_ms": quote.clock,
        "tpm.reset_count": quote.reset_count,
        "tpm.restart_count": quote.restart_count,
        "tpm.clock_safe": quote.safe,
        "tpm.firmware": f"{quote.firmware:016x}",
    }
    facts.update(hcl.runtime.settings)
    if hcl.runtime.user_data is not None:
        facts["user_data"] = hcl.runtime.user_data.hex()
    values = {index: value.hex() for index, value in quoted.pcrs.items()}
    for index, text in values.items():
        facts[_PCR_FACTS[index]] = text
    unasked = () if quote.extra_data else (NOT_FRESH,)
    return replace(
        hardware,
        tee=TEE,
        contract_digest=contract_digest,
        registers={**hardware.registers, **_pcr_registers(quoted, values, contract_digest)},
        facts=facts,
        not_checked=(*hardware.not_checked, *NOT_CHECKED, *unasked),
    )


def _contract(quoted: VouchedQuote, binding: Bound) -> ContractDigest | None:
    """The contract that PCR 12 was extended with, once and first, as in local rooms (SHA-256 bank)."""
    value = quoted.pcrs.get(CONTRACT_PCR, b"")
    if quoted.quote.bank != "sha256" or not any(value):
        return None
    try:
        contract = binding.value("contract")
    except EvidenceRefused:  # who verifies for another protocol has no contract
        return None
    return (
        ContractDigest(digest.text(contract)) if value == tpm_quote.extend(tpm_quote.ZERO, contract) else None
    )


def _pcr_registers(
    quoted: VouchedQuote, values: dict[int, str], contract_digest: ContractDigest | None
) -> dict[str, str]:
    """PCRs 0 to 7, and every other that was extended; not PCR 12 where it holds the contract and no more."""
    digits = 2 * tpm_quote.BANKS[quoted.quote.bank]
    blank = ("0" * digits, "f" * digits)
    return {
        _PCR_NAMES[index]: text
        for index, text in values.items()
        if (index in _BOOT_PCRS or text not in blank) and not (contract_digest and index == CONTRACT_PCR)
    }
