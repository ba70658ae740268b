"""Use case: a room hands in its receipt (`POST /v1/receipts`).

Authenticated by the signing key that the run's evidence was bound to. A run's receipts are numbered, and each number is higher
than all before; after the last one (`Receipt.is_last`) there is none. A job has one, a service one for each renewal, and a last one. The
newest one's bytes again get the same answer, since the first one may have been lost on the way.

Whose run it is, and that key, anybody reads in the ledger. So a stranger can have a receipt looked at: it is parsed and
its signature verified in a thread, outside of any transaction, and an address whose requests kept failing waits
(`workers`). The transaction looks at the run again, which never changes, and appends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from strongroom.broker.administration import own_changes
from strongroom.crypto import sign
from strongroom.encoding import fields
from strongroom.errors import Conflict, Refused, Unavailable
from strongroom.model import receipt as receipt_model
from strongroom.model import record, signatures

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Run, Transaction
    from strongroom.model import messages
    from strongroom.model.receipt import Receipt


async def receipt(broker: Broker, body: bytes, *, peer: str = "") -> messages.LedgerProof:
    """Append the receipt; return the proof. peer: the address that it came from, for the budgets.

    Raises `Malformed`, `Refused`, `Conflict`, `Unavailable`.
    """
    patient = broker.failures.patient(broker.clock(), peer=peer)
    try:
        claimed = await broker.workers.run(partial(_verified, broker, body), patient=patient)
    except Unavailable:
        raise
    except Exception:  # what nobody foresaw, too: it must not be cheaper than a plain no
        broker.failures.failed(broker.clock(), peer=peer)
        raise

    def append(transaction: Transaction) -> tuple[bytes, int]:
        run = _released(transaction.runs.find(claimed.run_id), claimed)
        entry_body = {"envelope": fields.format_data(body)}
        if run.latest is not None and (run.receipt is not None or claimed.sequence <= run.sequence):
            return _same_again(transaction, run, run.latest, entry_body)
        # Counted here: a receipt of before, which anybody finds in the ledger, counts for nothing.
        if not claimed.is_last and not broker.runs.reports(claimed.run_id, broker.clock()):
            raise _too_often()
        change = own_changes.OwnChange(
            kind=record.RecordKind.RECEIPT,
            contract_digest=claimed.contract_digest,
            run_id=claimed.run_id,
            body=dict(entry_body),
        )
        entry, index = own_changes.append(broker, transaction, change)
        transaction.runs.report(
            claimed.run_id, receipt=index, sequence=claimed.sequence, is_last=claimed.is_last
        )
        return entry, index

    return await own_changes.prove(broker, append)


def _too_often() -> Unavailable:
    return Unavailable(
        "receipt: this run reports more often than rooms do, and each time is recorded",
        code="too-many-receipts",
        hint="its last receipt is taken at any time; of the others the next one will be",
    )


def _verified(broker: Broker, body: bytes) -> Receipt:
    """The receipt, signed by the key of a run that keys were released to, and in the one spelling that a room gives it: whoever passes it
    on could change the rest, and what was recorded first stands. Raises `Malformed` or `Refused`.
    """
    envelope, claimed = receipt_model.parse_envelope(body)
    run = _released(broker.store.read(lambda state: state.runs.find(claimed.run_id)), claimed)
    key = sign.VerifyingKey(run.signing_key)
    if not signatures.only_by(envelope, key):
        raise _unknown()
    if envelope.encode() != body or not signatures.in_own_form(envelope, key):
        raise Refused(
            "receipt: signed by the run's key, and not spelled as rooms spell it",
            code="other-spelling",
            hint="hand in the very bytes that the room made: others may not stand in their place",
        )
    return claimed


def _released(run: Run | None, claimed: Receipt) -> Run:
    """The run, where it is the one that the receipt is about. Raises `Refused`."""
    if run is None or (claimed.signing_key, claimed.contract_digest, claimed.room) != (
        run.signing_key,
        run.contract_digest,
        run.room,
    ):
        raise _unknown()
    return run


def _unknown() -> Refused:
    # One sentence for an unknown run and for a wrong key, so that run names can not be tried out.
    return Refused(
        "receipt: not of a run that keys were released to under that contract",
        code="unknown-run",
        hint="a receipt counts at the broker that released to the run, signed by the run's own key",
    )


def _same_again(transaction: Transaction, run: Run, index: int, body: dict[str, str]) -> tuple[bytes, int]:
    entry = transaction.ledger.leaves(index, 1)[0]
    if record.parse(entry).body == body:
        return entry, index
    if run.receipt is not None:
        raise Conflict(
            "receipt: this run has handed in another receipt, its last one",
            code="receipt-exists",
            hint="a run ends once; the first last receipt stands",
        )
    raise Conflict(
        f"receipt: expected a number higher than {run.sequence}, which this run has handed in",
        code="receipt-order",
        hint="a room numbers its receipts from 1; one that comes late, or a second time with other bytes, is not recorded",
    )
