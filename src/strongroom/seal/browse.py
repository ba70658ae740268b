"""EROFS, read: the images that `erofs` writes, back into a tree. Nothing in them is believed.

The bytes come from a disk's owner, who may be anybody: every offset and count is checked against the image before it
is used, no folder is entered twice, no two files share bytes, and all that is raised is `Malformed`. Compression,
chunks, devices and the compact inodes that `erofs` never writes are refused.
"""

from __future__ import annotations

import io
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

from strongroom.errors import Malformed
from strongroom.seal import erofs
from strongroom.seal.tree import MAX_ENTRIES, MAX_PATH, MAX_XATTRS_BYTES, Entry, EntryKind, show, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    # (first block, number of blocks) → that many blocks. Only ever asked for blocks inside the image.
    Read = Callable[[int, int], bytes]

BLOCK = erofs.BLOCK
_RUN = 256  # blocks read at once from a file
_CACHED = 64
_FOREIGN = "the disk is damaged, or another program or version wrote it: ask its owner to make it again"
_KIND = {mode: kind for kind, mode in erofs.MODE_TYPE.items()}


def tree(read: Read, total: int) -> tuple[Entry, ...]:
    """The tree inside an image of `total` bytes, validated. Raises `Malformed`."""
    return validate(_Image(read, total).walk())


def check(read: Read, total: int) -> None:
    """Raise `Malformed` unless an image of `total` bytes begins as one does. Reads its first block alone."""
    _Image(read, total)


class _Inode:
    """The fields of one inode, in range."""

    __slots__ = (
        "block",
        "data_at",
        "gid",
        "inline",
        "kind",
        "links",
        "mode",
        "mtime",
        "nid",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, image: _Image, nid: int) -> None:
        at = nid * erofs.SLOT
        fields = erofs.INODE.unpack(image.take(at, erofs.INODE.size))
        form, count, mode, _, self.size, self.block, _, self.uid, self.gid, self.mtime, _, self.links = fields
        kind = _KIND.get(stat.S_IFMT(mode))
        if form not in {erofs.EXTENDED, erofs.EXTENDED | erofs.INLINE << 1} or kind is None:
            raise Malformed(
                f"erofs: inode {nid}: of a layout or type that has no place here",
                code="bad-image",
                hint=_FOREIGN,
            )
        self.nid = nid
        self.kind = kind
        self.mode = mode & 0o7777
        self.inline = form != erofs.EXTENDED
        size = len(erofs.XATTR_HEADER) + 4 * (count - 1) if count else 0
        if size > 2 * MAX_XATTRS_BYTES:
            raise Malformed(
                f"erofs: inode {nid}: extended attributes too large", code="bad-image", hint=_FOREIGN
            )
        self.xattrs = image.take(at + erofs.INODE.size, size)
        self.data_at = at + erofs.INODE.size + size if self.inline else self.block * BLOCK
        if self.size and self.data_at + self.size > image.total:
            raise Malformed(
                f"erofs: inode {nid}: content lies outside the image", code="bad-image", hint=_FOREIGN
            )
        if self.inline and self.data_at % BLOCK + self.size > BLOCK:
            raise Malformed(
                f"erofs: inode {nid}: inline content crosses a block", code="bad-image", hint=_FOREIGN
            )


class _Image:
    """An image being walked. Keeps a few blocks in memory."""

    def __init__(self, read: Read, total: int) -> None:
        self.read = read
        self.total = total
        self._cache: dict[int, bytes] = {}
        self._files_left = total
        self._files: dict[int, _Inode] = {}
        self._folders: set[int] = set()
        self._root = self._superblock()

    def take(self, at: int, count: int) -> bytes:
        """Bytes of the image. Raises `Malformed` outside of it."""
        if at < 0 or count < 0 or at + count > self.total:
            raise Malformed(
                f"erofs: bytes {at} to {at + count} lie outside the image", code="bad-image", hint=_FOREIGN
            )
        out = b"".join(self._block(index) for index in range(at // BLOCK, -(-(at + count) // BLOCK)))
        return out[at % BLOCK : at % BLOCK + count]

    def walk(self) -> Iterator[Entry]:
        """Every entry, folders before what they hold."""
        root = _Inode(self, self._root)
        if root.kind is not EntryKind.DIRECTORY:
            raise Malformed("erofs: the root is not a folder", code="bad-image", hint=_FOREIGN)
        self._folders.add(root.nid)
        yield self._entry(b"", root)
        waiting = [(b"", root, root.nid)]
        count = 1
        while waiting:
            path, folder, parent = waiting.pop()
            for name, nid, kind in self._names(folder, parent):
                inode = self._files.get(nid) or _Inode(self, nid)
                below = path + b"/" + name if path else name
                count += 1
                if inode.kind is not kind or len(below) > MAX_PATH or count > MAX_ENTRIES:
                    raise Malformed(
                        f"erofs: {show(below)}: of another type than its folder says, with a path above {MAX_PATH} bytes, or one of more than {MAX_ENTRIES}",
                        code="bad-image",
                        hint=_FOREIGN,
                    )
                if kind is EntryKind.DIRECTORY:
                    if nid in self._folders:
                        raise Malformed(
                            f"erofs: {show(below)}: a folder is listed twice", code="bad-image", hint=_FOREIGN
                        )
                    self._folders.add(nid)
                    waiting.append((below, inode, folder.nid))
                yield self._entry(below, inode)

    def _entry(self, path: bytes, inode: _Inode) -> Entry:
        is_file = inode.kind is EntryKind.FILE
        if is_file and inode.nid not in self._files:
            # Files that overlap would let a small image unpack to any size.
            self._files[inode.nid] = inode
            self._files_left -= inode.size
            if self._files_left < 0 or inode.inline:
                raise Malformed(
                    f"erofs: {show(path)}: files hold more than the image has",
                    code="bad-image",
                    hint=_FOREIGN,
                )
        target = b""
        if inode.kind is EntryKind.SYMLINK:
            if inode.size > MAX_PATH:
                raise Malformed(
                    f"erofs: {show(path)}: symlink target too long", code="bad-image", hint=_FOREIGN
                )
            target = self.take(inode.data_at, inode.size)
        return Entry(
            path=path,
            kind=inode.kind,
            mode=inode.mode,
            uid=inode.uid,
            gid=inode.gid,
            mtime=inode.mtime,
            size=inode.size if is_file else 0,
            target=target,
            xattrs=_xattrs(inode.xattrs),
            link_group=inode.nid if is_file and inode.links > 1 else None,
            open=_Opener(self.read, inode) if is_file else None,
        )

    def _names(self, folder: _Inode, parent: int) -> Iterator[tuple[bytes, int, EntryKind]]:
        """(name, inode number, kind) of what is in `folder`; the order and the two dots are checked."""
        before = b""
        dots = {b".": folder.nid, b"..": parent}
        for start in range(0, folder.size, BLOCK):
            block = self.take(folder.data_at + start, min(BLOCK, folder.size - start))
            for name, nid, kind in _folder_block(block):
                if name <= before:
                    raise Malformed("erofs: a folder is not in order", code="bad-image", hint=_FOREIGN)
                before = name
                if name in dots:
                    if dots.pop(name) != nid or kind is not EntryKind.DIRECTORY:
                        raise Malformed("erofs: a folder's dots lead astray", code="bad-image", hint=_FOREIGN)
                else:
                    yield name, nid, kind
        if dots:
            raise Malformed("erofs: a folder lacks its dots", code="bad-image", hint=_FOREIGN)

    def _superblock(self) -> int:
        if self.total < 2 * BLOCK or self.total % BLOCK:
            raise Malformed("erofs: too small, or not whole blocks", code="bad-image", hint=_FOREIGN)
        run = self.take(erofs.SUPER_OFFSET, BLOCK - erofs.SUPER_OFFSET)
        fields = erofs.SUPERBLOCK.unpack_from(run)
        magic, checksum, compat, bits, slots, root, _, _, _, blocks, meta, shared, _, _, features = fields
        expected = erofs.crc32c(run[:4] + bytes(4) + run[8:])
        if magic != erofs.MAGIC or checksum != expected:
            raise Malformed(
                "erofs: no superblock, or a damaged one",
                code="bad-image",
                hint="is it the key of this very disk? --key-file names another",
            )
        if (compat, bits, slots, blocks * BLOCK, meta, shared, features) != (
            *(erofs.FEATURE_COMPAT, 12, 0, self.total),
            *(0, 0, 0),
        ):
            raise Malformed(
                "erofs: of another size or with other features than `strongroom seal` writes",
                code="bad-image",
                hint=_FOREIGN,
            )
        return int(root)

    def _block(self, index: int) -> bytes:
        if index not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[index] = self.read(index, 1)
        return self._cache[index]


class _Opener:
    """Opens one file's content."""

    __slots__ = ("_at", "_read", "_size")

    def __init__(self, read: Read, inode: _Inode) -> None:
        self._read = read
        self._at = inode.data_at
        self._size = inode.size

    def __call__(self) -> BinaryIO:
        return cast("BinaryIO", _Content(self._read, self._at // BLOCK, self._size))


class _Content(io.RawIOBase):
    """A file's content, read in order."""

    def __init__(self, read: Read, first: int, size: int) -> None:
        self._read = read
        self._next = first
        self._left = size
        self._run = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._run and self._left:
            blocks = min(_RUN, -(-self._left // BLOCK))
            self._run = memoryview(self._read(self._next, blocks))[: self._left]
            self._next += blocks
        count = min(len(view), len(self._run))
        view[:count] = self._run[:count]
        self._run = self._run[count:]
        self._left -= count
        return count


def _folder_block(block: bytes) -> Iterator[tuple[bytes, int, EntryKind]]:
    size = erofs.DIRENT.size
    if len(block) < size:
        raise Malformed("erofs: a folder's block is cut short", code="bad-image", hint=_FOREIGN)
    first = erofs.DIRENT.unpack_from(block)[1]
    count = first // size
    if not count or first % size or first > len(block):
        raise Malformed("erofs: a folder's block is not laid out as one", code="bad-image", hint=_FOREIGN)
    entries = [erofs.DIRENT.unpack_from(block, index * size) for index in range(count)]
    ends = [offset for _, offset, _ in entries[1:]] + [len(block.rstrip(b"\x00"))]
    kinds = {number: kind for kind, number in erofs.FILE_TYPE.items()}
    for (nid, offset, number), end in zip(entries, ends, strict=True):
        name = block[offset:end]
        kind = kinds.get(number)
        if not first <= offset < end or kind is None or b"/" in name or b"\x00" in name:
            raise Malformed("erofs: a folder's entry is out of range", code="bad-image", hint=_FOREIGN)
        yield name, nid, kind


def _xattrs(run: bytes) -> dict[bytes, bytes]:
    out: dict[bytes, bytes] = {}
    if not run:
        return out
    if run[: len(erofs.XATTR_HEADER)] != erofs.XATTR_HEADER:
        raise Malformed(
            "erofs: shared extended attributes have no place here", code="bad-image", hint=_FOREIGN
        )
    at = len(erofs.XATTR_HEADER)
    while at < len(run):
        if at + erofs.XATTR_ENTRY.size > len(run):
            raise Malformed("erofs: an extended attribute is cut short", code="bad-image", hint=_FOREIGN)
        suffix_size, index, value_size = erofs.XATTR_ENTRY.unpack_from(run, at)
        at += erofs.XATTR_ENTRY.size
        prefix = erofs.XATTR_INDEX.get(index)
        end = at + suffix_size + value_size
        if prefix is None or end > len(run):
            raise Malformed(
                "erofs: an extended attribute is cut short or of no known name",
                code="bad-image",
                hint=_FOREIGN,
            )
        name = prefix + run[at : at + suffix_size]
        if name in out:
            raise Malformed("erofs: an extended attribute is there twice", code="bad-image", hint=_FOREIGN)
        out[name] = run[at + suffix_size : end]
        at = end + -end % 4
    return out
