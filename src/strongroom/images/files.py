"""Named files of an image, wherever they lie: in a folder, or in a tar archive that is read in place."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.images import blobs, tar
from strongroom.images.blobs import Blob
from strongroom.images.limits import SMALLER
from strongroom.seal.tree import show

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.images.limits import ImageLimits

BLOBS = "blobs/sha256/"
_LINKS = (tar.Type.SYMLINK, tar.Type.HARDLINK)
_NOT_HERE = {b"BZh": "bunzip2", b"\xfd7zXZ\0": "unxz"}


class ImageFiles(Protocol):
    """Named files of an image, wherever they lie."""

    def open(self, name: str) -> Blob:
        """The file; the caller closes it. Raises `NotFound`."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def close(self) -> None:
        """Free what is held."""


class FolderFiles:
    """Files of a folder. Names are given by this program (`blobs/sha256/…`), never by the image.

    A blob may be a link (build systems make layouts of links): its digest says what it must be, wherever it lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, name: str) -> bool:
        """Whether there is such a regular file."""
        try:
            return stat.S_ISREG((self._path / name).stat(follow_symlinks=_is_blob(name)).st_mode)
        except OSError:
            return False

    def open(self, name: str) -> Blob:
        """The file; the caller closes it. Raises `NotFound`."""
        return _open(self._path / name, name, follow=_is_blob(name))

    def close(self) -> None:
        """Nothing is held."""


class ArchiveFiles:
    """Files of a tar archive, read in place; of one that is compressed, in an unnamed file in `scratch`.

    Raises `Malformed`, `Refused`, and `Misuse` for a compressed one without `scratch`.
    """

    def __init__(self, path: Path, limits: ImageLimits, scratch: Path | None) -> None:
        self._blob = _open(path, path.name)
        self._members: dict[bytes, tar.TarMember] = {}
        try:
            self._decompress(path.name, limits, scratch)
            # What counts in an archive has its digest elsewhere: an end that is missing, or more after it, is no matter.
            for member in tar.members(
                self._blob.read_at, self._blob.size, what=path.name, limits=limits, note=lambda _: None
            ):
                if member.path in self._members and not self._same(self._members[member.path], member):
                    raise Refused(
                        f"{path.name}: {show(member.path)} twice, and not the same", code="duplicate-entry"
                    )
                if len(self._members) >= limits.entries:
                    raise Refused(
                        f"{path.name}: more than {limits.entries} entries", code="too-large", hint=SMALLER
                    )
                self._members[member.path] = member
        except BaseException:
            self._blob.close()
            raise

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._find(name) is not None

    def open(self, name: str) -> Blob:
        """The file; the caller closes it. Raises `NotFound`."""
        member = self._find(name)
        if member is None:
            raise self._missing(name)
        return self._blob.part(member.offset, member.size, name[:120])

    def close(self) -> None:
        """Close the archive."""
        self._blob.close()

    def _decompress(self, name: str, limits: ImageLimits, scratch: Path | None) -> None:
        head = self._blob.read_at(0, 8)
        for magic, program in _NOT_HERE.items():
            if head.startswith(magic):
                raise Malformed(
                    f"{name} is compressed: unpack it first, with `{program}`", code="not-an-image"
                )
        if blobs.compression_of(self._blob) == "none":
            return
        if scratch is None:
            raise Misuse(
                f"{name} is compressed, and there is no folder to unpack it in", hint="unpack it first"
            )
        self._blob = blobs.decompressed(self._blob, scratch, limits)

    def _same(self, member: tar.TarMember, other: tar.TarMember) -> bool:
        if member.type is tar.Type.DIRECTORY:
            return other.type is tar.Type.DIRECTORY
        if (member.type, member.size, member.target) != (other.type, other.size, other.target):
            return False
        places = range(0, member.size, blobs.CHUNK)
        counts = [min(blobs.CHUNK, member.size - at) for at in places]
        return all(
            self._blob.read_at(member.offset + at, count) == self._blob.read_at(other.offset + at, count)
            for at, count in zip(places, counts, strict=True)
        )

    def _missing(self, name: str) -> NotFound:
        """Why there is no such file: a link may lead to where there is none."""
        member = self._members.get(os.fsencode(name))
        if member is None or member.type not in _LINKS:
            return NotFound(f"the archive has no {name[:120]!r}", code="missing-blob", hint=_INCOMPLETE)
        wanted = member.target.rpartition(b"/")[2]
        elsewhere = [
            path
            for path, other in self._members.items()
            if other.type is tar.Type.FILE and path.rpartition(b"/")[2] == wanted
        ]
        where = f" (there is one of that name at its root, {show(wanted)})" if wanted in elsewhere else ""
        return NotFound(
            f"{show(member.path)} is a {member.type} to {show(member.target)}, which is not in the archive{where}",
            code="missing-blob",
            hint="the archive was packed wrongly: a symbolic link leads on from its own folder; ask who made it",
        )

    def _find(self, name: str) -> tar.TarMember | None:
        # `docker save` stores a layer that two images share as a symbolic link inside the archive.
        path = Symlinks(self._target, chroot=True).resolve(os.fsencode(name))
        member = None if path is None else self._members.get(path)
        return member if member is not None and member.type is tar.Type.FILE else None

    def _target(self, path: bytes) -> bytes | None:
        member = self._members.get(path)
        if member is None or member.type not in _LINKS:
            return None
        return member.target if member.type is tar.Type.SYMLINK else b"/" + member.target


_INCOMPLETE = "the image is incomplete: copy or save it again, with all its layers"


def _is_blob(name: str) -> bool:
    return name.startswith(BLOBS)


def _open(path: Path, what: str, *, follow: bool = False) -> Blob:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with ExitStack() as undo:
        try:
            fd = os.open(path, flags)
        except OSError as cause:
            raise NotFound(f"{what}: {cause.strerror}", code="missing-blob", hint=_INCOMPLETE) from None
        undo.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Malformed(f"{what}: not a regular file", code="not-an-image")
        undo.pop_all()
        return Blob(fd, 0, status.st_size, what)


def is_compressed(path: Path) -> bool:
    """Whether `path` is an archive that has to be decompressed to be read."""
    with _open(path, path.name) as blob:
        try:
            return blobs.compression_of(blob) != "none"
        except Refused:
            return True
