"""Making a software TPM ready for rooms: one PCR bank, an attestation key, its certificate.

The state is one linear file (swtpm's `file://` back end), so that a room's own copy can live in
memory and vanishes with the room. The TPM is spoken to over a socket pair; nothing is left on disk.
Not made: an endorsement certificate. The node certifies the attestation key itself, in the same run
that creates it, so that there is nothing that activating a credential would add.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

from strongroom.encoding import tpm2
from strongroom.errors import Malformed, Unavailable
from strongroom.node.vtpm import state as tpm_state
from strongroom.node.vtpm import swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AK_HANDLE = 0x81010020
AK_CERTIFICATE_NV = 0x01C10002
TIMEOUT = 20.0
_RETRIES = 100
_NV_ATTRIBUTES = tpm2.NV_OWNERWRITE | tpm2.NV_AUTHWRITE | tpm2.NV_OWNERREAD | tpm2.NV_AUTHREAD | tpm2.NV_NO_DA


def provision(certify: Callable[[tuple[bytes, bytes]], bytes]) -> bytes:
    """A fresh TPM's state, with an AK and the certificate that `certify` makes for its point.

    Raises `NotFound` without swtpm, `Unavailable` when the TPM or swtpm fails.
    """
    state = os.memfd_create("tpm-state", os.MFD_CLOEXEC)
    try:
        with _running(state) as tpm:
            tpm.run(tpm2.pcr_allocate_sha256())
        # The bank changes with the next start.
        with _running(state) as tpm:
            created = tpm.run(tpm2.create_ak(tpm2.ENDORSEMENT), handles=1)
            handle = created.handles[0]
            certificate = certify(tpm2.read_p256_point(tpm2.read_sized(created.parameters)))
            tpm.run(tpm2.evict_control(handle, AK_HANDLE))
            tpm.run(tpm2.flush_context(handle))
            tpm.run(tpm2.nv_define(AK_CERTIFICATE_NV, len(certificate), _NV_ATTRIBUTES))
            for start in range(0, len(certificate), tpm2.NV_CHUNK):
                piece = certificate[start : start + tpm2.NV_CHUNK]
                tpm.run(tpm2.nv_write(AK_CERTIFICATE_NV, piece, start))
        data = os.pread(state, tpm_state.MAX_STATE + 1, 0)
    finally:
        os.close(state)
    if len(data) > tpm_state.MAX_STATE:
        raise Malformed("TPM state: larger than expected", code="too-large")
    return data


class TpmClient:
    """Commands to a TPM over a connected stream socket."""

    def __init__(self, data: socket.socket) -> None:
        self._data = data

    def run(self, command: bytes, *, handles: int = 0) -> tpm2.Response:
        """Run one command. Raises `Unavailable` when the TPM refuses it or goes away."""
        for _ in range(_RETRIES):
            try:
                return tpm2.response(self._exchange(command), handles=handles)
            except Unavailable as cause:
                if cause.code != "tpm-retry":
                    raise
        raise Unavailable("the TPM stays busy", code="tpm-failed", hint=swtpm.RETRY_HINT)

    def _exchange(self, command: bytes) -> bytes:
        try:
            self._data.sendall(command)
            answer = b""
            while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6], "big"):
                piece = self._data.recv(tpm2.MAX_RESPONSE)
                if not piece or len(answer) + len(piece) > tpm2.MAX_RESPONSE:
                    raise Unavailable(
                        "the TPM ended in the middle of an answer", code="tpm-failed", hint=swtpm.RETRY_HINT
                    )
                answer += piece
        except OSError as cause:
            raise Unavailable(
                f"talking to the TPM: {cause}", code="tpm-failed", hint=swtpm.RETRY_HINT
            ) from None
        return answer


@contextlib.contextmanager
def _running(state: int) -> Iterator[TpmClient]:
    """A swtpm over the state in the file descriptor `state`, started up; shut down cleanly at the end."""
    control, control_end = socket.socketpair()
    data, data_end = socket.socketpair()
    with control, control_end, data, data_end:
        control.settimeout(TIMEOUT)
        data.settimeout(TIMEOUT)
        try:
            child = subprocess.Popen(
                swtpm.arguments(state, control_end.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(state, control_end.fileno()),
            )
        except FileNotFoundError:
            raise swtpm.missing() from None
        try:
            control_end.close()
            socket.send_fds(control, [struct.pack(">I", swtpm.CMD_SET_DATAFD)], [data_end.fileno()])
            data_end.close()
            _answered(control, "taking the data socket")
            _command(control, struct.pack(">II", swtpm.CMD_INIT, 0), "starting")
            client = TpmClient(data)
            client.run(tpm2.startup())
            yield client
            client.run(tpm2.shutdown())
            _command(control, struct.pack(">I", swtpm.CMD_SHUTDOWN), "shutting down")
            child.wait(TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as cause:
            raise Unavailable(f"swtpm: {cause}", code="tpm-failed", hint=swtpm.RETRY_HINT) from None
        finally:
            child.kill()
            child.wait()


def _command(control: socket.socket, command: bytes, what: str) -> None:
    control.sendall(command)
    _answered(control, what)


def _answered(control: socket.socket, what: str) -> None:
    answer = control.recv(64)
    if answer[:4] != bytes(4):
        raise Unavailable(
            f"swtpm: {what}: it answered {answer[:4].hex() or 'nothing'}",
            code="tpm-failed",
            hint=swtpm.RETRY_HINT,
        )
