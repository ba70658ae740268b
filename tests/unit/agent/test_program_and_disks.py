"""Judgement of how a program ended; device mapper buffers; disks by serial. No privilege needed."""

from __future__ import annotations

import os

import pytest

from strongroom.agent import init, kernel, program
from strongroom.agent.disks import devicemapper
from strongroom.agent.disks import open as disks
from strongroom.errors import Malformed, NotFound, Refused, Unavailable
from strongroom.model import manifest as manifest_model
from strongroom.model.receipt import Outcome
from strongroom.seal import erofs
from strongroom.seal.tree import Entry, EntryKind

KILLED, SEGV, EXIT_3 = 9, 11, 3 << 8


@pytest.mark.parametrize(
    ("seen", "outcome", "status"),
    [
        ({"status": EXIT_3}, Outcome.EXITED, 3),
        ({"status": 0}, Outcome.EXITED, 0),
        ({"status": SEGV}, Outcome.KILLED, 11),
        ({"status": SEGV | 0x80}, Outcome.KILLED, 11),
        ({"status": KILLED}, Outcome.KILLED, 9),
        ({"status": KILLED, "ran_out": True}, Outcome.OUT_OF_MEMORY, 9),
        ({"status": None, "ran_out": True}, Outcome.OUT_OF_MEMORY, 9),
        ({"status": None}, Outcome.KILLED, 9),
        ({"status": EXIT_3, "ran_out": True}, Outcome.EXITED, 3),
        ({"status": None, "timed_out": True}, Outcome.TIMED_OUT, 9),
        ({"status": KILLED, "timed_out": True, "ran_out": True}, Outcome.TIMED_OUT, 9),
        ({"status": None, "not_started": "program-missing"}, Outcome.NOT_STARTED, 0),
        ({"status": EXIT_3, "not_started": "container-failed"}, Outcome.NOT_STARTED, 0),
        ({"status": None, "not_started": "container-failed", "timed_out": True}, Outcome.TIMED_OUT, 0),
    ],
)
def test_judgement(seen, outcome, status):
    base = {"not_started": "", "timed_out": False, "ran_out": False}
    got = program.judge(**{**base, **seen})
    assert got[:2] == (outcome, status)


def test_memory_shortage_is_counted(tmp_path):
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n")
    assert program.out_of_memory_count(str(tmp_path)) == 3
    assert program.out_of_memory_count(str(tmp_path / "absent")) == 0
    assert program.out_of_memory_count("") >= 0


def test_programs_memory_is_what_was_agreed_and_leaves_the_agent_its_own():
    assert init.program_memory(1 << 30, 256 << 20) == 256 << 20
    assert init.program_memory(200 << 20, 256 << 20) == (200 << 20) - init.AGENT_RESERVE
    assert init.program_memory(10 << 20, 256 << 20) == 64 << 20
    assert init.available_memory() > 0


def test_verity_table_points_behind_the_superblock():
    target = devicemapper.verity_target(
        device="254:16",
        data_bytes=40960,
        hash_offset=40960,
        root_hash="sha256:" + "ab" * 32,
        salt=b"\x01\x02",
    )
    assert target.parameters.decode() == f"1 254:16 254:16 4096 4096 10 11 sha256 {'ab' * 32} 0102"
    bare = devicemapper.verity_target(
        device="1:2", data_bytes=4096, hash_offset=4096, root_hash="sha256:" + "0" * 64, salt=b""
    )
    assert bare.parameters.endswith(b" -")


def test_crypt_table_and_its_encoding():
    target = devicemapper.crypt_target(device="253:0", data_bytes=8192, key=bytes(range(64)))
    text = f"aes-xts-plain64 {bytes(range(64)).hex()} 0 253:0 0 2 sector_size:4096 no_read_workqueue"
    assert target.parameters.decode() == text
    raw = devicemapper.encode_target(target)
    assert len(raw) % 8 == 0
    assert int.from_bytes(raw[8:16], "little") == 16
    assert int.from_bytes(raw[20:24], "little") == len(raw)
    assert raw[24:30] == b"crypt\x00"
    assert raw[40 : 40 + len(text)] == text.encode()
    assert raw[40 + len(text)] == 0


def test_header_follows_the_kernels_structure():
    buffer = bytearray(1024)
    devicemapper.encode_header(buffer, "data-0-verity", 1 << 15, 1)
    words = [int.from_bytes(buffer[place : place + 4], "little") for place in range(0, 32, 4)]
    assert words == [4, 0, 0, 1024, 312, 1, 0, 1 << 15]
    assert buffer[48:62] == b"data-0-verity\x00"
    for name in ("", "x" * 128):
        with pytest.raises(Malformed, match=r"name of (0|128) bytes, expected 1 to 127"):
            devicemapper.encode_header(buffer, name, 0, 0)


def test_device_numbers_are_decoded():
    answer = bytearray(312)
    answer[40:48] = (0x05 | 253 << 8 | 0x123 << 20).to_bytes(8, "little")
    number = devicemapper.device_number(answer)
    assert (os.major(number), os.minor(number)) == (253, 0x12305)


def test_status_is_read_where_it_says(tmp_path):
    answer = bytearray(512)
    answer[16:20] = (312).to_bytes(4, "little")
    answer[20:24] = (1).to_bytes(4, "little")
    answer[352:354] = b"C\x00"
    assert devicemapper.parse_status(bytes(answer)) == "C"


def test_no_device_mapper():
    with pytest.raises(Unavailable) as caught:
        devicemapper.DeviceMapper("/dev/mapper/absent")
    assert caught.value.code == "no-device-mapper"


class Status:
    """A device mapper that knows one answer."""

    def __init__(self, text) -> None:
        self.text = text

    def status(self, name):
        assert name == "data-0-verity"
        return self.text


@pytest.mark.parametrize("text", ["C", "", "V2", "CV", "C V"])
def test_anything_but_verified_is_corrupted(text):
    manifest = manifest_model.Manifest(
        raw=b"", kind="dataset", name="flights", owner="", cipher="none", data_bytes=4096, hash_offset=4096,
        disk_bytes=8192, root_hash="", salt=b"", image=None,
    )  # fmt: skip
    disk = disks.OpenDisk(serial="data-0", manifest=manifest, folder="")
    disks.complain_if_corrupted(Status("V"), disk)
    disks.complain_if_corrupted(Status("V -"), disk)
    with pytest.raises(Refused) as caught:
        disks.complain_if_corrupted(Status(text), disk)
    assert caught.value.code == "data-corrupted"
    assert "flights" in caught.value.message


class Mapper:
    """A device mapper that maps a disk to a file."""

    def __init__(self, path) -> None:
        self.path = path

    def create(self, name, target):
        return devicemapper.Mapped(name=name, path=str(self.path))

    def status(self, name):
        return "V"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens a disk with that content, up to where the kernel would mount it; the error that comes of it."""
    monkeypatch.setattr(disks, "BLOCK_DEVICES", str(tmp_path))
    (tmp_path / "vda").mkdir()
    (tmp_path / "vda/dev").write_text("254:0\n")
    mounted = []

    def mount(*_):
        mounted.append(1)
        raise OSError(22, "no file system here")

    monkeypatch.setattr(kernel, "mount", mount)

    def act(content):
        image = tmp_path / "image"
        if content is None:
            image.mkdir()  # which opens, and cannot be read
        else:
            image.write_bytes(content)
        size = len(content or bytes(4096))
        (tmp_path / "vda/size").write_text(f"{size // 512}\n")
        manifest = manifest_model.Manifest(
            raw=b"", kind="dataset", name="flights", owner="", cipher="none", data_bytes=size, hash_offset=size,
            disk_bytes=size, root_hash="", salt=b"", image=None,
        )  # fmt: skip
        with pytest.raises((Refused, Unavailable)) as caught:
            disks.open_disk(Mapper(image), "data-0", manifest, None, str(tmp_path / "at"), "vda")
        return caught.value, bool(mounted)

    return act


OURS = b"".join(erofs.blocks(erofs.layout([Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755)])))


def test_a_disk_of_our_own_writer_is_mounted(opened):
    cause, mounted = opened(OURS)
    assert (cause.code, mounted) == ("mount", True)


def test_a_disk_that_asks_for_more_than_our_writer_uses_is_not_mounted(opened):
    with_chunks = bytearray(OURS)
    with_chunks[1024 + 80] = 4
    cause, mounted = opened(bytes(with_chunks))
    assert (cause.code, mounted) == ("unsupported-disk", False)
    assert "incompatible: expected 0x0, got 0x4" in cause.message


def test_no_file_system_behind_the_key_is_not_mounted(opened):
    cause, mounted = opened(bytes(8192))
    assert (cause.code, mounted) == ("wrong-disk-key", False)


def test_a_superblock_that_cannot_be_read_is_data_that_was_corrupted(opened):
    cause, mounted = opened(None)
    assert (cause.code, mounted) == ("data-corrupted", False)


def test_disks_are_found_by_serial(tmp_path):
    for name, serial in (("vda", "base"), ("vdb", "image"), ("vdc", "data-0\n"), ("loop0", None)):
        (tmp_path / name).mkdir()
        if serial:
            (tmp_path / name / "serial").write_text(serial)
    assert disks.find("data-0", str(tmp_path)) == "vdc"
    with pytest.raises(NotFound, match="no disk has the serial 'data-1'"):
        disks.find("data-1", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        (b"quiet reboot=k pci=off\n", kernel._RESTART),
        (b"quiet panic=-1\n", kernel._POWER_OFF),
        (b"quiet xreboot=k\n", kernel._POWER_OFF),
        (None, kernel._POWER_OFF),
    ],
)
def test_a_machine_that_cannot_power_off_resets(tmp_path, line, ends):
    if line is not None:
        (tmp_path / "cmdline").write_bytes(line)
    assert kernel.ending(str(tmp_path / "cmdline")) == ends
