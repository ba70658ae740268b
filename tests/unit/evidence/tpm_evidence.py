"""A TPM's good evidence, by a fake vendor."""

from __future__ import annotations

from strongroom.model.binding import Binding, RoomKeys
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm

NOW = contracts.NOW
TPM = fake_tpm.FakeTpm(now=NOW)
RSA = fake_tpm.FakeTpm(now=NOW, algorithm="rsa")

BINDING = Binding(
    nonce=bytes(range(32)),
    contract_digest=fake_tpm.digest("contract"),
    keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
    role="main",
    audience=fake_tpm.digest("audience"),
)

GOOD = TPM.evidence(BINDING)
