"""Intel SGX (`sgx`): a DCAP quote of an enclave → Claims.

Specs: Intel SGX ECDSA Quote Library API, appendix A.4; Intel SDM volume 3D (REPORT, ATTRIBUTES, KSS); those of `dcap`.
Checked here, in this order (numbers recur at the code):
  1 dcap         the thirteen checks of `dcap`: parts, certificates, quoting enclave, signature, binding, endorsements,
                 revocation, TCB; reserved bytes of the report are zero (`dcap_quote`)
  2 attributes   the enclave is initialised (INIT)

Not checked here: MRENCLAVE, signer and product, ISVSVN, CONFIGID, debug, 64-bit mode, MISCSELECT, the status and the
advisories. Those are policy (strongroom/appraisal); they are in the claims. A signer alone is no measurement: the
register `signed_product` is MRSIGNER with ISVPRODID, and its minimum ISVSVN is asked of `tcb` "isv.svn".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import dcap, dcap_quote
from strongroom.model.claims import Claims

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "sgx"
# Bits of ATTRIBUTES.FLAGS (SDM volume 3D, table "Layout of ATTRIBUTES").
FLAGS = {
    "init": 0,
    "debug": 1,
    "mode64bit": 2,
    "provision_key": 4,
    "einittoken_key": 5,
    "cet": 6,
    "kss": 7,
    "aexnotify": 10,
}
_INIT, _DEBUG = 1 << FLAGS["init"], 1 << FLAGS["debug"]
_FLAG_NAMES = tuple((f"attributes.{name}", 1 << bit) for name, bit in FLAGS.items())

NOT_CHECKED = (
    *dcap.NOT_CHECKED,
    "the report's own CPUSVN: the platform's is the one that the PCK certificate states",
)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of an enclave. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    # 1 dcap
    proved = dcap.prove(
        evidence,
        endorsements,
        tee_type=dcap_quote.TEE_SGX,
        binding=binding,
        roots=roots,
        now=now,
    )
    report: dcap_quote.SgxReport = proved.report
    flags = int.from_bytes(report.attributes[:8], "little")
    # 2 attributes
    if not flags & _INIT:
        raise EvidenceRefused(
            "attributes",
            expected="an initialised enclave (ATTRIBUTES.INIT)",
            got=report.attributes.hex(),
            source="Intel SDM volume 3D, ATTRIBUTES",
        )
    return _claims(proved, report, flags)


def _claims(proved: dcap.Proved, report: dcap_quote.SgxReport, flags: int) -> Claims:
    signer, product = report.mr_signer.hex(), report.isv_prod_id
    facts: dict[str, str | int | bool] = {
        **proved.platform.facts,
        **proved.assessment.facts,
        "quote_version": proved.quote.version,
        "report_data": report.report_data.hex(),
        "cpu_svn": report.cpu_svn.hex(),
        "misc_select": report.misc_select.hex(),
        "attributes": report.attributes.hex(),
        "xfrm": report.attributes[8:].hex(),
        "mr_signer": signer,
        "isv_prod_id": product,
        "isv_svn": report.isv_svn,
        "config_svn": report.config_svn,
    }
    for name, bit in _FLAG_NAMES:
        facts[name] = bool(flags & bit)
    config = report.config_id
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, proved.platform.pck.root.spki_digest),
        root=proved.platform.pck.root.spki_digest,
        machine=proved.platform.machine,
        contract_digest=dcap.contract(config),
        registers={
            "mr_enclave": report.mr_enclave.hex(),
            "signed_product": f"{signer}{product:04x}",
            "config_id": config.hex(),
            "isv_ext_prod_id": report.isv_ext_prod_id.hex(),
            "isv_family_id": report.isv_family_id.hex(),
        },
        debug=bool(flags & _DEBUG),
        memory_guard=False,
        facts=facts,
        not_checked=NOT_CHECKED,
        tcb={**proved.assessment.tcb, "isv.svn": report.isv_svn, "config.svn": report.config_svn},
        status=proved.assessment.status,
        advisories=proved.assessment.advisories,
    )
