"""The watch over reads, with a pipe in the place of the kernel's record; and what a failed read does to a run."""

from __future__ import annotations

import os

import pytest

from strongroom.agent.disks import reads
from strongroom.bases import initramfs
from strongroom.errors import Refused, Unavailable


@pytest.fixture
def record(tmp_path):
    """A readable descriptor of a file with the record's name, and what the kernel would write to."""
    os.mkfifo(tmp_path / "trace_pipe")
    reader = os.open(tmp_path / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "trace_pipe", os.O_WRONLY)
    os.set_inheritable(reader, True)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_failed_read_stays(record):
    reader, writer = record
    watch = reads.inherited(reader)
    assert not watch.failed()
    watch.complain()
    os.write(writer, b"x")
    for _ in range(3):
        assert watch.failed()
        with pytest.raises(Refused) as caught:
            watch.complain()
        assert caught.value.code == "data-corrupted"


def test_the_record_is_handed_on_to_nobody_else(record):
    reads.inherited(record[0])
    assert not os.get_inheritable(record[0])


def test_without_the_record_there_is_no_room(tmp_path):
    (tmp_path / "other").write_text("")
    other = os.open(tmp_path / "other", os.O_RDONLY)
    os.close(absent := os.dup(other))
    for fd in (other, absent):
        with pytest.raises(Unavailable) as caught:
            reads.inherited(fd)
        assert caught.value.code == "no-read-watch"
    os.close(other)


def test_the_initrd_hands_the_record_on_where_the_agent_looks():
    """In this order: before the base's first block is read, and closed for good before its first byte runs."""
    steps = [
        "modules_disabled",
        "echo 'error != 0' >$trace/events/block/block_bio_complete/filter",
        "echo 1 >$trace/events/block/block_bio_complete/enable",
        f"exec {reads.DESCRIPTOR}<$trace/trace_pipe",
        "echo confidentiality >/sys/kernel/security/lockdown",
        "create base",
        "exec $b env",
    ]
    places = [initramfs.INIT.index(step) for step in steps]
    assert places == sorted(places)
