"""Which shared libraries a program of an image would find, as its loader searches: ld.so(8), and musl's.

For each name in NEEDED: RPATH of the file and of those that want it (where there is no RUNPATH), LD_LIBRARY_PATH, RUNPATH,
what the image's /etc/ld.so.cache says, then the loader's own folders. Those differ (Debian's does not search /lib64, Fedora's does
not search /lib) and are read from the loader itself. Where it does not tell them, a library in one of the usual folders is
neither found nor lost. In each folder glibc since 2.33 first looks into `glibc-hwcaps/x86-64-v4`, -v3 and -v2, as far as the
processor goes, and it starts nothing with a library that says it needs more than the processor has. Libraries of another machine do not count. What a program loads by itself while it runs (dlopen) cannot be
seen from outside.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed
from strongroom.images.preflight import elf
from strongroom.seal.tree import EntryKind, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strongroom.images.layers import Inode, Tree
    from strongroom.images.preflight.elf import Elf

_USUAL = (
    b"/lib/x86_64-linux-gnu",
    b"/usr/lib/x86_64-linux-gnu",
    b"/lib64",
    b"/usr/lib64",
    b"/lib",
    b"/usr/lib",
)
_MUSL = (b"/lib", b"/usr/local/lib", b"/usr/lib")
# glibc's own folders are one string in its loader: each ends with a slash and a zero. The string is searched for only where
# no text goes before it: a search at every slash would take hours in a file that was made for that.
_OWN_FOLDERS = re.compile(rb"(?<![!-~])(?:/[!-~]{1,255}/\0)+")
# Which folders go before a plain one is the processor's to say; loaders that have this option look there.
_ABILITIES = b"--glibc-hwcaps-prepend"
_ABILITY_FOLDER = re.compile(rb"/glibc-hwcaps/x86-64-v([2-4])/[^/]+")
_ABILITY = 1 << 62  # in the cache: an entry for one of those folders
_CACHE = b"glibc-ld.so.cache1.1"
_CACHE_HEAD = struct.Struct("<20sII20x")
_CACHE_ENTRY = struct.Struct("<IIIIQ")
_AMD64 = 0x0303
_ORIGIN = re.compile(rb"\$(?:ORIGIN\b|\{ORIGIN\})", re.ASCII)
_MAX_LIBRARIES = 2048
_MAX_LOOKS = 1 << 20  # folders that files name, each for every library: of one image
_MAX_TEXT = 1 << 16
_MAX_PATH = 1 << 12
_MAX_CACHE = 1 << 24
_MAX_LOADER = 1 << 23


@dataclass(frozen=True, kw_only=True)
class Missing:
    """`lost` would not be found. `untold` are in the image, but nothing says whether the loader looks where they are.

    Names after more folders than anybody searches are untold too. beyond: would be found, but need the stated level, which
    the processor has not.
    """

    lost: tuple[bytes, ...]
    untold: tuple[bytes, ...]
    beyond: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """Where one loader looks beside what files name: `cached` files by library, and its own folders (None: not stated).

    abilities: subfolders that it searches before each folder itself (`glibc-hwcaps`).
    """

    cached: dict[bytes, list[bytes]]
    folders: tuple[bytes, ...] | None
    abilities: tuple[bytes, ...] = ()

    def at(self, name: bytes, folders: Iterable[bytes]) -> list[bytes]:
        """The places where it looks for a library in these folders, in its order."""
        if b"/" in name:
            return [name]
        return [folder + below + b"/" + name for folder in folders for below in (*self.abilities, b"")]


class Libraries:
    """The libraries of one image; what was read once is remembered.

    level: the x86-64 level that the processor has. readable: whether the image's user may open a file.
    """

    def __init__(
        self,
        tree: Tree,
        environment: dict[str, str],
        *,
        level: int,
        readable: Callable[[bytes, Inode], bool] = lambda _place, _node: True,
    ) -> None:
        self._tree = tree
        self._level = level
        self._readable = readable
        self._own = [part.encode() for part in environment.get("LD_LIBRARY_PATH", "").split(":") if part]
        self._cache: dict[bytes, list[bytes]] | None = None
        self._read: dict[int, Elf | None] = {}
        self._loaders: dict[bytes, _Loader] = {}
        self._looks = _MAX_LOOKS

    def read(self, node: Inode, what: str) -> Elf:
        """A file as an ELF file. Raises `Malformed`."""
        if node.open is None:
            raise Malformed(f"{what}: no file", code="bad-elf")
        with node.open() as source:

            def read_at(offset: int, count: int) -> bytes:
                source.seek(offset)
                return source.read(count)

            return elf.parse(read_at, node.size, what=what)

    def missing(self, path: bytes, program: Elf) -> Missing:
        """Names of libraries that `program` (at `path`), or a library of it, needs and would not find.

        A program's $ORIGIN is the folder where links lead to (/proc/self/exe), a library's the folder where it was found.
        """
        known = {program.interpreter.rpartition(b"/")[2]}
        loader = self._loader(program.interpreter)
        real = b"/" + self._tree.resolve(path)
        todo: list[tuple[bytes, Elf, tuple[bytes, ...]]] = [(real, program, ())]
        lost, untold, beyond = [], [], []
        while todo and len(known) < _MAX_LIBRARIES:
            at, wants, above = todo.pop()
            folder = at.rpartition(b"/")[0]
            rpath = () if wants.runpath else (*_expand(wants.rpath, folder), *above)
            for name in wants.needed:
                if name in known:
                    continue
                known.add(name)
                searched = len(rpath) + len(self._own) + len(wants.runpath)
                self._looks -= searched * (1 + len(loader.abilities))
                if self._looks < 0:  # made to be searched for ever: nobody says more
                    untold.append(name)
                    continue
                named = (*rpath, *self._own, *_expand(wants.runpath, folder))
                candidates = (
                    loader.at(name, named)
                    + loader.cached.get(name, [])
                    + loader.at(name, loader.folders or ())
                )
                library = self._find(candidates)
                if library is None and loader.folders is None:
                    library = self._find(loader.at(name, _USUAL))
                    untold += [name] if library else []
                if library is None:
                    lost.append(name)
                    continue
                todo.append((*library, rpath))
                if loader.abilities and library[1].level > self._level:
                    beyond.append((name, library[1].level))
        return Missing(lost=tuple(lost), untold=tuple(untold), beyond=tuple(beyond))

    def _find(self, places: Iterable[bytes]) -> tuple[bytes, Elf] | None:
        for place in places:
            node = self._tree.find(place)
            if node is None or node.kind is not EntryKind.FILE or not self._readable(place, node):
                continue  # what a loader may not open it passes over
            if id(node) not in self._read:
                try:
                    self._read[id(node)] = self.read(node, show(place))
                except Malformed:
                    self._read[id(node)] = None
            elf = self._read[id(node)]
            if elf is not None and elf.machine == "amd64" and elf.bits == 64:
                return place, elf
        return None

    def _loader(self, interpreter: bytes) -> _Loader:
        if interpreter not in self._loaders:
            self._loaders[interpreter] = (
                self._musl() if b"ld-musl" in interpreter else self._glibc(interpreter)
            )
        return self._loaders[interpreter]

    def _musl(self) -> _Loader:
        text = self._bytes(b"/etc/ld-musl-x86_64.path", _MAX_TEXT)
        return _Loader(cached={}, folders=tuple(part for part in re.split(rb"[:\n]", text) if part) or _MUSL)

    def _glibc(self, interpreter: bytes) -> _Loader:
        if self._cache is None:
            self._cache = _cached(self._bytes(b"/etc/ld.so.cache", _MAX_CACHE), self._level)
        code = self._bytes(interpreter, _MAX_LOADER)
        folder_lists = set(_OWN_FOLDERS.findall(code))
        own = (
            tuple(part[:-1] for part in folder_lists.pop().split(b"\0")[:-1])
            if len(folder_lists) == 1
            else None
        )
        levels = range(self._level, 1, -1) if _ABILITIES in code else ()
        abilities = tuple(b"/glibc-hwcaps/x86-64-v%d" % level for level in levels)
        return _Loader(cached=self._cache, folders=own, abilities=abilities)

    def _bytes(self, path: bytes, limit: int) -> bytes:
        node = self._tree.find(path)
        if node is None or node.open is None or node.size > limit:
            return b""
        with node.open() as source:
            return source.read(limit)


def _cached(data: bytes, level: int) -> dict[bytes, list[bytes]]:
    """Ldconfig's cache: a library's name to its files. Empty for data that is no such cache: the loader ignores it too.

    Files of `glibc-hwcaps` come first where the processor has their level, and are left out where it has not. Files that
    old glibc kept for processors of certain names are left out.
    """
    start = data.find(_CACHE)  # caches of old ldconfigs begin with an older table
    files: dict[bytes, list[bytes]] = {}
    if start < 0 or len(data) - start < _CACHE_HEAD.size:
        return files
    data = data[start:]
    _, count, _ = _CACHE_HEAD.unpack_from(data)
    count = min(count, (len(data) - _CACHE_HEAD.size) // _CACHE_ENTRY.size)
    for index in range(count):
        flags, name, file, _, ability = _CACHE_ENTRY.unpack_from(
            data, _CACHE_HEAD.size + index * _CACHE_ENTRY.size
        )
        path = _string(data, file)
        plain = not ability
        if flags == _AMD64 and (plain or (ability & _ABILITY and 0 < _level_of(path) <= level)):
            files.setdefault(_string(data, name), []).append(path)
    for paths in files.values():
        paths.sort(key=_level_of, reverse=True)
    return files


def _level_of(path: bytes) -> int:
    """The level whose folder a library lies in; 0 for a plain folder."""
    folder = _ABILITY_FOLDER.search(path)
    return int(folder[1]) if folder else 0


def _string(data: bytes, at: int) -> bytes:
    return data[at : at + _MAX_PATH].partition(b"\0")[0]


def _expand(paths: Iterable[bytes], folder: bytes) -> tuple[bytes, ...]:
    return tuple(_ORIGIN.sub(lambda _: folder, path) for path in paths)
