"""Case folders of SGX and TDX quotes: the quote, and Intel's collateral as one JSON file of PCCS's field names.

Where a case has quotes and certificates but no collateral of its time, what is there is verified: the quote's own
chain and signatures. Such a quote as a whole is refused, for the missing endorsements and for nothing else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots as pinned
from strongroom.evidence import verify
from strongroom.evidence.formats import dcap, dcap_quote
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

CRYPTO_ONLY = "crypto-only"
QUOTE = "quote.bin"
# Cases that can be refused at any time have none of their own.
SOME_TIME = datetime(2025, 1, 1, tzinfo=UTC)


def load(folder: Path, case: dict, *, tee: str) -> Loaded:
    """The arguments of one verification."""
    # `quote.bin` where there is one: beside it the file may stand as it was found, in a buffer with room left.
    name = QUOTE if QUOTE in case["evidence_files"] else case["evidence_files"][0]
    quote = (folder / name).read_bytes()
    now = datetime.fromisoformat(case["verify_at"]) if case["verify_at"] else SOME_TIME
    evidence = Evidence(tee=tee, parts={"quote": quote, **_log(folder, case, tee)})
    binding = Preset(values={"report_data": report_data(quote)})
    collateral = sorted(name for name in case["collateral_files"] if name.startswith("collateral"))
    if not collateral and case["expected"].get("level") == CRYPTO_ONLY:
        return Loaded(
            now=now,
            partial=lambda: authenticate(evidence, binding, now),
            notes=("no collateral in the case: certificates and signatures alone",),
        )
    endorsements = NONE
    if collateral:
        endorsements = gathered(json.loads((folder / collateral[0]).read_bytes()))
    return Loaded(now=now, evidence=evidence, endorsements=endorsements, binding=binding)


def _log(folder: Path, case: dict, tee: str) -> dict[str, bytes]:
    """The firmware's event log, where a case of TDX has one."""
    names = case["evidence_files"] if tee == "tdx" else []
    others = [(folder / name).read_bytes() for name in names if name != QUOTE]
    return {"ccel": data for data in others if data[32:48] == b"Spec ID Event03\0"}  # noqa: B035 - at most one


def report_data(quote: bytes) -> bytes:
    """What the quote itself carries, for evidence that another protocol asked for."""
    try:
        parsed = dcap_quote.parse(quote)
    except Malformed:
        return bytes(64)
    return parsed.body[-64:] if parsed.body_type != dcap_quote.BODY_TD15 else parsed.body[520:584]


def gathered(collateral: dict[str, str]) -> Endorsements:
    """PCCS's field names to ours; documents and their signatures put together as Intel sends them."""
    tcb, identity = collateral["tcb_info"], collateral["qe_identity"]
    tcb_signature, identity_signature = (
        collateral["tcb_info_signature"],
        collateral["qe_identity_signature"],
    )
    texts = {
        "tcb-info": f'{{"tcbInfo":{tcb},"signature":"{tcb_signature}"}}',
        "tcb-info-issuer-chain": collateral["tcb_info_issuer_chain"],
        "qe-identity": f'{{"enclaveIdentity":{identity},"signature":"{identity_signature}"}}',
        "qe-identity-issuer-chain": collateral["qe_identity_issuer_chain"],
        "root-ca-crl": collateral["root_ca_crl"],
        "pck-crl": collateral["pck_crl"],
        "pck-crl-issuer-chain": collateral["pck_crl_issuer_chain"],
    }
    return Endorsements(parts={name: text.encode() for name, text in texts.items()})


def endorsements_of(folder: Path) -> Endorsements:
    """The collateral of a case's folder, `NONE` where it has none."""
    found = sorted(folder.glob("collateral*.json"))
    return gathered(json.loads(found[0].read_bytes())) if found else NONE


def authenticate(evidence: Evidence, binding: Preset, now: datetime) -> None:
    """Raise unless nothing but the endorsements is wanting."""
    try:
        verify.verify(evidence, NONE, binding=binding, roots=pinned.PINNED, now=now)
    except EvidenceRefused as cause:
        if cause.check != dcap.MISSING:
            raise
