"""The entries of one layer before they are applied: each is checked by itself, and against those before it.

Runtimes read some layers differently, whatever tree they are applied to. Those are refused here (`layers` has the rules):
two different entries of one path, a whiteout of what its own layer put there before, devices outside /dev, a name that
begins like a whiteout's and is none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.images import tar
from strongroom.images.tar import Type

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
DEVICES = (Type.CHARACTER, Type.BLOCK)
HINT = "the image is built wrongly, or to confuse; rebuild it"
_META = b".wh..wh."
_AUFS_LINKS = b".wh..wh.plnk/"
_NO_NAMES = (b".wh.", b".wh..", b".wh...")
_RUN = 1 << 20


class Entries:
    """What a layer holds, in its order.

    plain: entries that put something somewhere. whiteouts: paths of those that hide, each with its number in the layer.
    """

    def __init__(self, what: str, open_at: Callable[[int, int], BinaryIO]) -> None:
        self.what = what
        self.open_at = open_at
        self.plain: list[tar.TarMember] = []
        self.whiteouts: list[tuple[bytes, int]] = []
        self._number = 0
        self._named: dict[bytes, tar.TarMember] = {}
        # Every path that an entry has put something at or below.
        self._occupied: set[bytes] = set()
        # The number of the first entry that is a directory there, or a link.
        self._folders: dict[bytes, int] = {}
        self._links: dict[bytes, int] = {}
        # What whiteouts hide, and directories with an opaque mark.
        self._hidden: set[bytes] = set()
        self._opaque: set[bytes] = set()

    def admit(self, member: tar.TarMember) -> None:
        """Take the next entry. Raises `Refused`."""
        where = tar.ImagePlace(self.what, member.path)
        before = self._named.get(member.path)
        if before is not None and not self._says_the_same(before, member):
            raise Refused(f"{where}: twice in one layer, and not the same", code="duplicate-entry", hint=HINT)
        self._named[member.path] = member
        self._number += 1
        if _of_aufs(member.path):
            return
        if _is_whiteout(member.path):
            self._add_whiteout(member.path, where)
        else:
            self._add_plain(member, where)

    def folder_before(self, path: bytes, number: int) -> bool:
        """Whether the layer has put a directory there before its entry `number`."""
        return self._folders.get(path, number) < number

    def link_before(self, path: bytes, number: int) -> bool:
        """Whether the layer has put a symbolic link there before its entry `number`."""
        return self._links.get(path, number) < number

    def contradicts(self, member: tar.TarMember, before: tar.TarMember | None) -> bool:
        """Whether the layer says something else of the place that `member` comes to through a link.

        `member` has the path where it comes to lie. `before` came to the same place through a link, earlier. A whiteout
        counts wherever it stands in the layer: some runtimes spare what the layer itself put there, others hide it.
        """
        for other in (before, self._named.get(member.path)):
            if other is not None and not self._says_the_same(other, member):
                return True
        path = member.path
        while path and path not in self._hidden and path.rpartition(b"/")[0] not in self._opaque:
            path = path.rpartition(b"/")[0] if b"/" in path else b""
        return bool(path)

    def kept_by_aufs(self, path: bytes) -> tar.TarMember | None:
        """A file that AUFS kept for hard links to name it."""
        entry = self._named.get(path) if path.startswith(_AUFS_LINKS) else None
        return entry if entry is not None and entry.type is Type.FILE else None

    def _add_plain(self, member: tar.TarMember, where: tar.ImagePlace) -> None:
        if member.type in DEVICES and not member.path.startswith(b"dev/"):
            raise no_device(where, f"a {member.type}")
        if not member.path and member.type is not Type.DIRECTORY:
            raise Refused(
                f"{where}: the root as a {member.type}, expected a directory", code="bad-root", hint=HINT
            )
        _outside_whiteouts(member.path, where)
        if member.type is Type.DIRECTORY:
            self._folders.setdefault(member.path, self._number)
        if member.type is Type.SYMLINK:
            self._links.setdefault(member.path, self._number)
        path = member.path
        while path and path not in self._occupied:
            self._occupied.add(path)
            path = path.rpartition(b"/")[0]
        self.plain.append(member)

    def _add_whiteout(self, path: bytes, where: tar.ImagePlace) -> None:
        _outside_whiteouts(path, where)
        folder, _, name = path.rpartition(b"/")
        if name in _NO_NAMES:
            raise Refused(f"{where}: an unknown whiteout", code="bad-whiteout", hint=HINT)
        hidden = name.removeprefix(WHITEOUT)
        hidden = folder + b"/" + hidden if folder else hidden
        if name == OPAQUE:
            self._opaque.add(folder)
        else:
            self._hidden.add(hidden)
        if name != OPAQUE and hidden in self._occupied:
            raise Refused(
                f"{where}: hides what its own layer has put there before", code="bad-whiteout", hint=HINT
            )
        self.whiteouts.append((path, self._number))

    def _says_the_same(self, member: tar.TarMember, other: tar.TarMember) -> bool:
        """Whether two entries of one path mean what each of them would mean alone."""
        if _is_whiteout(member.path):
            return True  # only its name says something
        if member.type is Type.DIRECTORY:
            return other.type is Type.DIRECTORY and member.xattrs == other.xattrs
        if replace(member, offset=0) != replace(other, offset=0):
            return False
        if member.type is not Type.FILE:
            return True
        with (
            self.open_at(member.offset, member.size) as left,
            self.open_at(other.offset, other.size) as right,
        ):
            while run := left.read(_RUN):
                if run != right.read(_RUN):
                    return False
        return True


def no_device(where: tar.ImagePlace, what: str) -> Refused:
    """The refusal of a device that the room's own /dev does not lie over."""
    return Refused(
        f"{where}: {what}",
        code="device-node",
        hint="remove it from the image; a room has its own /dev, and an overlay whiteout "
        "(character device 0/0) belongs into a layer as a .wh. file",
    )


def _is_whiteout(path: bytes) -> bool:
    return path.rpartition(b"/")[2].startswith(WHITEOUT)


def _of_aufs(path: bytes) -> bool:
    """Whether `path` lies in what AUFS kept for itself at the top of its layers."""
    first = path.partition(b"/")[0]
    return first.startswith(_META) and first != OPAQUE


def _outside_whiteouts(path: bytes, where: tar.ImagePlace) -> None:
    if WHITEOUT in path and any(part.startswith(WHITEOUT) for part in path.split(b"/")[:-1]):
        raise Refused(f"{where}: inside a whiteout", code="bad-whiteout", hint=HINT)
