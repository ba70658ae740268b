"""What symbolic links mean in a tree that is not mounted anywhere: the walk that Linux does, done on names alone.

Spec: path_resolution(7); openat2(2), RESOLVE_IN_ROOT and RESOLVE_BENEATH. The text of a link does not say where it
leads: `esc -> up/../../x` stays inside by its letters, and leaves when `up` is a link to the tree's top. So every link
on the way is followed, in the tree itself. Each link is followed once and its end kept: the cost grows with the bytes
of all links' texts together, however they lead through each other. Whoever made the tree may be hostile, and whoever
reads it may have little memory: a text is never taken apart as a whole, and what is kept of ends is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINKS = 40  # followed on one way, as in Linux
MAX_PATH = 4095  # bytes of a way's end
MAX_ENDS = 64 << 20  # bytes of all ends that are kept: a link of three letters may end 4095 bytes deep


@dataclass(kw_only=True, slots=True)
class _Way:
    """A text being followed: the link that it is of, how far it led, and where in it the next part begins."""

    link: bytes
    place: bytes
    text: bytes
    at: int = 0
    links: int = 0

    def next_part(self) -> bytes:
        """The next part that is a name or ".."; empty at the end."""
        while self.at < len(self.text):
            end = self.text.find(b"/", self.at)
            part = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at += len(part) + 1
            if part not in (b"", b"."):
                return part
        return b""


class Symlinks:
    """The symbolic links of one tree, which must stand still while this is used.

    target: a link's text by its path, None for all else; paths are relative to the tree's top, parts joined by "/".
    chroot: True as in a program's image, where "/" and ".." at the top are the top; else both lead out.
    max_ends: how many bytes of ends are kept; links whose ends are not count as circles.
    """

    def __init__(
        self, target: Callable[[bytes], bytes | None], *, chroot: bool, max_ends: int = MAX_ENDS
    ) -> None:
        self._target = target
        self._chroot = chroot
        self._left = max_ends
        self._ends: dict[bytes, tuple[bytes, int] | None] = {}

    def resolve(self, path: bytes) -> bytes | None:
        """`path` with every link in it followed, its last part too; None when it leads out or in a circle.

        A way over more than `MAX_LINKS` links, or to more than `MAX_PATH` bytes, counts as a circle. What does not
        exist, and what is a file, is walked through like a folder: Linux would refuse that, so nothing gets by.
        """
        first = self._way(b"", b"", path)
        ways = [] if first is None else [first]
        while ways:
            way = ways[-1]
            part = way.next_part()
            if not part:
                ways.pop()
                if not ways:
                    return way.place
                self._left -= len(way.place)
                if self._left < 0 or not _went_on(ways[-1], way.place, way.links):
                    return None
                self._ends[way.link] = (way.place, way.links)
            elif part == b"..":
                if not way.place and not self._chroot:
                    return None
                way.place = way.place.rpartition(b"/")[0]
            else:
                place = way.place + b"/" + part if way.place else part
                further = self._step(way, place)
                if further is None:
                    return None
                ways += further
        return None

    def _step(self, way: _Way, place: bytes) -> tuple[_Way, ...] | None:
        """Go on to `place`; the way of its text when it is a link not yet followed; None when there is no way on."""
        target = self._target(place)
        if target is None:
            way.place = place
            return () if len(place) <= MAX_PATH else None
        if place in self._ends:
            end = self._ends[place]
            return () if end is not None and _went_on(way, *end) else None
        self._ends[place] = None  # until its end is known: a way that meets itself is a circle
        further = self._way(place, way.place, target)
        return None if further is None else (further,)

    def _way(self, link: bytes, place: bytes, text: bytes) -> _Way | None:
        if text.startswith(b"/"):
            if not self._chroot:
                return None
            place = b""
        return _Way(link=link, place=place, text=text)


def _went_on(way: _Way, place: bytes, links: int) -> bool:
    """Go on over a link that ends at `place` after `links` more; False when that is too many."""
    way.place = place
    way.links += 1 + links
    return way.links <= MAX_LINKS
