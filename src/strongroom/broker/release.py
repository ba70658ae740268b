"""Use case: a room asks for keys (`POST /v1/releases`).

In this order, in one transaction from 1 to 5:
    this broker's own party signed the contract, or nothing below happens (`own_party`)
  0 endorsements for the evidence are found (`endorse`), which may take a vendor's time
  1 the nonce is used up, and the broker's own checks are made (`gates`)
  2 `judge`: the contract's terms with the runs used so far, the evidence, the claims
  3 keys are looked up and sealed, the certificate is signed; both wait
  4 the decision is appended to the ledger; an accepted one is counted as a run
  5 commit, durable
  6 only now does anything leave, with the proof that the decision is in the ledger

If the ledger or the disk fails before 5, nothing leaves and nothing is counted. If the broker dies
after 5, the run is counted and recorded but its answer is lost: that room has used up a run, and its
nonce is gone. The other order would release without a record.

A contract that the broker's own party did not sign is answered with a denial that leaves no trace. Any other
denial is recorded as well, when its nonce was good and strangers have not used up the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from strongroom.appraisal.appraise import deny
from strongroom.appraisal.judge import judge
from strongroom.authority import issue
from strongroom.broker import endorse, gates, versions
from strongroom.broker.broker import DISK_KEY
from strongroom.broker.storage import KnownVersion, Run
from strongroom.crypto import certificates, digest, hpke
from strongroom.encoding import fields
from strongroom.errors import Malformed
from strongroom.model import binding as binding_model
from strongroom.model import messages, record
from strongroom.model.verdict import Accepted, Denied

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.broker import own_party
    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import KnownDisk, Transaction
    from strongroom.model.endorsements import Endorsements


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What the transaction hands over, to leave after its commit. `entry` None: not recorded."""

    verdict: Accepted | Denied
    entry: bytes | None
    index: int
    sealed: bytes = field(default=b"", repr=False)
    chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What went into the verdict beside agreement, evidence and binding: with it anybody can judge again.

    gates: how many of the verdict's first checks are the broker's own.
    """

    endorsements: Endorsements
    gates: int
    runs_used: int
    lifetime_seconds: int


async def release(broker: Broker, body: bytes) -> messages.ReleaseAnswer | messages.DenialAnswer:
    """Decide, record, then answer. Raises `Malformed` or `Unavailable`; then nothing was released."""
    request = messages.parse_release_request(body)
    reading = broker.agreements.read(request.agreement, broker.party)
    if reading.agreement is None:
        return _not_ours(reading, broker.clock())
    csr = None if request.csr is None else certificates.read_request(request.csr)
    brought = versions.read(reading.agreement.contract, request.earlier, broker.party)
    ask = gates.Ask(
        request=request, own=reading.checks, agreement=reading.agreement, brought=brought, csr=csr
    )
    endorsed = await endorse.endorse(broker, ask)
    committed = await broker.store.write(lambda transaction: _decide(broker, ask, endorsed, transaction))
    made = committed.value
    proof = None
    if made.entry is not None:
        ledger = broker.store.ledger
        proof = broker.notary.prove(ledger, entry=made.entry, index=made.index, size=committed.size)
    if isinstance(made.verdict, Accepted) and proof is not None:
        return messages.ReleaseAnswer(
            verdict=made.verdict.to_json(),
            sealed=made.sealed,
            certificates=made.chain,
            ledger=proof,
            endorsements=endorsed.endorsements,
        )
    words = made.verdict.words() if isinstance(made.verdict, Denied) else {}
    return messages.DenialAnswer(verdict=made.verdict.to_json(), words=words, ledger=proof)


def _not_ours(reading: own_party.Reading, now: datetime) -> messages.DenialAnswer:
    """The answer to what the gate did not let in: not even the nonce is used up."""
    denied = deny(reading.digest, gates=reading.checks, now=now)
    return messages.DenialAnswer(verdict=denied.to_json(), ledger=None)


def _decide(
    broker: Broker, ask: gates.Ask, endorsed: endorse.Endorsed, transaction: Transaction
) -> _Decision:
    now = broker.clock()
    request, contract = ask.request, ask.contract
    binding = binding_model.Binding(
        nonce=request.nonce,
        contract=contract.digest,
        keys=request.keys,
        role=request.role,
        audience=broker.audience,
    )
    checked = gates.check(broker, ask, transaction, now)
    asked = (*checked.checks, *endorsed.checks)
    judged = _Judged(
        endorsements=endorsed.endorsements,
        gates=len(asked),
        runs_used=transaction.runs.used(contract.digest),
        lifetime_seconds=int(broker.budgets.verdict_lifetime.total_seconds()),
    )
    verdict = judge(
        ask.agreement,
        request.evidence,
        judged.endorsements,
        binding=binding,
        gates=asked,
        runs_used=judged.runs_used,
        # Records hold whole seconds; judging at any other moment could not be repeated from them.
        now=now.replace(microsecond=0),
        lifetime=timedelta(seconds=judged.lifetime_seconds),
    )
    if isinstance(verdict, Accepted):
        return _accept(broker, ask, transaction, verdict, judged, checked.disks)
    if not checked.fresh or not broker.denials.take(now):
        return _Decision(verdict=verdict, entry=None, index=0)
    try:
        entry = _entry(
            broker, ask, verdict, binding, judged, kind=record.Kind.DENIAL, disks=(), certificate=None
        )
    except Malformed:
        # A stranger's request can make an explanation too long for the ledger; the answer is still no.
        return _Decision(verdict=verdict, entry=None, index=0)
    return _Decision(verdict=verdict, entry=entry, index=transaction.ledger.append(entry, run=ask.run))


def _accept(
    broker: Broker,
    ask: gates.Ask,
    transaction: Transaction,
    accepted: Accepted,
    judged: _Judged,
    disks: tuple[KnownDisk, ...],
) -> _Decision:
    contract, keys = ask.contract, ask.request.keys
    sealed = _seal(broker, accepted, disks)
    issued = None
    if ask.csr is not None and contract.certificate is not None:
        issued = issue.issue(
            accepted,
            broker.authority,
            contract_id=contract.id,
            terms=contract.certificate,
            evidence=ask.evidence,
            now=accepted.decided,
        )
    entry = _entry(
        broker,
        ask,
        accepted,
        accepted.binding,
        judged,
        kind=record.Kind.RELEASE,
        disks=tuple(disk.manifest for disk in disks if disk.sealed_key is not None),
        certificate=None if issued is None else issued.digest,
    )
    index = transaction.ledger.append(entry, run=ask.run)
    transaction.runs.add(
        Run(run=ask.run, contract=contract.digest, signing_key=keys.signing, release=index, receipt=None)
    )
    transaction.contracts.raise_to(
        versions.series(contract), KnownVersion(version=contract.version, digest=contract.digest)
    )
    return _Decision(
        verdict=accepted,
        entry=entry,
        index=index,
        sealed=sealed,
        chain=() if issued is None else issued.chain,
    )


def _seal(broker: Broker, accepted: Accepted, disks: tuple[KnownDisk, ...]) -> bytes:
    """The disk keys, sealed to the KEM key that the accepted evidence is bound to."""
    keys = {
        disk.manifest: broker.at_rest.open(disk.sealed_key, purpose=DISK_KEY, name=disk.manifest)
        for disk in disks
        if disk.sealed_key is not None
    }
    return hpke.seal(
        accepted.binding.keys.kem,
        messages.encode_disk_keys(keys),
        info=messages.release_info(accepted.binding),
    )


def _entry(
    broker: Broker,
    ask: gates.Ask,
    verdict: Accepted | Denied,
    binding: binding_model.Binding,
    judged: _Judged,
    *,
    kind: record.Kind,
    disks: tuple[str, ...],
    certificate: str | None,
) -> bytes:
    body: dict[str, Any] = {
        "evidence": ask.evidence,
        "endorsements": digest.sha256(judged.endorsements.encode()),
        "binding": fields.format_data(binding.digest()),
        "nonce": fields.format_data(ask.request.nonce),
        "signing_key": fields.format_data(ask.request.keys.signing),
        "disks": list(disks),
        "certificate": certificate,
        "verdict": verdict.to_json(),
        "judged": {
            "gates": judged.gates,
            "runs_used": judged.runs_used,
            "lifetime_seconds": judged.lifetime_seconds,
        },
    }
    return _record(broker, kind, verdict.decided, ask, body).encode()


def _record(
    broker: Broker, kind: record.Kind, time: datetime, ask: gates.Ask, body: dict[str, Any]
) -> record.Record:
    return record.Record(
        kind=kind,
        time=time,
        broker=broker.party.name,
        contract=ask.contract.digest,
        run=ask.run,
        body=body,
    )
