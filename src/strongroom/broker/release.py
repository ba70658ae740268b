"""Use case: a room asks for keys (`POST /v1/releases`; docs/decisions/0027-nonces-prove-themselves.md, docs/decisions/0028-decided-twice.md).

What a request must show before the broker does more for it, in this order:
  1 its head is one line, and the nonce in it was made here for the contract that it names, and has not ended
    (that it was not used before is for 5 to say: whoever comes with a used one could as well have asked for another)
  2 this broker's own party signed the agreement (`own_party`): few verifications, no byte of the contract parsed
  3 only now the contract and the rest of the request are parsed, and endorsements found (`endorse`), which may take
    a vendor's time
  4 the broker's own checks (`request_checks`) and `judge`: the contract's terms, every other signature, the evidence; for an
    accepted room its keys are sealed and its certificate is signed; nothing of it leaves
1 is done on the event loop; 2, 3 and 4 in a thread, and no transaction is open. What they took from the storage
(runs used, versions and disks known, runs of that name) may change meanwhile. What the storage said last of a contract that keys
were released under is remembered, and good enough to prepare an acceptance with (`broker.RecentContracts`), never a denial. So, in one transaction:
  5 the nonce is used up; whoever else had it is denied
  6 what the gates were made of is read again (`Known`), and must be the same, or nothing of this is kept and all of
    4 is done again; runs that were used meanwhile are counted in (`judge.with_runs_used`), which may turn the verdict
    into a denial
  7 the decision is appended to the ledger; an accepted one is counted as a run
  8 commit, durable
  9 only now does anything leave, with the proof that the decision is in the ledger

If the ledger or the disk fails before 8, nothing leaves and nothing is counted. If the broker dies
after 8, the run is counted and recorded but its answer is lost: that room has used up a run, and its
nonce is gone. The other order would release without a record.

What fails at 1 or 2 is answered with a denial that leaves no trace. Any other denial is recorded, and its nonce used
up, as long as the budgets allow (`budgets.Denials`); beyond them it is answered alone, and opens no transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from strongroom.appraisal.appraise import deny
from strongroom.appraisal.judge import judge, with_runs_used
from strongroom.authority import issue
from strongroom.broker import endorse, request_checks, versions
from strongroom.broker.broker import DISK_KEY
from strongroom.broker.certificates import account, revoke
from strongroom.broker.parsed_request import ParsedRequest
from strongroom.broker.ports import Known, NonceUse, Run
from strongroom.broker.workers import too_many_failures
from strongroom.crypto import digest, hpke
from strongroom.crypto.pki import certificates
from strongroom.encoding import fields
from strongroom.errors import Conflict, Malformed, Unavailable
from strongroom.model import binding as binding_model
from strongroom.model import messages, record
from strongroom.model.identifiers import NO_RUN, ContractDigest
from strongroom.model.verdict import Accepted, Denied

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.authority.issue import Issued
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import KnownDisk, Reading, Transaction
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.verdict import Check, Verdict

TRIES = 4
FRESH_FOR = timedelta(seconds=5)
"""How old a prepared verdict may be when it is recorded: its time is that of the record."""


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """What went into the verdict beside agreement, evidence and binding: with it anybody can judge again.

    gates: how many of the verdict's first checks are the broker's own.
    """

    endorsements: Endorsements
    gates: int
    runs_used: int
    lifetime_seconds: int


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A decision that nobody has recorded yet, and what it was made from. sealed and issued: of an accepted one, issued
    None where no certificate is agreed or asked for.
    """

    now: datetime
    known: Known
    binding: binding_model.Binding
    judged: _Judged
    verdict: Verdict
    sealed: bytes = field(default=b"", repr=False)
    issued: Issued | None = None


@dataclass(frozen=True, kw_only=True)
class _Examined:
    """A request that passed the gate. endorsed, prepared: None where a vendor is to be asked first."""

    ask: ParsedRequest
    endorsed: endorse.Endorsed | None
    prepared: _Prepared | None


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What the transaction hands over, to leave after its commit. `entry` None: not recorded."""

    verdict: Verdict
    entry: bytes | None
    index: int = 0
    runs_used: int = 0


@dataclass(frozen=True, kw_only=True)
class OwnNonce:
    """A request's first line whose nonce was made here for the contract that it names, and when that nonce ends."""

    head: messages.ReleaseHead
    end: datetime


async def release(
    broker: Broker, body: bytes, *, peer: str = "", passed: OwnNonce | None = None, renews: bool = False
) -> messages.ReleaseAnswer | messages.DenialAnswer:
    """Decide, record, then answer. peer: the address that the request came from, for the budgets.

    passed: what `turn_away` said of the first line of `body`, where it was asked already. renews: a renewal is asked for
    (`running.renewal`). Raises `Malformed`, `Refused` or `Unavailable`; then nothing was released.
    """
    split = messages.split_release_request(body, head=None if passed is None else passed.head)
    own = passed or turn_away(broker, split.head, peer=peer)
    if isinstance(own, messages.DenialAnswer):
        return own
    try:
        answer = await _attempt(broker, split, own, peer, renews=renews)
    except Unavailable:
        raise
    except Exception:  # what nobody foresaw, too: it must not be cheaper than a plain no
        broker.failures.failed(broker.clock(), peer=peer)
        raise
    if isinstance(answer, messages.DenialAnswer):
        broker.failures.failed(broker.clock(), peer=peer)
    else:
        broker.failures.released(peer=peer, contract_digest=split.head.contract_digest)
    return answer


def turn_away(
    broker: Broker, head: messages.ReleaseHead, *, peer: str = ""
) -> messages.DenialAnswer | OwnNonce:
    """Step 1: the denial of a nonce that is not ours, or has ended. Costs one HMAC, and reads nothing else.

    Raises `Unavailable` for an address whose requests kept failing while others of it wait already.
    """
    now = max(broker.clock(), broker.nonces.reached)
    if broker.workers.crowded and broker.failures.patient(
        now, peer=peer, contract_digest=head.contract_digest
    ):
        raise too_many_failures()
    end = broker.nonces.end(head.nonce, head.contract_digest)
    if end is not None and now < end:
        return OwnNonce(head=head, end=end)
    broker.failures.failed(now, peer=peer)
    return _denied(head.contract_digest, (request_checks.fresh(end, use=NonceUse.ENDED),), now)


async def _attempt(
    broker: Broker, split: messages.SplitRequest, own: OwnNonce, peer: str, *, renews: bool
) -> messages.ReleaseAnswer | messages.DenialAnswer:
    patient = broker.failures.patient(broker.clock(), peer=peer, contract_digest=split.head.contract_digest)
    examine = partial(_examine, broker, split, own, renews=renews)
    examined = await broker.workers.run(examine, patient=patient)
    if isinstance(examined, messages.DenialAnswer):
        return examined
    answer = await _settle(broker, examined, peer, patient=patient)
    if isinstance(answer, messages.DenialAnswer):
        broker.failures.failed_under(examined.ask.contract.digest, broker.clock())
    return answer


async def _settle(
    broker: Broker, examined: _Examined, peer: str, *, patient: bool
) -> messages.ReleaseAnswer | messages.DenialAnswer:
    """Ask vendors where it takes any, then prepare and decide until both are of one state of the storage."""
    ask, endorsed, prepared = examined.ask, examined.endorsed, examined.prepared
    prepare = partial(_prepare_anew, broker, ask, endorsed or await endorse.fetched(broker, ask))
    for _ in range(TRIES):
        if prepared is None:
            prepared = await broker.workers.run(prepare, patient=patient)
        if not isinstance(prepared.verdict, Accepted) and not broker.denials.take(
            prepared.now, contract_digest=ask.contract.digest, peer=peer
        ):
            return _denial(prepared.verdict)
        if (
            isinstance(prepared.verdict, Accepted)
            and ask.renews
            and not broker.runs.renews(ask.run_id, prepared.now)
        ):
            raise _too_often()
        try:
            committed = await broker.store.write(partial(_decide, broker, ask, prepared))
        except Conflict:
            prepared = None
            continue
        if isinstance(committed.value.verdict, Accepted) and not ask.renews:
            before = prepared.known.version
            version = replace(
                versions.known(ask.contract), paused=frozenset() if before is None else before.paused
            )
            known = Known(version=version, run=None, disks=prepared.known.disks)
            broker.seen.keep(ask.contract.digest, ask.room, known, committed.value.runs_used + 1)
        return _answer(broker, ask, prepared, committed.value, committed.size)
    raise Unavailable(
        "release: what it depends on kept changing", code="contended", hint="try again in a moment"
    )


def _too_often() -> Unavailable:
    return Unavailable(
        "renewal: this run renews more often than rooms do, and each time is recorded",
        code="too-many-renewals",
        hint="a room asks again by itself; what cuts its answers off makes it ask so often",
    )


def _denial(verdict: Verdict, proof: messages.LedgerProof | None = None) -> messages.DenialAnswer:
    words = verdict.words() if isinstance(verdict, Denied) else {}
    return messages.DenialAnswer(verdict=verdict.to_json(), words=words, ledger=proof)


def _denied(
    contract_digest: ContractDigest, checks: tuple[Check, ...], now: datetime
) -> messages.DenialAnswer:
    """A denial that leaves no trace."""
    return _denial(deny(contract_digest, gates=checks, now=now))


def _examine(
    broker: Broker, split: messages.SplitRequest, own: OwnNonce, *, renews: bool
) -> messages.DenialAnswer | _Examined:
    """Steps 2 and 3, and 4 as well where no vendor is to be asked first."""
    now, head = broker.clock(), own.head
    reading = broker.agreements.read(split.agreement, broker.party)
    if reading.agreement is None:
        return _denied(reading.contract_digest, reading.checks, now)
    if reading.contract_digest != head.contract_digest:
        return _denied(
            head.contract_digest,
            (request_checks.nonce_contract(reading.contract_digest, head.contract_digest),),
            now,
        )
    request = messages.parse_release_request(split)
    csr = None if request.csr is None else certificates.read_request(request.csr)
    ask = ParsedRequest(
        request=request,
        own=reading.checks,
        own_key=broker.party.keyid,
        nonce_end=own.end,
        agreement=reading.agreement,
        brought=versions.read(reading.agreement.contract, request.earlier, broker.party),
        csr=csr,
        renews=renews,
    )
    endorsed = endorse.brought(broker, ask)
    prepared = None if endorsed is None else _prepare(broker, ask, endorsed)
    return _Examined(ask=ask, endorsed=endorsed, prepared=prepared)


def _prepare(broker: Broker, ask: ParsedRequest, endorsed: endorse.Endorsed) -> _Prepared:
    """Step 4, with what was last known of the contract, where that makes for an acceptance."""
    seen = None if ask.renews else broker.seen.last(ask.contract.digest, ask.room)
    prepared = None if seen is None else _judge(broker, ask, endorsed, *seen)
    if prepared is not None and isinstance(prepared.verdict, Accepted):
        return prepared
    return _prepare_anew(broker, ask, endorsed, prepared)


def _prepare_anew(
    broker: Broker,
    ask: ParsedRequest,
    endorsed: endorse.Endorsed,
    before: _Prepared | None = None,
) -> _Prepared:
    """Step 4, with what the storage says now. before: a denial by what was known, which may stand."""

    def read(state: Reading) -> tuple[Known, int]:
        return request_checks.known(ask, state), _runs_used(ask, state)

    known, runs_used = broker.store.read(read)
    if before is None or before.known != known:
        return _judge(broker, ask, endorsed, known, runs_used)
    return before if before.judged.runs_used == runs_used else _counted(before, ask, runs_used)


def _judge(
    broker: Broker,
    ask: ParsedRequest,
    endorsed: endorse.Endorsed,
    known: Known,
    runs_used: int,
) -> _Prepared:
    now = broker.clock()
    asked = (*request_checks.check(ask, known), *endorsed.checks)
    judged = _Judged(
        endorsements=endorsed.endorsements,
        gates=len(asked),
        runs_used=runs_used,
        lifetime_seconds=int(broker.budgets.verdict_lifetime.total_seconds()),
    )
    binding = binding_model.Binding(
        nonce=ask.request.nonce,
        contract_digest=ask.contract.digest,
        keys=ask.request.keys,
        role=ask.request.role,
        audience=broker.audience,
    )
    verdict = judge(
        ask.agreement,
        ask.request.evidence,
        judged.endorsements,
        binding=binding,
        gates=asked,
        runs_used=runs_used,
        # Records hold whole seconds; judging at any other moment could not be repeated from them.
        now=now.replace(microsecond=0),
        lifetime=timedelta(seconds=judged.lifetime_seconds),
    )
    accepted = verdict if isinstance(verdict, Accepted) else None
    return _Prepared(
        now=now,
        known=known,
        binding=binding,
        judged=judged,
        verdict=verdict,
        sealed=_seal(broker, accepted, known.disks) if accepted and not ask.renews else b"",
        issued=_certify(broker, ask, accepted) if accepted else None,
    )


def _decide(broker: Broker, ask: ParsedRequest, prepared: _Prepared, transaction: Transaction) -> _Decision:
    """Steps 5 to 7. Raises `Conflict`, so that nothing is done, where what was prepared holds no longer."""
    now, contract = broker.clock(), ask.contract
    use = transaction.nonces.use(ask.request.nonce, expires=ask.nonce_end, now=now)
    if use is not NonceUse.FRESH:
        refusal = deny(contract.digest, gates=(request_checks.fresh(ask.nonce_end, use=use),), now=now)
        return _Decision(verdict=refusal, entry=None)
    if request_checks.known(ask, transaction) != prepared.known or now - prepared.now > FRESH_FOR:
        raise Conflict(
            "release: what it was prepared with has changed", code="changed", hint="prepare it again"
        )
    runs_used = _runs_used(ask, transaction)
    if runs_used != prepared.judged.runs_used:
        prepared = _counted(prepared, ask, runs_used)
    # Written here and once: before, nobody knew how many runs there would be.
    entry = _entry(broker, ask, prepared)
    if entry is None:
        return _Decision(verdict=prepared.verdict, entry=None)
    accepted = isinstance(prepared.verdict, Accepted)
    # Who is denied may have named anybody's run: its records are not to be sought among denials.
    index = transaction.ledger.append(entry, run_id=ask.run_id if accepted else NO_RUN)
    if accepted and not ask.renews:
        signing_key = ask.request.keys.signing
        transaction.runs.add(
            Run(
                run_id=ask.run_id,
                contract_digest=contract.digest,
                room=ask.room,
                signing_key=signing_key,
                release=index,
                receipt=None,
            )
        )
        revoke.superseded(transaction, ask.series, contract.digest, now=now)
        transaction.contracts.raise_to(ask.series, versions.known(contract))
    if accepted and prepared.issued is not None:
        revoke.remember(
            transaction,
            prepared.issued,
            contract_digest=contract.digest,
            room=ask.room,
            run_id=ask.run_id,
        )
    return _Decision(verdict=prepared.verdict, entry=entry, index=index, runs_used=runs_used)


def _runs_used(ask: ParsedRequest, state: Reading) -> int:
    """How many runs there were beside the one that is asked for: that which renews has been counted already."""
    used = state.runs.used(ask.contract.digest, ask.room)
    return max(0, used - 1) if ask.renews else used


def _counted(prepared: _Prepared, ask: ParsedRequest, runs_used: int) -> _Prepared:
    """The same decision after `runs_used` runs; an accepted room may have come too late."""
    verdict = with_runs_used(prepared.verdict, ask.agreement, runs_used=runs_used)
    return replace(prepared, verdict=verdict, judged=replace(prepared.judged, runs_used=runs_used))


def _answer(
    broker: Broker, ask: ParsedRequest, prepared: _Prepared, decision: _Decision, size: int
) -> messages.ReleaseAnswer | messages.DenialAnswer:
    """Step 9."""
    proof = None
    if decision.entry is not None:
        ledger = broker.store.ledger
        proof = broker.notary.prove(ledger, entry=decision.entry, index=decision.index, size=size)
    if isinstance(decision.verdict, Accepted) and proof is not None:
        return messages.ReleaseAnswer(
            sealed=prepared.sealed,
            certificates=() if prepared.issued is None else prepared.issued.chain,
            ledger=proof,
            endorsements=prepared.judged.endorsements,
            watch=broker.watch_token(ask.run_id),
            account=account.seal(broker, ask, decision.verdict),
        )
    return _denial(decision.verdict, proof)


def _certify(broker: Broker, ask: ParsedRequest, accepted: Accepted) -> Issued | None:
    """The room's certificate with its issuer's; None where none is agreed or asked for."""
    contract = ask.contract
    terms = contract.room(ask.room).certificate
    if ask.csr is None or terms is None:
        return None  # a contract without any certificate has no names that an issuer could be bound to
    issuer = broker.authority.issuer(contract, ask.own_root)
    if issuer is None:
        return None
    return issue.issue(
        accepted,
        issuer,
        contract_id=contract.id,
        terms=terms,
        evidence_digest=ask.evidence_digest,
        now=accepted.decided,
        random=broker.random,
    )


def _seal(broker: Broker, accepted: Accepted, disks: tuple[KnownDisk, ...]) -> bytes:
    """The disk keys, sealed to the KEM key that the accepted evidence is bound to."""
    keys = {
        disk.manifest_digest: broker.at_rest.open(
            disk.sealed_key, purpose=DISK_KEY, name=disk.manifest_digest
        )
        for disk in disks
        if disk.sealed_key is not None
    }
    return hpke.seal(
        accepted.binding.keys.kem,
        messages.encode_disk_keys(keys),
        info=messages.release_info(accepted.binding),
    )


def _entry(broker: Broker, ask: ParsedRequest, prepared: _Prepared) -> bytes | None:
    """The record. Raises `Malformed` when a release is too long for the ledger; None for such a denial."""
    verdict, judged = prepared.verdict, prepared.judged
    accepted = isinstance(verdict, Accepted)
    disks = [disk.manifest_digest for disk in prepared.known.disks if disk.sealed_key is not None]
    issued = prepared.issued if accepted else None
    leaf, issuer = (None, None) if issued is None else issued.digests
    body: dict[str, Any] = {
        "evidence": ask.evidence_digest,
        "endorsements": digest.sha256(judged.endorsements.encode()),
        "binding": fields.format_data(prepared.binding.digest()),
        "nonce": fields.format_data(ask.request.nonce),
        "signing_key": fields.format_data(ask.request.keys.signing),
        "disks": disks if accepted and not ask.renews else [],
        "certificate": leaf,
        "issuer": issuer,
        "verdict": verdict.to_json(),
        "judged": {
            "gates": judged.gates,
            "runs_used": judged.runs_used,
            "lifetime_seconds": judged.lifetime_seconds,
        },
    }
    granted = record.RecordKind.RENEWAL if ask.renews else record.RecordKind.RELEASE
    entry = record.Record(
        kind=granted if accepted else record.RecordKind.DENIAL,
        time=verdict.decided,
        broker=broker.party.name,
        contract_digest=ask.contract.digest,
        run_id=ask.run_id,
        body=body,
    )
    try:
        return entry.encode()
    except Malformed:
        if accepted:
            raise
        # A stranger's request can make an explanation too long for the ledger; the answer is still no.
        return None
