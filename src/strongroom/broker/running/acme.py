"""Use case: an unmodified ACME client in a room gets certificates for keys of its own (`/acme/…`; RFC 8555).

The room got an external account sealed to its attested key with its release; from there on an account, an order and what it may
name stand in tokens (`strongroom.acme`). Here a certificate is issued, which takes, in one transaction:
  1 the run stands: it has not ended, and its contract is neither withdrawn, superseded nor paused
  2 its newest accepted verdict in the ledger has not ended; the certificate ends with it at the latest
  3 the request asks for the order's names, all of them and no other, and proves that whoever asks has the key
  4 an order has one certificate; asked for again, it is the same
  5 the certificate is in the ledger before it leaves
  6 a run has so many in a time (`budgets.RunShares`): a program that asks without end would make the ledger longer without end

It has neither SPIFFE ID nor digest of evidence: no evidence is bound to its key. What it shows is that a client within the
attested room asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from strongroom.acme import exchange
from strongroom.authority import issue
from strongroom.broker.administration import own_changes
from strongroom.broker.certificates import revoke
from strongroom.broker.running.watch import standing
from strongroom.crypto import digest
from strongroom.crypto.pki import certificates
from strongroom.crypto.pki.csr import pem_certificate
from strongroom.encoding import fields
from strongroom.errors import NotFound, Refused
from strongroom.model import record
from strongroom.model.watch import WatchState

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.acme.exchange import Answer
    from strongroom.acme.tokens import AcmeOrder
    from strongroom.authority.roots import ContractIssuer
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.model.record import Record

_ATTESTED = (record.RecordKind.RELEASE, record.RecordKind.RENEWAL)
_LEAST = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class _Finalized:
    """An order whose certificate is asked for with this request (DER)."""

    order: AcmeOrder
    csr: bytes


async def answer(broker: Broker, path: str, body: bytes, *, peer: str = "") -> Answer:
    """The answer to a POST of `path`, below `/acme/`. peer: the address that asked, for the budgets.

    Raises `Malformed`, `Refused`, `NotFound`, `Unavailable`.
    """
    patient = broker.failures.patient(broker.clock(), peer=peer)
    asked = await broker.workers.run(partial(_read, broker, path, body), patient=patient)
    if not isinstance(asked, _Finalized):
        return asked
    spki = await broker.workers.run(partial(_key_of, asked.order, asked.csr), patient=patient)
    await _issue(broker, asked.order, spki)
    return broker.acme.order_answer(asked.order, issued=True)


def _read(broker: Broker, path: str, body: bytes) -> Answer | _Finalized:
    served, now = broker.acme, broker.clock()
    name, _, rest = path.partition("/")
    token, _, number = rest.partition("/")
    if name == "new-account" and not rest:
        return served.new_account(body, now)
    if name == "new-order" and not rest:
        return served.new_order(body, now)
    if name == "account":
        return served.account(rest, body, now)
    if name == "authorization":
        return served.authorization(token, number, body, now)
    if name == "challenge":
        return served.challenge(token, number, body, now)
    if name == "finalize":
        order, csr = served.finalize(rest, body, now)
        return _Finalized(order=order, csr=csr)
    if name == "order":
        order = served.order(rest, body, now)
        return served.order_answer(order, issued=_issued(broker, order) is not None)
    if name == "certificate":
        return _certificate(broker, served.certificate(rest, body, now))
    raise NotFound(
        f"acme: nothing is at {path[:80]!r}",
        code="no-route",
        hint="GET /acme/directory lists what is there; whoever owns the broker revokes certificates and changes keys",
    )


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What may be issued. issuer: of the contract, as the storage has it."""

    issuer: ContractIssuer
    vouched: issue.Vouched


async def _issue(broker: Broker, order: AcmeOrder, spki: bytes) -> None:
    def write(transaction: Transaction) -> None:
        now = broker.clock()
        if _issued(broker, order) is not None:  # 4: no other writer is between this and the commit
            return
        wanted = _wanted(broker, transaction, order, now)
        _require_allowance(broker, order, now)
        issued = issue.issue_to_account(
            wanted.vouched,
            wanted.issuer,
            names=order.names,
            usages=order.attested.usages,
            lifetime_seconds=order.attested.lifetime_seconds,
            spki=spki,
            now=now,
            random=broker.random,
        )
        own_changes.append(broker, transaction, _change(order, issued))  # 5
        about = order.attested
        revoke.remember(
            transaction,
            issued,
            contract_digest=about.contract_digest,
            room=about.room,
            run_id=about.run_id,
        )

    await broker.store.write(write)


def _require_allowance(broker: Broker, order: AcmeOrder, now: datetime) -> None:
    """6. Raises `Refused`."""
    about = order.attested
    if not broker.runs.certified(about.run_id, now, lifetime_seconds=about.lifetime_seconds):
        raise Refused(
            f"acme: the run had {broker.budgets.certificates} certificates in a short time, and each is recorded",
            code="too-many-certificates",
            hint="ask again later: one more is given each time that an eighth of a certificate's life has gone",
        )


def _key_of(order: AcmeOrder, data: bytes) -> bytes:
    """3. Raises `Malformed`, `Refused`."""
    request = certificates.read_request(data)
    names = {*request.names, *([request.common_name] if request.common_name else [])}
    if names != set(order.names):
        raise Refused(
            f"certificate request: expected the names {', '.join(order.names)}, got {', '.join(sorted(names))[:400] or 'none'}",
            code="bad-request",
            hint="ask for what was ordered, in subjectAltName",
        )
    if not certificates.proves_possession(data):
        raise Refused(
            "certificate request: not signed by the key that it asks a certificate for",
            code="bad-request",
            hint="sign the request with the key that the certificate is to be of",
        )
    return request.spki


def _wanted(broker: Broker, transaction: Transaction, order: AcmeOrder, now: datetime) -> _Wanted:
    about = order.attested
    if (state := standing(transaction, about.run_id)) is not WatchState.STANDS:  # 1
        raise _over(f"the run is over or held: {state.value}")
    newest = _newest(broker, order)
    if newest is None:
        raise _over("no accepted verdict of the run is in the ledger")
    verdict = fields.Fields(newest.body, "ledger entry").object("verdict")
    expires = verdict.time("expires")
    if now + _LEAST > expires:  # 2
        raise _over(f"the run's newest verdict ended at {fields.format_time(expires)}")
    stored = transaction.certificates.issuer(about.contract_digest)
    issuer = (
        None
        if stored is None
        else broker.authority.stored_issuer(
            stored.certificate, root_digest=stored.root, contract_digest=about.contract_digest
        )
    )
    if issuer is None or (stored is not None and stored.revoked is not None):
        raise _over("the contract's issuer is revoked, or none of this authority's roots is above it")
    simulated = verdict.object("claims").boolean("simulated")
    return _Wanted(
        issuer=issuer,
        vouched=issue.Vouched(run_id=about.run_id, simulated=simulated, expires=expires),
    )


def _newest(broker: Broker, order: AcmeOrder) -> Record | None:
    entries = [record.parse(entry) for _, entry in broker.store.ledger.of_run(order.attested.run_id)]
    attestations = [entry for entry in entries if entry.kind in _ATTESTED]
    return attestations[-1] if attestations else None


def _issued(broker: Broker, order: AcmeOrder) -> Record | None:
    """The entry of the order's certificate, once there is one."""
    for _, entry in broker.store.ledger.of_run(order.attested.run_id):
        known = record.parse(entry)
        if known.kind is record.RecordKind.CERTIFICATE and known.body.get("order") == order.id:
            return known
    return None


def _change(order: AcmeOrder, issued: issue.Issued) -> own_changes.OwnChange:
    return own_changes.OwnChange(
        kind=record.RecordKind.CERTIFICATE,
        contract_digest=order.attested.contract_digest,
        run_id=order.attested.run_id,
        body={
            "order": order.id,
            "certificate": fields.format_data(issued.leaf),
            "issuer": digest.sha256(issued.issuer.certificate),
            "names": list(order.names),
        },
    )


def _certificate(broker: Broker, order: AcmeOrder) -> Answer:
    entry = _issued(broker, order)
    stored = broker.store.read(lambda state: state.certificates.issuer(order.attested.contract_digest))
    if entry is None or stored is None:
        raise NotFound(
            "acme: the order has no certificate",
            code="no-certificate",
            hint="finalize the order first",
        )
    leaf = fields.Fields(entry.body, "ledger entry").data("certificate", max_bytes=16 * 1024)
    root = broker.authority.root(stored.root)
    chain = (leaf, stored.certificate, *(() if root is None else (root.signer.der,)))
    return exchange.Answer(
        body=b"".join(pem_certificate(certificate) for certificate in chain), media_type=exchange.CHAIN
    )


def _over(why: str) -> Refused:
    return Refused(
        f"acme: {why}",
        code="not-standing",
        hint="the room attests again by the clock; its log and `strongroom contract check` tell why it does not",
    )
