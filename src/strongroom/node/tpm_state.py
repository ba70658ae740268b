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

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest, local_ca, spki, tls
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Misuse, NotFound
from strongroom.node import tpm_provision

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

FORMAT = "strongroom-node/1"
_MAX_FILE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as its folder describes it. `issuers` is what a room hands to verifiers beside its AK."""

    folder: Path
    name: str
    root: str
    machine: str
    issuers: bytes

    def tpm_state(self) -> bytes:
        """The state that a room's TPM starts from. Raises `NotFound`."""
        return _read(self.folder / "tpm.state", tpm_provision.MAX_STATE)

    def to_json(self) -> dict[str, object]:
        """What `strongroom node show --json` prints, and contracts are drawn from."""
        return {"format": FORMAT, "name": self.name, "root": self.root, "machine": self.machine}


def create(folder: Path, name: str, *, now: datetime, random: Callable[[int], bytes]) -> Node:
    """Make a node's folder, which must not exist (or be empty). All of it appears, or nothing.

    Raises `Misuse`, `NotFound` without swtpm, `Unavailable` when the TPM fails.
    """
    if fields.NAME.fullmatch(name) is None:
        raise Malformed(
            f"node name {name[:40]!r}: use lower-case letters, digits, dots, dashes", code="bad-name"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Misuse(f"{folder}: exists already", hint="a node is made once; name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        key = tls.generate()
        root = local_ca.make_root(key, name=name, now=now, random=random)
        certified: list[tuple[bytes, bytes]] = []

        def certify(point: tuple[bytes, bytes]) -> bytes:
            ak = local_ca.certify_ak(key, root, point, name=name, now=now, random=random)
            certified.append((ak, local_ca.spki(point)))
            return ak

        state = tpm_provision.provision(certify)
        ak, public = certified[0]
        node = Node(
            folder=folder, name=name, root=digest.sha256(root), machine=digest.sha256(public), issuers=root
        )
        _write(part / "ca.key", key.der)
        _write(part / "tpm.state", state)
        _write(part / "root.der", root)
        _write(part / "ak.der", ak)
        _write(part / "node.json", canonical.dumps(node.to_json()) + b"\n")
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return node


def load(folder: Path) -> Node:
    """Read a node's folder and check that its parts belong together. Raises `NotFound`, `Malformed`."""
    data = _read(folder / "node.json", _MAX_FILE)
    top = fields.Fields(canonical.loads(data, what="node.json", max_bytes=_MAX_FILE), "node.json")
    top.constant("format", FORMAT)
    node = Node(
        folder=folder,
        name=top.name("name"),
        root=top.digest("root"),
        machine=top.digest("machine"),
        issuers=_read(folder / "root.der", _MAX_FILE),
    )
    top.done()
    if digest.sha256(node.issuers) != node.root:
        raise Malformed(f"{folder}: root.der is not the certificate that node.json names", code="mismatch")
    if spki.digest_of_certificate(_read(folder / "ak.der", _MAX_FILE)) != node.machine:
        raise Malformed(f"{folder}: ak.der is not of the key that node.json names", code="mismatch")
    return node


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as source:
            data = source.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{path}: not there", code="no-node", hint="make a node with `strongroom node init DIR`"
        ) from None
    if len(data) > limit:
        raise Malformed(f"{path}: larger than {limit} bytes", code="too-large")
    return data


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
