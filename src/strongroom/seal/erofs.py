"""EROFS, written: an uncompressed image whose every byte follows from the tree, streamed in one pass.

Format: Linux 6.1, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. Layout of an image (4096-byte blocks)::

    block 0        superblock at byte 1024, CRC-32C over the rest of the block
    block 1 …      inodes in order of path, 64 bytes each ("extended"), followed by extended attributes and,
                   for folders and symlinks that fit, their content; numbered in 32-byte slots from byte 0
    then           file contents, larger folders and symlinks, each from a block boundary, in the same order

`layout` decides every position from names and sizes alone, so that the total is known before a byte of content is
read; `ImageStream` then produces the bytes. Nothing is written anywhere here.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from strongroom.errors import Conflict, Malformed
from strongroom.seal.tree import Entry, EntryKind, show, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

BLOCK = 4096
SLOT = 32  # an inode's number is its byte offset divided by this
MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
FEATURE_COMPAT = 0x3  # superblock checksum; time stamps are modification times
UUID = bytes.fromhex("5354524f4e47524f4f4d45524f465331")  # fixed: same input, same bytes
NO_BLOCK = 0xFFFFFFFF
MAX_BLOCKS = NO_BLOCK - 1

SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI44x")
INODE = struct.Struct("<HHHHQIIIIQII16x")
DIRENT = struct.Struct("<QHBx")
XATTR_HEADER = bytes(12)
XATTR_ENTRY = struct.Struct("<BBH")

EXTENDED = 1
PLAIN = 0
INLINE = 2
FILE_TYPE = {EntryKind.FILE: 1, EntryKind.DIRECTORY: 2, EntryKind.FIFO: 5, EntryKind.SYMLINK: 7}
MODE_TYPE = {
    EntryKind.FILE: stat.S_IFREG,
    EntryKind.DIRECTORY: stat.S_IFDIR,
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.SYMLINK: stat.S_IFLNK,
}
# The name's beginning that one index number stands for.
XATTR_INDEX = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}

_ROOT_NID = BLOCK // SLOT
_PIECE = 1 << 16


@dataclass(kw_only=True, slots=True)
class _Inode:
    """One inode: the first entry that names it, and where its parts go."""

    entry: Entry
    links: int
    size: int
    xattrs: bytes
    inline: bool
    offset: int = 0
    block: int = NO_BLOCK

    @property
    def nid(self) -> int:
        return self.offset // SLOT


@dataclass(frozen=True, kw_only=True)
class ErofsLayout:
    """Every position in an image. `data_bytes` is its exact size."""

    data_bytes: int
    meta_bytes: int
    inodes: tuple[_Inode, ...]
    by_path: Mapping[bytes, _Inode]
    children: Mapping[bytes, tuple[bytes, ...]]


def layout(entries: Iterable[Entry]) -> ErofsLayout:
    """Validate `entries` and place them. Raises `Malformed`; reads no content."""
    checked = validate(entries)
    children: dict[bytes, list[bytes]] = {e.path: [] for e in checked if e.kind is EntryKind.DIRECTORY}
    subfolders = dict.fromkeys(children, 0)
    groups: dict[int, _Inode] = {}
    by_path: dict[bytes, _Inode] = {}
    inodes: list[_Inode] = []
    for entry in checked:
        if entry.path:
            children[entry.parent].append(entry.name)
            subfolders[entry.parent] += entry.kind is EntryKind.DIRECTORY
        inode = None if entry.link_group is None else groups.get(entry.link_group)
        if inode is None:
            xattrs = _xattrs(entry.xattrs)
            inode = _Inode(entry=entry, links=0, size=entry.size, xattrs=xattrs, inline=False)
            inodes.append(inode)
            if entry.link_group is not None:
                groups[entry.link_group] = inode
        inode.links += 1
        by_path[entry.path] = inode
    for inode in inodes:
        entry = inode.entry
        if entry.kind is EntryKind.DIRECTORY:
            inode.links = 2 + subfolders[entry.path]
            inode.size = _folder_bytes(children[entry.path])
        elif entry.kind is EntryKind.SYMLINK:
            inode.size = len(entry.target)
        fits = INODE.size + len(inode.xattrs) + inode.size <= BLOCK
        inode.inline = fits and entry.kind in (EntryKind.DIRECTORY, EntryKind.SYMLINK)
    meta_bytes, blocks = _place(inodes)
    return ErofsLayout(
        data_bytes=blocks * BLOCK,
        meta_bytes=meta_bytes,
        inodes=tuple(inodes),
        by_path=by_path,
        children={path: tuple(names) for path, names in children.items()},
    )


class ImageStream:
    """The bytes of an image, in order, for whoever fills buffers with them; or `Conflict` when content changed."""

    def __init__(self, plan: ErofsLayout) -> None:
        self._plan = plan
        self._parts = self._produce()
        self._bytes = memoryview(b"")
        self._file: BinaryIO | None = None
        self._inode: _Inode | None = None
        self._left = 0

    def fill(self, view: memoryview) -> int:
        """Fill `view` from its start; returns its length, or less only at the end of the image."""
        done = 0
        while done < len(view):
            if self._bytes:
                count = min(len(self._bytes), len(view) - done)
                view[done : done + count] = self._bytes[:count]
                self._bytes = self._bytes[count:]
                done += count
            elif self._file is not None:
                done += self._read(view[done:])
            else:
                part = next(self._parts, None)
                if part is None:
                    return done
                if isinstance(part, _Inode):
                    self._open(part)
                else:
                    self._bytes = memoryview(part)
        return done

    def close(self) -> None:
        """Let go of the file that is being read, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, inode: _Inode) -> None:
        source = inode.entry.open
        if source is None:
            raise Malformed(f"{show(inode.entry.path)}: a file without content")
        self._inode = inode
        self._left = inode.size
        self._file = source()

    def _read(self, view: memoryview) -> int:
        if self._file is None or self._inode is None:
            return 0
        count = self._file.readinto(view[: self._left]) if self._left else 0  # type: ignore[attr-defined]
        self._left -= count
        # One more read at the end: a file that grew is refused like one that shrank.
        if (self._left and not count) or (not self._left and self._file.read(1)):
            raise Conflict(
                f"reading {show(self._inode.entry.path)}: its size is no longer {self._inode.size}",
                code="source-changed",
                hint="leave the files alone while they are sealed, and seal again",
            )
        if not self._left:
            self.close()
            self._bytes = memoryview(bytes(-self._inode.size % BLOCK))
        return int(count)

    def _produce(self) -> Iterator[bytes | _Inode]:
        """Byte runs, and inodes whose file content comes next."""
        plan = self._plan
        yield _superblock(plan)
        batch = bytearray()
        position = BLOCK
        for inode in plan.inodes:
            batch += bytes(inode.offset - position)
            record = self._record(inode)
            batch += record
            position = inode.offset + len(record)
            if len(batch) >= _PIECE:
                yield bytes(batch)
                batch.clear()
        yield bytes(batch) + bytes(plan.meta_bytes - position)
        for inode in plan.inodes:
            if inode.block == NO_BLOCK:
                continue
            if inode.entry.kind is EntryKind.FILE:
                yield inode
            else:
                content = self._content(inode)
                yield content + bytes(-len(content) % BLOCK)

    def _record(self, inode: _Inode) -> bytes:
        entry = inode.entry
        fixed = INODE.pack(
            EXTENDED | (INLINE if inode.inline else PLAIN) << 1,
            len(inode.xattrs) // 4 - 2 if inode.xattrs else 0,
            MODE_TYPE[entry.kind] | entry.mode,
            0,
            inode.size,
            inode.block,
            inode.nid & 0xFFFFFFFF,
            entry.uid,
            entry.gid,
            entry.mtime,
            0,
            inode.links,
        )
        return fixed + inode.xattrs + (self._content(inode) if inode.inline else b"")

    def _content(self, inode: _Inode) -> bytes:
        if inode.entry.kind is EntryKind.SYMLINK:
            return inode.entry.target
        path = inode.entry.path
        prefix = path + b"/" if path else b""
        by_path = self._plan.by_path
        named = [(b".", inode), (b"..", by_path[inode.entry.parent])]
        named += [(name, by_path[prefix + name]) for name in self._plan.children[path]]
        return _folder(sorted(named, key=lambda pair: pair[0]))


def blocks(plan: ErofsLayout, *, piece: int = 1 << 20) -> Iterator[bytes]:
    """The image as byte runs of `piece` bytes (a multiple of 4096), the last one shorter."""
    stream = ImageStream(plan)
    try:
        while True:
            buffer = bytearray(piece)
            count = stream.fill(memoryview(buffer))
            if count:
                yield bytes(buffer[:count])
            if count < piece:
                return
    finally:
        stream.close()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) from an all-ones register, without the final inversion, as the kernel computes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


def _crc_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _place(inodes: list[_Inode]) -> tuple[int, int]:
    """Set each inode's offset and block; returns the end of the metadata (bytes) and the number of blocks."""
    position = BLOCK
    for inode in inodes:
        position += -position % SLOT
        inode_bytes = INODE.size + len(inode.xattrs) + (inode.size if inode.inline else 0)
        # Content beside its inode must not cross a block, and an inode alone is kept whole too.
        together = inode_bytes if inode.inline else INODE.size
        if position % BLOCK + together > BLOCK:
            position += -position % BLOCK
        inode.offset = position
        position += inode_bytes
    meta_bytes = position + -position % BLOCK
    block = meta_bytes // BLOCK
    for inode in inodes:
        if not inode.inline and inode.size:
            inode.block = block
            block += -(-inode.size // BLOCK)
    if block > MAX_BLOCKS:
        raise Malformed("tree: larger than an EROFS image can be (16 TiB)", code="too-large")
    return meta_bytes, block


def _superblock(plan: ErofsLayout) -> bytes:
    def pack(checksum: int) -> bytes:
        fixed = SUPERBLOCK.pack(
            MAGIC,
            checksum,
            FEATURE_COMPAT,
            12,
            0,
            _ROOT_NID,
            len(plan.inodes),
            0,
            0,
            plan.data_bytes // BLOCK,
            0,
            0,
            UUID,
            b"",
            0,
        )
        return fixed + bytes(BLOCK - SUPER_OFFSET - len(fixed))

    return bytes(SUPER_OFFSET) + pack(crc32c(pack(0)))


def _folder_blocks(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Names, already sorted, as they share blocks: 12 bytes and its own length for each."""
    batch: list[bytes] = []
    used = 0
    for name in names:
        need = DIRENT.size + len(name)
        if used + need > BLOCK:
            yield batch
            batch, used = [], 0
        batch.append(name)
        used += need
    yield batch


def _folder_bytes(names: list[bytes]) -> int:
    batches = list(_folder_blocks(sorted([b".", b"..", *names])))
    last = sum(DIRENT.size + len(name) for name in batches[-1])
    return (len(batches) - 1) * BLOCK + last


def _folder(named: list[tuple[bytes, _Inode]]) -> bytes:
    """A folder's content: per block, all fixed-size entries and then all names."""
    out = bytearray()
    inodes = iter(named)
    for batch in _folder_blocks(name for name, _ in named):
        out += bytes(-len(out) % BLOCK)
        offset = DIRENT.size * len(batch)
        for name in batch:
            _, inode = next(inodes)
            out += DIRENT.pack(inode.nid, offset, FILE_TYPE[inode.entry.kind])
            offset += len(name)
        out += b"".join(batch)
    return bytes(out)


def _xattrs(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Inline extended attributes: a header of 12 bytes, then entries padded to 4 bytes, in one fixed order."""
    if not xattrs:
        return b""
    out = bytearray(XATTR_HEADER)
    for index, suffix, value in sorted(_indexed(name, value) for name, value in xattrs.items()):
        out += XATTR_ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        out += bytes(-len(out) % 4)
    return bytes(out)


def _indexed(name: bytes, value: bytes) -> tuple[int, bytes, bytes]:
    index, prefix = next((i, p) for i, p in XATTR_INDEX.items() if name.startswith(p))
    return index, name[len(prefix) :], value
