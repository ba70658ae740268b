"""Intel DCAP: what SGX and TDX quotes have in common, from the bytes to a platform's status.

Specs: Intel SGX ECDSA Quote Library API, appendix A; Intel SGX PCK Certificate and CRL Profile; Intel SGX and TDX
Provisioning Certification Service API, whose algorithm of TCB comparison this is; Intel's quote verification library,
where these are silent (convergence of statuses, relaunch of TDs).

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts             the quote alone, no unknown endorsements, nothing over its size; the TEE is the one asked for
  2 pck.*             PCK certificates: names, signatures, extensions, in date, up to one of `roots` by its key
  3 qe.*              the quoting enclave's (QE's) report is signed by the PCK, and its report data are SHA-256 of the
                      attestation key ‖ authentication data
  4 signature         the attestation key signed the quote; r and s in range
  5 binding           the quote's report data are exactly those expected
  6 endorsements      every one is there: TCB info, QE identity, their signers' chains, both revocation lists
  7 tcb-info.*, qe-identity.*, root-ca-crl.*, pck-crl.*
                      each is signed by its chain up to the same root, and current at `now`
  8 revoked           PCK certificate, PCK CA and TCB signing certificates are not on the lists
  9 tcb.platform      TCB info is of this TEE, FMSPC and PCE-ID
 10 qe.identity       the QE is Intel's: MRSIGNER, product, MISCSELECT and ATTRIBUTES under their masks
 11 tcb.module        (TDX) the TDX module is Intel's: signer and attributes, and its version has an identity
 12 tcb.level         a TCB level covers the platform, its QE and its TDX module; no level is no status
 13 tcb.status        the status that results is not Revoked; every other one is a claim, for a policy to judge

2, 3 and 7 depend on bytes alone, apart from dates, so that their outcome is kept for a bounded number of platforms and
sets of endorsements, by their exact bytes; dates are asked each time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.crypto import digest, public_key
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence.formats import dcap_collateral, dcap_pck, dcap_quote
from strongroom.evidence.memo import Memo
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from strongroom.evidence.formats.dcap_collateral import Assessment, Collateral
    from strongroom.evidence.formats.dcap_pck import PckChain, Window
    from strongroom.evidence.formats.dcap_quote import DcapQuote, SgxReport, TdReport
    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

PART = "quote"
OPTIONAL = "pck-certificate-chain"
_KNOWN = frozenset({*dcap_collateral.REQUIRED, OPTIONAL})
MISSING = "endorsements.missing"

SPEC_QUOTE = "Intel SGX ECDSA Quote Library API, appendix A.4"
_KINDS = {dcap_quote.TEE_SGX: ("sgx", "SGX", "QE"), dcap_quote.TEE_TDX: ("tdx", "TDX", "TD_QE")}

NOT_CHECKED = (
    "freshness of the endorsements beyond their own dates: whoever fetches keeps tcbEvaluationDataNumber from going back",
    "possession of the machine: revocation and status tell of the platform's TCB, not of who has physical access",
)


@dataclass(frozen=True, eq=False, slots=True)
class CertifiedPlatform:
    """A verified platform: the attestation key that its quoting enclave certified. Compared by identity."""

    key: public_key.PublicKey
    qe: SgxReport
    pck: PckChain
    window: Window
    machine: str
    facts: Mapping[str, str | int | bool]


@dataclass(frozen=True, eq=False, slots=True)
class Proved:
    """A quote that passed every check above. report: an `SgxReport` or a `TdReport`, as the TEE type says."""

    quote: DcapQuote
    report: Any
    platform: CertifiedPlatform
    assessment: Assessment


# What is kept between verifications.
PLATFORMS: Memo[CertifiedPlatform] = Memo(256)
COLLATERALS: Memo[Collateral] = Memo(32)
ASSESSMENTS: Memo[Assessment] = Memo(512)


def prove(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    tee_type: int,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Proved:
    """Verify a quote of `tee_type`. Raises `EvidenceRefused`, or `Malformed` when something does not parse."""
    tee, kind, qe_id = _KINDS[tee_type]
    # 1 parts
    quote = _quote(evidence, endorsements, tee, tee_type)
    parts = endorsements.parts
    # 2 pck, 3 qe
    platform = PLATFORMS.get(
        (quote.version, quote.certified, parts.get(OPTIONAL), roots),
        lambda: _platform(quote, parts.get(OPTIONAL), roots, now),
    )
    platform.window.check(now)
    # 4 signature
    try:
        platform.key.verify_ecdsa(quote.signature, quote.signed)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected="a signature over header and body by the attestation key",
            got=cause.message,
            source=SPEC_QUOTE,
        ) from None
    report: SgxReport | TdReport
    if tee_type == dcap_quote.TEE_SGX:
        report = dcap_quote.sgx_report(quote.body)
        present = None
    else:
        report = dcap_quote.td_report(quote.body_type, quote.body)
        present = (
            report.tee_tcb_svn,
            report.tee_tcb_svn2,
            report.mr_signer_seam,
            report.seam_attributes,
        )
    # 5 binding
    expected = binding.value("report_data")
    if report.report_data != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex() or "64 bytes of report data",
            got=report.report_data.hex(),
            hint="the quote is for another nonce, contract, key or audience: evidence cannot be used again",
            source="docs/verdicts.md, What evidence is bound to",
        )
    # 6 endorsements
    missing = [name for name in dcap_collateral.REQUIRED if name not in parts]
    if missing:
        raise EvidenceRefused(
            MISSING,
            expected=", ".join(dcap_collateral.REQUIRED),
            got="without " + ", ".join(missing),
            hint="fetch Intel's collateral for this platform; nothing is skipped for want of it",
            source=dcap_collateral.SPEC_TCB,
        )
    # 7 tcb-info, qe-identity, root-ca-crl, pck-crl
    inputs = tuple([parts[name] for name in dcap_collateral.REQUIRED])
    collateral = COLLATERALS.get(
        (inputs, roots), lambda: dcap_collateral.verify(inputs, roots=roots, now=now)
    )
    collateral.window.check(now)
    # 8 to 13
    assessment = ASSESSMENTS.get(
        (platform, collateral, present, tee),
        lambda: dcap_collateral.assess(
            collateral, platform.pck, platform.qe, kinds=(kind, qe_id), present=present
        ),
    )
    return Proved(quote, report, platform, assessment)


def _quote(evidence: Evidence, endorsements: Endorsements, tee: str, tee_type: int) -> DcapQuote:
    if evidence.tee != tee or evidence.parts.keys() != {PART}:
        raise EvidenceRefused(
            "parts",
            expected=f"{tee} evidence with the part {PART} alone",
            got=f"{evidence.tee[:40]}: {', '.join(sorted(evidence.parts))[:400] or 'nothing'}",
            hint="give the quote alone, and what belongs to it as endorsements",
        )
    if not endorsements.parts.keys() <= _KNOWN:
        raise EvidenceRefused(
            "parts",
            expected="endorsements among " + ", ".join(sorted(_KNOWN)),
            got=", ".join(sorted(endorsements.parts.keys() - _KNOWN))[:400],
            hint="take away what this verifier does not read",
        )
    quote = dcap_quote.parse(evidence.parts[PART])
    if quote.tee_type != tee_type:
        raise EvidenceRefused(
            "tee",
            expected=f"a quote of TEE type {tee_type:#x} ({tee})",
            got=f"{quote.tee_type:#x}",
            hint="an SGX quote proves no trust domain, nor the other way round",
            source=SPEC_QUOTE,
        )
    return quote


def _platform(
    quote: DcapQuote, brought: bytes | None, roots: frozenset[str], now: datetime
) -> CertifiedPlatform:
    certified = dcap_quote.certification(quote.version, quote.certified)
    # 2 pck
    if certified.kind == dcap_quote.PCK_CHAIN:
        if brought is not None:
            raise EvidenceRefused(
                "parts",
                expected=f"no endorsement {OPTIONAL}: the quote carries its certificates",
                got=f"{len(brought)} bytes",
                hint="leave that endorsement out",
            )
        chain = certified.data
    elif brought is not None:
        chain = brought
    else:
        raise EvidenceRefused(
            "pck.missing",
            expected="certification data of type 5 (PCK certificates)",
            got=f"type {certified.kind}, and no endorsement {OPTIONAL}",
            hint="fetch the platform's PCK certificates from Intel by its PPID, and hand them in",
            source=SPEC_QUOTE,
        )
    pck = dcap_pck.pck_chain(chain, roots=roots, now=now)
    # 3 qe
    try:
        pck.leaf.key.verify_ecdsa(certified.qe_signature, certified.qe_report)
    except Refused as cause:
        raise EvidenceRefused(
            "qe.signature",
            expected="a signature over the QE report by the PCK certificate's key",
            got=cause.message,
            source=SPEC_QUOTE,
        ) from None
    qe = dcap_quote.sgx_report(certified.qe_report)
    vouched = hashlib.sha256(certified.attestation_key + certified.authentication_data).digest() + bytes(32)
    if qe.report_data != vouched:
        raise EvidenceRefused(
            "qe.report-data",
            expected=f"SHA-256 of attestation key and authentication data: {vouched.hex()}",
            got=qe.report_data.hex(),
            hint="the quoting enclave did not certify this attestation key",
            source=SPEC_QUOTE,
        )
    point = certified.attestation_key
    key = public_key.key_of_point("secp256r1", point[:32], point[32:])
    return CertifiedPlatform(
        key, qe, pck, dcap_pck.Window(*pck.spans), _machine(pck), _platform_facts(pck, qe)
    )


def _platform_facts(pck: PckChain, qe: SgxReport) -> dict[str, str | int | bool]:
    platform = pck.platform
    facts: dict[str, str | int | bool] = {
        "fmspc": platform.fmspc.hex(),
        "pce_id": platform.pce_id.hex(),
        "ppid": platform.ppid.hex(),
        "pck_ca": pck.ca_kind,
        "pck_serial": f"{pck.leaf.serial:x}",
        "pck_cpu_svn": platform.cpu_svn.hex(),
        "sgx_type": platform.sgx_type,
        "qe_mr_signer": qe.mr_signer.hex(),
        "qe_mr_enclave": qe.mr_enclave.hex(),
        "root_subject": pck.root.subject,
    }
    if platform.instance:
        facts["platform_instance"] = platform.instance.hex()
    for name in ("dynamic_platform", "cached_keys", "smt_enabled"):
        value = getattr(platform, name)
        if value is not None:
            facts[name] = value
    return facts


def _machine(pck: PckChain) -> str:
    """The stable name of the very platform: a digest of its PPID, which each of its PCK certificates carries."""
    ppid = pck.platform.ppid
    if not any(ppid):
        raise Malformed("PCK certificate: PPID is zero, which names no platform")
    return digest.sha256(b"intel-ppid" + ppid + pck.platform.pce_id)


def contract(register: bytes) -> ContractDigest | None:
    """The digest in a register that the host fills before the start (MRCONFIGID, CONFIGID): 32 bytes, then zeros.

    None where the register is not in use, or holds something else.
    """
    if any(register[32:]) or not any(register):
        return None
    return ContractDigest(digest.text(register[:32]))
