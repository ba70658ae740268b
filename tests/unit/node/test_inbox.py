from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from strongroom.errors import Refused, Unavailable
from strongroom.node import run_folder
from tests import samples

CONTRACT = samples.a_contract()


@pytest.mark.parametrize(
    "name",
    ["receipt.json", "evidence-alice.json", "release-alice.json", "receipt-alice.json", "out-0.tar.age"],
)
def test_names_that_a_run_has(tmp_path, name):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    box.begin(1, name)
    box.write(1, b"content")
    assert not (tmp_path / name).exists()
    assert box.finish(1) == name
    assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize(
    "name",
    [
        "status.json",
        "agreement.json",
        "../receipt.json",
        "/etc/passwd",
        "receipt.json\n",
        ".receipt.json.part",
        "evidence-mallory.json",
        "evidence-bob.json",  # bob has no broker
        "evidence-../alice.json",
        "out-1.tar.age",  # the contract has one output
        "out-00.tar.age",
        "out-٠.tar.age",
        "log.age",  # nobody may read it
        "",
    ],
)
def test_names_that_it_has_not(tmp_path, name):
    with pytest.raises(Refused) as caught:
        run_folder.Inbox(tmp_path, CONTRACT, "main").begin(1, name)
    assert caught.value.code == "unexpected-file"
    assert list(tmp_path.iterdir()) == []


def test_nothing_twice(tmp_path):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    box.begin(1, "receipt.json")
    for stream, name in ((2, "receipt.json"), (1, "out-0.tar.age")):
        with pytest.raises(Refused, match=f"hands out '{name}' twice"):
            box.begin(stream, name)
    box.finish(1)
    with pytest.raises(Refused, match=r"hands out 'receipt\.json' twice"):
        box.begin(3, "receipt.json")


def test_the_limit_is_the_contracts(tmp_path):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    box.begin(1, "receipt.json")
    most = run_folder.limit("receipt.json", CONTRACT, "main")
    box.write(1, bytes(most))
    with pytest.raises(Refused) as caught:
        box.write(1, b"x")
    assert caught.value.code == "too-large"
    assert list(tmp_path.iterdir()) == []


def test_what_is_incomplete_is_removed(tmp_path):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    box.begin(1, "receipt.json")
    box.write(1, b"x")
    assert len(list(tmp_path.iterdir())) == 1
    box.close()
    assert list(tmp_path.iterdir()) == []


class Full:
    """A disk that takes so many bytes, and then no more until there is room."""

    def __init__(self, monkeypatch, folder, room, number=errno.ENOSPC):
        self.folder, self.room, self.number = str(folder), room, number
        self.write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd, data):
        if not str(Path(f"/proc/self/fd/{fd}").readlink()).startswith(self.folder):
            return self.write(fd, data)
        if not self.room:
            raise OSError(self.number, os.strerror(self.number))
        taken = self.write(fd, memoryview(data)[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("room", [0, 3])
def test_what_a_full_disk_does_not_take_waits_in_memory_until_it_does(tmp_path, monkeypatch, room, number):
    told = []
    box = run_folder.Inbox(tmp_path, CONTRACT, "main", on_held=told.append)
    disk = Full(monkeypatch, tmp_path, room, number)
    box.begin(1, "out-0.tar.age")
    box.write(1, b"first")
    assert [one.names for one in told] == [("out-0.tar.age",)], "told at once, not when the room has ended"
    box.write(1, b" and second")
    assert len(told) == 1
    assert box.finish(1) == "out-0.tar.age"
    assert box.received == ["out-0.tar.age"]
    assert list(tmp_path.iterdir()) == []
    assert box.settle() == run_folder.UnwrittenFiles(names=("out-0.tar.age",), size=16)
    assert list(tmp_path.iterdir()) == []
    disk.room = 1000
    assert box.settle() == run_folder.UnwrittenFiles()
    assert (tmp_path / "out-0.tar.age").read_bytes() == b"first and second"
    assert len(list(tmp_path.iterdir())) == 1
    box.close()


def test_in_memory_the_limit_is_the_contracts_too(tmp_path, monkeypatch):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    Full(monkeypatch, tmp_path, 0)
    box.begin(1, "receipt.json")
    box.write(1, bytes(run_folder.limit("receipt.json", CONTRACT, "main")))
    with pytest.raises(Refused) as caught:
        box.write(1, b"x")
    assert caught.value.code == "too-large"


def test_a_folder_that_is_gone_when_the_file_is_whole_costs_nothing_once_it_is_back(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    box = run_folder.Inbox(folder, CONTRACT, "main")
    box.begin(1, "receipt.json")
    box.write(1, b"content")
    fsync = os.fsync

    def full(_fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    box.finish(1)
    assert box.settle() == run_folder.UnwrittenFiles(names=("receipt.json",), size=7)
    monkeypatch.setattr(os, "fsync", fsync)
    assert box.settle() == run_folder.UnwrittenFiles()
    assert (folder / "receipt.json").read_bytes() == b"content"


def test_neither_folder_nor_memory(tmp_path, monkeypatch):
    box = run_folder.Inbox(tmp_path, CONTRACT, "main")
    box.begin(1, "receipt.json")

    def full(_fd, _data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable, match="No space left") as caught:
        box.write(1, b"x")
    assert caught.value.code == "run-folder"
    assert list(tmp_path.iterdir()) == []


def test_how_much_a_run_may_hand_out():
    assert run_folder.most(CONTRACT, "main") == sum(
        run_folder.limit(name, CONTRACT, "main") for name in ("receipt.json", "out-0.tar.age")
    )


def test_a_link_planted_beside_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".receipt.json.part").symlink_to(victim)
    with pytest.raises(Unavailable, match="Too many levels of symbolic links"):
        run_folder.Inbox(folder, CONTRACT, "main").begin(1, "receipt.json")
    assert victim.read_bytes() == b"precious"
