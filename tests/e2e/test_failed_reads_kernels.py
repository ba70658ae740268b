"""The record of failed reads on the kernel of the hardware platforms: for the base's own disk, and for NBD as in an enclave.

An enclave's disks come over vsock into the kernel's NBD driver. Here the agent's own client attaches them to a server in
the same machine, which stands for the node and fails as it is told: all else is the base for Nitro, its kernel, driver and agent.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import zlib
from pathlib import Path

import pytest

import strongroom
from strongroom.bases import build, cache
from strongroom.bases import profile as base_profile
from strongroom.crypto import sign
from strongroom.model import manifest as manifest_model
from strongroom.seal import disk, erofs, folder
from tests.bench import bench_base

SHARED = build.default_cache(dict(os.environ))
pytestmark = [
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

FILES = 40

SAY = """
import json, os, sys
from strongroom.agent import value_classes
if __name__ == "__main__":
    sys.modules["dataclasses"] = value_classes  # as the agent does
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
from strongroom.agent.disks import reads
"""

# Attaches DISK twice: from a server that has all of it, and from one that has not BAD and fails as the command line says.
OVER_NBD = """
import base64, socket, struct, threading, time, zlib
from strongroom.agent.disks import devicemapper, nbd, reads
from strongroom.agent.disks import open as disks
from strongroom.model import manifest as manifests
from strongroom.model.room import nbd as wire

def serve(connection, content, bad):
    connection.sendall(struct.pack(">QQH", wire.MAGIC, wire.OPTION_MAGIC, wire.FIXED | wire.NO_ZEROES))
    wire.receive(connection, 4)
    _, option, length = struct.unpack(">QII", wire.receive(connection, 16))
    wire.receive(connection, length)
    export = struct.pack(">HQH", wire.INFO_EXPORT, len(content), wire.FLAGS)
    for kind, data in ((wire.INFORM, export), (wire.ACK, b"")):
        connection.sendall(struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data)
    while True:
        _, _, kind, cookie, offset, length = struct.unpack(wire.REQUEST, wire.receive(connection, 28))
        hit = bad is not None and offset <= 4096 * bad < offset + length
        if hit and "hang-up" in open("/proc/cmdline").read().split():
            return connection.close()
        connection.sendall(struct.pack(">IIQ", wire.REPLY_MAGIC, 5 if hit else 0, cookie))
        if not hit:
            connection.sendall(content[offset : offset + length])

def rows(folder):
    count = 0
    for name in os.listdir(folder):
        try:
            with open(folder + "/" + name) as file:
                count += len(file.readlines())
        except OSError:
            pass
    return count

def main():
    watch = reads.inherited()
    content = zlib.decompress(base64.b64decode(DISK))
    manifest = manifests.parse(base64.b64decode(MANIFEST))
    mapper = devicemapper.DeviceMapper()
    bad = iter([None, BAD])
    def connect():
        ours, theirs = socket.socketpair()
        threading.Thread(target=serve, args=(theirs, content, next(bad)), daemon=True).start()
        return ours
    attached = nbd.NbdDisks(connect)
    facts = {}
    for serial in ("data-0", "data-1"):
        opened = disks.open_disk(mapper, serial, manifest, None, "/run/" + serial, attached.find(serial))
        counted = rows(opened.folder)
        facts[serial] = {"rows": counted, "failed": watch.failed(), "verity": mapper.status(opened.verity)}
    say(**facts)
    time.sleep(60)
"""


def probe(tmp_path: Path, profile, script: str, **constants) -> Path:
    """A base with the real agent's modules, and `script` in the place of its first."""
    package = tmp_path / "strongroom"
    source = Path(strongroom.__file__).parent
    for name in build.AGENT_PACKAGES:
        shutil.copytree(source / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in build.AGENT_MODULES:
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, package / name)
    settings = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    (package / "agent/__main__.py").write_text(settings + SAY + script + MAIN)
    with cache.locked(SHARED):  # else another build takes what this one lays out for an interrupted one's
        made = build.assemble(build.sources(package=package, profile=profile), SHARED, lambda _: None)
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


@pytest.fixture(scope="module")
def enclave(tmp_path_factory):
    """A base for Nitro whose agent opens a disk of `FILES` rows twice over NBD."""
    root = tmp_path_factory.mktemp("nbd")
    files = root / "files"
    files.mkdir()
    for number in range(FILES):
        (files / f"{number:02}.csv").write_text(f"{number}\n")
    entries = folder.from_paths([files])
    manifest = disk.seal(
        entries, kind="dataset", name="files", owner_key=sign.generate(), key=None, image=None,
        target=root / "files.disk",
    )  # fmt: skip
    content = zlib.compress((root / "files.disk").read_bytes())
    return probe(
        root, base_profile.NITRO, OVER_NBD,
        DISK=base64.b64encode(content), MANIFEST=base64.b64encode(manifest_model.encode(manifest)),
        BAD=erofs.layout(entries).by_path[b"20.csv"].block,
    )  # fmt: skip


def assert_recorded(facts):
    """With the whole disk all rows and no record; then fewer rows, dm-verity content, and a record."""
    assert facts["data-0"] == {"rows": FILES, "failed": False, "verity": "V"}
    assert 0 < facts["data-1"].pop("rows") < FILES
    assert facts["data-1"] == {"failed": True, "verity": "V"}


def test_a_read_over_nbd_that_the_server_answers_with_an_error_is_recorded(enclave):
    assert_recorded(said(enclave, bench_base.enclave))


@pytest.mark.soak
def test_a_read_over_nbd_whose_server_hangs_up_is_recorded_at_once(enclave):
    """The kernel alone would let it wait for five minutes."""

    def machine(folder):
        line = bench_base.enclave(folder)
        line[line.index("-append") + 1] += " hang-up"
        return line

    assert_recorded(said(enclave, machine))
