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

from strongroom.errors import Malformed
from strongroom.images.preflight import elf
from tests.unit.images.elf_kit import program

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
    ("data", "why"),
    [
        (b"", "ends too early"),
        (b"\x7fELF", "ends too early"),
        (b"#!/bin/sh\n" + bytes(100), "no ELF file"),
        (at(program(), 4, b"\3"), "neither 32 nor 64 bits, or no byte order"),
        (at(program(), 5, b"\0"), "neither 32 nor 64 bits, or no byte order"),
        (program()[:40], "ends too early"),
        (at(program(), 54, b"\x39"), "1 program headers of 57 bytes"),  # size of a program header
        (at(program(), 56, b"\xff\xff"), "65535 program headers of 56 bytes"),  # how many
        (at(program(), 32, b"\xff" * 8), "ends too early"),  # where they are
        (program(interpreter=b"x" * 5000), "a loader's name of 5001 bytes"),
        (program(interpreter=b"a\0b"), "the loader's name does not end where it should"),
        (program(needed=(b"a",), strings_at=1 << 40), "the table of names is in no segment"),
        (program(needed=(b"a",), strings_size=0), "a name outside the table of names"),
        (program(needed=(b"a",), twice=True), "two segments where one may be"),
        (program(needed=(b"a" * 5000,)), "a name without an end"),
        (program(level=2, note_size=1 << 30), "a note ends behind its segment"),
        (program(level=2, property_size=1 << 20), "a property ends behind its note"),
    ],
)
def test_what_does_not_add_up_is_malformed(data, why):
    with pytest.raises(Malformed, match=why):
        read(data)
