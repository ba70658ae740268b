"""Cases of AMD SEV-SNP: report.bin with vek.der, ask_ark.pem and, where the sources had one, ark_crl.der.

Most cases have no CRL, and this verifier accepts nothing without one. Such a case is a part: everything but
revocation (`snp.attest`, and no debug) must give the label, and the whole must be refused for want of the list.
A case without a certificate is parsed alone.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused
from strongroom.evidence import roots as pinned
from strongroom.evidence import snp, verify
from strongroom.evidence.formats import snp_report
from strongroom.model.binding import Preset
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
REPORT_DATA = slice(0x50, 0x90)


def load(folder: Path, case: dict) -> Loaded:
    report = (folder / "report.bin").read_bytes()
    now = datetime.fromisoformat(case["verify_at"]) if case["verify_at"] else datetime(1970, 1, 1, tzinfo=UTC)
    endorsements = amd_endorsements(folder)
    if not endorsements.parts:
        return Loaded(
            now=now,
            partial=lambda: parses(report, case),
            signed=False,
            notes=("no certificate of the chip: parsed alone",),
        )
    evidence = Evidence(tee="snp", parts={"report": report})
    told = case["expected"].get("fields", {}).get("report_data")
    binding = Preset(values={"report_data": bytes.fromhex(told) if told else report[REPORT_DATA]})
    policy = case["expected"]["verdict"] != "crypto_valid"
    if snp.CRL in endorsements.parts:
        return Loaded(now=now, evidence=evidence, endorsements=endorsements, binding=binding)
    return Loaded(
        now=now,
        partial=lambda: all_but_revocation(evidence, endorsements, binding, now, policy=policy),
        notes=("no CRL: all but revocation holds, and the whole is refused for want of it",),
    )


def amd_endorsements(folder: Path) -> Endorsements:
    """AMD's files of a case; other cases name the chip's certificate vcek.der."""
    parts = {}
    for name in ("vek.der", "vcek.der"):
        if (folder / name).is_file():
            parts[snp.VEK] = (folder / name).read_bytes()
    if (folder / "ask_ark.pem").is_file():
        pem = (folder / "ask_ark.pem").read_bytes()
        parts[snp.ISSUERS] = b"".join(base64.b64decode(block) for block in _BLOCK.findall(pem))
    if (folder / "ark_crl.der").is_file():
        parts[snp.CRL] = (folder / "ark_crl.der").read_bytes()
    return Endorsements(parts=parts)


def all_but_revocation(
    evidence: Evidence, endorsements: Endorsements, binding: Preset, now: datetime, *, policy: bool
) -> None:
    attested = snp.attest(evidence, endorsements, binding=binding, roots=pinned.PINNED, now=now)
    if policy and snp_report.is_debug(attested.report.policy):
        raise EvidenceRefused("debug", expected="debug off", got="debug on")
    refused_for_want_of_a_list(evidence, endorsements, binding, now)


def refused_for_want_of_a_list(
    evidence: Evidence, endorsements: Endorsements, binding: Preset, now: datetime
) -> None:
    """Rule 4: a missing list is never skipped. Anything else here is an error of ours."""
    try:
        verify.verify(evidence, endorsements, binding=binding, roots=pinned.PINNED, now=now)
    except EvidenceRefused as cause:
        if cause.check == "revocation":
            return
        raise AssertionError(f"refused by {cause.check}, expected revocation") from None
    raise AssertionError("accepted without a revocation list")


def parses(data: bytes, case: dict) -> snp_report.SnpReport:
    """The report parses, and its fields are those of the label."""
    report = snp_report.parse(data)
    for name, label in case["expected"].get("fields", {}).items():
        got, value = getattr(report, name, None), label
        if name in {"policy", "platform_info"}:
            value = int(label, 16)
        if isinstance(got, bytes):
            got = got.hex()
        if isinstance(got, str | int) and type(got) is type(value):
            assert got == value, f"{name}: {got}, expected {value}"
    return report
