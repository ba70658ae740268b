"""Firmware: from QEMU's start to the guest's first word, with a TPM, by the way in which the guest is started.

The guest is the base's kernel and initrd with an init of a few lines: what differs is what comes before it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from strongroom.bases import build
from strongroom.bases.formats import disk_image, uki
from tests.e2e import measured_boot
from tests.unit.bases import efi

ROUNDS = 3
SEABIOS = "/usr/share/seabios/bios-256k.bin"


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    if measured_boot.missing() or not efi.STUB.exists():
        raise SystemExit(measured_boot.missing() or "systemd-boot-efi is not installed")
    built = build.build(build.sources(), build.default_cache(dict(os.environ)), lambda _: None).folder
    state = measured_boot.chip().state
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = {
            "bzImage": (built / "bzImage").read_bytes(),
            "initrd": measured_boot.initrd(built),
            "cmdline": measured_boot.CMDLINE,
        }
        for name, content in parts.items():
            (folder / name).write_bytes(content)
        image = uki.build(
            stub=efi.stub(),
            kernel=parts["bzImage"],
            initrd=parts["initrd"],
            cmdline=parts["cmdline"],
            osrel=efi.OSREL,
            uname=efi.UNAME,
        )
        disk = disk_image.build(uki=image, base_disk=(built / "base.disk").read_bytes())
        (folder / "strongroom.img").write_bytes(disk)
        ways = {
            "SeaBIOS": measured_boot.direct(folder, firmware=SEABIOS),
            "OVMF, direct boot": measured_boot.direct(folder),
            "OVMF, UKI from the disk image": measured_boot.from_disk(folder / "strongroom.img"),
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):  # in turns, so that a noisy neighbour hits all
            for way, machine in ways.items():
                with measured_boot.booted(state, *machine) as guest:
                    taken[way].append(guest.seconds)
    return [
        {"what": f"boot: {way}, s", "value": f"{statistics.median(seconds):.2f}", "aim": ""}
        for way, seconds in taken.items()
    ]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:<50} {row['value']!s:>8}")


if __name__ == "__main__":
    main()
