"""An agreement and evidence that is judged under it."""

from __future__ import annotations

from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.verdict import Check
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm

SCENE = contracts.scene()
AGREEMENT = SCENE.agreement()
GATES = (Check(name="nonce", expected="fresh", got="fresh", ok=True),)


def binding(agreement=AGREEMENT, *, nonce: bytes = b"n" * 32) -> Binding:
    keys = RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216)
    return Binding(
        nonce=nonce,
        contract_digest=agreement.contract.digest,
        keys=keys,
        role="main",
        audience=fake_tpm.digest("audience"),
    )
