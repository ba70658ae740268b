"""The base: how long its builds take, how large it is, and when its agent first speaks.

Boots are plain QEMU under emulation, without TPM and memory guard: from the start of the process to the
agent's first byte on its channel. It has imported everything by then, and (without a TPM) has nothing more to say.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.bases import build, document
from strongroom.bases import profile as base_profile
from strongroom.bases.formats import eif

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What came over the channel, and after how many seconds its first byte did."""

    data: bytes
    seconds: float


def boot(
    folder: Path,
    *,
    disk: Path | None = None,
    serial: str = "base",
    until: bytes = b"",
    more: tuple[str, ...] = (),
    machine: Callable[[Path], list[str]] | None = None,
) -> Spoken | None:
    """Boot until the channel has brought `until` (or anything); None when the machine ends before.

    `machine` replaces the kernel and disk that are given by default. Raises `TimeoutError` when it does neither for
    two minutes.
    """
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{scratch}/channel")
        listener.listen(1)
        listener.settimeout(10.0)
        started = time.monotonic()
        if machine is None:
            line = arguments(folder, disk or folder / "base.disk", f"{scratch}/channel", serial=serial)
        else:
            line = [*machine(folder), *_channel(f"{scratch}/channel")]
        with subprocess.Popen([*line, *more]) as qemu:
            try:
                channel, _ = listener.accept()
                with channel:
                    channel.settimeout(120.0)
                    data = channel.recv(1 << 16)
                    seconds = time.monotonic() - started
                    while data and until not in data:
                        rest = channel.recv(1 << 16)
                        data = data + rest if rest else b""
                return Spoken(data=data, seconds=seconds) if data else None
            finally:
                qemu.kill()


def arguments(folder: Path, disk: Path, channel: str, *, serial: str = "base") -> list[str]:
    """QEMU's command line, as a node's but for the TPM."""
    return [
        *_machine("q35,smm=off", folder),
        *("-kernel", str(folder / "bzImage"), "-initrd", str(folder / "initrd")),
        *("-append", (folder / "cmdline").read_text()),
        *_channel(channel),
        *("-drive", f"file={disk},if=none,id=disk,format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=disk,serial={serial}"),
    ]


def firmware(folder: Path, controller: str = "virtio-blk-pci,drive=disk") -> list[str]:
    """A machine with UEFI and the disk image, as a cloud has it; `controller` is QEMU's device (several with " + ")."""
    image = folder / "strongroom.img"
    devices = [word for one in controller.split(" + ") for word in ("-device", one)]
    return [
        *_machine("q35,smm=off", folder),
        *("-bios", "/usr/share/ovmf/OVMF.fd"),
        *("-drive", f"file={image},if=none,id=disk,format=raw,readonly=on"),
        *devices,
    ]


def enclave(folder: Path) -> list[str]:
    """A machine without disks; the image's two ramdisks one behind the other, as an enclave's memory has them.

    It has PCI, so that there is a channel: QEMU's machine without one finds no clock under emulation.
    """
    image = eif.parse((folder / "strongroom.eif").read_bytes())
    both = folder / "ramdisks"
    both.write_bytes(b"".join(image.ramdisks))
    return [
        *_machine("q35,smm=off", folder),
        *("-kernel", str(folder / "bzImage"), "-initrd", str(both)),
        *("-append", image.cmdline.decode().replace("pci=off ", "")),
    ]


def _machine(kind: str, folder: Path) -> list[str]:
    # QEMU 7.2 emulates CMPXCHG16B wrongly: Debian's 6.12, which relies on it, dies at random places with odd flags.
    emulated = document.load(folder).profile is base_profile.LOCAL
    return [
        *("qemu-system-x86_64", "-M", kind, "-accel", "tcg,thread=multi,tb-size=256"),
        *("-cpu", "max" if emulated else "max,cx16=off", "-m", "512", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot"),
    ]


def _channel(path: str) -> list[str]:
    return [
        *("-chardev", f"socket,id=relay,path={path}", "-device", "virtio-serial-pci,max_ports=2"),
        *("-device", "virtserialport,chardev=relay,name=strongroom"),
    ]


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    cache = build.default_cache(dict(os.environ))
    rows: list[dict[str, object]] = []
    for profile in base_profile.PROFILES.values():
        rows += _rows(profile, cache)
    local = build.build(build.sources(), cache, lambda _: None)
    boots = [spoken.seconds for _ in range(ROUNDS) if (spoken := boot(local.folder)) is not None]
    rows.append(
        {
            "what": "base: QEMU's start to the agent's first word, s",
            "value": round(statistics.median(boots), 2) if boots else "never",
            "aim": "≤ 4",
        }
    )
    return rows


def _rows(profile: base_profile.Profile, cache: Path) -> list[dict[str, object]]:
    """Of one profile: built with nothing there but downloads, with everything but the base, and not at all."""

    def timed(where: Path, **options: bool) -> tuple[float, build.BuiltBase]:
        started = time.monotonic()
        built = build.build(build.sources(profile=profile, cache=where), where, lambda _: None, **options)
        return time.monotonic() - started, built

    timed(cache)
    with tempfile.TemporaryDirectory() as text:
        cold = Path(text)
        for name in ("debs", "apt"):
            if (cache / name).is_dir():
                (cold / name).symlink_to(cache / name)
        first, _ = timed(cold)
    again, built = timed(cache, force=True)
    cached, _ = timed(cache)
    files = built.base.files
    sizes = ", ".join(f"{name} {size / 1e6:.1f}" for name, (size, _) in files.items() if name != "cmdline")
    what = f"base {profile.name}"
    local = profile is base_profile.LOCAL
    return [
        {"what": f"{what}: build, only downloads there, s", "value": round(first, 1), "aim": ""},
        {"what": f"{what}: build after a change, s", "value": round(again, 1), "aim": "< 5" if local else ""},
        {"what": f"{what}: build, nothing changed, s", "value": round(cached, 1), "aim": ""},
        {
            "what": f"{what}: size, MB ({sizes})",
            "value": round(built.base.total_bytes / 1e6, 1),
            "aim": "≤ 80" if local else "",
        },
    ]


def main() -> None:
    """Print the table."""
    for row in run():
        print(f"{row['what']:<70} {row['value']!s:>8}  {row['aim']}")


if __name__ == "__main__":
    main()
