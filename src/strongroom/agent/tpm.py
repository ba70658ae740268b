"""A small TPM 2.0 client: the seven commands that a room needs, over the kernel's resource manager.

Specs: TCG TPM 2.0 Library rev 1.59, part 2 (structures) and part 3 (commands).
Authorisations are empty passwords: nothing in the room's TPM is secret from the room.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Unavailable

DEVICE = "/dev/tpmrm0"
MAX_RESPONSE = 8192
PCR_BYTES = 32
_NV_CHUNK = 1024
_MAX_NV = 16 * 1024
_RETRIES = 100

_TAG_PLAIN = 0x8001
_TAG_SESSIONS = 0x8002
_RS_PASSWORD = 0x40000009
_ALG_SHA256 = 0x000B
_ALG_NULL = 0x0010
_RC_RETRY = 0x922

_CC_NV_READ = 0x14E
_CC_QUOTE = 0x158
_CC_NV_READ_PUBLIC = 0x169
_CC_GET_RANDOM = 0x17B
_CC_PCR_READ = 0x17E
_CC_PCR_EXTEND = 0x182


class Transport(Protocol):
    """Carries one command and returns its whole response (at most `MAX_RESPONSE` bytes)."""

    def exchange(self, command: bytes) -> bytes:
        """Send `command`, return the response."""
        ...


class Device:
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
            return os.read(self._fd, MAX_RESPONSE)
        except OSError as cause:
            raise Unavailable(f"talking to the TPM: {cause.strerror}", code="tpm-failed") from None


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A signed quote: TPMS_ATTEST bytes and TPMT_SIGNATURE bytes, as the TPM returned them."""

    attest: bytes
    signature: bytes


class Tpm:
    """The commands. Every one raises `Unavailable` when the TPM says no, `Malformed` when it babbles."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read_pcr(self, index: int) -> bytes:
        """The 32-byte value of PCR `index` in the sha256 bank."""
        answer = self._run(_CC_PCR_READ, (), _selection((index,)))
        answer.u32()  # update counter
        if _read_selection(answer) != (index,):
            raise Malformed(f"TPM: PCR {index} is not in the sha256 bank", code="no-pcr-bank")
        if answer.u32() != 1 or answer.u16() != PCR_BYTES:
            raise Malformed("TPM: expected one 32-byte PCR value")
        value = answer.take(PCR_BYTES)
        answer.done()
        return value

    def extend_pcr(self, index: int, digest: bytes) -> None:
        """Extend PCR `index` with a 32-byte digest, in the sha256 bank."""
        if len(digest) != PCR_BYTES:
            raise Malformed("TPM: a PCR is extended by 32 bytes")
        values = _u32(1) + _u16(_ALG_SHA256) + digest
        self._run(_CC_PCR_EXTEND, (index,), values, authorised=1).done()

    def quote(self, key: int, extra_data: bytes, pcrs: tuple[int, ...]) -> Quote:
        """A quote over `pcrs` by the key at handle `key`, in that key's own scheme."""
        params = _sized(extra_data) + _u16(_ALG_NULL) + _selection(pcrs)
        answer = self._run(_CC_QUOTE, (key,), params, authorised=1)
        attest = answer.take(answer.u16())
        return Quote(attest=attest, signature=answer.take(answer.remaining))

    def read_nv(self, index: int) -> bytes:
        """The whole content of NV index `index`, read under its own (empty) authorisation."""
        public = self._run(_CC_NV_READ_PUBLIC, (index,), b"")
        area = Reader(public.take(public.u16()), "TPM NV public area")
        area.u32()  # index
        area.u16()  # name algorithm
        area.u32()  # attributes
        area.take(area.u16())  # policy
        size = area.u16()
        area.done()
        if size > _MAX_NV:
            raise Malformed(f"TPM: NV index holds {size} bytes, at most {_MAX_NV} allowed")
        content = bytearray()
        while len(content) < size:
            wanted = min(_NV_CHUNK, size - len(content))
            params = _u16(wanted) + _u16(len(content))
            answer = self._run(_CC_NV_READ, (index, index), params, authorised=1)
            content += answer.take(wanted) if answer.u16() == wanted else b""
            answer.done()
        return bytes(content)

    def random(self, count: int) -> bytes:
        """Up to `count` random bytes, at least one; `count` at most 32."""
        answer = self._run(_CC_GET_RANDOM, (), _u16(count))
        size = answer.u16()
        if not 0 < size <= count:
            raise Malformed("TPM: random bytes of an unexpected length")
        value = answer.take(size)
        answer.done()
        return value

    def _run(self, code: int, handles: tuple[int, ...], params: bytes, *, authorised: int = 0) -> Reader:
        """Run one command; the reader stands at the response's parameters."""
        body = b"".join(_u32(handle) for handle in handles)
        if authorised:
            session = _u32(_RS_PASSWORD) + _u16(0) + b"\x00" + _u16(0)  # no nonce, no attributes, no password
            body += _u32(authorised * len(session)) + authorised * session
        body += params
        tag = _TAG_SESSIONS if authorised else _TAG_PLAIN
        command = _u16(tag) + _u32(10 + len(body)) + _u32(code) + body
        for _ in range(_RETRIES):
            result, answer = parse_response(self._transport.exchange(command))
            if result == _RC_RETRY:
                continue
            if result:
                raise Unavailable(
                    f"TPM command {code:#x}: the TPM answered {result:#x}",
                    code="tpm-failed",
                    hint="the room's TPM was not provisioned as the node promises",
                )
            return answer
        raise Unavailable(f"TPM command {code:#x}: the TPM stays busy", code="tpm-failed")


def parse_response(data: bytes) -> tuple[int, Reader]:
    """Response code and a reader over the parameters alone. Raises `Malformed`."""
    reader = Reader(data, "TPM response")
    tag = reader.u16()
    if reader.u32() != len(data):
        raise Malformed("TPM response: its length field is not its length")
    result = reader.u32()
    if result or tag == _TAG_PLAIN:
        return result, reader
    if tag != _TAG_SESSIONS:
        raise Malformed(f"TPM response: unknown tag {tag:#x}")
    # With sessions the parameters are sized, and the authorisation area follows them.
    return result, Reader(reader.take(reader.u32()), "TPM response")


def _selection(pcrs: tuple[int, ...]) -> bytes:
    """TPML_PCR_SELECTION with one bank, sha256."""
    mask = bytearray(3)
    for index in pcrs:
        mask[index // 8] |= 1 << index % 8
    return _u32(1) + _u16(_ALG_SHA256) + b"\x03" + bytes(mask)


def _read_selection(reader: Reader) -> tuple[int, ...]:
    if reader.u32() != 1 or reader.u16() != _ALG_SHA256:
        raise Malformed("TPM: expected a selection of the sha256 bank", code="no-pcr-bank")
    mask = reader.take(reader.u8())
    return tuple(8 * place + bit for place, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1)


def _sized(data: bytes) -> bytes:
    return _u16(len(data)) + data


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")
