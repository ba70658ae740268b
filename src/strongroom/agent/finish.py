"""After the program: what leaves, the receipt that says what happened, and which of them goes first.

Nothing is handed to the node before the receipt is in the ledger of every broker that the contract names a
disk's owner by: the outputs are sealed into the room's own memory, and wait there. So nobody can take the
outputs and keep the receipt from being made, by cutting the power or the network in between.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.agent import attest, outputs, tar
from strongroom.crypto import digest
from strongroom.encoding import dsse, fields
from strongroom.errors import Refused, StrongroomError, Unavailable
from strongroom.model import receipt as receipt_model
from strongroom.model import record
from strongroom.model.contracts.contract import ExitStatus, OutputSizes
from strongroom.model.receipt import Outcome
from strongroom.model.room import run_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.agent.channel import Channel
    from strongroom.agent.program import Ended
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import PartyName
    from strongroom.model.manifest import Manifest
    from strongroom.model.receipt import OutputRecord, Receipt
    from strongroom.model.room.agreed import Terms

_MEMORY = "let the contract give more memory (--memory-mib), or the program write less"

LONGEST_PAUSE = 30.0
_CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class SealedRun:
    """What waits in memory: how the run ended, the outputs' records, and sealed files by name."""

    ended: Ended
    records: tuple[OutputRecord, ...] = ()
    files: tuple[tuple[str, BinaryIO], ...] = ()

    def close(self) -> None:
        """Give the memory back."""
        for _, file in self.files:
            file.close()


def seal(
    contract: Contract,
    room: RoomTerms,
    ended: Ended,
    out: str,
    *,
    memory: Callable[[], int],
    random: Callable[[int], bytes],
) -> SealedRun:
    """Seal into memory what a program that ended by itself left in its output folders, and its log.

    All are measured before any is sealed: one that is too large holds back every one. memory: how many bytes the
    sealed files may take. Never raises: whatever the program left is an outcome.
    """
    try:
        return _seal(contract, room, ended, out, memory, random)
    except BaseException as cause:  # noqa: BLE001 - the room still owes a receipt
        failed = agent_failed(ended, cause)
    try:
        return _seal(contract, room, failed, out, memory, random)
    except BaseException:  # noqa: BLE001 - not even its log could be sealed
        return SealedRun(ended=failed)


def agent_failed(ended: Ended, cause: BaseException) -> Ended:
    """The end of a run in which something failed that should not; the words are for the sealed log alone."""
    detail = "stopped" if isinstance(cause, StrongroomError) and cause.code in STOPPED else "defect"
    log = f"[strongroom: the agent failed: {place_of(cause)}]\n".encode()
    return replace(ended, outcome=Outcome.AGENT_FAILED, exit_status=0, details=(detail,), log=log)


STOPPED = frozenset(("timed-out", "stopped"))


def place_of(cause: BaseException) -> str:
    """The kind of a failure and the place in the agent, without its words."""
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "nowhere" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(cause).__name__} at {where}"


def _seal(
    contract: Contract,
    room: RoomTerms,
    ended: Ended,
    out: str,
    memory: Callable[[], int],
    random: Callable[[int], bytes],
) -> SealedRun:
    sizes = contract.disclosure.output_sizes
    log = ended.log if room.logs is not None and ended.outcome is not Outcome.DATA_CORRUPTED else None
    folders = [(out + wanted.path.removeprefix("/out"), wanted.max_bytes) for wanted in room.outputs]
    ended, listings = leaving(ended, folders, sizes=sizes, log_bytes=len(log or b""), memory=memory)
    with ExitStack() as undo:
        records, files = [], []
        for number, (output, listing) in enumerate(zip(room.outputs, listings, strict=False)):
            target = undo.enter_context(memory_file())
            recipients = contract.recipients(output.recipients)
            salt = random(tar.SALT_BYTES)
            records.append(outputs.seal(listing, output.path, recipients, sizes, salt, target))
            files.append((run_files.output(number), target))
        if room.logs is not None and log is not None:
            target = undo.enter_context(memory_file())
            outputs.seal_pieces(
                _padded_log(log, sizes), "", contract.recipients(room.logs.recipients), target
            )
            files.append((run_files.LOG, target))
        undo.pop_all()
    return SealedRun(ended=ended, records=tuple(records), files=tuple(files))


def leaving(
    ended: Ended,
    folders: list[tuple[str, int]],
    *,
    sizes: OutputSizes,
    log_bytes: int,
    memory: Callable[[], int],
) -> tuple[Ended, list[outputs.Listing]]:
    """What leaves of the output folders, each with its most bytes, and the end of the run as that changes it.

    Nothing of a program that did not end by itself, and nothing at all where one folder is too large.
    """
    if ended.outcome is not Outcome.EXITED:
        return ended, []
    try:
        listings = [outputs.list_folder(folder, most) for folder, most in folders]
        needed = sum(outputs.sealed_bytes(folder_listing.tar_bytes, sizes) for folder_listing in listings)
        if needed + outputs.sealed_bytes(log_bytes, sizes) > memory():
            raise Refused("the memory does not suffice", code="output-memory", hint=_MEMORY)
    except Refused as cause:
        if cause.code not in outputs.TOO_LARGE:
            raise
        return replace(ended, outcome=Outcome.OUTPUT_TOO_LARGE, details=(*ended.details, cause.code)), []
    if any(listing.left_out for listing in listings):
        ended = replace(ended, details=(*ended.details, "entries-left-out"))
    return ended, listings


def _padded_log(log: bytes, sizes: OutputSizes) -> Iterator[bytes]:
    """The log is text for reading: what pads it are line ends."""
    yield log
    yield from outputs.repeated(b"\n", outputs.padded_size(len(log), sizes) - len(log))


def memory_file() -> BinaryIO:
    """A file in the room's memory and nowhere else."""
    return cast("BinaryIO", os.fdopen(os.memfd_create("sealed", os.MFD_CLOEXEC), "w+b"))


def send(channel: Channel, sealed: SealedRun) -> None:
    """Hand the sealed files to the node."""
    for name, file in sealed.files:
        file.seek(0)
        stream = channel.open_file(name)
        while data := file.read(_CHUNK):
            stream.write(data)
        stream.finish()


def shown_status(contract: Contract, status: int) -> int:
    """The exit status as exactly as the contract lets it show."""
    return min(status, 1) if contract.disclosure.exit_status is ExitStatus.ZERO_OR_ONE else status


def make_receipt(
    terms: Terms,
    ended: Ended,
    sealed: tuple[OutputRecord, ...],
    first: attest.Released,
    *,
    sequence: int = 1,
) -> Receipt:
    """The receipt, of that number. Its times are those of the `first` broker asked."""
    return receipt_model.Receipt(
        run_id=first.binding.keys.run_id,
        contract_digest=terms.contract.digest,
        room=terms.room.name,
        signing_key=first.binding.keys.signing,
        image=_disk(terms.image),
        datasets=tuple(_disk(manifest) for manifest in terms.datasets),
        outputs=sealed,
        outcome=ended.outcome,
        exit_status=shown_status(terms.contract, ended.exit_status),
        details=tuple(sorted(set(ended.details))),
        started=first.time(ended.started),
        ended=first.time(ended.ended),
        sequence=sequence,
        egress=tuple(count.rounded() for count in ended.egress),
    )


def sign_receipt(receipt: Receipt, keys: attest.Keys) -> bytes:
    """The receipt in its envelope, signed by the key that the evidence is bound to."""
    payload = receipt.encode()
    kind = receipt_model.PAYLOAD_TYPE
    signature = dsse.DsseSignature(
        keyid=digest.sha256(receipt.signing_key), sig=keys.signing.sign(dsse.pae(kind, payload))
    )
    return dsse.Envelope(payload_type=kind, payload=payload, signatures=(signature,)).encode()


def post_receipt(
    channel: Channel,
    contract: Contract,
    envelope: bytes,
    *,
    parties: tuple[PartyName, ...],
    wait_seconds: float,
    on_failure: Callable[[PartyName], None] = lambda _party: None,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Have the receipt recorded by the brokers of all `parties` and pass their ledgers' proofs on.

    A broker that does not answer is asked again until `wait_seconds` have passed; one that says no, or whose
    proof does not hold, is not. on_failure: called with a party's name at its first failure.
    Raises `Unavailable` (`receipt-not-recorded`), which names the brokers, after all were tried.
    """
    deadline = clock() + wait_seconds
    waiting, failures = list(parties), {}
    seconds = 2.0
    while True:
        for party in tuple(waiting):
            try:
                answer = post_one(channel, contract, party, envelope)
            except StrongroomError as cause:
                if party not in failures:
                    on_failure(party)
                failures[party] = cause.message
                if isinstance(cause, Refused):
                    waiting.remove(party)
            else:
                channel.send_file(run_files.ledger_proof(party), answer)
                waiting.remove(party)
                failures.pop(party, None)
        left = deadline - clock()
        if not waiting or left <= 0:
            break
        pause(min(seconds, LONGEST_PAUSE, left))
        seconds *= 2
    if failures:
        raise Unavailable(
            "the run ended, but its receipt is not recorded everywhere, so nothing leaves the room; missing: "
            f"{', '.join(failures)}. "  # all names before the first broker's words
            + "; ".join(f"{party}: {message}" for party, message in failures.items()),
            code="receipt-not-recorded",
            hint="the signed receipt is in the run's folder; the contract says how long a room waits for brokers",
        )


def post_one(channel: Channel, contract: Contract, party: PartyName, envelope: bytes) -> bytes:
    """The proof that the broker of `party` has recorded these very bytes. Raises `StrongroomError` alone."""
    try:
        answer = attest.post_receipt(channel, contract, party, envelope)
        run = receipt_model.parse_envelope(envelope)[1].run_id
        entry = attest.proven(answer, contract, party, record.RecordKind.RECEIPT, run_id=run)
        if entry.body != {"envelope": fields.format_data(envelope)}:
            raise Refused(
                f"the broker of {party} proves another entry",
                code="wrong-proof",
                hint="its ledger does not hold what it answers; keep the run's folder, and ask its owner",
            )
        return answer.encode()
    except StrongroomError:
        raise
    except Exception as cause:  # noqa: BLE001 - one broker keeps no other from recording
        raise Refused(
            f"the answer of the broker of {party}: {place_of(cause)}", code="defect", hint="please report it"
        ) from None


def _disk(manifest: Manifest) -> receipt_model.Disk:
    return receipt_model.Disk(manifest_digest=manifest.digest, root_hash=manifest.root_hash)
