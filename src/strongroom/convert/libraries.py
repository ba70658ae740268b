"""Which shared libraries a program of an image would find, as its loader searches: ld.so(8), and musl's.

For each name in NEEDED: RPATH of the file and of those that want it (where there is no RUNPATH), LD_LIBRARY_PATH, RUNPATH, the
folders of /etc/ld.so.conf where the image has a cache of libraries, then the usual folders. Libraries of another
machine do not count. What a program loads by itself while it runs (dlopen) cannot be seen from outside.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

from strongroom.convert import elf
from strongroom.errors import Malformed
from strongroom.seal.tree import Kind, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strongroom.convert.elf import Elf
    from strongroom.convert.layers import Node, Tree

_GLIBC = (
    b"/lib/x86_64-linux-gnu",
    b"/usr/lib/x86_64-linux-gnu",
    b"/lib64",
    b"/usr/lib64",
    b"/lib",
    b"/usr/lib",
)
_MUSL = (b"/lib", b"/usr/local/lib", b"/usr/lib")
_ORIGIN = re.compile(rb"\$(?:ORIGIN\b|\{ORIGIN\})", re.ASCII)
_MAX_LIBRARIES = 2048
_MAX_CONF = 1 << 16
_MAX_CONFS = 64


class Libraries:
    """The libraries of one image; what was read once is remembered."""

    def __init__(self, tree: Tree, environment: dict[str, str]) -> None:
        self._tree = tree
        self._own = [part.encode() for part in environment.get("LD_LIBRARY_PATH", "").split(":") if part]
        self._configured: tuple[bytes, ...] | None = None
        self._read: dict[int, Elf | None] = {}

    def read(self, node: Node, what: str) -> Elf:
        """A file as an ELF file. Raises `Malformed`."""
        if node.open is None:
            raise Malformed(f"{what}: no file", code="bad-elf")
        with node.open() as source:

            def read_at(offset: int, count: int) -> bytes:
                source.seek(offset)
                return source.read(count)

            return elf.parse(read_at, node.size, what=what)

    def missing(self, path: bytes, program: Elf) -> list[bytes]:
        """Names of libraries that `program` (at `path`), or a library of it, needs and would not find.

        A program's $ORIGIN is where links lead to (/proc/self/exe), a library's is where it was found.
        """
        known = {program.interpreter.rpartition(b"/")[2]}
        musl = b"ld-musl" in program.interpreter
        real = b"/" + self._tree.resolve(path)
        todo: list[tuple[bytes, Elf, tuple[bytes, ...]]] = [(real, program, ())]
        lost = []
        while todo and len(known) < _MAX_LIBRARIES:
            at, wants, above = todo.pop()
            folder = at.rpartition(b"/")[0]
            rpath = () if wants.runpath else (*_expand(wants.rpath, folder), *above)
            for name in wants.needed:
                if name in known:
                    continue
                known.add(name)
                search = (*rpath, *self._own, *_expand(wants.runpath, folder), *self._folders(musl=musl))
                found = self._find(name, search)
                if found is None:
                    lost.append(name)
                else:
                    todo.append((*found, rpath))
        return lost

    def _find(self, name: bytes, search: Iterable[bytes]) -> tuple[bytes, Elf] | None:
        places = [name] if b"/" in name else (folder + b"/" + name for folder in search)
        for place in places:
            node = self._tree.find(place)
            if node is None or node.kind is not Kind.FILE:
                continue
            if id(node) not in self._read:
                try:
                    self._read[id(node)] = self.read(node, show(place))
                except Malformed:
                    self._read[id(node)] = None
            found = self._read[id(node)]
            if found is not None and found.machine == "amd64" and found.bits == 64:
                return place, found
        return None

    def _folders(self, *, musl: bool) -> tuple[bytes, ...]:
        if musl:
            text = self._text(b"/etc/ld-musl-x86_64.path")
            return tuple(part for part in re.split(rb"[:\n]", text) if part) or _MUSL
        if self._configured is None:
            told = self._tree.find(b"/etc/ld.so.cache") is not None
            self._configured = tuple(self._conf(b"/etc/ld.so.conf", [])) if told else ()
        return (*self._configured, *_GLIBC)

    def _conf(self, path: bytes, seen: list[bytes]) -> Iterator[bytes]:
        if path in seen or len(seen) > _MAX_CONFS:
            return
        seen.append(path)
        for line in self._text(path).split(b"\n"):
            words = line.partition(b"#")[0].split()
            if len(words) > 1 and words[0] == b"include":
                for pattern in words[1:]:
                    folder, _, name = pattern.rpartition(b"/")
                    node = self._tree.find(folder)
                    for child in sorted(node.children if node is not None else ()):
                        if fnmatch.fnmatchcase(child, name):
                            yield from self._conf(folder + b"/" + child, seen)
            else:
                yield from words

    def _text(self, path: bytes) -> bytes:
        node = self._tree.find(path)
        if node is None or node.open is None or node.size > _MAX_CONF:
            return b""
        with node.open() as source:
            return source.read(_MAX_CONF)


def _expand(paths: Iterable[bytes], folder: bytes) -> tuple[bytes, ...]:
    return tuple(_ORIGIN.sub(lambda _: folder, path) for path in paths)
