"""A node's folder: its certificate authority and the TPM state that every one of its rooms starts from.

::

    node.json     {"format": "strongroom-node/1", "name", "root": digest, "machine": digest}
    ca.key        the authority's private key, PKCS#8 DER, mode 0600
    root.der      the authority's certificate; contracts name its digest
    ak.der        the certificate of the attestation key
    tpm.state     the software TPM as provisioned (it holds the attestation key), mode 0600

The attestation key is the machine's identity: `machine` is the digest of its SubjectPublicKeyInfo, and
rooms that run side by side each have a copy of the state. Whoever can read this folder can forge
evidence of this node, which is one reason why that evidence says SIMULATED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest, spki
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "strongroom-node/1"
NAME, ROOT, AK, KEY, STATE = "node.json", "root.der", "ak.der", "ca.key", "tpm.state"
MAX_STATE = 1024 * 1024
_MAX_FILE = 64 * 1024
_MIXED = "the folder holds files of two nodes, or damaged ones: `strongroom node init DIR` makes a new node"


@dataclass(frozen=True, kw_only=True)
class VtpmNode:
    """A node as its folder describes it. `issuers` is what a room hands to verifiers beside its AK."""

    folder: Path
    name: str
    root: str
    machine: str
    issuers: bytes

    def tpm_state(self) -> bytes:
        """The state that a room's TPM starts from. Raises `NotFound`."""
        return _read(self.folder / STATE, MAX_STATE)

    def to_json(self) -> dict[str, object]:
        """What `strongroom node show --json` prints, and contracts are drawn from."""
        return {"format": FORMAT, "name": self.name, "root": self.root, "machine": self.machine}


def load(folder: Path) -> VtpmNode:
    """Read a node's folder and check that its parts belong together. Raises `NotFound`, `Malformed`."""
    data = _read(folder / NAME, _MAX_FILE)
    top = fields.Fields(canonical.loads(data, what="node.json", max_bytes=_MAX_FILE), "node.json")
    top.constant("format", FORMAT)
    node = VtpmNode(
        folder=folder,
        name=top.name("name"),
        root=top.digest("root"),
        machine=top.digest("machine"),
        issuers=_read(folder / ROOT, _MAX_FILE),
    )
    top.done()
    if digest.sha256(node.issuers) != node.root:
        raise Malformed(
            f"{folder}: root.der is not the certificate that node.json names", code="mismatch", hint=_MIXED
        )
    if spki.digest_of_certificate(_read(folder / AK, _MAX_FILE)) != node.machine:
        raise Malformed(
            f"{folder}: ak.der is not of the key that node.json names", code="mismatch", hint=_MIXED
        )
    return node


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as source:
            data = source.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{path}: not there",
            code="no-node",
            hint="name a node's folder, as `strongroom node init DIR` makes it",
        ) from None
    if len(data) > limit:
        raise Malformed(f"{path}: larger than {limit} bytes", code="too-large", hint=_MIXED)
    return data
