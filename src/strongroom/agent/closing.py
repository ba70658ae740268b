"""After the program: what leaves, and the receipt that says what happened."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.agent import attest, outputs
from strongroom.crypto import age, digest
from strongroom.encoding import dsse
from strongroom.errors import Refused, StrongroomError, Unavailable
from strongroom.model import receipt as receipt_model
from strongroom.model import run_files
from strongroom.model.receipt import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.agent.agreed import Terms
    from strongroom.agent.channel import Channel
    from strongroom.agent.program import Ended
    from strongroom.model.contract import Contract
    from strongroom.model.manifest import Manifest
    from strongroom.model.receipt import OutputRecord, Receipt

POST_TRIES = 5
_DETAIL = 1000


def send_outputs(
    channel: Channel, contract: Contract, ended: Ended, out: str
) -> tuple[Ended, tuple[OutputRecord, ...]]:
    """Seal and send what a program that ended by itself left in its output folders.

    All are measured before any is sent: one that is too large holds back every one.
    """
    if ended.outcome is not Outcome.EXITED:
        return ended, ()
    try:
        listings = [
            outputs.list_folder(out + output.path.removeprefix("/out"), output.max_bytes)
            for output in contract.outputs
        ]
    except Refused as cause:
        return replace(ended, outcome=Outcome.OUTPUT_TOO_LARGE, detail=cause.message), ()
    records = []
    for number, (output, listing) in enumerate(zip(contract.outputs, listings, strict=True)):
        stream = channel.open_file(run_files.output(number))
        records.append(outputs.seal(listing, output.path, contract.recipients(output.recipients), stream))
        stream.close()
    left_out = sum(listing.left_out for listing in listings)
    if left_out:
        note = f"{left_out} entries left out of the outputs: not files, folders or links that stay within"
        ended = replace(ended, detail=f"{ended.detail}; {note}" if ended.detail else note)
    return ended, tuple(records)


def send_logs(channel: Channel, contract: Contract, ended: Ended) -> None:
    """Seal and send what the program printed, when the contract names who may read it."""
    if contract.logs is not None and ended.outcome is not Outcome.DATA_CORRUPTED:
        channel.send_file(run_files.LOG, age.seal(contract.recipients(contract.logs.recipients), ended.log))


def make_receipt(
    terms: Terms, ended: Ended, sealed: tuple[OutputRecord, ...], first: attest.Released
) -> Receipt:
    """The receipt. Its times are those of the `first` broker asked."""
    return receipt_model.Receipt(
        run=first.binding.keys.run_id,
        contract=terms.contract.digest,
        signing_key=first.binding.keys.signing,
        image=_disk(terms.image),
        datasets=tuple(_disk(manifest) for manifest in terms.datasets),
        outputs=sealed,
        outcome=ended.outcome,
        exit_status=ended.exit_status,
        detail=ended.detail[:_DETAIL],
        started=first.time(ended.started),
        ended=first.time(ended.ended),
    )


def sign_receipt(receipt: Receipt, keys: attest.Keys) -> bytes:
    """The receipt in its envelope, signed by the key that the evidence is bound to."""
    payload = receipt.encode()
    kind = receipt_model.PAYLOAD_TYPE
    signature = dsse.Signature(
        keyid=digest.sha256(receipt.signing_key), sig=keys.signing.sign(dsse.pae(kind, payload))
    )
    return dsse.Envelope(payload_type=kind, payload=payload, signatures=(signature,)).encode()


def post_receipt(
    channel: Channel, contract: Contract, envelope: bytes, *, pause: Callable[[float], None] = time.sleep
) -> None:
    """Post to every broker and pass their ledger proofs on. Raises `Unavailable` after all were tried."""
    failures = []
    for party in contract.key_owners():
        try:
            proof = _post_one(channel, contract, party, envelope, pause)
        except StrongroomError as cause:
            failures.append(f"{party}: {cause.message}")
        else:
            channel.send_file(run_files.ledger_proof(party), proof)
    if failures:
        raise Unavailable(
            "the run ended, but its receipt is not recorded everywhere: " + "; ".join(failures),
            code="receipt-not-recorded",
            hint="the signed receipt is in the run's folder",
        )


def _post_one(
    channel: Channel, contract: Contract, party: str, envelope: bytes, pause: Callable[[float], None]
) -> bytes:
    for attempt in range(1, POST_TRIES):
        try:
            return attest.post_receipt(channel, contract, party, envelope).encode()
        except Unavailable:
            pause(float(2**attempt))
    return attest.post_receipt(channel, contract, party, envelope).encode()


def _disk(manifest: Manifest) -> receipt_model.Disk:
    return receipt_model.Disk(manifest=manifest.digest, root_hash=manifest.root_hash)
