"""Tiles of the ledger's tree (C2SP tlog-tiles): paths in, bytes out.

`tile/L/N[.p/W]` is up to 256 hashes of level 8·L from index 256·N; `tile/entries/N[.p/W]` is the
same leaves' bytes, each after its length as two big-endian bytes. N is written in groups of three
digits, all but the last after an `x`: 1234067 is `x001/x234/067`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Malformed, NotFound
from strongroom.ledger import merkle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH = 256
AT_ONCE = 8
LENGTH_BYTES = 2
HEIGHT = 8
_PATH = re.compile(
    r"(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class TilePath:
    """A parsed path. `level` -1 means entries; `width` is 1 to 256."""

    level: int
    index: int
    width: int


class Leaves(merkle.Nodes, Protocol):
    """Node hashes and leaf bytes."""

    def leaves(self, start: int, count: int) -> Sequence[bytes]:
        """The bytes of leaves start … start+count-1; shorter only at the end of the ledger."""


def format_index(index: int) -> str:
    """N in groups of three digits."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def parse_path(path: str) -> TilePath:
    """Parse what follows `tile/`. Raises `Malformed` for anything but the canonical spelling."""
    match = _PATH.fullmatch(path) if len(path) <= 64 else None
    if match is None:
        raise Malformed(
            f"tile path: expected LEVEL/INDEX[.p/WIDTH], got {path[:80]!r}",
            hint="C2SP's tlog-tiles has the form, for example 0/x001/234.p/5 or entries/000",
        )
    index = int(re.sub("[x/]", "", match["index"]))
    width = int(match["width"]) if match["width"] else WIDTH
    if format_index(index) != match["index"] or (match["width"] and width >= WIDTH):
        raise Malformed(
            f"tile path: {path[:80]!r} is not the one spelling of that tile",
            hint="INDEX is groups of three digits, each but the last after an x; a full tile has no .p/WIDTH",
        )
    level = -1 if match["level"] == "entries" else int(match["level"])
    return TilePath(level=level, index=index, width=width)


def read(source: Leaves, size: int, path: TilePath) -> Iterator[bytes]:
    """The tile's bytes in the tree of `size` leaves, in pieces of bounded size. Raises `NotFound` when it is not there yet."""
    start = path.index * WIDTH
    covered = size if path.level < 0 else size >> (HEIGHT * path.level)
    if start + path.width > covered:
        raise NotFound(
            f"tile: beyond the end of the ledger: expected at most {covered} in all at that level, got up to {start + path.width}",
            code="no-tile",
            hint="ask for what the checkpoint covers; the last tile of a level by its width: .p/WIDTH",
        )
    if path.level >= 0:
        level = HEIGHT * path.level
        return iter((b"".join(source.node(level, start + at) for at in range(path.width)),))
    return _entries(source, start, start + path.width)


def _entries(source: Leaves, start: int, end: int) -> Iterator[bytes]:
    # A whole tile may come to 16 MiB: no more of it is in memory than its reader takes.
    for first in range(start, end, AT_ONCE):
        entries = source.leaves(first, min(AT_ONCE, end - first))
        yield b"".join(len(entry).to_bytes(LENGTH_BYTES, "big") + entry for entry in entries)
