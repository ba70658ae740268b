"""The command line of a room's QEMU is what it is, to the letter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import Malformed
from strongroom.node.qemu import machine

MACHINE = machine.Machine(
    accelerator="tcg",
    memory_mib=512,
    firmware=3,
    kernel=4,
    initrd=5,
    cmdline=b"quiet room.root=ab",
    tpm=6,
    channel=7,
    drives=(
        machine.Drive(serial="base", path=Path("/bases/one/base.disk")),
        machine.Drive(serial="image", path=Path("/disks/a,b=c.disk")),
    ),
)
BLOCK = (
    '{"driver": "raw", "node-name": "disk%d", "read-only": true, "file": '
    '{"driver": "file", "filename": "%s", "locking": "off"}}'
)
GOLDEN = [
    "qemu-system-x86_64",
    "-name",
    "strongroom",
    "-machine",
    "q35,smm=off,sata=off,smbus=off,vmport=off",
    "-accel",
    "tcg,thread=multi,tb-size=256",
    "-cpu",
    "max,erms=off,fsrm=off,la57=off,pku=off,mpx=off",
    "-m",
    "704M",
    "-nodefaults",
    "-no-user-config",
    "-no-reboot",
    "-display",
    "none",
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    "-rtc",
    "base=utc",
    "-bios",
    "/dev/fd/3",
    "-kernel",
    "/dev/fd/4",
    "-initrd",
    "/dev/fd/5",
    "-append",
    "quiet room.root=ab",
    "-chardev",
    "socket,id=tpm-control,fd=6",
    "-tpmdev",
    "emulator,id=tpm,chardev=tpm-control",
    "-device",
    "tpm-crb,tpmdev=tpm",
    "-chardev",
    "socket,id=relay,fd=7",
    "-device",
    "virtio-serial-pci,max_ports=2",
    "-device",
    "virtserialport,chardev=relay,name=strongroom",
    "-blockdev",
    BLOCK % (0, "/bases/one/base.disk"),
    "-device",
    "virtio-blk-pci,drive=disk0,serial=base,addr=0x8.0,multifunction=on",
    "-blockdev",
    BLOCK % (1, "/disks/a,b=c.disk"),
    "-device",
    "virtio-blk-pci,drive=disk1,serial=image,addr=0x8.1,multifunction=on",
]


def test_golden():
    assert machine.arguments(MACHINE) == GOLDEN
    assert MACHINE.descriptors == (3, 4, 5, 6, 7)


def test_no_way_in_or_out_but_the_channel():
    line = machine.arguments(replace(MACHINE, accelerator="kvm"))
    assert line[line.index("-accel") + 1] == "kvm"
    assert line[line.index("-cpu") + 1] == "max"
    for word in (
        "-netdev",
        "-nic",
        "-net",
        "-serial",
        "-monitor",
        "-qmp",
        "-vnc",
        "-spice",
        "-fsdev",
        "-gdb",
    ):
        assert word not in line
    assert not any("virtio-net" in word or "vhost" in word for word in line)


def test_every_disk_of_a_large_contract_has_a_place_of_its_own():
    drives = tuple(machine.Drive(serial=f"data-{n}", path=Path(f"/d{n}")) for n in range(66))
    places = [
        word.split("addr=")[1]
        for word in machine.arguments(replace(MACHINE, drives=drives))
        if "addr=" in word
    ]
    assert len(set(places)) == 66
    assert places[8] == "0x9.0,multifunction=on"
    assert all(int(place.split(".")[0], 16) < 0x1F for place in places)


def test_a_serial_that_virtio_would_cut_is_refused():
    with pytest.raises(Malformed, match="20 bytes"):
        machine.arguments(replace(MACHINE, drives=(machine.Drive(serial="d" * 21, path=Path("/d")),)))
    with pytest.raises(Malformed, match="disks"):
        machine.arguments(replace(MACHINE, drives=MACHINE.drives * 65))


def test_debug_serial_is_the_only_serial():
    line = machine.arguments(replace(MACHINE, serial=9))
    assert line[-4:] == ["-add-fd", "fd=9,set=1", "-serial", "file:/dev/fdset/1"]


@pytest.mark.parametrize("clock", ["", "yesterday", "2031-05-06", "utc,driftfix=slew", "localtime"])
def test_clocks_that_are_none(clock):
    with pytest.raises(Malformed, match="clock"):
        machine.arguments(replace(MACHINE, clock=clock))
