"""`strongroom.img`: a disk that UEFI boots, for machines that have firmware of their own.

A boot partition (FAT32) with the unified kernel image where firmware looks for it without any setting, and the base's
disk (EROFS and its dm-verity tree) in a partition that the initrd knows by its label. Firmware and the image measure
what is booted; the partition's content is bound by the root hash in the image's command line; nothing else here is trusted.
"""

from __future__ import annotations

import uuid

from strongroom.bases.formats import fat, gpt

BOOT_PATH = "EFI/BOOT/BOOTX64.EFI"
BASE_LABEL = "strongroom-base"
BASE_TYPE = uuid.UUID("b8d1c6a4-2f0e-4c57-9a3b-6e51f07d2a94")
_SYSTEM_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")  # UEFI 2.10, table 5.7
_MIN_BOOT = 34 << 20
# Tables and folders beside the file: less than a 60th of the volume.
_SHARE = 60


def build(*, uki: bytes, base_disk: bytes) -> bytes:
    """The disk, in whole MiB; same input, same bytes. Raises `Malformed` for parts that do not fit."""
    wanted = max(len(uki) + len(uki) // _SHARE + gpt.UNIT, _MIN_BOOT)
    size = -(-wanted // gpt.UNIT) * gpt.UNIT
    boot = fat.build({BOOT_PATH: uki}, size=size)
    return gpt.build(
        [
            gpt.Partition(label="EFI system", type=_SYSTEM_TYPE, content=boot),
            gpt.Partition(label=BASE_LABEL, type=BASE_TYPE, content=base_disk),
        ]
    )
