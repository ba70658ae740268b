"""Device mapper by its ioctl interface (include/uapi/linux/dm-ioctl.h): dm-verity and dm-crypt targets.

A table goes to the kernel in one buffer that is wiped afterwards; a key is never an argument of a
process nor in a file. The kernel is asked to wipe its copy too.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from strongroom.agent import kernel
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Unavailable

# The hint where an answer is none that the kernel's interface has.
_KERNEL = "the kernel does not do as this base expects: run it again, and if it stays so build the base anew"

CONTROL = "/dev/mapper/control"
SECTOR = 512  # bytes, in which the kernel counts a table's lengths
BLOCK = 4096  # bytes of a dm-verity block, and of a dm-crypt sector

_HEADER = 312  # bytes of struct dm_ioctl
_BUFFER = 16 * 1024  # bytes of a request and of its answer
_VERSION = (4, 0, 0)
# DM_DEV_CREATE_CMD and so on: the numbers of requests. After them, two of the flags.
_CREATE, _REMOVE, _RESUME, _LOAD, _STATUS = 3, 4, 6, 9, 12
_READONLY = 1 << 0
_SECURE_DATA = 1 << 15
_IOCTL = 0xC000FD00 | _HEADER << 16  # _IOWR(0xfd, 0, struct dm_ioctl)
_NAME_BYTES = 128  # with the NUL at the end, as _TYPE_BYTES
_TYPE_BYTES = 16
_SPEC = 40  # bytes of struct dm_target_spec


@dataclass(frozen=True, kw_only=True)
class Target:
    """One table line over the whole device: its length in bytes, the target type and its parameters."""

    length: int
    type: str
    parameters: bytearray


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A device that was made: its name in device mapper and its node."""

    name: str
    path: str


class DeviceMapper:
    """The control device. Every call raises `Unavailable` when the kernel says no."""

    def __init__(self, path: str = CONTROL) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as cause:
            raise Unavailable(
                f"opening {path}: {cause.strerror}",
                code="no-device-mapper",
                hint="the base lacks the device mapper modules",
            ) from None

    def create(self, name: str, target: Target) -> Mapped:
        """Make a read-only device of one target. The target's parameters are wiped."""
        answer = self._call(_CREATE, name, b"", 0)
        number = device_number(answer)
        table = encode_target(target)
        try:
            self._call(_LOAD, name, table, _READONLY | _SECURE_DATA, targets=1)
            self._call(_RESUME, name, b"", 0)
        except Unavailable:
            self.remove(name)
            raise
        finally:
            kernel.wipe(table)
            kernel.wipe(target.parameters)
        path = f"/dev/dm-{os.minor(number)}"
        if not os.path.exists(path):
            os.mknod(path, stat.S_IFBLK | 0o600, number)
        return Mapped(name=name, path=path)

    def status(self, name: str) -> str:
        """The status line of the device's one target: of dm-verity V, or C once a block was bad."""
        return parse_status(bytes(self._call(_STATUS, name, b"", 0)))

    def remove(self, name: str) -> None:
        """Remove a device that nobody uses."""
        self._call(_REMOVE, name, b"", 0)

    def _call(
        self, number: int, name: str, data: bytes | bytearray, flags: int, targets: int = 0
    ) -> bytearray:
        """The answer to request `number`, header included. data: what follows the header. targets: how many `data` has."""
        buffer = bytearray(_BUFFER)
        encode_header(buffer, name, flags, targets)
        if _HEADER + len(data) > _BUFFER:
            raise Malformed("device mapper: the table is too long", hint=_KERNEL)
        buffer[_HEADER : _HEADER + len(data)] = data
        try:
            kernel.ioctl(self._fd, _IOCTL | number, buffer)
        except OSError as cause:
            raise Unavailable(
                f"device mapper: request {number} for {name}: {cause.strerror}",
                code="device-mapper",
                hint=_KERNEL,
            ) from None
        finally:
            if flags & _SECURE_DATA:
                kernel.wipe(buffer)
        return buffer


def verity_target(*, device: str, data_bytes: int, hash_offset: int, root_hash: str, salt: bytes) -> Target:
    """dm-verity over `device` (MAJOR:MINOR), laid out as `veritysetup format` does: a superblock of one
    block at `hash_offset`, the tree after it. Reading a bad block is an I/O error, and
    `status` says from then on that there was one. The text is version, data device, hash device, both block sizes, number
    of data blocks, first block of the tree, hash, root and salt.
    """
    blocks = data_bytes // BLOCK
    text = (
        f"1 {device} {device} {BLOCK} {BLOCK} {blocks} {hash_offset // BLOCK + 1} sha256 "
        f"{root_hash.removeprefix('sha256:')} {salt.hex() or '-'}"
    )
    return Target(length=data_bytes, type="verity", parameters=bytearray(text.encode()))


def crypt_target(*, device: str, data_bytes: int, key: bytes) -> Target:
    """dm-crypt over `device` in 4096-byte sectors with the 64-byte `key` (see `crypto/xts.py`)."""
    parameters = bytearray(b"aes-xts-plain64 ")
    parameters += key.hex().encode()
    # First tweak, device, its first sector, number of options. Blocks are decrypted by who reads them, without a queue.
    parameters += f" 0 {device} 0 2 sector_size:4096 no_read_workqueue".encode()
    return Target(length=data_bytes, type="crypt", parameters=parameters)


def encode_header(buffer: bytearray, name: str, flags: int, targets: int) -> None:
    """Fill in `struct dm_ioctl` at the start of `buffer`, in the machine's byte order (little)."""
    raw = name.encode()
    if not 0 < len(raw) < _NAME_BYTES:
        raise Malformed(
            f"device mapper: a device's name of {len(raw)} bytes, expected 1 to {_NAME_BYTES - 1}",
            hint=_KERNEL,
        )
    # version, data_size, data_start, target_count, open_count, flags, event_nr, padding.
    words = (*_VERSION, len(buffer), _HEADER, targets, 0, flags, 0, 0)
    for place, word in enumerate(words):
        buffer[4 * place : 4 * place + 4] = word.to_bytes(4, "little")
    buffer[48 : 48 + len(raw)] = raw  # after the 64-bit device number at 40


def encode_target(target: Target) -> bytearray:
    """`struct dm_target_spec` and its parameters, NUL-terminated, padded to 8 bytes."""
    size = (_SPEC + len(target.parameters) + 1 + 7) // 8 * 8
    out = bytearray(size)
    out[8:16] = (target.length // SECTOR).to_bytes(8, "little")
    out[20:24] = size.to_bytes(4, "little")
    kind = target.type.encode()
    if len(kind) >= _TYPE_BYTES:
        raise Malformed(
            f"device mapper: a target's type of {len(kind)} bytes, expected at most {_TYPE_BYTES - 1}",
            hint=_KERNEL,
        )
    out[24 : 24 + len(kind)] = kind
    out[_SPEC : _SPEC + len(target.parameters)] = target.parameters
    return out


def device_number(answer: bytes | bytearray) -> int:
    """The device number in an answer, as `os.stat` numbers devices. Raises `Malformed`."""
    reader = Reader(bytes(answer), "device mapper answer")
    reader.take(40)  # what stands before `dev`
    encoded = reader.u64le()
    # The kernel's "huge" encoding: minor bits 0-7 and 20-31, major bits 8-19.
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00)


def parse_status(answer: bytes) -> str:
    """The one target's status text in a table-status answer. Raises `Malformed`."""
    head = Reader(answer, "device mapper answer")
    head.take(16)  # version and data_size; then data_start and target_count
    start = head.u32le()
    if head.u32le() != 1:
        raise Malformed("device mapper answer: expected one target", hint=_KERNEL)
    body = Reader(answer[start:], "device mapper status")
    body.take(_SPEC)
    text, end, _ = body.take(body.remaining).partition(b"\x00")
    if not end or len(text) > 4096:
        raise Malformed("device mapper status: not terminated", hint=_KERNEL)
    return text.decode("ascii", "replace")
