"""Evidence in the wrappings of other tools."""

from __future__ import annotations

from pathlib import Path

from strongroom_testing.evidence_folder import BINDING, NOW
from strongroom_testing.vendors.fake_amd import FakeAmd, Guest

VECTORS = Path(__file__).parents[4] / "shared/vectors/snp"


def number(data, at, size):
    return int.from_bytes(data[at : at + size], "little")


def made(line="Milan", version=2):
    return FakeAmd(now=NOW, line=line).evidence(BINDING, guest=Guest(version=version)).parts["report"]
