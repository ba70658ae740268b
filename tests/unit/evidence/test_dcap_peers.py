"""Our status and advisories equal those of two other verifiers, on recorded quotes and on many made-up platforms.

`dcap-qvl` (SGX and TDX) and Intel's own quote verification library (PyPI `sgx-dcap-quote-verify-python`, SGX). Both judge
policy too (debug, SEPT_VE_DISABLE, MRSERVICETD): where they refuse for that, our claims must show the same.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from strongroom.encoding import pem
from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence import verify
from strongroom.evidence.formats import dcap_pck, dcap_quote, dcap_tcb
from strongroom.model.binding import Preset
from strongroom_testing.vendors import fake_intel
from tests.vectors import runner
from tests.vectors.adapters import dcap as adapter

if TYPE_CHECKING:
    from pathlib import Path

VECTORS = runner.folder()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUND = Preset(values={"report_data": bytes(range(64))})
# What Intel's library calls the statuses.
INTEL = {
    "STATUS_OK": "UpToDate",
    "STATUS_TCB_SW_HARDENING_NEEDED": "SWHardeningNeeded",
    "STATUS_TCB_CONFIGURATION_NEEDED": "ConfigurationNeeded",
    "STATUS_TCB_CONFIGURATION_AND_SW_HARDENING_NEEDED": "ConfigurationAndSWHardeningNeeded",
    "STATUS_TCB_OUT_OF_DATE": "OutOfDate",
    "STATUS_TCB_OUT_OF_DATE_CONFIGURATION_NEEDED": "OutOfDateConfigurationNeeded",
    "STATUS_TCB_REVOKED": "Revoked",
}


def windows() -> list[tuple[str, Path, str, str]]:
    """(TEE, case folder, collateral file, time) of every recorded quote with collateral."""
    out = []
    for tee in ("sgx", "tdx"):
        for folder in sorted(VECTORS.glob(f"{tee}/*")):
            case = json.loads((folder / "case.json").read_bytes())
            out += [
                (tee, folder, window["file"], window["verify_at"])
                for window in case.get("collateral_windows", ())
                if "file" in window
            ]
    return out


WINDOWS = windows()
recorded = pytest.mark.skipif(not WINDOWS, reason=f"no recorded quotes in {VECTORS}")


def ours(tee: str, quote: bytes, endorsements, now: datetime, *, bound=None, roots=pinned.PINNED):
    """Our claims, or the name of the check that refused."""
    bound = bound or Preset(values={"report_data": adapter.report_data(quote)})
    evidence = fake_intel.Evidence(tee=tee, parts={"quote": quote})
    try:
        return verify.verify(evidence, endorsements, binding=bound, roots=roots, now=now)
    except EvidenceRefused as cause:
        return cause.check
    except Malformed:
        return "format"


@recorded
@pytest.mark.parametrize(
    ("tee", "folder", "file", "at"), WINDOWS, ids=lambda value: getattr(value, "name", None)
)
def test_recorded_quotes_have_the_status_and_advisories_of_dcap_qvl(tee, folder, file, at):
    dcap_qvl = pytest.importorskip(
        "dcap_qvl", reason="dcap-qvl is not installed: its verdicts are not compared"
    )
    collateral = json.loads((folder / file).read_bytes())
    quote, now = (folder / "quote.bin").read_bytes(), datetime.fromisoformat(at)
    claims = ours(tee, quote, adapter.gathered(collateral), now)
    given = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(collateral))
    try:
        theirs = dcap_qvl.verify(quote, given, int(now.timestamp()))
    except ValueError as cause:
        said = str(cause)
        if "No matching TCB level" in said:
            assert claims in {"tcb.level", "tcb.module"}
        elif "Debug mode" in said:
            assert claims.debug
        elif "SEPT_VE_DISABLE" in said:
            assert claims.facts["td_attributes.sept_ve_disable"] is False
        elif "MR service TD" in said:
            assert claims.registers["mr_service_td"].strip("0")
        else:
            raise
        return
    assert claims.status == theirs.status
    assert set(claims.advisories) == set(theirs.advisory_ids)


@recorded
@pytest.mark.parametrize(
    ("folder", "file", "at"),
    [window[1:] for window in WINDOWS if window[0] == "sgx"],
    ids=lambda value: getattr(value, "name", None),
)
def test_recorded_sgx_quotes_have_the_status_of_intels_library(folder, file, at):
    intel = pytest.importorskip(
        "sgx_dcap_quote_verify", reason="Intel's library is not installed: its verdicts are not compared"
    )
    collateral = json.loads((folder / file).read_bytes())
    quote, now = (folder / "quote.bin").read_bytes(), datetime.fromisoformat(at)
    claims = ours("sgx", quote, adapter.gathered(collateral), now)
    pems = (folder / "pck_chain_from_quote.pem").read_bytes()
    # Leaf first and root last, in whichever order the quote has them.
    ordered = dcap_pck.certificates(pems, what="pck", count=3)
    chain = [pem.encode(one, b"CERTIFICATE").decode() for one in ordered]
    documents = adapter.gathered(collateral).parts
    theirs = intel.verify(
        # Intel's root has two certificates over one key, and its library tells them apart: the chain's own is given,
        # which ours proved to carry the pinned key.
        chain[2],
        chain[0],
        chain[1] + chain[2],
        collateral["root_ca_crl"],
        collateral["pck_crl"],
        documents["tcb-info"].decode(),
        collateral["tcb_info_issuer_chain"],
        quote,
        documents["qe-identity"].decode(),
        now,
    )
    assert theirs.pck_certificate_status.name == "STATUS_OK"
    assert theirs.quote_status.name in INTEL
    assert claims.status == INTEL[theirs.quote_status.name]
    assert theirs.enclave_report.mr_enclave.hex() == claims.registers["mr_enclave"]
    assert theirs.enclave_report.report_data.hex() == claims.facts["report_data"]


def test_many_made_up_platforms_have_the_status_and_advisories_of_dcap_qvl():
    dcap_qvl = pytest.importorskip(
        "dcap_qvl", reason="dcap-qvl is not installed: its verdicts are not compared"
    )
    intel = fake_intel.FakeIntel(now=NOW)
    chance = random.Random(20260101)  # noqa: S311 - the same platforms each time
    seen = set()
    for _ in range(400):
        quote, endorsements = made_up(intel, chance)
        claims = ours("tdx", quote, endorsements, NOW, bound=BOUND, roots=frozenset({intel.root_digest}))
        status, advisories = asked(dcap_qvl, intel, quote, endorsements)
        got = claims if isinstance(claims, str) else claims.status
        seen.add(got)
        if status.startswith("refused"):
            assert got in {"tcb.status", "tcb.level", "tcb.module"}, (status, got)
            continue
        assert set(claims.advisories) == advisories
        if got != status:
            # docs/evidence-disagreements.md: Intel advises a relaunch only where the launch's TDX module alone is out
            # of date and the present one is the newest; short of that OutOfDate stands.
            assert (got, status) in RELAUNCHES
            assert not relaunches(quote, endorsements)
    assert seen >= {
        "UpToDate",
        "OutOfDate",
        "ConfigurationNeeded",
        "OutOfDateConfigurationNeeded",
        "TDRelaunchAdvised",
        "TDRelaunchAdvisedConfigurationNeeded",
        "tcb.level",
        "tcb.status",
        "tcb.module",
    }


RELAUNCHES = {
    ("OutOfDate", "TDRelaunchAdvised"),
    ("OutOfDate", "TDRelaunchAdvisedConfigurationNeeded"),
    ("OutOfDateConfigurationNeeded", "TDRelaunchAdvisedConfigurationNeeded"),
}


def relaunches(quote, endorsements) -> bool:
    """Whether the module of the launch is out of date, and the present one and its microcode are the newest."""
    parsed = dcap_quote.parse(quote)
    report = dcap_quote.td_report(parsed.body_type, parsed.body)
    inner, _ = dcap_tcb.split(endorsements.parts["tcb-info"], "tcbInfo", what="TCB info")
    info = dcap_tcb.parse_tcb_info(inner)
    (identity,) = info.modules
    launch, present = report.tee_tcb_svn, report.tee_tcb_svn2
    newest = identity.levels[0].isv_svn if present[1] else info.levels[0].tdx[0]
    level = dcap_tcb.match_svn(identity.levels, launch[0])
    return (
        launch[1] == 1
        and level.status == "OutOfDate"
        and present[0] >= newest
        and present[2] >= info.levels[0].tdx[2]
        and dcap_tcb.match(info, fake_intel.COMPONENTS, fake_intel.PCE_SVN, launch).sgx
        not in {"OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}
    )


def made_up(intel, chance):
    """A TDX quote of either version, and collateral with levels of any status."""
    components, pce = fake_intel.COMPONENTS, fake_intel.PCE_SVN
    statuses = [one for one in sorted(dcap_tcb._STATUSES) if one != "Revoked"] * 2 + ["Revoked"]
    current = chance.choice(statuses + ["UpToDate"] * 10)
    made = [
        fake_intel.level(
            components, pce, bytes([5, 0, chance.choice((2, 3, 4))]) + bytes(13), current, "A-1"
        ),
        fake_intel.level(
            chance.choice((components, bytes(4) + components[4:])),
            pce - 1,
            bytes([3, 0, 2]) + bytes(13),
            chance.choice(statuses),
            "A-2",
        ),
    ]
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    module_status = chance.choice(("OutOfDate", "OutOfDate", "UpToDate", "Revoked"))
    levels = [fake_intel.svn_level(5, "UpToDate"), fake_intel.svn_level(3, module_status, "A-3")]
    tcb = {
        "tcbLevels": made,
        "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": levels}],
    }
    identity = {
        "tcbLevels": [
            fake_intel.svn_level(8, chance.choice(("UpToDate",) * 8 + ("OutOfDate", "Revoked")), "A-4"),
        ]
    }
    body = {
        "tee_tcb_svn": bytes(
            [chance.choice((2, 3, 4, 5)), chance.choice((0, 1, 1, 1, 1, 2)), chance.choice((2, 3))]
        )
        + bytes(13),
        "tee_tcb_svn2": bytes(
            [chance.choice((3, 5, 5)), chance.choice((0, 1, 1, 1, 1, 2)), chance.choice((2, 4))]
        )
        + bytes(13),
    }
    evidence = intel.evidence(BOUND, tee="tdx", version=chance.choice((4, 5, 5)), body=body)
    return evidence.parts["quote"], intel.endorsements(tee="tdx", tcb=tcb, identity=identity)


def asked(dcap_qvl, intel, quote, endorsements):
    """What dcap-qvl says: status and advisories, or `refused`."""
    parts = endorsements.parts
    documents = {}
    for ours_, theirs, key in (
        ("tcb-info", "tcb_info", "tcbInfo"),
        ("qe-identity", "qe_identity", "enclaveIdentity"),
    ):
        inner, signature = dcap_tcb.split(parts[ours_], key, what=ours_)
        documents[theirs], documents[f"{theirs}_signature"] = inner.decode(), signature
    collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=parts["pck-crl-issuer-chain"].decode(),
        root_ca_crl=parts["root-ca-crl"],
        pck_crl=parts["pck-crl"],
        tcb_info_issuer_chain=parts["tcb-info-issuer-chain"].decode(),
        qe_identity_issuer_chain=parts["qe-identity-issuer-chain"].decode(),
        **documents,
    )
    try:
        report = dcap_qvl.verify_with_root_ca(quote, collateral, intel.root.certificate, int(NOW.timestamp()))
    except ValueError as cause:
        return f"refused: {cause}", set()
    return report.status, set(report.advisory_ids)
