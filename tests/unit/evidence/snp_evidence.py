"""A good SNP report, by a fake AMD, and how tests verify it."""

from __future__ import annotations

from strongroom.evidence import verify
from strongroom.model.endorsements import Endorsements
from strongroom_testing.vendors import fake_amd
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND

NOW = samples.NOW
MILAN = fake_amd.FakeAmd(now=NOW)
GOOD = MILAN.evidence(BOUND)
ENDORSED = MILAN.endorsements()


def with_part(endorsements: Endorsements, name: str, data: bytes) -> Endorsements:
    return Endorsements(parts={**endorsements.parts, name: data})


ROOTS = frozenset({MILAN.root})


def verified(evidence=GOOD, endorsements=ENDORSED, *, binding=BOUND, roots=ROOTS, now=NOW):
    return verify.verify(evidence, endorsements, binding=binding, roots=roots, now=now)


GENOA = fake_amd.FakeAmd(now=NOW, line="Genoa")
TURIN = fake_amd.FakeAmd(now=NOW, line="Turin")
PROVIDER = fake_amd.FakeAmd(now=NOW, vlek=True)
CHIPS = {"milan": MILAN, "genoa": GENOA, "turin": TURIN, "vlek": PROVIDER}
