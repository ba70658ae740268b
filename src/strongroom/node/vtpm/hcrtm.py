"""Measuring the launch record into PCR 0 before the guest's first instruction.

Stands between QEMU and swtpm on the control channel (swtpm_ioctls(3)) and passes everything on, file
descriptors included. Right after QEMU's CMD_INIT has succeeded it sends the record as an H-CRTM event
(_TPM_Hash_Start, _Data, _End; TCG PC Client Platform TPM Profile), so that PCR 0 starts as
SHA-256(0…04 ‖ SHA-256(record)), where 4 is the locality of an H-CRTM. Nothing in the guest can undo that, and the guest waits for it.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

from strongroom.errors import StrongroomError, Unavailable
from strongroom.node.vtpm import swtpm

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_MESSAGE = 64 * 1024  # bytes
_MAX_DESCRIPTORS = 4
_HASH_CHUNK = 4096  # bytes: what swtpm takes in one CMD_HASH_DATA
_TIMEOUT = 60.0  # seconds, of swtpm's answers; QEMU may be silent for as long as the room lives


class LaunchMeasurer:
    """The proxy, in a thread of its own. Takes both sockets over and closes them at its end.

    `record` gives the bytes to measure; it is called when they are needed, in that thread.
    """

    def __init__(self, qemu: socket.socket, tpm: socket.socket, record: Callable[[], bytes]) -> None:
        self._qemu = qemu
        self._swtpm = tpm
        self._swtpm.settimeout(_TIMEOUT)
        self._record = record
        self._thread = threading.Thread(target=self._serve, name="launch-measurer", daemon=True)
        self.measured = False
        self.failure: StrongroomError | None = None

    def start(self) -> None:
        """Begin to pass messages on."""
        self._thread.start()

    def stop(self) -> None:
        """End the proxy, whatever it waits for."""
        for end in (self._qemu, self._swtpm):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already, or the other side has gone
        if self._thread.is_alive():
            self._thread.join()
        for end in (self._qemu, self._swtpm):
            end.close()

    def _serve(self) -> None:
        try:
            while self._pass_message():
                pass
        except OSError as cause:
            self.failure = Unavailable(
                f"the TPM's control channel: {cause}", code="tpm-failed", hint=swtpm.RETRY_HINT
            )
        except StrongroomError as cause:
            self.failure = cause
        finally:
            # Both ends see the failure: QEMU does not go on with a TPM that was not measured into.
            self._qemu.close()
            self._swtpm.close()

    def _pass_message(self) -> bool:
        """Pass one message of QEMU's on, and its answer back. False at the end of the channel."""
        message, descriptors, _, _ = socket.recv_fds(self._qemu, _MAX_MESSAGE, _MAX_DESCRIPTORS)
        try:
            if not message:
                return False
            socket.send_fds(self._swtpm, [message], descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        answer = self._swtpm.recv(_MAX_MESSAGE)
        if not answer:
            raise Unavailable("the software TPM (swtpm) ended", code="tpm-failed", hint=swtpm.RETRY_HINT)
        if message[:4] == struct.pack(">I", swtpm.CMD_INIT) and answer[:4] == bytes(4):  # TPM_SUCCESS
            self._measure(self._record())
            self.measured = True
        self._qemu.sendall(answer)
        return True

    def _measure(self, record: bytes) -> None:
        self._command(struct.pack(">I", swtpm.CMD_HASH_START))
        for start in range(0, len(record), _HASH_CHUNK):
            piece = record[start : start + _HASH_CHUNK]
            self._command(struct.pack(">II", swtpm.CMD_HASH_DATA, len(piece)) + piece)
        self._command(struct.pack(">I", swtpm.CMD_HASH_END))

    def _command(self, command: bytes) -> None:
        self._swtpm.sendall(command)
        answer = self._swtpm.recv(64)
        if answer[:4] != bytes(4):
            raise Unavailable(
                f"measuring the launch record: swtpm answered {answer[:4].hex() or 'nothing'}",
                code="tpm-failed",
                hint=swtpm.RETRY_HINT,
            )
