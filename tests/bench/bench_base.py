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
from typing import TYPE_CHECKING

from strongroom.convert import base, base_document

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 3


def boot_seconds(
    folder: Path, memory_mib: int = 512, *, disk: Path | None = None, timeout: float = 60.0
) -> float | None:
    """Seconds to the agent's first byte; None when the machine ends, or nothing comes, before."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{scratch}/channel")
        listener.listen(1)
        listener.settimeout(10.0)
        started = time.monotonic()
        with subprocess.Popen(
            arguments(folder, disk or folder / "base.disk", f"{scratch}/channel", memory_mib)
        ) as qemu:
            try:
                channel, _ = listener.accept()
                with channel:
                    channel.settimeout(timeout)
                    first = channel.recv(1)
                return time.monotonic() - started if first else None
            except TimeoutError:
                return None
            finally:
                qemu.kill()


def arguments(folder: Path, disk: Path, channel: str, memory_mib: int) -> list[str]:
    """QEMU's command line, as a node's but for the TPM."""
    return [
        *("qemu-system-x86_64", "-M", "q35,smm=off", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"),
        *("-m", str(memory_mib), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(folder / "bzImage"), "-initrd", str(folder / "initrd")),
        *("-append", (folder / "cmdline").read_text()),
        *("-chardev", f"socket,id=relay,path={channel}", "-device", "virtio-serial-pci,max_ports=2"),
        *("-device", "virtserialport,chardev=relay,name=strongroom"),
        *("-drive", f"file={disk},if=none,id=disk,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk,serial=base"),
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
    boots = [seconds for _ in range(ROUNDS) if (seconds := boot_seconds(built.folder)) is not None]
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
