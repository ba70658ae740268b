"""A real TPM 2.0 for tests: swtpm, measured into as a boot would, and quoted.

What QEMU and the guest do in a room is done here by the test: the H-CRTM measurement over the control
channel before start-up, the firmware's and the kernel's measurements, the contract, the quote.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from strongroom.agent.tpm import Tpm
from strongroom.crypto import tls
from strongroom.crypto.pki import local_ca
from strongroom.encoding import tpm2
from strongroom.errors import Unavailable
from strongroom.model.evidence import Evidence
from strongroom.node.vtpm import provision
from strongroom_testing.vendors import fake_tpm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from strongroom.model.binding import Binding
    from strongroom.model.room.launch import LaunchRecord

AK_HANDLE = 0x81010020
AK_CERTIFICATE_NV = 0x01C10002
needs_swtpm = pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")


class Machine:
    """A provisioned TPM state with its node's authority."""

    def __init__(self, now: datetime) -> None:
        key = tls.generate()
        self.issuers = local_ca.make_root(key, name="test", now=now, random=os.urandom)
        self.root = "sha256:" + hashlib.sha256(self.issuers).hexdigest()
        self._state = provision.provision(
            lambda point: local_ca.certify_ak(
                key, self.issuers, point, name="test", now=now, random=os.urandom
            )
        )

    def evidence(self, binding: Binding, record: LaunchRecord = fake_tpm.RECORD) -> Evidence:
        """Evidence of one boot."""
        with _booted(self._state, record.encode()) as tpm:
            for pcr, _, data in fake_tpm.FIRMWARE_EVENTS:
                tpm.extend_pcr(pcr, hashlib.sha256(data).digest())
            tpm.extend_pcr(10, fake_tpm._boot_aggregate([tpm.read_pcr(index) for index in range(10)]))
            tpm.extend_pcr(12, bytes.fromhex(binding.contract_digest[7:]))
            quote = tpm.quote(AK_HANDLE, hashlib.sha256(binding.digest()).digest(), tuple(range(13)))
            return Evidence(
                tee="tpm",
                parts={
                    "quote": quote.attest,
                    "signature": quote.signature,
                    "ak-certificate": tpm.read_nv(AK_CERTIFICATE_NV),
                    "issuers": self.issuers,
                    "pcrs": b"".join(tpm.read_pcr(index) for index in range(13)),
                    "event-log": fake_tpm.encode_log(fake_tpm.FIRMWARE_EVENTS),
                    "launch-record": record.encode(),
                },
            )


class Client:
    """Commands to a running TPM, and its answers opened."""

    def __init__(self, transport: _Socket) -> None:
        self._transport = transport

    def run(self, command: bytes, *, handles: int = 0) -> tpm2.Response:
        """Raises `Unavailable` when the TPM says no; its message has the TPM's code."""
        for _ in range(50):
            try:
                return tpm2.response(self._transport.exchange(command), handles=handles)
            except Unavailable as cause:
                if cause.code != "tpm-retry":  # it tests an algorithm before its first use
                    raise
        raise AssertionError("the TPM does not get ready")


@contextlib.contextmanager
def fresh() -> Iterator[Client]:
    """A TPM that nobody has used, started, all its PCR banks on."""
    with _running(b"") as transport:
        yield Client(transport)


class _Socket:
    def __init__(self, data: socket.socket) -> None:
        self._data = data

    def exchange(self, command: bytes) -> bytes:
        self._data.sendall(command)
        answer = self._data.recv(8192)
        while len(answer) < int.from_bytes(answer[2:6], "big"):
            answer += self._data.recv(8192)
        return answer


@contextlib.contextmanager
def _booted(state: bytes, record: bytes) -> Iterator[Tpm]:
    hashed = (
        struct.pack(">I", 6),  # _TPM_Hash_Start
        struct.pack(">II", 7, len(record)) + record,  # _TPM_Hash_Data
        struct.pack(">I", 8),  # _TPM_Hash_End
    )
    with _running(state, hashed) as transport:
        yield Tpm(transport)


@contextlib.contextmanager
def _running(state: bytes, commands: tuple[bytes, ...] = ()) -> Iterator[_Socket]:
    """A TPM of that state (b"": a new one), initialised, given the control `commands`, and started."""
    control, control_end = socket.socketpair()
    data, data_end = socket.socketpair()
    fd = os.memfd_create("tpm-state")
    os.write(fd, state)
    with control, control_end, data, data_end:
        for end in (control, data):
            end.settimeout(20)
        child = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"backend-uri=file:///dev/fd/{fd}"),
                *("--ctrl", f"type=unixio,clientfd={control_end.fileno()}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd, control_end.fileno()),
        )
        try:
            socket.send_fds(control, [struct.pack(">I", 16)], [data_end.fileno()])
            assert control.recv(64)[:4] == bytes(4)
            for command in (
                struct.pack(">II", 2, 0),  # initialise
                *commands,
            ):
                control.sendall(command)
                assert control.recv(64)[:4] == bytes(4)
            transport = _Socket(data)
            started = transport.exchange(struct.pack(">HIIH", 0x8001, 12, 0x144, 0))
            assert started[6:10] == bytes(4)
            yield transport
        finally:
            child.kill()
            child.wait()
            os.close(fd)
