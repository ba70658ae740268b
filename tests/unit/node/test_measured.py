from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from strongroom.errors import Malformed, NotFound
from strongroom.model.room import launch
from strongroom.node import launch_record


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name, content in {
        "bzImage": b"kernel" * 5000,
        "initrd": b"initrd",
        "cmdline": b"quiet",
        "base.disk": b"disk",
        "bios": b"firmware",
    }.items():
        (folder / name).write_bytes(content)
    return folder


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_the_record_is_of_the_bytes(base):
    with launch_record.opened(base, firmware=base / "bios") as parts:
        record = parts.record(memory_guard=True)
        assert record == launch.LaunchRecord(
            firmware=sha(b"firmware"),
            kernel=sha(b"kernel" * 5000),
            initrd=sha(b"initrd"),
            cmdline=sha(b"quiet"),
            machine="q35",
            memory_guard=True,
        )
        assert launch.parse(record.encode()) == record


def test_a_file_that_changes_after_the_copy_changes_nothing(base):
    with launch_record.opened(base, firmware=base / "bios") as parts:
        before = parts.record(memory_guard=False)
        (base / "bzImage").write_bytes(b"evil")
        assert parts.record(memory_guard=False) == before
        assert Path(f"/dev/fd/{parts.kernel}").read_bytes() == b"kernel" * 5000
        for attempt in (lambda: os.pwrite(parts.kernel, b"evil", 0), lambda: os.ftruncate(parts.kernel, 0)):
            with pytest.raises(PermissionError):
                attempt()


def test_one_byte_is_another_record(base):
    records = set()
    for content in (b"initrd", b"initre"):
        (base / "initrd").write_bytes(content)
        with launch_record.opened(base, firmware=base / "bios") as parts:
            records.add(parts.record(memory_guard=True).encode())
    assert len(records) == 2


@pytest.mark.parametrize("name", ["bzImage", "initrd", "cmdline", "base.disk", "bios"])
def test_what_is_missing_is_named(base, name):
    (base / name).unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(NotFound, match=name), launch_record.opened(base, firmware=base / "bios"):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("line", [b"", b"a" * 2048, b"a\x00b", "ä".encode()])
def test_command_lines_that_qemu_would_not_carry(base, line):
    (base / "cmdline").write_bytes(line)
    with (
        pytest.raises(Malformed, match="cmdline: expected 1 to 2047 ASCII characters"),
        launch_record.opened(base, firmware=base / "bios"),
    ):
        pass


def test_an_empty_kernel(base):
    (base / "bzImage").write_bytes(b"")
    with pytest.raises(Malformed, match="bzImage: empty"), launch_record.opened(base, firmware=base / "bios"):
        pass
