"""Sealed disks in the room: virtio disk → dm-verity → dm-crypt (when encrypted) → erofs, mounted read-only.

The root hash comes from a manifest whose digest the contract names, so that the kernel enforces what
was signed. A block that fails verification is an I/O error to whoever reads it and never enters the
page cache; the verity device remembers it, and `corrupted` tells. The agent asks before anything leaves.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.agent import devicemapper, kernel
from strongroom.encoding.reader import Reader
from strongroom.errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from strongroom.agent.devicemapper import DeviceMapper
    from strongroom.model.manifest import Manifest

BLOCK_DEVICES = "/sys/block"
_EROFS_SUPERBLOCK = 1024
_EROFS_MAGIC = 0xE0F5E1E2


@dataclass(frozen=True, kw_only=True)
class OpenDisk:
    """A disk in use: its serial, what it is, where it is mounted."""

    serial: str
    manifest: Manifest
    folder: str

    @property
    def verity(self) -> str:
        """The name of its verity device."""
        return f"{self.serial}-verity"


def find(serial: str, blocks: str = BLOCK_DEVICES) -> str:
    """The name of the block device with that serial. Raises `NotFound`."""
    for name in sorted(os.listdir(blocks)):
        try:
            if _read(f"{blocks}/{name}/serial") == serial:
                return name
        except OSError:
            continue
    raise NotFound(
        f"no disk has the serial {serial!r}", code="no-disk", hint="the node must attach every disk"
    )


def open_disk(
    mapper: DeviceMapper, serial: str, manifest: Manifest, key: bytes | None, folder: str, device: str
) -> OpenDisk:
    """Verify, decrypt and mount one disk, the block device of that name, at `folder`. Raises `Refused` with code `data-corrupted` when the
    disk is not what its manifest says, `Unavailable` when the kernel will not.
    """
    disk = OpenDisk(serial=serial, manifest=manifest, folder=folder)
    if int(_read(f"{BLOCK_DEVICES}/{device}/size")) * devicemapper.SECTOR < manifest.disk_bytes:
        raise Refused(
            f"opening the disk of {manifest.name}: it is shorter than the {manifest.disk_bytes} bytes of its manifest",
            code="data-corrupted",
            hint="the disk was cut short on its way; fetch it again and run `strongroom verify`",
        )
    verity = mapper.create(
        disk.verity,
        devicemapper.verity_target(
            device=_read(f"{BLOCK_DEVICES}/{device}/dev"),
            data_bytes=manifest.data_bytes,
            hash_offset=manifest.hash_offset,
            root_hash=manifest.root_hash,
            salt=manifest.salt,
        ),
    )
    path = verity.path
    if key is not None:
        number = os.stat(verity.path).st_rdev
        target = devicemapper.crypt_target(
            device=f"{os.major(number)}:{os.minor(number)}", data_bytes=manifest.data_bytes, key=key
        )
        path = mapper.create(f"{serial}-crypt", target).path
    _check_superblock(mapper, disk, path)
    flags = kernel.MS_RDONLY | kernel.MS_NODEV | (kernel.MS_NOSUID if manifest.kind == "dataset" else 0)
    os.makedirs(folder, 0o755, exist_ok=True)
    try:
        kernel.mount(path, folder, "erofs", flags)
    except OSError as cause:
        complain_if_corrupted(mapper, disk)
        raise Unavailable(f"mounting the disk of {manifest.name}: {cause.strerror}", code="mount") from None
    return disk


def complain_if_corrupted(mapper: DeviceMapper, disk: OpenDisk) -> None:
    """Raise `Refused` (`data-corrupted`) when a block of the disk has failed verification."""
    status = mapper.status(disk.verity).split()
    if status[:1] != ["V"]:
        raise Refused(
            f"the sealed disk of the {disk.manifest.kind} {disk.manifest.name!r} is not what its manifest says: "
            "a block failed dm-verity",
            code="data-corrupted",
            hint="the disk was changed after it was sealed; `strongroom verify` finds the block",
        )


def _check_superblock(mapper: DeviceMapper, disk: OpenDisk, path: str) -> None:
    # Read here, so that a wrong key is told from a corrupted disk and from a kernel without erofs.
    try:
        with open(path, "rb") as file:
            head = file.read(_EROFS_SUPERBLOCK + 4)
    except OSError:
        complain_if_corrupted(mapper, disk)
        raise Unavailable(f"reading the disk of {disk.manifest.name}", code="disk-unreadable") from None
    reader = Reader(head, "disk")
    reader.take(_EROFS_SUPERBLOCK)
    if reader.u32le() != _EROFS_MAGIC:
        raise Refused(
            f"the disk of {disk.manifest.name} does not open: no erofs file system behind its key",
            code="wrong-disk-key",
            hint="the owner's broker holds another key for this manifest than the one that sealed the disk",
        )


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(256).decode("ascii", "replace").strip()
