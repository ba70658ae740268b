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
from typing import TYPE_CHECKING

from strongroom.convert import base, base_document

if TYPE_CHECKING:
    from pathlib import Path

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
) -> Spoken | None:
    """Boot until the channel has brought `until` (or anything); None when the machine ends before.

    Raises `TimeoutError` when it does neither for a minute.
    """
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{scratch}/channel")
        listener.listen(1)
        listener.settimeout(10.0)
        started = time.monotonic()
        line = arguments(folder, disk or folder / "base.disk", f"{scratch}/channel", serial=serial)
        with subprocess.Popen([*line, *more]) as qemu:
            try:
                channel, _ = listener.accept()
                with channel:
                    channel.settimeout(60.0)
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
        *("qemu-system-x86_64", "-M", "q35,smm=off", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"),
        *("-m", "512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(folder / "bzImage"), "-initrd", str(folder / "initrd")),
        *("-append", (folder / "cmdline").read_text()),
        *("-chardev", f"socket,id=relay,path={channel}", "-device", "virtio-serial-pci,max_ports=2"),
        *("-device", "virtserialport,chardev=relay,name=strongroom"),
        *("-drive", f"file={disk},if=none,id=disk,format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=disk,serial={serial}"),
    ]


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    cache = base.default_cache(dict(os.environ))

    def timed(**options: bool) -> tuple[float, base.Built]:
        started = time.monotonic()
        built = base.build(base.sources(), cache, lambda _: None, **options)
        return time.monotonic() - started, built

    _, built = timed()
    again, _ = timed(force=True)
    cached, _ = timed()
    sizes = ", ".join(
        f"{name} {built.base.files[name][0] / 1e6:.1f}" for name in base_document.PARTS if name != "cmdline"
    )
    boots = [spoken.seconds for _ in range(ROUNDS) if (spoken := boot(built.folder)) is not None]
    return [
        {"what": "base: build after a change of the agent, s", "value": round(again, 1), "aim": "< 5"},
        {"what": "base: build, nothing changed, s", "value": round(cached, 1), "aim": ""},
        {"what": f"base: size, MB ({sizes})", "value": round(built.base.total_bytes / 1e6, 1), "aim": "≤ 80"},
        {
            "what": "base: QEMU's start to the agent's first word, s",
            "value": round(statistics.median(boots), 2) if boots else "never",
            "aim": "≤ 4",
        },
    ]


def main() -> None:
    """Print the table."""
    for row in run():
        print(f"{row['what']:<70} {row['value']!s:>8}  {row['aim']}")


if __name__ == "__main__":
    main()
