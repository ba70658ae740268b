"""The record of failed reads on the kernel of the hardware platforms, for the base's own disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import strongroom
from strongroom.convert import base, base_profile
from strongroom.seal import erofs
from tests.bench import bench_base

SHARED = base.default_cache(dict(os.environ))
pytestmark = [
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

SAY = """
import json, os
def say(**facts):
    port, = os.listdir("/sys/class/virtio-ports")
    fd = os.open("/dev/" + port, os.O_RDWR)
    os.write(fd, json.dumps(facts).encode() + b"\\n")
    os.close(fd)
"""

MAIN = """
if __name__ == "__main__":
    try:
        main()
    except BaseException as cause:
        where = cause.__traceback__
        while where.tb_next is not None:
            where = where.tb_next
        say(failure=repr(cause), file=where.tb_frame.f_code.co_filename, line=where.tb_lineno)
        import time
        time.sleep(60)
"""

# Reads a file of the base that nothing has read before, to which `NAME` is set.
ON_ITS_OWN_DISK = """
def main():
    watch = reads.inherited()
    before = watch.failed()
    try:
        with open(NAME, "rb") as file:
            file.read()
        error = 0
    except OSError as cause:
        error = cause.errno
    say(before=before, error=error, after=watch.failed())
    time.sleep(60)
import time
from strongroom.agent import reads
"""


def probe(tmp_path: Path, profile, script: str, **constants) -> Path:
    """A base with the real agent's modules, and `script` in the place of its first."""
    package = tmp_path / "strongroom"
    source = Path(strongroom.__file__).parent
    for name in base.AGENT_PACKAGES:
        shutil.copytree(source / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in base.AGENT_MODULES:
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, package / name)
    settings = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    (package / "agent/__main__.py").write_text(settings + SAY + script + MAIN)
    made = base.assemble(base.sources(package=package, profile=profile), SHARED, lambda _: None)
    out = tmp_path / "base"
    out.mkdir()
    for name, content in made.items():
        (out / name).write_bytes(content)
    return out


def said(folder: Path, machine) -> dict:
    spoken = bench_base.boot(folder, machine=machine, until=b"\n")
    assert spoken is not None
    return json.loads(spoken.data)


@pytest.mark.soak
def test_the_record_on_the_hardware_platforms_kernel(tmp_path):
    made = probe(tmp_path, base_profile.SNP, ON_ITS_OWN_DISK, NAME="/usr/lib/python3.11/_pydecimal.pyc")
    content = (made / "base.disk").read_bytes()
    block = content.index(b"_dec_from_triple") // erofs.BLOCK  # a function of that module's alone
    layers = {
        "driver": "raw", "node-name": "disk", "read-only": True,
        "file": {
            "driver": "blkdebug", "image": {"driver": "file", "filename": str(made / "base.disk")},
            "inject-error": [{"event": "none", "iotype": "read", "errno": 5, "sector": block * 8, "once": False}],
        },
    }  # fmt: skip

    def machine(folder):
        line = bench_base.arguments(folder, made / "base.disk", "/absent")
        plain = line.index("-chardev")  # the channel is added again, and the disk is another
        return [
            *line[:plain],
            *("-blockdev", json.dumps(layers), "-device", "virtio-blk-pci,drive=disk,serial=base"),
        ]

    assert said(made, machine) == {"before": False, "error": 5, "after": True}
