from __future__ import annotations

import io
import re
import tarfile

import pytest

from strongroom.errors import Malformed
from strongroom.images import tar
from strongroom.images.limits import LIMITS, ImageLimits
from tests.unit.images.kit import END, entry, folder, hardlink, pax, read, symlink


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_python_writes(format_: int) -> None:
    buffer = io.BytesIO()
    long = "d" * 90 + "/" + "f" * (90 if format_ == tarfile.USTAR_FORMAT else 200)
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as out:
        for name, data in (("./a", b"x" * 700), (long, b"y")):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid, info.mtime = len(data), 0o4755, 1000, 50, 1_600_000_000
            out.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "../t" if format_ == tarfile.USTAR_FORMAT else "t" * 150
        out.addfile(info)
    data = buffer.getvalue()
    a, f, link = read(data)
    assert (a.path, a.size, a.mode, a.uid, a.gid, a.mtime) == (b"a", 700, 0o4755, 1000, 50, 1_600_000_000)
    assert data[a.offset : a.offset + 700] == b"x" * 700
    assert f.path == long.encode()
    assert data[f.offset : f.offset + 1] == b"y"
    assert link.type is tar.Type.SYMLINK
    assert link.target == info.linkname.encode()


def test_as_many_attributes_as_are_allowed_are_read() -> None:
    data = pax({b"SCHILY.xattr.user.%d" % number: b"" for number in range(64)}) + entry(b"c") + END
    (one,) = read(data)
    assert len(one.xattrs) == 64


def test_reads_xattrs_ids_times_and_large_numbers() -> None:
    extended = {
        b"SCHILY.xattr.user.k": b"a=b\n\0",
        b"SCHILY.xattr.security.capability": b"\1\0\0\2",
        b"uid": b"4000000000",
        b"gid": b"7",
        b"mtime": b"1700000000.999",
        b"APK-TOOLS.checksum.SHA1": b"00",
    }
    (one,) = read(pax(extended) + entry(b"f", b"hi") + END)
    assert one.xattrs == {b"user.k": b"a=b\n\0", b"security.capability": b"\1\0\0\2"}
    assert (one.uid, one.gid, one.mtime) == (4_000_000_000, 7, 1_700_000_000)
    (one,) = read(entry(b"f", b"hi", size=b"\x80" + (2).to_bytes(11, "big")) + END)
    assert one.size == 2


def test_names_are_bytes_and_are_cleaned() -> None:
    got = read(entry(b"/abs//./x\xff\xfe") + folder(b"./") + entry(b"b", prefix=b"p/q") + END)
    assert [one.path for one in got] == [b"abs/x\xff\xfe", b"", b"p/q/b"]


def test_times_before_1970_become_1970() -> None:
    (one,) = read(pax({b"mtime": b"-5.5"}) + entry(b"f") + END)
    assert one.mtime == 0


BAD = {
    "empty": b"",
    "no end": entry(b"a", b"x"),
    "half an end": entry(b"a", b"x") + bytes(512),
    "lone zero block": bytes(512) + entry(b"a") + END,
    "cut header": entry(b"a")[:300],
    "cut contents": entry(b"a", b"x" * 2000)[:-600],
    "size larger than the archive": entry(b"a", b"x", size=1 << 30) + END,
    "garbage after the end": END + b"x",
    "garbage after padding": END + bytes(9000) + b"x" * 512,
    "checksum": entry(b"a", checksum=b"000001\0 ") + END,
    "checksum not octal": entry(b"a", checksum=b"99999999") + END,
    "header of no known form": entry(b"a", magic=b"ustar   ") + END,
    "v7 header with a prefix": entry(b"a", magic=bytes(8), prefix=b"p") + END,
    "a name in GNU's times that is no text": entry(b"a", magic=b"ustar  \0", prefix=b"p\xc3\xa4") + END,
    "a directory before POSIX with contents": entry(b"a/", b"x", flag=b"\0") + END,
    "number with something after a blank": entry(b"a", size=b"0000001 \0x\0\0\0") + END,
    "unknown type": entry(b"a", flag=b"7") + END,
    "gnu sparse": entry(b"a", flag=b"S", magic=b"ustar  \0") + END,
    "multi-volume": entry(b"a", flag=b"M", magic=b"ustar  \0") + END,
    "negative base-256 size": entry(b"a", size=b"\xff" * 12) + END,
    "huge base-256 size": entry(b"a", size=b"\x80" + b"\xff" * 11) + END,
    "size not a number": entry(b"a", size=b"-0000000001\0") + END,
    "dotdot": entry(b"a/../../b") + END,
    "dotdot that stays inside": entry(b"a/../b") + END,
    "dotdot hard link": hardlink(b"a", b"../b") + END,
    "hard link to the root": hardlink(b"a", b"/") + END,
    "no name": entry(b"") + END,
    "no target": symlink(b"a", b"") + END,
    "directory with contents": entry(b"a/", b"x", flag=b"5") + END,
    "symlink with contents": entry(b"a", b"x", flag=b"2", link=b"b") + END,
    "hard link with contents": entry(b"a", b"x", flag=b"1", link=b"b") + END,
    "file named like a directory": entry(b"a/", b"x") + END,
    "NUL in a pax path": pax({b"path": b"a\0b"}) + entry(b"a") + END,
    "dotdot in a pax path": pax({b"path": b"../a"}) + entry(b"a") + END,
    "NUL in a pax link": pax({b"linkpath": b"a\0"}) + symlink(b"l", b"t") + END,
    "linkpath for a file": pax({b"linkpath": b"x"}) + entry(b"a") + END,
    "pax size differs": pax({b"size": b"1"}) + entry(b"a", b"xx") + END,
    "pax size zero hides contents": pax({b"size": b"0"}) + entry(b"a", entry(b"b")) + END,
    "pax size huge": pax({b"size": b"99999999999999"}) + entry(b"a", b"xx") + END,
    "pax size negative": pax({b"size": b"-2"}) + entry(b"a", b"xx") + END,
    "pax size on a directory": pax({b"size": b"512"}) + folder(b"a/") + END,
    "pax uid": pax({b"uid": b"4294967295"}) + entry(b"a") + END,
    "pax uid not a number": pax({b"uid": b"0x10"}) + entry(b"a") + END,
    "pax time not a number": pax({b"mtime": b"1e9"}) + entry(b"a") + END,
    "pax sparse": pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}) + entry(b"a") + END,
    "pax type of star": pax({b"SCHILY.filetype": b"sparse"}) + entry(b"a") + END,
    "pax twice": pax({b"path": b"a"}) + pax({b"path": b"b"}) + entry(b"c") + END,
    "pax at the end": pax({b"path": b"a"}) + END,
    "pax global path": pax({b"path": b"a"}, b"g") + entry(b"c") + END,
    "pax global attribute": pax({b"SCHILY.xattr.user.a": b"a"}, b"g") + entry(b"c") + END,
    "pax length lies": entry(b"x", b"99 path=a\n", flag=b"x") + entry(b"c") + END,
    "pax length zero": entry(b"x", b"0 path=a\n", flag=b"x") + entry(b"c") + END,
    "pax no newline": entry(b"x", b"9 path=ab", flag=b"x") + entry(b"c") + END,
    "pax no equals": entry(b"x", b"8 pathx\n", flag=b"x") + entry(b"c") + END,
    "pax and gnu names": entry(b"L", b"gnu\0", flag=b"L") + pax({b"path": b"p"}) + entry(b"c") + END,
    "gnu name twice": entry(b"L", b"a\0", flag=b"L") + entry(b"L", b"b\0", flag=b"L") + entry(b"c") + END,
    "gnu name empty": entry(b"L", b"\0", flag=b"L") + entry(b"c") + END,
    "gnu link for a file": entry(b"K", b"a\0", flag=b"K") + entry(b"c") + END,
    "name too long": pax({b"path": b"n" * 256}) + entry(b"c") + END,
    "path too long": pax({b"path": b"/".join([b"n" * 200] * 21)}) + entry(b"c") + END,
    "path too deep": pax({b"path": b"/".join([b"n"] * 129)}) + entry(b"c") + END,
    "target too long": pax({b"linkpath": b"n" * 4096}) + symlink(b"l", b"t") + END,
    "xattr too large": pax({b"SCHILY.xattr.user.a": bytes(65_001)}) + entry(b"c") + END,
    "xattr without a name": pax({b"SCHILY.xattr.": b"x"}) + entry(b"c") + END,
    "too many xattrs": pax({b"SCHILY.xattr.user.%d" % n: b"" for n in range(65)}) + entry(b"c") + END,
    "pax too large": entry(b"x", flag=b"x", size=1 << 21) + END,
}


# What refuses each of them.
WHY = {
    "empty": "ends too early, at byte",
    "no end": "ends too early, at byte",
    "half an end": "ends too early, at byte",
    "lone zero block": "a lone zero block in the middle",
    "cut header": "ends too early, at byte",
    "cut contents": "ends inside an entry",
    "size larger than the archive": "ends inside an entry",
    "garbage after the end": "bytes after the end",
    "garbage after padding": "bytes after the end",
    "checksum": "its checksum is not that of its bytes",
    "checksum not octal": "is not an octal number",
    "header of no known form": "neither a POSIX nor a GNU tar header",
    "v7 header with a prefix": "neither a POSIX nor a GNU tar header",
    "a name in GNU's times that is no text": "is not an octal number",
    "a directory before POSIX with contents": "a directory with contents",
    "number with something after a blank": "is not an octal number",
    "unknown type": "an entry of the unknown type b'7'",
    "gnu sparse": "a sparse file",
    "multi-volume": "an entry of the unknown type b'M'",
    "negative base-256 size": "a negative or huge number",
    "huge base-256 size": "a negative or huge number",
    "size not a number": "is not an octal number",
    "dotdot": "'a/../../b' climbs with '..'",
    "dotdot that stays inside": "'a/../b' climbs with '..'",
    "dotdot hard link": "'../b' climbs with '..'",
    "hard link to the root": "a hard link to the root",
    "no name": "an entry without a name",
    "no target": "a link's target of",
    "directory with contents": "a directory with contents",
    "symlink with contents": "a symbolic link with contents",
    "hard link with contents": "a hard link with contents",
    "file named like a directory": "a file named like a directory",
    "NUL in a pax path": "an extended name that is empty or holds NUL",
    "dotdot in a pax path": "'../a' climbs with '..'",
    "NUL in a pax link": "an extended name that is empty or holds NUL",
    "linkpath for a file": "a file with the target of a link",
    "pax size differs": "the pax header says 1 bytes, the entry 2",
    "pax size zero hides contents": "the pax header says 0 bytes, the entry 512",
    "pax size huge": "99999999999999 bytes, at most 34359738368 allowed",
    "pax size negative": "a pax size that is not a number",
    "pax size on a directory": "the pax header says 512 bytes, the entry 0",
    "pax uid": "user or group id 4294967295, expected at most 4294967294",
    "pax uid not a number": "a pax user or group id that is not a number",
    "pax time not a number": "a pax time that is not a number",
    "pax sparse": "pax key 'GNU.sparse.major'",
    "pax type of star": "pax key 'SCHILY.filetype'",
    "pax twice": "two extended headers for one entry",
    "pax at the end": "an extended header extends nothing",
    "pax global path": "a global header sets 'path'",
    "pax global attribute": "a global header sets 'SCHILY.xattr.user.a'",
    "pax length lies": "a pax record that does not parse",
    "pax length zero": "a pax record that does not parse",
    "pax no newline": "a pax record that does not parse",
    "pax no equals": "a pax record without a key",
    "pax and gnu names": "a name given both by GNU and by pax",
    "gnu name twice": "a GNU long name that is empty, or there twice",
    "gnu name empty": "a GNU long name that is empty, or there twice",
    "gnu link for a file": "a file with the target of a link",
    "name too long": "a name longer than 255 bytes",
    "path too long": "a path longer than",
    "path too deep": "a path of 129 components",
    "target too long": "a link's target of",
    "xattr too large": "extended attribute of 65001 bytes",
    "xattr without a name": "an attribute's name that is empty or too long",
    "too many xattrs": "65 extended attributes",
    "pax too large": "an extended header of 2097152 bytes",
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    with pytest.raises(Malformed, match=re.escape(WHY[name])):
        read(BAD[name])


def test_refuses_times_that_are_no_time() -> None:
    late = b"\x80" + (1 << 48).to_bytes(11, "big")
    header = bytearray(entry(b"f") + END)
    header[136:148] = late
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    with pytest.raises(Malformed, match="a time of") as caught:
        read(bytes(header))
    assert caught.value.code == "bad-number"


def test_refuses_a_name_with_nul_wherever_it_came_from() -> None:
    with pytest.raises(Malformed, match="layer: NUL in a name"):
        tar.clean(b"a\0b", "layer", LIMITS)


def test_a_file_over_the_limit_is_refused_by_its_header_alone() -> None:
    with pytest.raises(Malformed) as caught:
        read(entry(b"a", b"x" * 11) + END, ImageLimits(file_bytes=10))
    assert caught.value.code == "too-large"
    assert read(entry(b"a", b"x" * 10) + END, ImageLimits(file_bytes=10))
