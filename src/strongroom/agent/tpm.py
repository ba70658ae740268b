"""The room's TPM: what the agent asks of it, over the kernel's resource manager (bytes: `encoding/tpm2.py`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.encoding import tpm2
from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from strongroom.encoding.reader import Reader

_TPM = "run it again; if it stays so, the host's TPM is not sound: `strongroom node doctor` looks at what this machine has"

DEVICE = "/dev/tpmrm0"
MAX_RANDOM = 32
_RETRIES = 100


class Transport(Protocol):
    """Carries one command and returns its whole response (at most `tpm2.MAX_RESPONSE` bytes)."""

    def exchange(self, command: bytes) -> bytes:
        """Send `command`, return the response."""
        ...


class TpmDevice:
    """The kernel's TPM device: one write is one command, one read its response."""

    def __init__(self, path: str = DEVICE) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as cause:
            raise Unavailable(
                f"opening the TPM {path}: {cause.strerror}",
                code="no-tpm",
                hint="the room was started without a TPM",
            ) from None

    def exchange(self, command: bytes) -> bytes:
        """Send `command`, return the response."""
        try:
            os.write(self._fd, command)
            return os.read(self._fd, tpm2.MAX_RESPONSE)
        except OSError as cause:
            raise Unavailable(f"talking to the TPM: {cause.strerror}", code="tpm-failed", hint=_TPM) from None


@dataclass(frozen=True, kw_only=True)
class SignedQuote:
    """A signed quote: TPMS_ATTEST bytes and TPMT_SIGNATURE bytes, as the TPM returned them."""

    attest: bytes
    signature: bytes


class Tpm:
    """The commands. Every one raises `Unavailable` when the TPM says no, `Malformed` when it babbles."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read_pcr(self, index: int) -> bytes:
        """The 32-byte value of PCR `index` in the sha256 bank."""
        return tpm2.read_pcr(self._run(tpm2.pcr_read(index)), index)

    def extend_pcr(self, index: int, measurement: bytes) -> None:
        """Extend PCR `index` by a 32-byte digest, in the sha256 bank."""
        self._run(tpm2.pcr_extend(index, measurement)).done()

    def quote(self, key: int, extra_data: bytes, pcrs: tuple[int, ...]) -> SignedQuote:
        """A quote over `pcrs` by the key at handle `key`, in that key's own scheme."""
        attest, signature = tpm2.read_quote(self._run(tpm2.quote(key, extra_data, pcrs)))
        return SignedQuote(attest=attest, signature=signature)

    def nv_indices(self) -> frozenset[int]:
        """The NV indices that are defined."""
        return tpm2.read_handles(self._run(tpm2.list_nv()))

    def create_primary(self, template: bytes) -> int:
        """The handle of the key that `template` describes, made from the endorsement seed. `flush` it after use."""
        command = tpm2.create_primary(tpm2.ENDORSEMENT, template)
        return self._answer(command, handles=1).handles[0]

    def flush(self, handle: int) -> None:
        """Forget a key."""
        self._run(tpm2.flush_context(handle)).done()

    def read_nv(self, index: int, *, authority: int | None = None) -> bytes:
        """The whole content of NV index `index`, read under its own (empty) authorisation, or `authority`'s."""
        size = tpm2.read_nv_size(self._run(tpm2.nv_read_public(index)))
        content = bytearray()
        while len(content) < size:
            wanted = min(tpm2.NV_CHUNK, size - len(content))
            answer = self._run(tpm2.nv_read(index, wanted, len(content), authority=authority))
            piece = tpm2.read_sized(answer)
            answer.done()
            if len(piece) != wanted:
                raise Malformed(f"TPM: expected {wanted} bytes of an NV index, got {len(piece)}", hint=_TPM)
            content += piece
        return bytes(content)

    def random(self, count: int = MAX_RANDOM) -> bytes:
        """Up to `count` random bytes, at least one."""
        answer = self._run(tpm2.get_random(count))
        value = tpm2.read_sized(answer)
        answer.done()
        if not 0 < len(value) <= count:
            raise Malformed(f"TPM: expected 1 to {count} random bytes, got {len(value)}", hint=_TPM)
        return value

    def _run(self, command: bytes) -> Reader:
        """Run one command; the reader stands at the response's parameters."""
        return self._answer(command).parameters

    def _answer(self, command: bytes, *, handles: int = 0) -> tpm2.Response:
        for _ in range(_RETRIES):
            try:
                return tpm2.response(self._transport.exchange(command), handles=handles)
            except Unavailable as cause:
                if cause.code != "tpm-retry":
                    raise
        raise Unavailable("the TPM stays busy", code="tpm-failed", hint=_TPM)
