"""Intel TDX (`tdx`): a DCAP quote of a trust domain (TD) → Claims.

Specs: Intel TDX DCAP Quoting Library API, appendix A.3 (quote versions 4 and 5); Intel TDX Module 1.5 ABI, TDREPORT and
TD_PARAMS (ATTRIBUTES, XFAM); those of `dcap`.
Checked here, in this order (numbers recur at the code):
  1 dcap            the thirteen checks of `dcap`: parts, certificates, quoting enclave, signature, binding, endorsements,
                    revocation, TDX module, TCB
  2 td-attributes   no bit of ATTRIBUTES is set whose meaning is not known
  3 xfam            x87 and SSE state are on, as the TDX module demands, and no unknown state
  4 ccel.*          where the part `ccel` is given, its replay gives every RTMR that it has events of

Not checked here: MRTD, RTMRs, MRCONFIGID, MROWNER, MROWNERCONFIG, MRSERVICETD, debug, SEPT_VE_DISABLE and the other
attributes, the status and the advisories. Those are policy (strongroom/appraisal); they are in the claims.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import ccel, dcap, dcap_quote
from strongroom.model.claims import Claims

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "tdx"
# Bits of ATTRIBUTES. Those of the first byte (TUD, "TD under debug") each let somebody else look in.
ATTRIBUTES = {
    "debug": 0,
    "hgs_plus_prof": 4,
    "perf_prof": 5,
    "pmt_prof": 6,
    "icssd": 16,
    "lass": 27,
    "sept_ve_disable": 28,
    "migratable": 29,
    "pks": 30,
    "kl": 31,
    "tpa": 62,
    "perfmon": 63,
}
_TUD = 0xFF
_KNOWN_ATTRIBUTES = sum(1 << bit for bit in ATTRIBUTES.values())
_ATTRIBUTE_NAMES = tuple((f"td_attributes.{name}", 1 << bit) for name, bit in ATTRIBUTES.items())
# XFAM: x87 and SSE always; AVX, AVX-512, PT, PKRU, CET, UINTR, LBR, AMX, APX at the host's choice (SDM volume 1, XCR0).
_XFAM_ALWAYS = 0x3
_XFAM_KNOWN = 0x000EDBE7
_SPEC = "Intel TDX Module 1.5 ABI specification, TD_PARAMS"

NOT_CHECKED = dcap.NOT_CHECKED
_UNLOGGED = "the event log behind the RTMRs: no part `ccel` was given"


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of a trust domain. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    # 1 dcap
    log = evidence.parts.get("ccel")
    proved = dcap.prove(
        _without_log(evidence),
        endorsements,
        tee_type=dcap_quote.TEE_TDX,
        binding=binding,
        roots=roots,
        now=now,
    )
    report: dcap_quote.TdReport = proved.report
    bits = int.from_bytes(report.td_attributes, "little")
    # 2 td-attributes
    if bits & ~_KNOWN_ATTRIBUTES:
        raise EvidenceRefused(
            "td-attributes",
            expected=f"no bits but {_KNOWN_ATTRIBUTES:016x}",
            got=f"{bits:016x}",
            hint="this version does not know what a reserved attribute gives away",
            source=_SPEC,
        )
    # 3 xfam
    xfam = int.from_bytes(report.xfam, "little")
    if xfam & _XFAM_ALWAYS != _XFAM_ALWAYS or xfam & ~_XFAM_KNOWN:
        raise EvidenceRefused(
            "xfam",
            expected=f"{_XFAM_ALWAYS:#x} and no bits but {_XFAM_KNOWN:#x}",
            got=f"{xfam:#x}",
            source=_SPEC,
        )
    # 4 ccel
    boot = {} if log is None else ccel.explain(log, report.rtmrs)
    return _claims(proved, report, bits, boot)


def _without_log(evidence: Evidence) -> Evidence:
    log = evidence.parts.get("ccel")
    if log is None:
        return evidence
    if len(log) > ccel.MAX_LOG:
        raise Malformed(f"CCEL: {len(log)} bytes, at most {ccel.MAX_LOG} allowed", code="too-large")
    return replace(evidence, parts={name: part for name, part in evidence.parts.items() if name != "ccel"})


def _claims(
    proved: dcap.Proved, report: dcap_quote.TdReport, bits: int, boot: dict[str, str | int | bool]
) -> Claims:
    svn = report.tee_tcb_svn
    registers = {
        "mr_td": report.mr_td.hex(),
        "rtmr0": report.rtmrs[0].hex(),
        "rtmr1": report.rtmrs[1].hex(),
        "rtmr2": report.rtmrs[2].hex(),
        "rtmr3": report.rtmrs[3].hex(),
        "mr_seam": report.mr_seam.hex(),
        "mr_signer_seam": report.mr_signer_seam.hex(),
        "mr_config_id": report.mr_config_id.hex(),
        "mr_owner": report.mr_owner.hex(),
        "mr_owner_config": report.mr_owner_config.hex(),
    }
    facts: dict[str, str | int | bool] = {
        **proved.platform.facts,
        **proved.assessment.facts,
        "quote_version": proved.quote.version,
        "report_data": report.report_data.hex(),
        "td_report": "1.0" if report.mr_service_td is None else "1.5",
        "tee_tcb_svn": svn.hex(),
        "seam_attributes": report.seam_attributes.hex(),
        "td_attributes": report.td_attributes.hex(),
        "xfam": report.xfam.hex(),
        **boot,
    }
    if report.mr_service_td is not None and report.tee_tcb_svn2 is not None:
        registers["mr_service_td"] = report.mr_service_td.hex()
        facts["tee_tcb_svn2"] = report.tee_tcb_svn2.hex()
    for name, bit in _ATTRIBUTE_NAMES:
        facts[name] = bool(bits & bit)
    root = proved.platform.pck.root.spki_digest
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root),
        root=root,
        machine=proved.platform.machine,
        contract_digest=dcap.contract(report.mr_config_id),
        registers=registers,
        debug=bool(bits & _TUD),
        memory_guard=False,
        facts=facts,
        not_checked=NOT_CHECKED if boot else (*NOT_CHECKED, _UNLOGGED),
        tcb={
            **proved.assessment.tcb,
            "tdx_module.version": svn[1],
            "tdx_module.svn": svn[0],
            "tdx.microcode": svn[2],
        },
        status=proved.assessment.status,
        advisories=proved.assessment.advisories,
    )
