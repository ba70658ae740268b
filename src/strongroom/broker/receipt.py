"""Use case: a room hands in its receipt (`POST /v1/receipts`).

Authenticated by the signing key that the run's evidence was bound to. One receipt for each run; the
same bytes again get the same answer, since the first one may have been lost on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Conflict, Refused
from strongroom.model import receipt as receipt_model
from strongroom.model import record

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import Run, Transaction
    from strongroom.encoding import dsse
    from strongroom.model import messages


async def receipt(broker: Broker, body: bytes) -> messages.LedgerProof:
    """Append the receipt; return the proof. Raises `Malformed`, `Refused`, `Conflict`, `Unavailable`."""
    envelope, claimed = receipt_model.parse_envelope(body)

    def append(transaction: Transaction) -> tuple[bytes, int]:
        run = transaction.runs.find(claimed.run)
        _check(run, envelope, claimed)
        entry_body = {"envelope": fields.format_data(body)}
        if run is not None and run.receipt is not None:
            return _same_again(transaction, run.receipt, entry_body)
        entry = record.Record(
            kind=record.Kind.RECEIPT,
            time=broker.clock(),
            broker=broker.party.name,
            contract=claimed.contract,
            run=claimed.run,
            body=dict(entry_body),
        ).encode()
        index = transaction.ledger.append(entry, run=claimed.run)
        transaction.runs.close(claimed.run, receipt=index)
        return entry, index

    committed = await broker.store.write(append)
    entry, index = committed.value
    return broker.notary.prove(broker.store.ledger, entry=entry, index=index, size=committed.size)


def _check(run: Run | None, envelope: dsse.Envelope, claimed: receipt_model.Receipt) -> None:
    # One sentence for an unknown run and for a wrong key, so that run names can not be tried out.
    known = (
        run is not None
        and claimed.signing_key == run.signing_key
        and claimed.contract == run.contract
        and len(envelope.signatures) == 1
    )
    if run is None or not known:
        raise Refused(
            "receipt: not of a run that keys were released to under that contract",
            code="unknown-run",
            hint="a receipt counts at the broker that released to the run, signed by the run's own key",
        )
    sign.VerifyingKey(run.signing_key).verify(envelope.signatures[0].sig, envelope.pae())


def _same_again(transaction: Transaction, index: int, body: dict[str, str]) -> tuple[bytes, int]:
    entry = transaction.ledger.leaves(index, 1)[0]
    if record.parse(entry).body != body:
        raise Conflict(
            "receipt: this run has handed in another one",
            code="receipt-exists",
            hint="one run, one receipt; the first one stands",
        )
    return entry, index
