"""Sealed disks in the room: virtio disk → dm-verity → dm-crypt (when encrypted) → erofs, mounted read-only.

The root hash comes from a manifest whose digest the contract names, so that the kernel enforces what
was signed. A block that fails verification is an I/O error to whoever reads it and never enters the
page cache; the verity device remembers it, and `complain_if_corrupted` tells. A read that fails otherwise is
remembered elsewhere (`reads`). The agent asks both before anything leaves.

Whoever made a disk also wrote what the kernel's file system parses: `superblock` says how much of it may be used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.agent import kernel
from strongroom.agent.disks import devicemapper, superblock
from strongroom.errors import Malformed, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from strongroom.agent.disks.devicemapper import DeviceMapper
    from strongroom.model.manifest import Manifest

_MOUNT = "the kernel does not mount it: seal the data again with this version, and run again"

BLOCK_DEVICES = "/sys/block"
UNSUPPORTED = "unsupported-disk"  # of `receipt.DETAILS` too


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
    disk is not what its manifest says or cannot be read, `UNSUPPORTED` when it is no disk of our own writer's,
    `wrong-disk-key`; `Unavailable` when the kernel will not.
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
    _check_superblock(manifest, path)
    flags = kernel.MS_RDONLY | kernel.MS_NODEV | (kernel.MS_NOSUID if manifest.kind == "dataset" else 0)
    os.makedirs(folder, 0o755, exist_ok=True)
    try:
        kernel.mount(path, folder, "erofs", flags)
    except OSError as cause:
        complain_if_corrupted(mapper, disk)
        raise Unavailable(
            f"mounting the disk of {manifest.name}: {cause.strerror}", code="mount", hint=_MOUNT
        ) from None
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


def _check_superblock(manifest: Manifest, path: str) -> None:
    # Before the kernel parses anything, and so that a wrong key is not taken for a corrupted disk.
    try:
        with open(path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), superblock.BYTES, superblock.OFFSET)
    except OSError as cause:
        raise Refused(
            f"the sealed disk of the {manifest.kind} {manifest.name!r} cannot be read: {cause.strerror}",
            code="data-corrupted",
            hint="the disk was changed after it was sealed, or the machine cannot read it; try `strongroom verify`",
        ) from None
    try:
        difference = superblock.unexpected(superblock.parse(data), manifest.data_bytes)
    except Malformed:
        raise Refused(
            f"the disk of {manifest.name} does not open: no erofs file system behind its key",
            code="wrong-disk-key",
            hint="the owner's broker holds another key for this manifest than the one that sealed the disk",
        ) from None
    if difference:
        raise Refused(
            f"the disk of {manifest.name} asks for another file system than `strongroom seal` writes: {difference}",
            code=UNSUPPORTED,
            hint="its owner seals it again with `strongroom seal` or `strongroom convert`",
        )


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(256).decode("ascii", "replace").strip()
