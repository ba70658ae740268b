"""A Linux guest small enough to boot often: a Debian cloud kernel and a busybox that holds a canary.

The guest computes the canary from a seed on its command line, so that no file and no argument of QEMU
holds it. It prints MARKER once it lies in the guest's memory.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

INIT = """#!/busybox sh
/busybox mkdir -p /proc
/busybox mount -t proc proc /proc
seed=$(/busybox sed 's/.*seed=//; s/ .*//' /proc/cmdline)
canary=$(echo -n "canary $seed" | /busybox sha256sum)
canary=${canary%% *}
n=0
while [ $n -lt 50 ]; do echo "$n $canary" >> /kept; n=$((n+1)); done
echo MARKER
while :; do /busybox sleep 1000; done
"""
_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on 8250.nr_uarts=1 "
    "nokaslr audit=0 selinux=0 apparmor=0 rdinit=/init"
)


@functools.cache
def folder() -> Path | str:
    """A folder with `kernel` and `initrd`, or the reason why there is none. Kept in the temporary folder."""
    missing = [
        name for name in ("qemu-system-x86_64", "busybox", "dpkg", "apt-get") if not shutil.which(name)
    ]
    if missing:
        return f"{missing[0]} is not installed"
    kept = Path(tempfile.gettempdir()) / "strongroom-tiny-guest"
    if not (kept / "kernel").exists():
        with tempfile.TemporaryDirectory(prefix="strongroom-kernel-") as work:
            reason = _fetch(Path(work))
            if reason:
                return reason
            (kernel,) = Path(work).glob("x/boot/vmlinuz-*")
            kept.mkdir(exist_ok=True)
            shutil.copy(kernel, kept / ".kernel.part")
            (kept / ".kernel.part").rename(kept / "kernel")
    (kept / "initrd").write_bytes(_initrd())
    return kept


def _fetch(work: Path) -> str:
    asked = subprocess.run(
        ["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=False
    )
    name = re.search(r"Depends: (linux-image-\S+)", asked.stdout)
    if name is None:
        return "apt knows no linux-image-cloud-amd64"
    done = subprocess.run(
        ["apt-get", "download", name[1]], cwd=work, capture_output=True, text=True, check=False
    )
    packages = list(work.glob("*.deb"))
    if done.returncode or not packages:
        return f"the kernel could not be downloaded: {done.stderr.strip()[-200:]}"
    subprocess.run(["dpkg", "-x", str(packages[0]), str(work / "x")], check=True)
    return ""


def _initrd() -> bytes:
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    archive = b""
    for number, (name, mode, data) in enumerate(
        [("busybox", 0o100755, busybox), ("init", 0o100755, INIT.encode()), ("TRAILER!!!", 0, b"")], 1
    ):
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return archive


class Boot:
    """What to start, and what its guest will hold."""

    def __init__(self, *, memory: int = 512) -> None:
        place = folder()
        assert isinstance(place, Path), place
        seed = secrets.token_hex(16)
        self.canary = hashlib.sha256(b"canary " + seed.encode()).hexdigest().encode()
        self.argv = ["qemu-system-x86_64", "-M", "q35,smm=off", "-accel", "tcg,thread=multi,tb-size=64"]
        self.argv += ["-cpu", "max", "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none"]
        self.argv += ["-no-reboot", "-serial", "stdio", "-kernel", str(place / "kernel")]
        self.argv += ["-initrd", str(place / "initrd"), "-append", f"{_COMMAND_LINE} seed={seed}"]
