"""Layers, one after the other, become one tree in memory. No file of an image is ever created.

Spec: OCI image-spec v1.1, "Image Layer Filesystem Changeset".
A layer is applied in this order:
  1 its entries are read and checked (`layer_entries`)          2 its whiteouts hide what lower layers put there
  3 its entries are added, in order                             4 parents that no layer names are directories 0755 of root
An image must not mean two things: where common runtimes differ it is refused, where they agree it means what they say.
  - A path whose parent is a symbolic link of a lower layer is refused: some runtimes follow the link inside the image,
    others, which unpack each layer by itself, replace it. Where the layer itself has put a directory there before, there is no
    link any more. A link that the layer itself has put there before is followed, where it leads to a directory of the
    same layer (else Docker stops, and others make one), and where nothing else in the layer speaks of the same place.
  - A path that comes twice is refused, unless the entries are equal, contents included: tools that stop at the
    first and tools that take the last read two files. A directory may come again with another mode, owner and time
    (the last count), not with other attributes.
  - A directory over a directory keeps the children and takes the new metadata; anything over a
    directory hides all of it; a directory over anything else replaces it.
  - A hard link needs its target to exist by then, in this layer or a lower one, and shares its
    inode; the link's own metadata is not applied. A link to a symbolic link becomes a copy of it.
  - A whiteout is one by its name, of whatever type it is. One that comes after what its own layer has put there is
    refused: the specification lets it hide lower layers alone, most runtimes remove what is there. What AUFS kept for
    itself (.wh..wh.*) is nothing, but for the files in .wh..wh.plnk, which hard links may name.
  - Device nodes in /dev are left out, with a note: the room's own lies over them. Elsewhere they are refused.
  - Which extended attributes are kept, left out or refused `xattrs` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from strongroom.encoding.symlinks import Symlinks
from strongroom.errors import Refused
from strongroom.images import tar
from strongroom.images import xattrs as image_xattrs
from strongroom.images.layer_entries import DEVICES, HINT, OPAQUE, WHITEOUT, Entries, no_device
from strongroom.images.limits import SMALLER
from strongroom.images.tar import Type
from strongroom.model.room import mounts
from strongroom.seal import tree as sealed
from strongroom.seal.tree import EntryKind, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from strongroom.images.limits import ImageLimits
    from strongroom.model.room.mounts import Placed

_KINDS = {
    Type.FILE: EntryKind.FILE,
    Type.DIRECTORY: EntryKind.DIRECTORY,
    Type.SYMLINK: EntryKind.SYMLINK,
    Type.FIFO: EntryKind.FIFO,
}
_MAX_NOTES = 32


@dataclass(eq=False, slots=True)
class Inode:
    """One inode. Hard links are several names of the same Inode.

    left_out: stands where nothing is to be in the end, as later layers and links may still name it (a device node).
    """

    kind: EntryKind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    open: Callable[[], BinaryIO] | None = None
    children: dict[bytes, Inode] = field(default_factory=dict)
    left_out: bool = False


class Tree:
    """The merged tree. `notes` are remarks for people about what was left out."""

    def __init__(self, limits: ImageLimits) -> None:
        self.root = Inode(EntryKind.DIRECTORY)
        self.notes: list[str] = []
        self._limits = limits
        self._entries = 0
        self._xattr_bytes = 0
        self._links: Symlinks | None = None  # as long as the tree stands still: each link is followed once

    def apply(
        self,
        read_at: tar.ReadAt,
        size: int,
        open_at: Callable[[int, int], BinaryIO],
        *,
        what: str,
    ) -> None:
        """Apply one uncompressed layer of `size` bytes. Raises `Malformed`, `Refused`.

        `open_at` is kept by the tree: contents are read through it when the tree is sealed.
        """
        members = tar.members(read_at, size, what=what, limits=self._limits, note=self.note)
        self.add(members, open_at, what=what)

    def note(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def add(
        self, members: Iterable[tar.TarMember], open_at: Callable[[int, int], BinaryIO], *, what: str
    ) -> None:
        """Apply a layer given by its entries."""
        self._links = None
        entries = Entries(what, open_at)
        for member in members:
            self._count(member, what)
            entries.admit(member)
        layer = _Layer(self, entries)
        for path, number in entries.whiteouts:
            layer.hide(path, number)
        for member in entries.plain:
            layer.add(member)

    def settle(self) -> None:
        """Take out what is to be left out, once all layers are in."""
        self._links = None
        stack = [self.root]
        while stack:
            node = stack.pop()
            node.children = {name: child for name, child in node.children.items() if not child.left_out}
            stack.extend(node.children.values())

    def find(self, path: bytes) -> Inode | None:
        """The node at `path`, links followed inside this tree only; None when there is none.

        Absolute links start at this tree's root and `..` stops there, as in a chroot.
        Raises `Refused` for a loop of links.
        """
        return self.at(self.resolve(path))

    def resolve(self, path: bytes) -> bytes:
        """`path` with all links in it followed; what does not exist is kept as named. Raises `Refused` for a loop."""
        if self._links is None:
            self._links = Symlinks(self._target, chroot=True)
        place = self._links.resolve(path)
        if place is None:
            raise Refused(
                f"image: {show(path)}: too many symbolic links",
                code="link-loop",
                hint="rebuild the image: they lead in a circle",
            )
        return place

    def make_directory(self, path: bytes, *, mode: int = 0o755) -> None:
        """Make sure that `path` (clean, no links) is a directory; new ones belong to root."""
        self._links = None
        node = self.root
        parts = path.split(b"/") if path else []
        for index, part in enumerate(parts):
            child = node.children.get(part)
            if child is None:
                child = Inode(EntryKind.DIRECTORY, mode=mode if index == len(parts) - 1 else 0o755)
                node.children[part] = child
            if child.kind is not EntryKind.DIRECTORY:
                raise Refused(
                    f"image: {show(path)} must be a directory, but {show(part)} is a {child.kind.value}",
                    code="not-directory",
                    hint="rebuild the image with a plain directory there",
                )
            node = child

    def placed(self, *, certificates: bool) -> tuple[Placed, ...]:
        """Where a room's mounts go in this tree. Raises `Refused` (`mount-point`)."""

        def is_file(path: bytes) -> bool:
            node = self.at(path)
            return node is not None and node.kind is EntryKind.FILE

        return mounts.place(target=self._target, is_file=is_file, certificates=certificates)

    def mounted(self, placed: Iterable[Placed]) -> Tree:
        """The tree as a room's program sees it, an empty directory at each mount point. It is for look-ups alone."""
        mounted = Tree(self._limits)
        mounted.root = _copied(self.root)
        for placement in placed:
            node = mounted.root
            for part in placement.place.split(b"/"):
                child = node.children.get(part)
                node.children[part] = Inode(EntryKind.DIRECTORY) if child is None else _copied(child)
                node = node.children[part]
            node.children.clear()
            node.uid, node.gid, node.mode = 0, 0, placement.mount.mode
            if placement.mount is mounts.DEV:
                node.children[mounts.SHM[1:]] = Inode(EntryKind.DIRECTORY, mode=0o1777)
        return mounted

    def entries(self) -> list[sealed.Entry]:
        """The tree as `seal` takes it, the root first, children in the order of their bytes.

        Contents stay in the spools that `apply` was given; those must live as long as the entries.
        """
        names: dict[int, int] = {}
        for _, node in self._every():
            names[id(node)] = names.get(id(node), 0) + 1
        groups: dict[int, int] = {}
        out = []
        for path, node in self._every():
            group = None
            if names[id(node)] > 1 and node.kind is EntryKind.FILE:
                group = groups.setdefault(id(node), len(groups) + 1)
            out.append(_entry(path, node, group))
        return out

    def _every(self) -> Iterator[tuple[bytes, Inode]]:
        stack = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            prefix = path + b"/" if path else b""
            stack.extend((prefix + name, node.children[name]) for name in sorted(node.children, reverse=True))

    def at(self, path: bytes) -> Inode | None:
        """The node of that very name."""
        node: Inode | None = self.root
        for part in path.split(b"/") if path else ():
            node = None if node is None else node.children.get(part)
        return node

    def _target(self, path: bytes) -> bytes | None:
        node = self.at(path)
        return node.target if node is not None and node.kind is EntryKind.SYMLINK else None

    def _count(self, member: tar.TarMember, what: str) -> None:
        self._entries += 1
        if member.xattrs:
            self._xattr_bytes += sum(len(key) + len(value) for key, value in member.xattrs.items())
        if self._entries > self._limits.entries:
            raise Refused(f"{what}: more than {self._limits.entries} entries", code="too-large", hint=SMALLER)
        if self._xattr_bytes > self._limits.xattr_total_bytes:
            raise Refused(
                f"{what}: more than {self._limits.xattr_total_bytes} bytes of extended attributes",
                code="too-large",
                hint=SMALLER,
            )


class _Layer:
    """One layer while it is being applied."""

    def __init__(self, tree: Tree, entries: Entries) -> None:
        self._tree = tree
        self._entries = entries
        # Directories of this layer, by their real paths: nothing in the layer may replace them.
        self._directories: dict[bytes, Inode] = {b"": tree.root}
        # The real path of each folder that entries name.
        self._real_paths: dict[bytes, bytes] = {b"": b""}
        # Links of this layer, which may be followed; where those that were followed end; the entries that came to
        # their place through a link.
        self._links: set[bytes] = set()
        self._ends: dict[bytes, bytes] = {}
        self._through_links: dict[bytes, tar.TarMember] = {}

    def hide(self, path: bytes, number: int) -> None:
        """Apply a whiteout, the layer's entry `number`, to what lower layers left (step 2)."""
        folder, _, name = path.rpartition(b"/")
        above = folder
        while above:  # who goes entry by entry would follow a link that this layer has put there before
            if self._entries.link_before(above, number):
                raise self._through(path, above.rpartition(b"/")[2])
            above = above.rpartition(b"/")[0]
        node = self._lower(folder, path, number)
        if node is None:
            return  # it hides nothing
        if name == OPAQUE:
            node.children.clear()
        else:
            node.children.pop(name.removeprefix(WHITEOUT), None)

    def add(self, member: tar.TarMember) -> None:
        """Put an entry into the tree (steps 3 and 4)."""
        where = tar.ImagePlace(self._entries.what, member.path)
        if not member.path:
            self._update(self._tree.root, member, where)
            return
        folder, _, name = member.path.rpartition(b"/")
        parent, real = self._parent(folder, where)
        path = real + b"/" + name if real else name
        if path != member.path:
            moved = replace(member, path=path)
            if self._entries.contradicts(moved, self._through_links.setdefault(path, moved)):
                raise Refused(
                    f"{where}: leads to {show(path)}, of which the same layer says something else",
                    code="duplicate-entry",
                    hint=HINT,
                )
        old = parent.children.get(name)
        if member.type is Type.DIRECTORY:
            if old is None or old.kind is not EntryKind.DIRECTORY:
                old = parent.children[name] = Inode(EntryKind.DIRECTORY)
            self._directories[path] = old
            self._update(old, member, where)
            return
        if path in self._directories:
            raise Refused(
                f"{where}: a {member.type} over a directory of the same layer",
                code="duplicate-entry",
                hint=HINT,
            )
        parent.children[name] = self._linked(member, where, parent) or self._fresh(member, where)
        if member.type is Type.SYMLINK and not _climbs(member.path, member.target):
            self._links.add(path)

    def _fresh(self, member: tar.TarMember, where: tar.ImagePlace) -> Inode:
        if member.type in DEVICES:
            self._tree.note("device nodes in /dev of the image are left out: a room has its own /dev")
            return Inode(EntryKind.FILE, left_out=True)
        node = Inode(_KINDS[member.type], size=member.size, target=member.target)
        self._update(node, member, where)
        if node.kind is EntryKind.FILE:
            offset, size, open_at = member.offset, member.size, self._entries.open_at
            node.open = lambda: open_at(offset, size)
        return node

    def _linked(self, member: tar.TarMember, where: tar.ImagePlace, parent: Inode) -> Inode | None:
        if member.type is not Type.HARDLINK:
            return None
        aufs_file = self._entries.kept_by_aufs(member.target)
        if aufs_file is not None:
            return self._fresh(aufs_file, where)
        node = None
        if not (member.target + b"/").startswith(member.path + b"/"):  # which the link would replace
            folder, _, name = member.target.rpartition(b"/")
            above = self._lower(folder, member.target)
            itself = above is parent and name == member.path.rpartition(b"/")[2]
            node = None if above is None or itself else above.children.get(name)
        if node is None or node.kind is EntryKind.DIRECTORY:
            raise Refused(
                f"{where}: a hard link to {show(member.target)}, which is no file here",
                code="bad-link",
                hint="the target must come before the link, in the same layer or a lower one",
            )
        if node.left_out and not member.path.startswith(b"dev/"):
            raise no_device(where, "a hard link to a device")
        if node.kind is EntryKind.SYMLINK:
            return Inode(
                node.kind,
                mode=node.mode,
                uid=node.uid,
                gid=node.gid,
                mtime=node.mtime,
                target=node.target,
                xattrs=dict(node.xattrs),
            )
        return node

    def _update(self, node: Inode, member: tar.TarMember, where: tar.ImagePlace) -> None:
        node.mode = 0o777 if node.kind is EntryKind.SYMLINK else member.mode
        node.uid, node.gid, node.mtime = member.uid, member.gid, member.mtime
        node.xattrs = image_xattrs.kept(member.xattrs, where, self._tree.note)

    def _lower(self, folder: bytes, path: bytes, number: int | None = None) -> Inode | None:
        """The directory at `folder` now, or None. No link is followed, but for a hard link's target this layer's own are.

        number: of an entry in this layer, which may have put a directory over a link before it.
        """
        node = self._tree.root
        walked = b""
        for part in folder.split(b"/") if folder else ():
            walked = walked + b"/" + part if walked else part
            child = node.children.get(part)
            if child is None:
                return None
            if child.kind is EntryKind.SYMLINK:
                if number is not None and self._entries.folder_before(walked, number):
                    return None
                if number is not None:
                    raise self._through(path, part)
                walked, child = self._followed(walked, part, tar.ImagePlace(self._entries.what, path))
            if child.kind is not EntryKind.DIRECTORY:
                if number is None or self._entries.folder_before(walked, number):
                    return None
                raise self._no_directory(path, walked, child)
            node = child
        return node

    def _parent(self, folder: bytes, where: tar.ImagePlace) -> tuple[Inode, bytes]:
        """The directory that an entry goes into, and its path without links. One that no layer names is made."""
        known = self._real_paths.get(folder)
        if known is not None:
            return self._directories[known], known
        node = self._tree.root
        walked = b""
        for part in folder.split(b"/") if folder else ():
            walked = walked + b"/" + part if walked else part
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = Inode(EntryKind.DIRECTORY)
            elif child.kind is EntryKind.SYMLINK:
                walked, child = self._followed(walked, part, where)
            elif child.kind is not EntryKind.DIRECTORY:
                raise self._no_directory(where, walked, child)
            self._directories[walked] = child
            node = child
        self._real_paths[folder] = walked
        return node, walked

    def _followed(self, link: bytes, name: bytes, where: tar.ImagePlace) -> tuple[bytes, Inode]:
        """The directory that a link leads to. Raises `Refused` unless both are of this layer."""

        def target(path: bytes) -> bytes | None:
            if path in self._ends:
                return b"/" + self._ends[path]
            node = self._tree.at(path)
            if node is None or node.kind is not EntryKind.SYMLINK:
                return None
            if path not in self._links:
                raise self._through(where, path.rpartition(b"/")[2])
            return node.target

        end = Symlinks(target, chroot=True).resolve(link)
        directory = None if end is None else self._directories.get(end)
        if end is None or directory is None:
            raise self._through(where, name)
        self._ends[link] = end
        return end, directory

    def _no_directory(self, path: bytes | tar.ImagePlace, above: bytes, node: Inode) -> Refused:
        where = path if isinstance(path, tar.ImagePlace) else tar.ImagePlace(self._entries.what, path)
        return Refused(
            f"{where}: {show(above)} is a {node.kind.value}, not a directory",
            code="not-directory",
            hint=HINT,
        )

    def _through(self, path: bytes | tar.ImagePlace, link: bytes) -> Refused:
        where = path if isinstance(path, tar.ImagePlace) else tar.ImagePlace(self._entries.what, path)
        return Refused(
            f"{where}: goes through the symbolic link {show(link)}",
            code="symlink-escape",
            hint="the layer must name the real directory; rebuild it, or do not trust this image",
        )


def _climbs(path: bytes, target: bytes) -> bool:
    """Whether a link's text leads, by its names, beyond the top of the image: there Docker refuses it."""
    if target.startswith(b"/"):
        return False
    depth = path.count(b"/")
    for part in target.split(b"/"):
        depth += 0 if part in (b"", b".") else -1 if part == b".." else 1
        if depth < 0:
            return True
    return False


def _copied(node: Inode) -> Inode:
    """Another node of the same metadata, with the same children."""
    return replace(node, children=dict(node.children))


def _entry(path: bytes, node: Inode, group: int | None) -> sealed.Entry:
    return sealed.Entry(
        path=path,
        kind=node.kind,
        mode=node.mode,
        uid=node.uid,
        gid=node.gid,
        mtime=node.mtime,
        size=node.size,
        target=node.target,
        xattrs=node.xattrs,
        link_group=group,
        open=node.open,
    )
