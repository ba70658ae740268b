"""Use case: the verdict of a release, as an attestation result (EAR) for a relying party (`GET /v1/results/RUN`).

Whoever deals with a room asks the room's broker, with a nonce and a name of its own, and gets a token that counts for
that name (the audience) and nonce alone, for an hour at most and no longer than the verdict. It says what the public ledger says of
that run and no more: it says that an accepted verdict stands there, and by which checks. Only releases have
results: of a denial there is nothing to rely on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.appraisal import ear
from strongroom.errors import NotFound
from strongroom.model import record

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.model.identifiers import RunId

LIFETIME = timedelta(hours=1)  # of a token, at most
VERIFIER = "strongroom"


def result(broker: Broker, run_id: RunId, *, nonce: bytes, audience: str, cwt: bool = False) -> bytes:
    """The token: a JWT, or with `cwt` a CWT. Raises `NotFound`, `Refused` once the verdict has ended, `Malformed`."""
    entries = (record.parse(entry) for _, entry in broker.store.ledger.of_run(run_id))
    released = next((known for known in entries if known.kind is record.RecordKind.RELEASE), None)
    if released is None:
        raise NotFound(
            f"{run_id}: no release to this run is in the ledger",
            code="no-release",
            hint="ask the broker of a party whose disk that run opened, by the run's name as its receipt has it",
        )
    now = broker.clock()
    attested = ear.of_release(
        released,
        nonce=nonce,
        issuer=broker.party.name,
        audience=audience,
        verifier=VERIFIER,
        issued=now.replace(microsecond=0),
        expires=now + LIFETIME,
    )
    return broker.notary.sign_result(attested, cwt=cwt)
