"""A good DCAP quote, by a fake Intel, and how tests verify it."""

from __future__ import annotations

from datetime import UTC, datetime

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import verify
from strongroom.model.binding import Preset
from strongroom.model.endorsements import Endorsements
from strongroom_testing.vendors.fake_intel import FakeIntel

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INTEL = FakeIntel(now=NOW)
ROOTS = frozenset({INTEL.root_digest})
BOUND = Preset(values={"report_data": bytes(range(64))})
KINDS = [("sgx", 3), ("sgx", 4), ("sgx", 5), ("tdx", 4), ("tdx", 5)]
GOOD = {kind: INTEL.evidence(BOUND, tee=kind[0], version=kind[1]) for kind in KINDS}
ENDORSED = {tee: INTEL.endorsements(tee=tee) for tee in ("sgx", "tdx")}


def verified(evidence, endorsements=None, *, bound=BOUND, roots=ROOTS, now=NOW):
    endorsements = endorsements or ENDORSED[evidence.tee]
    return verify.verify(evidence, endorsements, binding=bound, roots=roots, now=now)


def refusal(evidence, endorsements=None, **options) -> str:
    """The name of the check that refuses, `format`, or `accepted`."""
    try:
        verified(evidence, endorsements, **options)
    except EvidenceRefused as cause:
        return (
            cause.check if cause.expected and cause.got and cause.hint else f"{cause.check} says too little"
        )
    except Malformed:
        return "format"
    return "accepted"


def with_part(tee, name, data):
    return Endorsements(parts={**ENDORSED[tee].parts, name: data})
