"""The launch record of a local room: what the node measured into PCR 0 before the first instruction.

The node sends the exact bytes as an H-CRTM event (TCG PC Client Platform TPM Profile, `_TPM_Hash_*`),
so that PCR 0 starts as SHA-256(0…04 ‖ SHA-256(record)). Canonical JSON::

    {"format": "strongroom-launch/1", "firmware": digest, "kernel": digest, "initrd": digest,
     "cmdline": digest, "machine": "q35", "memory_guard": bool}

`cmdline` is the digest of the command line's bytes without a trailing NUL. The base's root hash is in
that command line. Memory size and disks are not in the record: the agent proves them by other means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields

if TYPE_CHECKING:
    from strongroom.model.identifiers import ContractDigest

FORMAT = "strongroom-launch/1"
MAX_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class LaunchRecord:
    """What was started. Digests are of whole files."""

    firmware: str
    kernel: str
    initrd: str
    cmdline: str
    machine: str
    memory_guard: bool

    def reference(self) -> dict[str, str]:
        """The registers that a contract's reference names for a local room."""
        return {
            "firmware": self.firmware,
            "kernel": self.kernel,
            "initrd": self.initrd,
            "cmdline": self.cmdline,
            "machine": self.machine,
        }

    def encode(self) -> bytes:
        """The canonical bytes that are measured."""
        return canonical.dumps({"format": FORMAT, **self.reference(), "memory_guard": self.memory_guard})


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a node is about to start, as its own files and settings say: no claim, since nothing of it is proved.

    The names are those of `claims.Claims`, with which it is compared to a contract in the same way.
    """

    tee: str
    simulated: bool
    memory_guard: bool
    root: str
    machine: str
    registers: dict[str, str]
    debug: bool = False
    contract_digest: ContractDigest | None = None


def parse(data: bytes) -> LaunchRecord:
    """Parse a launch record. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="launch record", max_bytes=MAX_BYTES), "launch record")
    top.constant("format", FORMAT)
    record = LaunchRecord(
        firmware=top.digest("firmware"),
        kernel=top.digest("kernel"),
        initrd=top.digest("initrd"),
        cmdline=top.digest("cmdline"),
        machine=top.text("machine", max_length=64),
        memory_guard=top.boolean("memory_guard"),
    )
    top.done()
    return record
