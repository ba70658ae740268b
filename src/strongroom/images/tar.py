"""A strict reader of tar archives: POSIX ustar and pax, GNU's long names, and headers from before POSIX (v7).

Specs: POSIX.1-2017 pax (ustar and extended headers); GNU tar manual, "Basic Tar Format".
It only reads headers and says where contents lie; nothing is ever written anywhere.

Two programs that read one tar differently are how images hide things: what is ambiguous is `Malformed`:
  1 every header has a known magic and a right checksum           2 numbers are plain octal, or base-256 and not negative
  3 an extended header may not contradict the header it extends   4 a name has one value: pax and GNU give the same, or one does
  5 paths stay inside (no `..`), hold no NUL, and are bounded     6 only regular files have contents
  7 the end is two zero blocks and then nothing but zeros         8 sparse files, multi-volume and other oddities are refused
Accepted as every OCI runtime does: a leading `/` or `./`, repeated slashes and `.` components are
dropped from names (paths are relative to the root of the image); names need not be UTF-8; of a pax key that comes
twice the last counts, an empty value says nothing, and keys that nobody knows say nothing.
Check 7 is for archives whose bytes nothing fixes. Where a digest does (a layer's diff_id), runtimes read one thing from
an archive without its end, and from one with bytes after it: so does `members`, given `note`.
Not checked here: what an entry means for the tree (`layers`).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.errors import Malformed
from strongroom.seal.tree import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.images.limits import ImageLimits

    # (offset, count) → up to `count` bytes, fewer only at the end.
    ReadAt = Callable[[int, int], bytes]

BLOCK = 512
_ZEROS = bytes(BLOCK)
_OCTAL = re.compile(rb"[ ]*([0-7]*)(?:[ \0]*|\0.*)", re.DOTALL)
_RECORD = re.compile(rb"([1-9][0-9]{0,7}) ")
_PAX_SIZE = re.compile(rb"[0-9]{1,15}")
_PAX_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.[0-9]*)?")
# ustar's size field ends here: only from here on does a file need a pax size.
_USTAR_MAX = 8 << 30
_MAX_ID = (1 << 32) - 2
_MAX_TIME = 1 << 40
_XATTR = b"SCHILY.xattr."
# star writes lists as text, in keys of their own; under these names they are known for what they are.
_ACLS = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
    b"SCHILY.acl.ace": b"system.nfs4_acl",
}
# Keys that change an entry. Others say nothing to a container runtime, whoever's they are.
_PAX_MEANT = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})
_PAX_REFUSED = (b"GNU.sparse.", b"SCHILY.realsize", b"SCHILY.filetype")
_PLAIN = "rebuild the layer with plain ustar or pax entries"
_SPARSE = "runtimes refuse it too: rebuild the layer without `tar -S` (--sparse)"
_SHORTER = "rebuild the layer with smaller files, shorter names and fewer attributes"
_HINTS = {"too-large": _SHORTER} | dict.fromkeys(("bad-tar", "bad-pax", "bad-number", "bad-path"), _PLAIN)


class Type(enum.StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "fifo"


_TYPES = {
    b"0": Type.FILE,
    b"\0": Type.FILE,
    b"1": Type.HARDLINK,
    b"2": Type.SYMLINK,
    b"3": Type.CHARACTER,
    b"4": Type.BLOCK,
    b"5": Type.DIRECTORY,
    b"6": Type.FIFO,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TarMember:
    """One entry. `path` is relative and clean; b"" is the root itself.

    `target` is a symbolic link's text as it stands, or a hard link's clean relative path.
    `mtime` is whole seconds since 1970, never negative. Contents: `size` bytes at `offset`.
    """

    path: bytes
    type: Type
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    offset: int
    target: bytes
    xattrs: dict[bytes, bytes]


class ImagePlace:
    """Where something is, for messages; only put into words when there is one."""

    __slots__ = ("_path", "_what")

    def __init__(self, what: str, path: bytes) -> None:
        self._what = what
        self._path = path

    def __str__(self) -> str:
        return f"{self._what}: {show(self._path)}"


@dataclass(kw_only=True, slots=True)
class _Header:
    """One 512-byte header, numbers decoded, names as they stand."""

    name: bytes
    flag: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes


@dataclass(slots=True)
class _Pending:
    """What extended headers have said about the entry that comes next."""

    pax: dict[bytes, bytes] | None = None
    name: bytes | None = None
    link: bytes | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.pax is not None or self.name is not None or self.link is not None


def members(
    read_at: ReadAt, size: int, *, what: str, limits: ImageLimits, note: Callable[[str], None] | None = None
) -> Iterator[TarMember]:
    """Yield every entry of an archive of `size` bytes, in order. Raises `Malformed`.

    `note` is for archives whose bytes a digest fixes, and that digest held: then an end that is missing is no matter,
    and bytes after the end are left out, and `note` called. Without it both are `Malformed` (check 7).
    """
    try:
        yield from _read(read_at, size, what, limits, note)
    except Malformed as failure:
        failure.hint = failure.hint or _HINTS.get(failure.code, "")
        raise


def _read(
    read_at: ReadAt, size: int, what: str, limits: ImageLimits, note: Callable[[str], None] | None
) -> Iterator[TarMember]:
    offset = 0
    pending = _Pending()
    while True:
        if note is not None and offset >= size and not pending:
            return
        block = _exactly(read_at, offset, BLOCK, what)
        offset += BLOCK
        if block == _ZEROS:
            if pending:
                raise Malformed(f"{what}: an extended header extends nothing", code="bad-tar")
            _end(read_at, offset, size, what, note)
            return
        header = _header(block, f"{what}: header at byte {offset - BLOCK}")
        if header.flag in b"xgLK":
            if header.size > limits.pax_bytes:
                raise _many(f"{what}: an extended header of {header.size} bytes", limits.pax_bytes)
            body = _exactly(read_at, offset, header.size, what)
            _extend(pending, header.flag, body, what)
        else:
            member = _member(header, pending, offset, what, limits, by_name=note is not None)
            pending = _Pending()
            header.size = member.size
            if offset + (_padded(member.size) if note is None else member.size) > size:
                raise Malformed(f"{what}: ends inside an entry", code="truncated")
            yield member
        offset += _padded(header.size)


def clean(path: bytes, what: str | ImagePlace, limits: ImageLimits, *, by_name: bool = False) -> bytes:
    """The path relative to the root of the image, b"" for the root. Raises `Malformed` (check 5).

    by_name: `..` takes away the name before it, as every runtime reads an entry's name; beyond the top Docker alone refuses.
    """
    if b"\0" in path:
        raise Malformed(f"{what}: NUL in a name", code="bad-path")
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if by_name and b".." in parts:
        parts = _by_name(parts, absolute=path.startswith(b"/"))
    if b".." in parts:
        raise Malformed(
            f"{what}: {show(path)} climbs with '..'",
            code="path-escape",
            hint="no honest tool writes such a layer; do not trust this image",
        )
    if len(parts) > limits.depth:
        raise _many(f"{what}: a path of {len(parts)} components", limits.depth)
    if parts and max(map(len, parts)) > limits.name_bytes:
        raise Malformed(f"{what}: a name longer than {limits.name_bytes} bytes", code="too-large")
    joined = b"/".join(parts)
    if len(joined) > limits.path_bytes:
        raise Malformed(f"{what}: a path longer than {limits.path_bytes} bytes", code="too-large")
    return joined


def _by_name(parts: list[bytes], *, absolute: bool) -> list[bytes]:
    """Without each `..` that a name goes before; of an absolute path, at the top, it means nothing."""
    out: list[bytes] = []
    for part in parts:
        if part != b".." or (out[-1:] in ([], [b".."]) and not absolute):
            out.append(part)
        elif out:
            out.pop()
    return out


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _exactly(read_at: ReadAt, offset: int, count: int, what: str) -> bytes:
    data = read_at(offset, count)
    if len(data) != count:
        raise Malformed(f"{what}: ends too early, at byte {offset + len(data)}", code="truncated")
    return data


def _end(read_at: ReadAt, offset: int, size: int, what: str, note: Callable[[str], None] | None) -> None:
    """Check 7."""
    if note is not None and offset == size:
        return
    if _exactly(read_at, offset, BLOCK, what) != _ZEROS:
        raise Malformed(f"{what}: a lone zero block in the middle", code="bad-tar")
    while offset < size:
        chunk = _exactly(read_at, offset, min(1 << 20, size - offset), what)
        if chunk.count(0) != len(chunk):
            if note is None:
                raise Malformed(f"{what}: bytes after the end", code="trailing-bytes")
            note(f"{what}: what follows the end of its archive is left out, as every runtime does")
            return
        offset += len(chunk)


def _header(block: bytes, what: str) -> _Header:
    """Checks 1 and 2."""
    form = _form(block)
    if form is None:
        raise Malformed(f"{what}: neither a POSIX nor a GNU tar header", code="bad-tar")
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    stated = _number(block[148:156], what)
    # Some old programs summed signed bytes.
    if stated != total and stated != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
        raise Malformed(f"{what}: its checksum is not that of its bytes", code="bad-checksum")
    name = _text(block[0:100])
    prefix = _prefix(block, form, what)
    flag = block[156:157]
    if flag not in _TYPES and flag not in b"xgLK":
        kind = "a sparse file" if flag == b"S" else f"an entry of the unknown type {flag!r}"
        raise Malformed(f"{what}: {kind}", code="bad-tar", hint=_SPARSE if flag == b"S" else _PLAIN)
    return _Header(
        name=prefix + b"/" + name if prefix else name,
        flag=flag,
        mode=_number(block[100:108], what) & 0o7777,
        uid=_number(block[108:116], what),
        gid=_number(block[116:124], what),
        mtime=_number(block[136:148], what, negative=True),
        size=_number(block[124:136], what),
        link=_text(block[157:257]),
    )


def _form(block: bytes) -> str | None:
    """The format of a header, None for no known one. A header from before POSIX has nothing where POSIX put its fields: else readers differ."""
    magic = block[257:265]
    if magic == b"ustar  \0":
        return "gnu"
    if magic[:6] == b"ustar\0":
        return "star" if block[508:512] == b"tar\0" else "posix"
    return None if any(block[257:]) else "v7"


def _prefix(block: bytes, form: str, what: str) -> bytes:
    """The first part of a long name. star's is shorter, as two times follow it; GNU has two times in its place."""
    if form in ("posix", "star"):
        return _text(block[345 : 476 if form == "star" else 500])
    if form == "gnu" and block[345]:
        try:
            for start in (345, 357):
                _number(block[start : start + 12], what, negative=True)
        except Malformed:
            # The library of Go wrote such headers until 2017, hence Docker; it and Python's read a name here.
            prefix = _text(block[345:500])
            if not prefix.isascii():
                raise
            return prefix
    return b""


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _number(raw: bytes, what: str, *, negative: bool = False) -> int:
    if raw[0] & 0x80:  # GNU base-256: two's complement, the top bit a flag
        if raw[0] == 0xFF and negative:
            return 0  # before 1970
        if raw[0] != 0x80:
            raise Malformed(f"{what}: a negative or huge number", code="bad-number")
        value = int.from_bytes(raw[1:], "big")
    else:
        match = _OCTAL.fullmatch(raw)
        if match is None:
            raise Malformed(f"{what}: {raw!r} is not an octal number", code="bad-number")
        value = int(match[1] or b"0", 8)
    if value >= 1 << 62:
        raise Malformed(f"{what}: a negative or huge number", code="bad-number")
    return value


def _extend(pending: _Pending, flag: bytes, body: bytes, what: str) -> None:
    """Take in an extended header (checks 3 and 4)."""
    if flag == b"g":
        extra = [
            key for key in _pax(body, what) if key in _PAX_MEANT or key.startswith((_XATTR, *_PAX_REFUSED))
        ]
        if extra:
            names = ", ".join(sorted(show(key) for key in extra)[:3])
            raise Malformed(f"{what}: a global header sets {names}", code="bad-pax")
        return
    if flag == b"x":
        if pending.pax is not None:
            raise Malformed(f"{what}: two extended headers for one entry", code="bad-pax")
        pending.pax = _pax(body, what)
        return
    name = _text(body)
    if (pending.name if flag == b"L" else pending.link) is not None or not name:
        raise Malformed(f"{what}: a GNU long name that is empty, or there twice", code="bad-tar")
    if flag == b"L":
        pending.name = name
    else:
        pending.link = name


def _pax(body: bytes, what: str) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE` and a newline. Of a key's values the last counts (POSIX)."""
    records: dict[bytes, bytes] = {}
    offset = 0
    while offset < len(body):
        match = _RECORD.match(body, offset)
        end = offset + int(match[1]) if match else 0
        if match is None or end > len(body) or body[end - 1 : end] != b"\n" or end <= match.end():
            raise Malformed(f"{what}: a pax record that does not parse", code="bad-pax")
        key, equals, value = body[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise Malformed(f"{what}: a pax record without a key", code="bad-pax")
        records[key] = value
        offset = end
    return records


def _member(
    header: _Header, pending: _Pending, offset: int, what: str, limits: ImageLimits, *, by_name: bool
) -> TarMember:
    pax = pending.pax or {}
    for key in _PAX_MEANT:
        if not pax.get(key, b"-"):  # an empty value leaves what the header says (POSIX)
            del pax[key]
    name = _override(header.name, pending.name, pax.get(b"path"), what)
    link = _override(header.link, pending.link, pax.get(b"linkpath"), what)
    where = ImagePlace(what, name)
    type_ = _TYPES[header.flag]
    size = _pax_size(header, pax, where)
    if header.flag == b"\0" and name.endswith(b"/"):
        type_ = Type.DIRECTORY  # as before POSIX, which gave folders a type
    if type_ is not Type.FILE and size:
        raise Malformed(f"{where}: a {type_} with contents", code="bad-tar")  # check 6
    if type_ is Type.FILE and name.endswith(b"/"):
        raise Malformed(f"{where}: a file named like a directory", code="bad-tar")
    if size > limits.file_bytes:
        raise _many(f"{where}: {size} bytes", limits.file_bytes)
    if not name:
        raise Malformed(f"{where}: an entry without a name", code="bad-path")
    linked = type_ in (Type.SYMLINK, Type.HARDLINK)
    if (pending.link is not None or b"linkpath" in pax) and not linked:
        raise Malformed(f"{where}: a {type_} with the target of a link", code="bad-pax")
    path = clean(name, where, limits, by_name=by_name)
    return TarMember(
        path=path,
        type=type_,
        mode=header.mode,
        uid=_pax_id(header.uid, pax.get(b"uid"), where),
        gid=_pax_id(header.gid, pax.get(b"gid"), where),
        mtime=_pax_time(header.mtime, pax.get(b"mtime"), where),
        size=size,
        offset=offset,
        target=_target(type_, link, where, limits) if linked else b"",
        xattrs=_xattrs(pax, where, limits),
    )


def _override(plain: bytes, gnu: bytes | None, pax: bytes | None, what: str) -> bytes:
    """Check 4."""
    if gnu is not None and pax is not None and gnu != pax:
        raise Malformed(f"{what}: a name given both by GNU and by pax", code="bad-pax")
    chosen = gnu if gnu is not None else pax
    if chosen is None:
        return plain
    if not chosen or b"\0" in chosen:
        raise Malformed(f"{what}: an extended name that is empty or holds NUL", code="bad-path")
    return chosen


def _target(type_: Type, link: bytes, where: ImagePlace, limits: ImageLimits) -> bytes:
    if not link or len(link) > limits.path_bytes:
        raise Malformed(f"{where}: a link's target of {len(link)} bytes", code="bad-path")
    if type_ is Type.SYMLINK:
        return link
    target = clean(link, f"{where}: target", limits)
    if not target:
        raise Malformed(f"{where}: a hard link to the root", code="bad-path")
    return target


def _pax_size(header: _Header, pax: dict[bytes, bytes], where: ImagePlace) -> int:
    """Check 3: a pax size repeats the header's, or is too large for it."""
    text = pax.get(b"size")
    if text is None:
        return header.size
    if _PAX_SIZE.fullmatch(text) is None:
        raise Malformed(f"{where}: a pax size that is not a number", code="bad-pax")
    size = int(text)
    if size != header.size and size < _USTAR_MAX:
        raise Malformed(
            f"{where}: the pax header says {size} bytes, the entry {header.size}",
            code="bad-pax",
            hint="the two sizes would let two programs read two different layers",
        )
    return size


def _pax_id(plain: int, text: bytes | None, where: ImagePlace) -> int:
    value = plain
    if text is not None:
        if _PAX_SIZE.fullmatch(text) is None:
            raise Malformed(f"{where}: a pax user or group id that is not a number", code="bad-pax")
        value = int(text)
    if value > _MAX_ID:
        raise Malformed(f"{where}: user or group id {value}, expected at most {_MAX_ID}", code="bad-number")
    return value


def _pax_time(plain: int, text: bytes | None, where: ImagePlace) -> int:
    if text is None:
        if plain > _MAX_TIME:
            raise Malformed(f"{where}: a time of {plain} s, expected at most {_MAX_TIME}", code="bad-number")
        return plain
    match = _PAX_TIME.fullmatch(text)
    if match is None or int(match[2]) > _MAX_TIME:
        raise Malformed(f"{where}: a pax time that is not a number, or above {_MAX_TIME} s", code="bad-pax")
    return 0 if match[1] else int(match[2])


def _xattrs(pax: dict[bytes, bytes], where: ImagePlace, limits: ImageLimits) -> dict[bytes, bytes]:
    xattrs = {}
    for key, value in pax.items():
        if key.startswith(_PAX_REFUSED):
            raise Malformed(
                f"{where}: pax key {show(key)} (sparse files are not supported)",
                code="bad-pax",
                hint=_SPARSE,
            )
        if key in _ACLS:
            xattrs[_ACLS[key]] = value
        elif key.startswith(_XATTR):
            name = key.removeprefix(_XATTR)
            if not name or len(name) > limits.name_bytes or b"\0" in name:
                raise Malformed(f"{where}: an attribute's name that is empty or too long", code="bad-pax")
            if len(value) > limits.xattr_value_bytes:
                raise _many(f"{where}: extended attribute of {len(value)} bytes", limits.xattr_value_bytes)
            xattrs[name] = value
    if len(xattrs) > limits.xattrs_per_file:
        raise _many(f"{where}: {len(xattrs)} extended attributes", limits.xattrs_per_file)
    return xattrs


def _many(what: str, most: int) -> Malformed:
    return Malformed(f"{what}, at most {most} allowed", code="too-large")
