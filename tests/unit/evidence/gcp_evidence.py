"""Good evidence of Google's machines, by a fake Google, and how tests verify it."""

from __future__ import annotations

from strongroom.evidence import verify
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_google
from tests import samples

NOW = samples.NOW
GOOGLE = fake_google.FakeGoogle(now=NOW)

BOUND = Binding(
    nonce=b"n" * 32,
    contract_digest=samples.DIGEST,
    keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="main",
    audience=samples.DIGEST,
)

GOOD = GOOGLE.evidence(BOUND)


def changed(name: str, data: bytes) -> Evidence:
    return Evidence(tee="gcp", parts={**GOOD.parts, name: data})


def verified(evidence, *, google=GOOGLE, binding=BOUND, roots=None, now=NOW, endorsements=NONE):
    trusted = frozenset({google.root}) if roots is None else roots
    return verify.verify(evidence, endorsements, binding=binding, roots=trusted, now=now)


KINDS = {
    "p256": {},
    "p384": {"algorithm": "secp384r1", "hash": "sha384"},
    "p384-sha256": {"algorithm": "secp384r1"},
    "rsassa": {"algorithm": "rsa"},
    "rsassa-sha384": {"algorithm": "rsa", "hash": "sha384", "bank": "sha384"},
    "rsapss": {"algorithm": "rsapss"},
    "sha384-bank": {"bank": "sha384"},
}
