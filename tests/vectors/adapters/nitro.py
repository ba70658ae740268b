"""Nitro cases: one document, expected to carry the user fields that its label tells, at its own time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.model.binding import Preset
from strongroom.model.evidence import Evidence
from tests.vectors.loaded import Loaded

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = ("user_data", "nonce", "public_key")
# In the payload, before the number: the key "timestamp", then the head of an integer of eight bytes.
_TIMESTAMP = re.compile(rb"\x69timestamp\x1b(.{8})", re.DOTALL)


def load(folder: Path, case: dict) -> Loaded:
    name = "document.cbor" if "document.cbor" in case["evidence_files"] else case["evidence_files"][0]
    document = (folder / name).read_bytes()
    told = case["expected"].get("fields", {})
    values = {field: bytes.fromhex(told.get(field) or "") for field in _FIELDS}
    notes = () if told else ("the label tells no fields: the document is expected to carry none",)
    return Loaded(
        now=_time(case, document),
        evidence=Evidence(tee="nitro", parts={"document": document}),
        binding=Preset(values=values),
        notes=notes,
    )


def _time(case: dict, document: bytes) -> datetime:
    """The label's, else the document's own."""
    if case["verify_at"]:
        return datetime.fromisoformat(case["verify_at"])
    found = _TIMESTAMP.search(document)
    milliseconds = int.from_bytes(found[1], "big") if found else 0
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
