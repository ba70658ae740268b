"""A GPU's good evidence, by a fake NVIDIA, and how tests verify it."""

from __future__ import annotations

from strongroom.evidence import verify
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_nvidia
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND

NOW = samples.NOW
GPU = fake_nvidia.FakeGpu(now=NOW)
FWID = bytes.fromhex("303d06096086480165030402020430") + fake_nvidia.FWID
ROOTS = frozenset({GPU.root})


def verified(evidence, *, binding=BOUND, roots=ROOTS, now=NOW, endorsements=NONE):
    return verify.verify(evidence, endorsements, binding=binding, roots=roots, now=now)
