"""Recorded reports of each line and kind: every single-byte change of them and of AMD's endorsements is refused.

Two of the recorded cases have AMD's list; of the others everything but revocation is asked (`snp.attest`).
"""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence import snp, verify
from strongroom.model.binding import Preset
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from tests import effort
from tests.vectors import runner
from tests.vectors.adapters import azure as azure_adapter
from tests.vectors.adapters import snp as snp_adapter

CASES = {
    "milan-v2-with-list": "snp/milan-v2-vcek-steward-milan-21033d58",
    "milan-v3": "snp/milan-v3-vcek-trustee-evidence-v1-2cf09fff",
    "milan-vlek": "snp/milan-v3-vlek-trustee-test-vlek-report-decdab94",
    "genoa-v3": "snp/genoa-v3-vcek-services-sevsnp-tsm-report-8d8bfb3e",
    "genoa-v5": "snp/genoa-v5-vcek-oak-genoa-oc-evidence-6d1ceffa",
    "turin-v5": "snp/turin-v5-vcek-tee-attestation-veri-turin-attestation-report-85da705e",
}
AZURE = "azure/tdx-tdx-trustee-evidence-v0-f7d67cdc"
# See test_azure.UNSIGNED: the HCL report's version, and of the TDREPORT all but its report data.
UNSIGNED = {4, *range(32, 32 + 128), *range(32 + 192, 32 + 1024)}


def recorded(name):
    folder = runner.folder() / name
    if not folder.is_dir():
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    return folder, json.loads((folder / "case.json").read_bytes())


def flips(good: bytes):
    for place in effort.some(range(len(good))):
        yield place, good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :]


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("part", ["report", snp.VEK, snp.ISSUERS, snp.CRL])
def test_no_byte_of_recorded_evidence_can_be_changed(name, part):
    folder, case = recorded(CASES[name])
    report, endorsements = (folder / "report.bin").read_bytes(), snp_adapter.amd_endorsements(folder)
    if part == snp.CRL and part not in endorsements.parts:
        pytest.skip("recorded without AMD's list")
    now, binding = (
        datetime.fromisoformat(case["verify_at"]),
        Preset(values={"report_data": report[0x50:0x90]}),
    )
    judge = snp.verify if snp.CRL in endorsements.parts else snp.attest

    def ask(report, parts):
        evidence = Evidence(tee="snp", parts={"report": report})
        return judge(evidence, Endorsements(parts=parts), binding=binding, roots=pinned.PINNED, now=now)

    ask(report, endorsements.parts)
    for place, spoiled in flips(report if part == "report" else endorsements.parts[part]):
        parts = endorsements.parts if part == "report" else {**endorsements.parts, part: spoiled}
        try:
            ask(spoiled if part == "report" else report, parts)
        except (EvidenceRefused, Malformed):
            continue
        pytest.fail(f"accepted with byte {place} changed")


@pytest.mark.parametrize("part", ["hcl-report", "quote", "signature", "pcrs", "td-quote"])
def test_no_byte_of_a_recorded_azure_vm_over_tdx_can_be_changed(part):
    folder, case = recorded(AZURE)
    loaded = azure_adapter.load(folder, case)

    def ask(evidence):
        return verify.verify(
            evidence, loaded.endorsements, binding=loaded.binding, roots=loaded.roots, now=loaded.now
        )

    ask(loaded.evidence)
    accepted = set()
    for place, spoiled in flips(loaded.evidence.parts[part]):
        try:
            ask(Evidence(tee="azure", parts={**loaded.evidence.parts, part: spoiled}))
        except (EvidenceRefused, Malformed):
            continue
        accepted.add(place)
    assert accepted <= (UNSIGNED if part == "hcl-report" else set())
