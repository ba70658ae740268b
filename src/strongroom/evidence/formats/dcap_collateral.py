"""Intel's endorsements of SGX and TDX platforms, and what they say of one: checks 7 to 13 of `dcap`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Refused
from strongroom.evidence.formats import dcap_pck, dcap_tcb

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki import crl, x509
    from strongroom.evidence.formats.dcap_quote import SgxReport

REQUIRED = (
    "tcb-info",
    "tcb-info-issuer-chain",
    "qe-identity",
    "qe-identity-issuer-chain",
    "root-ca-crl",
    "pck-crl",
    "pck-crl-issuer-chain",
)

SPEC_TCB = "Intel SGX and TDX PCS API, Get TCB Info"
SPEC_QE = "Intel SGX and TDX PCS API, Get QE Identity"


@dataclass(frozen=True, eq=False, slots=True)
class Collateral:
    """Verified endorsements. Compared by identity."""

    info: dcap_tcb.TcbInfo
    identity: dcap_tcb.EnclaveIdentity
    signers: tuple[x509.Certificate, ...]
    root: x509.Certificate
    pck_ca: x509.Certificate
    root_crl: crl.RevocationList
    pck_crl: crl.RevocationList
    window: dcap_pck.Window


@dataclass(frozen=True, eq=False, slots=True)
class Assessment:
    """What the endorsements say of the platform."""

    status: str
    advisories: tuple[str, ...]
    tcb: dict[str, int]
    facts: dict[str, str | int | bool]


def verify(inputs: tuple[bytes, ...], *, roots: frozenset[str], now: datetime) -> Collateral:
    """Verify the endorsements, in the order of `REQUIRED`, each by its own signatures and dates."""
    tcb_info, tcb_chain, identity, identity_chain, root_list, pck_list, pck_chain = inputs
    tcb_path = dcap_pck.tcb_signer(tcb_chain, what="tcb-info", roots=roots, now=now)
    # Intel signs both with one key: the chain is verified twice only where two came.
    qe_path = (
        tcb_path
        if identity_chain == tcb_chain
        else dcap_pck.tcb_signer(identity_chain, what="qe-identity", roots=roots, now=now)
    )
    ca_path = dcap_pck.ca_chain(pck_chain, what="pck-crl", roots=roots, now=now)
    if ca_path.leaf is ca_path.root:
        raise EvidenceRefused(
            "pck-crl.path",
            expected="the chain of a CA that certifies platforms",
            got=f"{ca_path.root.subject} alone, whose list tells of CAs and not of platforms",
            hint="fetch the list of the authority that issued this platform's certificate",
            source=dcap_pck.SPEC,
        )
    for path in (qe_path, ca_path):
        if path.root.spki_digest != tcb_path.root.spki_digest:
            raise EvidenceRefused(
                "root",
                expected=f"one root for all endorsements: {tcb_path.root.spki_digest}",
                got=path.root.spki_digest,
                source=dcap_pck.SPEC,
            )
    info = dcap_tcb.parse_tcb_info(_signed(tcb_info, "tcbInfo", tcb_path, what="tcb-info", source=SPEC_TCB))
    qe = dcap_tcb.parse_identity(
        _signed(identity, "enclaveIdentity", qe_path, what="qe-identity", source=SPEC_QE)
    )
    root_crl = dcap_pck.revocation_list(root_list, what="root-ca-crl")
    pck_crl = dcap_pck.revocation_list(pck_list, what="pck-crl")
    signers = (tcb_path.leaf, qe_path.leaf)
    spans = (
        # 8 revoked: the PCK certificate and its CA are asked for in `assess`
        dcap_pck.check_revocation(root_crl, tcb_path.root, *signers, ca_path.leaf, what="root-ca-crl"),
        dcap_pck.check_revocation(pck_crl, ca_path.leaf, what="pck-crl"),
        dcap_pck.Span("tcb-info.validity", "TCB info", info.issued, info.next_update),
        dcap_pck.Span("qe-identity.validity", "QE identity", qe.issued, qe.next_update),
        *dcap_pck.spans("tcb-info", tcb_path),
        *dcap_pck.spans("qe-identity", qe_path),
        *dcap_pck.spans("pck-crl", ca_path),
    )
    return Collateral(
        info, qe, signers, tcb_path.root, ca_path.leaf, root_crl, pck_crl, dcap_pck.Window(*spans)
    )


def _signed(document: bytes, key: str, path: x509.Path, *, what: str, source: str) -> bytes:
    inner, signature = dcap_tcb.split(document, key, what=what)
    try:
        path.leaf.key.verify_ecdsa(signature, inner)
    except Refused as cause:
        raise EvidenceRefused(
            f"{what}.signature",
            expected=f"a signature over the exact bytes of {key} by {path.leaf.subject}",
            got=cause.message,
            hint="endorsements are signed as they come: never decode and encode them again",
            source=source,
        ) from None
    return inner


def assess(
    collateral: Collateral,
    pck: dcap_pck.PckChain,
    qe: SgxReport,
    *,
    kinds: tuple[str, str],
    present: tuple[bytes, bytes | None, bytes, bytes] | None,
) -> Assessment:
    """What the endorsements say of a platform with that PCK certificate and quoting enclave.

    kinds: of TCB info and of QE identity ("TDX" and "TD_QE"). present: of a TD report TEE TCB SVN, TEE TCB SVN 2
    (None in version 1.0), MRSIGNERSEAM and SEAMATTRIBUTES; None for SGX.
    """
    # 8 revoked
    _check_revoked(pck, collateral)
    kind, qe_id = kinds
    # 9 tcb.platform
    info, platform = collateral.info, pck.platform
    if (info.kind, info.fmspc, info.pce_id) != (kind, platform.fmspc, platform.pce_id):
        raise EvidenceRefused(
            "tcb.platform",
            expected=f"TCB info of {kind}, FMSPC {platform.fmspc.hex()}, PCE-ID {platform.pce_id.hex()}",
            got=f"{info.kind}, FMSPC {info.fmspc.hex()}, PCE-ID {info.pce_id.hex()}",
            hint="fetch the TCB info of this platform's FMSPC",
            source=SPEC_TCB,
        )
    # 10 qe.identity
    qe_level = _check_qe(qe, collateral.identity, qe_id)
    # 11 tcb.module, 12 tcb.level
    covering = _find(info, platform, present[0] if present else None, present)
    status, current = covering.status, None
    if present is not None and present[1] is not None:
        # A TD report 1.5 tells the TDX module's SVNs at the TD's launch and those of now: both must be covered.
        current = _find(info, platform, present[1], present)
        status = dcap_tcb.relaunch(info, covering, qe_level.status, present[1])
        if current.status == dcap_tcb.REVOKED:
            status = dcap_tcb.REVOKED
    status = dcap_tcb.converge(status, qe_level.status)
    # 13 tcb.status
    if status == dcap_tcb.REVOKED:
        raise EvidenceRefused(
            "tcb.status",
            expected="a TCB that Intel has not revoked",
            got=f"Revoked ({', '.join(covering.advisories + qe_level.advisories) or 'no advisories'})",
            hint="this platform's TCB is broken beyond trust until its firmware is updated",
            source=SPEC_TCB,
        )
    assessment = _assessment(collateral, platform, qe, covering, qe_level, status)
    if current is not None:
        assessment.facts["present_tcb_status"] = current.status
    return assessment


def _check_revoked(pck: dcap_pck.PckChain, collateral: Collateral) -> None:
    if collateral.root.spki_digest != pck.root.spki_digest:
        raise EvidenceRefused(
            "root",
            expected=f"endorsements by the platform's own root {pck.root.spki_digest}",
            got=collateral.root.spki_digest,
            source=dcap_pck.SPEC,
        )
    ca = collateral.pck_ca
    if (ca.spki_digest, ca.subject) != (pck.ca.spki_digest, pck.ca.subject):
        raise EvidenceRefused(
            "pck-crl.signature",
            expected=f"a revocation list by {pck.ca.subject}",
            got=f"one by {ca.subject}",
            hint="fetch the list of the authority that issued this platform's certificate",
            source=dcap_pck.SPEC,
        )
    for revoked, certificate in ((collateral.root_crl, pck.ca), (collateral.pck_crl, pck.leaf)):
        dcap_pck.check_listed(revoked, certificate)


def _check_qe(qe: SgxReport, identity: dcap_tcb.EnclaveIdentity, expected_id: str) -> dcap_tcb.SvnLevel:
    misc = int.from_bytes(qe.misc_select, "big") & identity.misc_mask
    attributes = int.from_bytes(qe.attributes, "big") & identity.attributes_mask
    for name, expected, got in (
        ("identity", expected_id, identity.id),
        ("MRSIGNER", identity.mr_signer.hex(), qe.mr_signer.hex()),
        ("ISVPRODID", identity.isv_prod_id, qe.isv_prod_id),
        ("MISCSELECT under its mask", f"{identity.misc_select:08x}", f"{misc:08x}"),
        ("ATTRIBUTES under their mask", f"{identity.attributes:032x}", f"{attributes:032x}"),
    ):
        if expected != got:
            raise EvidenceRefused(
                "qe.identity",
                expected=f"{name} {expected}",
                got=str(got),
                hint="the quote was not made by Intel's quoting enclave for this TEE",
                source=SPEC_QE,
            )
    level = dcap_tcb.match_svn(identity.levels, qe.isv_svn)
    if level is None:
        raise EvidenceRefused(
            "tcb.level",
            expected=f"a quoting enclave of ISVSVN {identity.levels[-1].isv_svn} or higher",
            got=str(qe.isv_svn),
            hint="no TCB level covers this quoting enclave: update it",
            source=SPEC_QE,
        )
    return level


def _find(
    info: dcap_tcb.TcbInfo,
    platform: dcap_pck.PckExtension,
    svn: bytes | None,
    present: tuple[bytes, bytes | None, bytes, bytes] | None,
) -> dcap_tcb.CoveringLevel:
    """The level that covers the platform with that TEE TCB SVN, whose TDX module must be one that Intel knows."""
    if svn is not None and present is not None:
        _check_module(info, svn, present[2], present[3])
    covering = dcap_tcb.match(info, platform.components, platform.pce_svn, svn)
    if covering is None:
        raise EvidenceRefused(
            "tcb.level",
            expected="a TCB level that covers the platform",
            got=f"none for components {platform.components.hex()}, PCESVN {platform.pce_svn}"
            + (f", TEE TCB SVN {svn.hex()}" if svn is not None else ""),
            hint="older than every level that Intel still knows: update the platform's firmware and TDX module",
            source=SPEC_TCB,
        )
    return covering


def _check_module(info: dcap_tcb.TcbInfo, svn: bytes, signer: bytes, attributes: bytes) -> None:
    module = dcap_tcb.module_of(info, svn[1])
    if module is None:
        raise EvidenceRefused(
            "tcb.module",
            expected="an identity of the TDX module's version: "
            + (", ".join(known.id for known in info.modules) or "none is given"),
            got=f"TDX_{svn[1]:02X}",
            hint="Intel's TCB info does not know this TDX module",
            source=SPEC_TCB,
        )
    bits = int.from_bytes(attributes, "big") & module.mask
    if module.mr_signer != signer or module.attributes != bits:
        raise EvidenceRefused(
            "tcb.module",
            expected=f"a TDX module with MRSIGNERSEAM {module.mr_signer.hex()}, SEAMATTRIBUTES {module.attributes:016x}",
            got=f"{signer.hex()}, {bits:016x}",
            hint="the TDX module is not one of Intel's",
            source=SPEC_TCB,
        )


def _assessment(
    collateral: Collateral,
    platform: dcap_pck.PckExtension,
    qe: SgxReport,
    covering: dcap_tcb.CoveringLevel,
    qe_level: dcap_tcb.SvnLevel,
    status: str,
) -> Assessment:
    info, identity = collateral.info, collateral.identity
    tcb = {f"sgx.{index:02d}": svn for index, svn in enumerate(platform.components, start=1)}
    tcb["pce.svn"] = platform.pce_svn
    tcb["qe.svn"] = qe.isv_svn
    tcb["evaluation"] = min(info.evaluation, identity.evaluation)
    facts: dict[str, str | int | bool] = {
        "tcb_evaluation_data_number": info.evaluation,
        "qe_evaluation_data_number": identity.evaluation,
        "tcb_level_status": covering.level.status,
        "tcb_date": covering.level.date,
        "qe_status": qe_level.status,
        "qe_tcb_date": qe_level.date,
        "tcb_info_next_update": f"{info.next_update:%Y-%m-%dT%H:%M:%SZ}",
        "root_crl_number": collateral.root_crl.number,
        "pck_crl_number": collateral.pck_crl.number,
    }
    if covering.module is not None:
        facts["tdx_module_status"] = covering.module.status
        facts["tdx_module_tcb_date"] = covering.module.date
    advisories = tuple(sorted({*covering.advisories, *qe_level.advisories}))
    return Assessment(status, advisories, tcb, facts)
