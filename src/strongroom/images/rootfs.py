"""A root file system in a folder, taken as an image of one layer.

Nobody else gave it a digest, so it gets one: SHA-256 over every entry (names, metadata, contents)
and the configuration that came with it. Contents are copied into a spool
while they are hashed; what is sealed is therefore what was hashed. The folder's owners, modes,
times, links and extended attributes are kept; it must not reach into another file system.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

from strongroom.encoding import framed
from strongroom.errors import Conflict, Refused
from strongroom.images import tar
from strongroom.images.limits import SMALLER
from strongroom.images.tar import Type
from strongroom.seal.tree import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom.images.blobs import Spool
    from strongroom.images.limits import ImageLimits

_LABEL = "strongroom/rootfs/1"
_READ = 1 << 20


def members(
    root: Path,
    spool: Spool,
    *,
    limits: ImageLimits,
    progress: Callable[[int], None],
    note: Callable[[str], None],
) -> Iterator[tar.TarMember]:
    """Every entry of the folder in the order of its bytes, contents appended to `spool`; `note` is called with what is left out.

    Raises `Refused` for what an image may not hold, `Conflict` when a file changes meanwhile.
    """
    top = os.lstat(root)
    links: dict[tuple[int, int], bytes] = {}
    total = 0
    stack = [b""]
    while stack:
        path = stack.pop()
        tar.clean(path, "root file system", limits)
        place = os.path.join(os.fsencode(root), path)  # noqa: PTH118 - bytes paths
        status = os.lstat(place)
        where = f"root file system: {show(path)}"
        if status.st_dev != top.st_dev:
            raise Refused(
                f"{where}: lies on another file system", code="other-device", hint="unmount it first"
            )
        if stat.S_ISSOCK(status.st_mode):
            note("sockets are left out: nobody listens behind one that was copied")
            continue
        if status.st_size > limits.file_bytes:
            raise Refused(f"{where}: {status.st_size} bytes", code="too-large", hint=SMALLER)
        member = _member(path, place, status, spool.size, links)
        if member.type is Type.DIRECTORY:
            names = sorted(os.listdir(place), reverse=True)  # noqa: PTH208 - bytes paths
            stack.extend(path + b"/" + name if path else name for name in names)
        if member.type is Type.FILE:
            total += member.size
            if total > limits.total_bytes:
                raise Refused(
                    f"root file system: more than {limits.total_bytes} bytes", code="too-large", hint=SMALLER
                )
            _copy(place, status, spool, where, progress)
        yield member


def content_bytes(root: Path) -> int:
    """About how much `members` will copy, for a progress display."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - any name there is
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def digest(members: list[tar.TarMember], spool: Spool, config: bytes) -> str:
    """The image's name: over the configuration's bytes and every entry."""
    state = hashlib.sha256(framed.join(_LABEL, config))
    for member in members:
        state.update(_framed(member, spool))
    return "sha256:" + state.hexdigest()


def _framed(member: tar.TarMember, spool: Spool) -> bytes:
    content = hashlib.sha256()
    done = 0
    while member.type is Type.FILE and done < member.size:
        chunk = spool.read_at(member.offset + done, min(_READ, member.size - done))
        content.update(chunk)
        done += len(chunk)
    numbers = (member.mode, member.uid, member.gid, member.mtime, member.size)
    xattrs = [part for pair in sorted(member.xattrs.items()) for part in pair]
    return framed.join(
        member.type.value,
        member.path,
        member.target,
        *(b"%d" % number for number in numbers),
        content.digest(),
        framed.join("xattrs", *xattrs),
    )


def _member(
    path: bytes,
    place: bytes,
    status: os.stat_result,
    offset: int,
    links: dict[tuple[int, int], bytes],
) -> tar.TarMember:
    type_, target = _type(path, place, status, links)
    xattrs = {}
    if type_ in (Type.FILE, Type.DIRECTORY):
        for name in os.listxattr(place, follow_symlinks=False):
            xattrs[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=False)
    return tar.TarMember(
        path=path,
        type=type_,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=max(0, int(status.st_mtime)),
        size=status.st_size if type_ is Type.FILE else 0,
        offset=offset,
        target=target,
        xattrs=xattrs,
    )


def _type(
    path: bytes, place: bytes, status: os.stat_result, links: dict[tuple[int, int], bytes]
) -> tuple[Type, bytes]:
    if stat.S_ISDIR(status.st_mode):
        return Type.DIRECTORY, b""
    if stat.S_ISLNK(status.st_mode):
        return Type.SYMLINK, os.readlink(place)  # noqa: PTH115 - bytes paths
    if stat.S_ISREG(status.st_mode):
        first = links.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
        return (Type.FILE, b"") if first == path else (Type.HARDLINK, first)
    if stat.S_ISCHR(status.st_mode):
        return Type.CHARACTER, b""
    if stat.S_ISBLK(status.st_mode):
        return Type.BLOCK, b""
    return Type.FIFO, b""


def _copy(
    place: bytes, status: os.stat_result, spool: Spool, where: str, progress: Callable[[int], None]
) -> None:
    before = spool.size
    try:
        fd = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as cause:
        raise Conflict(
            f"{where}: {cause.strerror}",
            code="source-changed",
            hint="leave the folder alone while it is read, and type the same again",
        ) from None
    with os.fdopen(fd, "rb", buffering=0) as source:
        while spool.size - before <= status.st_size and (chunk := source.read(_READ)):
            spool.append(chunk)
            progress(len(chunk))
        now = os.fstat(source.fileno())
    if spool.size - before != status.st_size or (now.st_ino, now.st_mtime_ns) != (
        status.st_ino,
        status.st_mtime_ns,
    ):
        raise Conflict(
            f"{where}: changed while it was read",
            code="source-changed",
            hint="leave the folder alone while it is read, and type the same again",
        )
