"""A Nitro enclave's good evidence, by a fake Amazon, and how tests verify it."""

from __future__ import annotations

from strongroom.evidence import verify
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom_testing.vendors import fake_aws
from tests import samples

NOW = samples.NOW
AWS = fake_aws.FakeAws(now=NOW)

BOUND = Binding(
    nonce=b"n" * 32,
    contract_digest=samples.DIGEST,
    keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="main",
    audience=samples.DIGEST,
)

ROOTS = frozenset({AWS.root})


def verified(evidence, *, binding=BOUND, roots=ROOTS, now=NOW, endorsements=NONE):
    return verify.verify(evidence, endorsements, binding=binding, roots=roots, now=now)
