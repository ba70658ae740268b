"""The ELF reader against real programs, read by somebody else's reader too; and what it refuses."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from strongroom.convert import elf
from strongroom.errors import Malformed
from tests.unit.convert.elf_kit import program

REAL = [
    Path("/bin/sh"),
    Path("/bin/ls"),
    Path(sys.executable),
    Path("/usr/bin/busybox"),
    Path("/sbin/ldconfig"),
]
LIBRARIES = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("lib*.so.*"))[:60]


def read(data: bytes) -> elf.Elf:
    return elf.parse(lambda at, count: data[at : at + count], len(data), what="it")


@pytest.mark.parametrize("path", [*REAL, *LIBRARIES], ids=str)
def test_reads_what_another_reader_reads(path):
    if not path.exists():
        pytest.skip(f"{path} is not here")
    data = path.read_bytes()
    if data[:4] != elf.MAGIC:
        pytest.skip("a linker script")
    ours, theirs = read(data), ELFFile(io.BytesIO(data))
    segments = list(theirs.iter_segments())
    assert ours.machine == "amd64"
    interpreters = [one.get_interp_name().encode() for one in segments if one["p_type"] == "PT_INTERP"]
    assert [ours.interpreter] == (interpreters or [b""])
    dynamic = next((one for one in segments if one["p_type"] == "PT_DYNAMIC"), None)
    tags = list(dynamic.iter_tags()) if dynamic else []
    assert list(ours.needed) == [one.needed.encode() for one in tags if one.entry.d_tag == "DT_NEEDED"]
    assert [ours.soname] == ([one.soname.encode() for one in tags if one.entry.d_tag == "DT_SONAME"] or [b""])
    runpath = [one.runpath.encode() for one in tags if one.entry.d_tag == "DT_RUNPATH"]
    assert b":".join(ours.runpath) == b"".join(runpath)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize(("march", "level"), [("x86-64-v2", 2), ("x86-64-v3", 3), ("x86-64-v4", 4)])
def test_the_level_that_a_compiler_writes_down(tmp_path, march, level):
    (tmp_path / "a.c").write_text("int main(void) { return 0; }")
    command = [
        "gcc",
        "-o",
        str(tmp_path / "a"),
        str(tmp_path / "a.c"),
        f"-march={march}",
        "-Wl,-z,x86-64-" + march[-2:],
    ]
    subprocess.run(command, check=True, capture_output=True)
    assert read((tmp_path / "a").read_bytes()).level == level


def test_the_parts_of_a_program():
    found = read(
        program(
            interpreter=b"/lib64/ld.so", needed=(b"liba.so.1", b"libb.so"), runpath=b"$ORIGIN:/x", level=3
        )
    )
    assert (found.interpreter, found.needed, found.runpath, found.level) == (
        b"/lib64/ld.so", (b"liba.so.1", b"libb.so"), (b"$ORIGIN", b"/x"), 3,
    )  # fmt: skip
    assert found.type == elf.SHARED


def test_other_machines_are_named_and_no_more():
    assert read(program(machine=183)).machine == "arm64"
    assert read(program(machine=0x1234)).machine == "machine 4660"
    assert read(b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HH", 2, 3) + bytes(40)) == elf.Elf(
        machine="386", bits=32
    )


def at(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" + bytes(100),
        at(program(), 4, b"\3"),
        at(program(), 5, b"\0"),
        program()[:40],
        at(program(), 54, b"\x39"),  # size of a program header
        at(program(), 56, b"\xff\xff"),  # how many
        at(program(), 32, b"\xff" * 8),  # where they are
        program(interpreter=b"x" * 5000),
        program(interpreter=b"a\0b"),
        program(needed=(b"a",), strings_at=1 << 40),
        program(needed=(b"a",), strings_size=0),
        program(needed=(b"a",), twice=True),
        program(needed=(b"a" * 5000,)),
        program(level=2, note_size=1 << 30),
        program(level=2, property_size=1 << 20),
    ],
)
def test_what_does_not_add_up_is_malformed(data):
    with pytest.raises(Malformed):
        read(data)
