"""A CCA realm's good evidence, by a fake platform, and how tests verify it."""

from __future__ import annotations

from strongroom.evidence import verify
from strongroom_testing.vendors import fake_cca
from tests import samples
from tests.unit.evidence.nitro_evidence import BOUND

PLATFORM = fake_cca.FakeCca()
NOW = samples.NOW


def verified(evidence, *, platform=PLATFORM, endorsements=None, binding=BOUND, roots=None):
    return verify.verify(
        evidence,
        endorsements or platform.endorsements(),
        binding=binding,
        roots=frozenset({platform.root}) if roots is None else roots,
        now=NOW,
    )


ROOTS = frozenset({PLATFORM.root})
