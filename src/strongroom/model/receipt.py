"""A receipt: what a room signs about its run, whatever became of it.

Signed with the room's signing key (DSSE), which the evidence is bound to. Times are the broker's
challenge time plus the room's monotonic clock, so that the host's clock has no say.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from datetime import datetime

FORMAT = "strongroom-receipt/1"
PAYLOAD_TYPE = "application/vnd.strongroom.receipt+json"
MAX_BYTES = 256 * 1024


class Outcome(enum.StrEnum):
    """How the run ended."""

    EXITED = "exited"  # by itself; exit_status 0 to 255
    KILLED = "killed"  # by a signal; exit_status is the signal's number
    OUT_OF_MEMORY = "out-of-memory"
    TIMED_OUT = "timed-out"
    OUTPUT_TOO_LARGE = "output-too-large"
    DATA_CORRUPTED = "data-corrupted"  # a sealed disk failed dm-verity; `detail` says which; no output left
    NOT_STARTED = "not-started"  # the program could not be executed; `detail` says why


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A sealed disk as opened: its manifest digest and the verity root hash that the kernel enforced."""

    manifest: str
    root_hash: str


@dataclass(frozen=True, kw_only=True)
class OutputRecord:
    """One sealed output: digest and size of the age file, and of the tar within it."""

    path: str
    sealed_digest: str
    sealed_bytes: int
    content_digest: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The receipt's fields. `registers` are the measurements that the room itself was told of."""

    run: str
    contract: str
    signing_key: bytes
    image: Disk
    datasets: tuple[Disk, ...]
    outputs: tuple[OutputRecord, ...]
    outcome: Outcome
    exit_status: int
    detail: str
    started: datetime
    ended: datetime

    def encode(self) -> bytes:
        """Canonical payload bytes."""
        return canonical.dumps(
            {
                "format": FORMAT,
                "run": self.run,
                "contract": self.contract,
                "signing_key": fields.format_data(self.signing_key),
                "image": _disk_json(self.image),
                "datasets": [_disk_json(disk) for disk in self.datasets],
                "outputs": [
                    {
                        "path": one.path,
                        "sealed_digest": one.sealed_digest,
                        "sealed_bytes": one.sealed_bytes,
                        "content_digest": one.content_digest,
                    }
                    for one in self.outputs
                ],
                "outcome": self.outcome.value,
                "exit_status": self.exit_status,
                "detail": self.detail,
                "started": fields.format_time(self.started),
                "ended": fields.format_time(self.ended),
            }
        )


def parse(data: bytes) -> Receipt:
    """Parse payload bytes. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="receipt", max_bytes=MAX_BYTES), "receipt")
    top.constant("format", FORMAT)
    outcome = top.text("outcome", max_length=32)
    if outcome not in set(Outcome):
        raise Malformed("receipt.outcome: unknown")
    outputs = []
    for item in top.objects("outputs", max_items=64):
        outputs.append(
            OutputRecord(
                path=item.text("path", max_length=200),
                sealed_digest=item.digest("sealed_digest"),
                sealed_bytes=item.integer("sealed_bytes", low=0, high=1 << 50),
                content_digest=item.digest("content_digest"),
            )
        )
        item.done()
    receipt = Receipt(
        run=top.name("run"),
        contract=top.digest("contract"),
        signing_key=top.data("signing_key", max_bytes=32, exactly=32),
        image=_read_disk(top.object("image")),
        datasets=tuple(_read_disk(item) for item in top.objects("datasets", max_items=64)),
        outputs=tuple(outputs),
        outcome=Outcome(outcome),
        exit_status=top.integer("exit_status", low=0, high=255),
        detail=top.text_map_of(("detail",), max_length=1000)["detail"],
        started=top.time("started"),
        ended=top.time("ended"),
    )
    top.done()
    return receipt


def parse_envelope(data: bytes) -> tuple[dsse.Envelope, Receipt]:
    """Parse the signed form; the caller checks by whom."""
    envelope = dsse.parse(data, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    return envelope, parse(envelope.payload)


def _disk_json(disk: Disk) -> dict[str, object]:
    return {"manifest": disk.manifest, "root_hash": disk.root_hash}


def _read_disk(source: fields.Fields) -> Disk:
    disk = Disk(manifest=source.digest("manifest"), root_hash=source.digest("root_hash"))
    source.done()
    return disk
