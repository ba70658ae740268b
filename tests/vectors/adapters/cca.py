"""CCA cases: a token, the platform key that its sources hold, and the challenge that its label tells."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.evidence import cca
from strongroom.evidence import roots as pinned
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, case: dict) -> Loaded:
    name = "token.cbor" if "token.cbor" in case["evidence_files"] else case["evidence_files"][0]
    token = (folder / name).read_bytes()
    realm = case["expected"].get("fields", {}).get("realm", {})
    endorsements, roots, notes = NONE, pinned.PINNED, ("no platform key is known",)
    for file in case["collateral_files"]:
        if file.endswith(".pem"):
            key = _der((folder / file).read_text())
            endorsements = Endorsements(parts={"platform-key": key})
            roots, notes = frozenset({digest.sha256(key)}), ("no CCA root is public: simulated",)
    return Loaded(
        # A token has no time; the label gives none.
        now=datetime.fromisoformat(case["verify_at"])
        if case["verify_at"]
        else datetime(2026, 1, 1, tzinfo=UTC),
        evidence=Evidence(tee="cca", parts={"token": token}),
        endorsements=endorsements,
        binding=Preset(values={"report_data": bytes.fromhex(realm["10"])} if "10" in realm else {}),
        roots=roots,
        partial=lambda: _realm_alone(token),
        signed=False,  # by a key that the token itself names, for which nobody vouches
        notes=notes,
    )


def _realm_alone(token: bytes) -> None:
    """Without a platform key: the realm token is signed by the key that it names."""
    _, realm = cca.split(token)
    cca.check_realm_signature(cca.parse_realm(realm))


def _der(pem: str) -> bytes:
    return base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-----")))
