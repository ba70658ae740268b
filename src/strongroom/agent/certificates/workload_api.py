"""The agent's side of the process that serves the SPIFFE Workload API (`strongroom.spiffe`): started before any key, given what the program gets.

The socket lies beside the program's certificates, and the program's environment names it (`SPIFFE_ENDPOINT_SOCKET`). The process has no key
but the one that it hands out; what a program sends to it never reaches the agent.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from strongroom.agent import owners
from strongroom.agent.network import keyless
from strongroom.spiffe.svid import X509Svid

if TYPE_CHECKING:
    from strongroom.agent.certificates.delivery import CertificateFolder, Generation

VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
SOCKET = "spiffe.sock"
_NOBODY = 65534
_BACKLOG = 64
_SECONDS = 10.0


class WorkloadApi:
    """The process, by the agent's end of its updates."""

    def __init__(self, updates: socket.socket) -> None:
        self._updates = updates
        self._updates.settimeout(_SECONDS)
        self._has_listener = False

    def hand_out(self, folder: CertificateFolder, generation: Generation, id: str) -> None:
        """Hand out this generation from now on. id: the room's SPIFFE ID. Raises `OSError` where the process is gone or takes nothing."""
        served, *_ = generation.chains.values()
        *chain, root = served
        svid = X509Svid(id=id, chain=tuple(chain), key=generation.key.pkcs8(), bundle=(root,))
        if not self._has_listener:
            listener = _listener(folder)
            with listener:
                socket.send_fds(self._updates, [b"\n"], [listener.fileno()])
            self._has_listener = True
        self._updates.sendall(svid.encode() + b"\n")

    def close(self) -> None:
        """End the process."""
        self._updates.close()


def path(folder: str) -> str:
    """What the program's environment says. folder: where the program sees its certificates."""
    return f"unix://{folder}/{SOCKET}"


def spawn() -> WorkloadApi:
    """Fork the process. To be called before there is any key."""
    own, theirs = socket.socketpair()
    keyless.fork(partial(_serve, theirs), keep=theirs.fileno())
    theirs.close()
    return WorkloadApi(own)


def _serve(updates: socket.socket) -> None:
    from strongroom.spiffe import workload_api  # noqa: PLC0415 - here alone: rooms without it load none of it

    keyless.drop_rights(_NOBODY)
    _, descriptors, _, _ = socket.recv_fds(updates, 1, 1)
    if descriptors:
        with socket.socket(fileno=descriptors[0]) as listener:
            workload_api.serve(listener, updates)


def _listener(folder: CertificateFolder) -> socket.socket:
    """Where whoever may read the certificates may connect."""
    where = f"{folder.folder}/{SOCKET}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
    os.chown(where, owners.kernel_id(folder.delivery.uid), owners.kernel_id(folder.delivery.gid))
    os.chmod(where, 0o660)
    listener.listen(_BACKLOG)
    return listener
