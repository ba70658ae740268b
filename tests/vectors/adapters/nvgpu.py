"""NVIDIA cases: a report and its chain, expected to answer the nonce that the label tells."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def load(folder: Path, case: dict) -> Loaded:
    parts = {"report": (folder / "spdm_report.bin").read_bytes()}
    for file in case["collateral_files"]:
        if file.endswith(".pem"):
            blocks = _BLOCK.findall((folder / file).read_text())
            parts["certificates"] = b"".join(base64.b64decode(block) for block in blocks)
    nonce = case["expected"].get("fields", {}).get("request_nonce")
    return Loaded(
        now=datetime.fromisoformat(case["verify_at"])
        if case["verify_at"]
        else datetime(2026, 1, 15, tzinfo=UTC),
        evidence=Evidence(tee="nvgpu", parts=parts),
        binding=Preset(values={"nonce": bytes.fromhex(nonce)} if nonce else {}),
        notes=("no certificates: refused for that",) if "certificates" not in parts else (),
    )
