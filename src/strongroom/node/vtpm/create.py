"""Founding a node: its certificate authority and its software TPM, all at once or not at all.

Apart from `state`, because starting a room should not load what only founding needs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest, tls
from strongroom.crypto.pki import local_ca
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Misuse
from strongroom.node.vtpm import provision
from strongroom.node.vtpm import state as tpm_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


def create(
    folder: Path, name: str, *, now: datetime, random: Callable[[int], bytes] = secrets.token_bytes
) -> tpm_state.VtpmNode:
    """Make a node's folder, which must not exist (or be empty). All of it appears, or nothing.

    Raises `Misuse`, `NotFound` without swtpm, `Unavailable` when the TPM fails.
    """
    if fields.NAME.fullmatch(name) is None:
        raise Malformed(
            f"node name {name[:80]!r}: expected 1 to 64 lower-case letters, digits, dots, dashes and underscores",
            code="bad-name",
            hint="give a plain one with --name, like node-1",
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

        state = provision.provision(certify)
        ak, public = certified[0]
        node = tpm_state.VtpmNode(
            folder=folder, name=name, root=digest.sha256(root), machine=digest.sha256(public), issuers=root
        )
        _write(part / tpm_state.KEY, key.der)
        _write(part / tpm_state.STATE, state)
        _write(part / tpm_state.ROOT, root)
        _write(part / tpm_state.AK, ak)
        _write(part / tpm_state.NAME, canonical.dumps(node.to_json()) + b"\n")
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return node


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
