"""Cases of Azure confidential VMs: hcl_report.bin, over SNP or TDX, with a TPM quote where the sources had one.

Where a case is no whole evidence, all that is there is verified: the runtime data's hash in the hardware's report, the
hardware's report where its certificates are there, the TPM quote. For SNP that is every case, since none has AMD's
CRL; those must be refused as a whole for want of it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused
from strongroom.evidence import azure, snp, tdx, verify
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import azure_hcl, snp_report
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from tests.vectors.adapters import dcap
from tests.vectors.adapters import snp as snp_adapter
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

_RSASSA_SHA256 = b"\x00\x14\x00\x0b"


def load(folder: Path, case: dict) -> Loaded:
    now = datetime.fromisoformat(case["verify_at"]) if case["verify_at"] else datetime(1970, 1, 1, tzinfo=UTC)
    parts = _parts(folder)
    endorsements = _endorsements(folder)
    quoted = case["expected"].get("fields", {}).get("tpm_quote", {})
    binding = Preset(values={"extra_data": bytes.fromhex(quoted.get("extra_data", ""))})
    evidence = Evidence(tee="azure", parts=parts)
    over_tdx = azure.TD_QUOTE in parts
    if "quote" in parts and (snp.CRL in endorsements.parts or (over_tdx and endorsements.parts)):
        return Loaded(now=now, evidence=evidence, endorsements=endorsements, binding=binding)
    policy = case["expected"]["verdict"] != "crypto_valid"
    return Loaded(
        now=now,
        partial=lambda: _what_is_there(evidence, endorsements, binding, now, policy=policy),
        notes=_notes(parts, endorsements),
    )


def _parts(folder: Path) -> dict[str, bytes]:
    parts = {azure.HCL: (folder / "hcl_report.bin").read_bytes()}
    if (folder / "td_quote.bin").is_file():
        parts[azure.TD_QUOTE] = (folder / "td_quote.bin").read_bytes()
    if (folder / "tpm_quote.msg").is_file():
        signature = (folder / "tpm_quote.sig").read_bytes()
        parts["quote"] = (folder / "tpm_quote.msg").read_bytes()
        parts["signature"] = _RSASSA_SHA256 + len(signature).to_bytes(2, "big") + signature
        parts["pcrs"] = b"".join(
            bytes.fromhex(one) for one in json.loads((folder / "pcrs.json").read_bytes())
        )
    return parts


def _endorsements(folder: Path) -> Endorsements:
    found = sorted(folder.glob("tdx_collateral*.json"))
    return dcap.gathered(json.loads(found[0].read_bytes())) if found else snp_adapter.amd_endorsements(folder)


def _notes(parts: dict[str, bytes], endorsements: Endorsements) -> tuple[str, ...]:
    notes = []
    if "quote" not in parts:
        notes.append("no TPM quote")
    if not endorsements.parts:
        notes.append("no certificates of the hardware")
    elif azure.TD_QUOTE not in parts:
        notes.append("no CRL: all but revocation holds")
    return tuple(notes)


def _what_is_there(
    evidence: Evidence, endorsements: Endorsements, binding: Preset, now: datetime, *, policy: bool
) -> None:
    hcl = azure.runtime(evidence.parts[azure.HCL])
    if "quote" in evidence.parts:
        azure.attest(evidence, binding=binding)
    if endorsements.parts:
        _hardware(hcl, evidence, endorsements, now, policy=policy)
    _whole_is_refused(evidence, endorsements, binding, now)


def _hardware(
    hcl: azure_hcl.Hcl, evidence: Evidence, endorsements: Endorsements, now: datetime, *, policy: bool
) -> None:
    bound = Preset(values={"report_data": hcl.bound})
    if hcl.tee == "tdx":
        quote = Evidence(tee="tdx", parts={"quote": evidence.parts[azure.TD_QUOTE]})
        debug = tdx.verify(quote, endorsements, binding=bound, roots=pinned.PINNED, now=now).debug
    else:
        report = Evidence(tee="snp", parts={"report": hcl.report})
        attested = snp.attest(report, endorsements, binding=bound, roots=pinned.PINNED, now=now)
        debug = snp_report.is_debug(attested.report.policy)
    if policy and debug:
        raise EvidenceRefused("debug", expected="debug off", got="debug on")


def _whole_is_refused(evidence: Evidence, endorsements: Endorsements, binding: Preset, now: datetime) -> None:
    """What is not there is never skipped. Anything else here is an error of ours."""
    try:
        verify.verify(evidence, endorsements or NONE, binding=binding, roots=pinned.PINNED, now=now)
    except EvidenceRefused as cause:
        if cause.check in {"parts", "revocation"}:
            return
        raise AssertionError(f"refused by {cause.check}, expected parts or revocation") from None
    raise AssertionError("accepted, though not whole")
