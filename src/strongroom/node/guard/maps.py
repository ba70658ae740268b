"""What lies where in a process: /proc/PID/maps, and which pages were ever touched: /proc/PID/pagemap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
SECRET = "secretmem"  # noqa: S105 - in the name of every mapping of a memfd_secret(2) file
_CHUNK = 1 << 17  # pages per read of pagemap: 1 MiB
# The top byte of a pagemap entry: bit 63 present, bit 62 swapped out.
_PRESENT = bytes(1 if byte & 0xC0 else 0 for byte in range(256))
_MERGE = 16  # runs of touched pages this close are taken as one


class Region(NamedTuple):
    """One line of /proc/PID/maps; `perms` such as "rw-p"; `name` is "" for anonymous memory."""

    start: int
    end: int
    perms: str
    offset: int
    inode: int
    name: str

    @property
    def secret(self) -> bool:
        """Lies in memfd_secret(2) pages."""
        return SECRET in self.name

    @property
    def prot(self) -> int:
        """As mmap(2) takes it: 1 read, 2 write, 4 execute."""
        read, write, execute = (flag != "-" for flag in self.perms[:3])
        return read | write << 1 | execute << 2

    @property
    def exposed(self) -> bool:
        """Private, writable, not code: what the guard must not leave in ordinary memory."""
        return self.perms[1] == "w" and self.perms[3] == "p" and self.perms[2] == "-"


def regions(pid: int) -> list[Region]:
    """All regions of a process in ascending order. `OSError` if it is gone or closed to the caller."""
    with open(f"/proc/{pid}/maps", "rb") as lines:  # noqa: PTH123 - pathlib takes longer to import than this to run
        return [_parse(line) for line in lines]


def _parse(line: bytes) -> Region:
    fields = line.split(None, 5)
    start, end = fields[0].split(b"-")
    name = fields[5].rstrip(b"\n").decode("utf-8", "surrogateescape") if len(fields) > 5 else ""
    return Region(int(start, 16), int(end, 16), fields[1].decode(), int(fields[2], 16), int(fields[4]), name)


def touched(pid: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs (address, length) of pages in [start, end) that hold something; nearby runs are merged."""
    begin = last = 0  # the run so far: [begin, last)
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:  # noqa: PTH123 - see above
        for first in range(start // PAGE, end // PAGE, _CHUNK):
            pagemap.seek(first * 8)
            flags = pagemap.read(8 * min(_CHUNK, end // PAGE - first))[7::8].translate(_PRESENT)
            at = flags.find(1)
            while at >= 0:
                gap = flags.find(0, at)
                stop = len(flags) if gap < 0 else gap
                low, high = (first + at) * PAGE, (first + stop) * PAGE
                if last and low - last <= _MERGE * PAGE:
                    last = high
                else:
                    if last:
                        yield begin, last - begin
                    begin, last = low, high
                at = flags.find(1, stop)
    if last:
        yield begin, last - begin
