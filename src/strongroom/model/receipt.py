"""A receipt: what a room signs about its run, whatever became of it.

A job signs one. A service signs one at each renewal (outcome `running`), so that its ledgers say that it lived, and a last one.
Of one run their sequence numbers rise, from 1; after the last one there is none.

Signed with the room's signing key (DSSE), which the evidence is bound to. Times are the broker's
challenge time plus the room's monotonic clock, so that the host's clock has no say.

Ledgers that hold receipts can be read by anybody, so a receipt says nothing in a program's own words:
outcome, status and details are of closed sets, and what it commits an output to is salted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Malformed
from strongroom.model.identifiers import ContractDigest, ManifestDigest, RoomName, RunId

if TYPE_CHECKING:
    from datetime import datetime


FORMAT = "strongroom-receipt/2"
PAYLOAD_TYPE = "application/vnd.strongroom.receipt+json"
MAX_BYTES = 64 * 1024  # more than what a ledger entry has room for
MAX_ENVELOPE = 4 * MAX_BYTES  # signed: in base64, which takes a third more, with signatures


class Outcome(enum.StrEnum):
    """How the run ended, or that it goes on."""

    EXITED = "exited"  # by itself; exit_status 0 to 255
    KILLED = "killed"  # by a signal; exit_status is the signal's number
    OUT_OF_MEMORY = "out-of-memory"
    TIMED_OUT = "timed-out"
    OUTPUT_TOO_LARGE = "output-too-large"
    DATA_CORRUPTED = (
        "data-corrupted"  # a disk failed dm-verity, or a read failed; `details` says which; no output left
    )
    NOT_STARTED = "not-started"  # the program was not executed; `details` says why
    AGENT_FAILED = "agent-failed"  # what nobody foresaw, once the program had started; no output left
    RUNNING = "running"  # it goes on: the receipt is not the last one. No status, details or outputs


MAX_DATASETS = 64
# Everything that `details` may hold, in words. The words are for reading and in no record.
DETAILS = {
    "memory-ran-out": "memory ran out during the run, and one of the program's processes was killed",
    "entries-left-out": "some entries were left out of the outputs: not files, folders or links that stay within",
    "output-bytes": "an output has more bytes than the contract allows",
    "output-entries": "an output has more files and folders than may leave",
    "output-depth": "an output has folders nested too deep, or too long a path",
    "output-memory": "the room's memory does not suffice to seal the outputs",
    "program-missing": "the image lacks the program, its interpreter or its working directory",
    "program-not-executable": "the image's user may not execute the program",
    "program-bad-format": "the program is not one that this machine executes",
    "arguments-too-long": "the arguments and the environment are too long",
    "container-failed": "the container could not be made",
    "container-slow": "the container was not ready within the wall limit",
    "keys-refused": "a broker gave no keys after another one had",
    "room-not-ready": "the room could not be made ready: its disks, its memory or its keys",
    "unsupported-disk": "a disk asks for another file system than `strongroom seal` writes",
    "read-failed": "a read below a sealed disk or the base failed",
    "image-corrupted": "a block of the image's disk failed dm-verity, or its first cannot be read",
    **{
        f"data-{index}-corrupted": f"a block of the disk of dataset {index} (counted from 0) failed dm-verity, or its first cannot be read"
        for index in range(MAX_DATASETS)
    },
    "defect": "the agent failed in a way that nobody foresaw",
    "stopped": "the room was asked to stop, or its time was up",
    "paused": "a party paused or withdrew the contract, or replaced it by its next version",
    "renewal-refused": "a broker accepted the room no longer when it attested again",
    "renewal-overdue": "no broker could be reached to attest again before a verdict ended",
    "clock-drift": "the room's clock left its brokers' time: its host stopped, slowed or delayed it",
}


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A sealed disk as opened: its manifest digest and the verity root hash that the kernel enforced."""

    manifest_digest: ManifestDigest
    root_hash: str


@dataclass(frozen=True, kw_only=True)
class OutputRecord:
    """One sealed output: digest and size of the age file, and the digest of the tar within it.

    The tar begins with 32 random bytes, so that its digest commits to the content and lets nobody guess it;
    whoever opens the file can show the tar to others, and they see that it is what the room sealed.
    """

    path: str
    sealed_digest: str
    sealed_bytes: int
    content_commitment: str


@dataclass(frozen=True, kw_only=True)
class EgressCount:
    """What went between a program and one host outside: connections, and bytes sent to it and received from it.

    A receipt has the numbers rounded up (`rounded`), since a program chooses them and anybody may read a ledger: of connections
    to a power of two, of bytes to one that is `LEAST_BYTES` at least. So they say 15 bits of its own at most.
    """

    host: str
    port: int
    connections: int
    sent: int
    received: int

    def rounded(self) -> EgressCount:
        """As a receipt says it."""
        return EgressCount(
            host=self.host,
            port=self.port,
            connections=_round_up(self.connections, 1),
            sent=_round_up(self.sent, LEAST_BYTES),
            received=_round_up(self.received, LEAST_BYTES),
        )


LEAST_BYTES, _MOST = 1024, 1 << 40
MAX_EGRESS = 32


def _round_up(number: int, least: int) -> int:
    return min(max(1 << (number - 1).bit_length(), least), _MOST) if number else 0


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The receipt's fields. `room` is the role in which the room attested. `details` are keys of `DETAILS`, sorted, each once.

    egress: one for each host that the contract lets the room's program reach, rounded, in the order of their names and ports.
    sequence: which of the run's receipts it is, from 1, which is not written. ended: of one that says `running`, when it was made.
    """

    run_id: RunId
    contract_digest: ContractDigest
    room: RoomName
    signing_key: bytes
    image: Disk
    datasets: tuple[Disk, ...]
    outputs: tuple[OutputRecord, ...]
    outcome: Outcome
    exit_status: int
    details: tuple[str, ...]
    started: datetime
    ended: datetime
    egress: tuple[EgressCount, ...] = ()
    sequence: int = 1

    @property
    def is_last(self) -> bool:
        """Whether the run has ended, so that no other receipt of it follows."""
        return self.outcome is not Outcome.RUNNING

    @property
    def explanation(self) -> str:
        """The details in words; empty when there are none."""
        return "; ".join(DETAILS[code] for code in self.details)

    def encode(self) -> bytes:
        """Canonical payload bytes."""
        return canonical.dumps(
            {
                "format": FORMAT,
                "run": self.run_id,
                "contract": self.contract_digest,
                "room": self.room,
                "signing_key": fields.format_data(self.signing_key),
                "image": _disk_json(self.image),
                "datasets": [_disk_json(disk) for disk in self.datasets],
                "outputs": [
                    {
                        "path": output.path,
                        "sealed_digest": output.sealed_digest,
                        "sealed_bytes": output.sealed_bytes,
                        "content_commitment": output.content_commitment,
                    }
                    for output in self.outputs
                ],
                "outcome": self.outcome.value,
                "exit_status": self.exit_status,
                "details": list(self.details),
                "started": fields.format_time(self.started),
                "ended": fields.format_time(self.ended),
                **({"egress": [_egress_json(count) for count in self.egress]} if self.egress else {}),
                **({"sequence": self.sequence} if self.sequence > 1 else {}),
            }
        )


def parse(data: bytes) -> Receipt:
    """Parse payload bytes. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="receipt", max_bytes=MAX_BYTES), "receipt")
    top.constant("format", FORMAT)
    outcome = Outcome(top.choice("outcome", Outcome))
    outputs = []
    for item in top.objects("outputs", max_items=64):
        outputs.append(
            OutputRecord(
                path=item.text("path", max_length=200),
                sealed_digest=item.digest("sealed_digest"),
                sealed_bytes=item.integer("sealed_bytes", low=0, high=1 << 50),
                content_commitment=item.digest("content_commitment"),
            )
        )
        item.done()
    receipt = Receipt(
        run_id=RunId(top.name("run")),
        contract_digest=ContractDigest(top.digest("contract")),
        room=RoomName(top.name("room")),
        signing_key=top.data("signing_key", max_bytes=32, exactly=32),
        image=_read_disk(top.object("image")),
        datasets=tuple(_read_disk(item) for item in top.objects("datasets", max_items=MAX_DATASETS)),
        outputs=tuple(outputs),
        outcome=outcome,
        exit_status=top.integer("exit_status", low=0, high=255),
        details=_read_details(top),
        started=top.time("started"),
        ended=top.time("ended"),
        egress=_read_egress(top),
        sequence=top.integer("sequence", low=2, high=canonical.MAX_INTEGER)
        if "sequence" in top.names()
        else 1,
    )
    top.done()
    if not receipt.is_last and (receipt.exit_status, receipt.details, receipt.outputs) != (0, (), ()):
        raise Malformed(
            "receipt: expected no status, details or outputs of a run that goes on, got some",
            code="bad-value",
        )
    return receipt


def parse_envelope(data: bytes) -> tuple[dsse.Envelope, Receipt]:
    """Parse the signed form; the caller checks by whom."""
    envelope = dsse.parse(data, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    return envelope, parse(envelope.payload)


def _read_details(top: fields.Fields) -> tuple[str, ...]:
    details = top.texts("details", max_items=8, max_length=32)
    if not DETAILS.keys() >= set(details) or list(details) != sorted(set(details)):
        raise Malformed(
            "receipt.details: expected details that this version knows, sorted, each once, got others",
            code="bad-value",
        )
    return details


def _egress_json(count: EgressCount) -> dict[str, object]:
    return {
        "host": count.host,
        "port": count.port,
        "connections": count.connections,
        "sent": count.sent,
        "received": count.received,
    }


def _read_egress(top: fields.Fields) -> tuple[EgressCount, ...]:
    """Absent where the contract lets the program reach nobody."""
    if "egress" not in top.names():
        return ()
    counts = []
    for item in top.objects("egress", max_items=MAX_EGRESS):
        counts.append(
            EgressCount(
                host=item.text("host", max_length=240),
                port=item.integer("port", low=1, high=65_535),
                connections=item.integer("connections", low=0, high=_MOST),
                sent=item.integer("sent", low=0, high=_MOST),
                received=item.integer("received", low=0, high=_MOST),
            )
        )
        item.done()
    places = [(count.host, count.port) for count in counts]
    if not counts or places != sorted(set(places)) or any(count != count.rounded() for count in counts):
        raise Malformed(
            "receipt.egress: expected hosts and ports in order, each once, with numbers that are rounded up, got others",
            code="bad-value",
        )
    return tuple(counts)


def _disk_json(disk: Disk) -> dict[str, object]:
    return {"manifest": disk.manifest_digest, "root_hash": disk.root_hash}


def _read_disk(source: fields.Fields) -> Disk:
    disk = Disk(
        manifest_digest=ManifestDigest(source.digest("manifest")), root_hash=source.digest("root_hash")
    )
    source.done()
    return disk
