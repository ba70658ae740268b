"""What a memory scraper sees: another process's memory, read as root by the usual means, and searched.

This is the attack that rooms answer; `strongroom scrape` shows it on any process. Two ways of reading are
tried, because they fail separately: /proc/PID/mem (which ignores page protections) and process_vm_readv.
`by_core` adds a third: a debugger attaches and writes a core dump.
Memory stays bounded (1 MiB at a time). Needles are named by number, and never shown.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.errors import Misuse, NotFound, Refused
from strongroom.node.guard import maps
from strongroom.node.guard.ptrace import LIBC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CHUNK = 1 << 20
_WHICH = "give the number of a running process; `ps aux` lists them"
_PAGE = maps.PAGE
_CAREFUL = 4 << 30  # regions up to this size are tried page by page where they cannot be read
_DEBUGGER_SECONDS = 300
_KERNEL_PAGES = ("[vvar]", "[vvar_vclock]", "[vsyscall]")  # the kernel's clock pages: no process's data


@dataclass(frozen=True, kw_only=True)
class Hits:
    """How often each needle was found in regions of one name and one kind of access."""

    region: str
    perms: str
    counts: tuple[int, ...]  # per needle, in the order given


@dataclass(frozen=True, kw_only=True)
class Unread:
    """Bytes of regions of one name that could not be read, and the kernel's word for why."""

    region: str
    reason: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One way of reading one process, and what it gave."""

    method: str
    read: int  # bytes
    hits: tuple[Hits, ...]
    unread: tuple[Unread, ...]
    refused: str = ""  # why this way of reading failed altogether

    @property
    def hit_count(self) -> int:
        """All hits of all needles."""
        return sum(sum(hit.counts) for hit in self.hits)

    @property
    def secret(self) -> int:
        """Bytes of address space in memfd_secret(2) pages that could not be read."""
        return sum(part.size for part in self.unread if maps.SECRET in part.region)

    @property
    def unreadable(self) -> int:
        """Bytes that could not be read."""
        return sum(part.size for part in self.unread)


@dataclass(frozen=True, kw_only=True)
class ScrapeReport:
    """What scraping one process showed."""

    pid: int
    command: str
    passes: tuple[Pass, ...]

    @property
    def hit_count(self) -> int:
        """The most hits that any one way of reading gave."""
        return max((attempt.hit_count for attempt in self.passes), default=0)

    @property
    def sentence(self) -> str:
        """What was seen, in one sentence."""
        who = f"process {self.pid} ({self.command})"
        best = max(self.passes, key=lambda attempt: (attempt.hit_count, attempt.read))
        if best.hit_count:
            where = ", ".join(sorted({hit.region for hit in best.hits}))
            return (
                f"{who}: the canary was found {best.hit_count} times in {where}; any root process can read it"
            )
        secret = max((attempt.secret for attempt in self.passes), default=0)
        if secret:
            return (
                f"{who}: no canary in the {_mib(best.read)} that can be read; the kernel gives nobody "
                f"the {_mib(secret)} of its address space in memfd_secret pages"
            )
        return (
            f"{who}: no canary in the {_mib(best.read)} read, and {_mib(best.unreadable)} could not be read"
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def scan(pid: int, needles: Sequence[bytes]) -> ScrapeReport:
    """Search all memory of a process for `needles` (at least 4 bytes each), by both ways of reading.

    Raises `NotFound` for no such process, `Misuse` for useless needles, `Refused` when its memory map is
    closed to the caller (who is not root).
    """
    if not needles or any(len(needle) < 4 or len(needle) > _CHUNK for needle in needles):
        raise Misuse(
            "scraping: a canary of 4 bytes to 1 MiB is needed",
            code="scrape-canary",
            hint="search for a text that stands in the data and nowhere else",
        )
    return ScrapeReport(
        pid=pid,
        command=_command(pid),
        passes=(
            _pass("/proc/PID/mem", pid, needles, _by_mem),
            _pass("process_vm_readv", pid, needles, _by_readv),
        ),
    )


def scrape_processes(
    pids: Sequence[int],
    *,
    needles: Sequence[bytes],
    children: bool = False,
    gcore: bool = False,
    on_report: Callable[[ScrapeReport], None] = lambda _report: None,
) -> tuple[ScrapeReport, ...]:
    """Search the memory of each process once for `needles`, one after the other.

    children: their descendants too; of those, one that ends meanwhile is left out. gcore: also by a debugger's core dump. on_report: called
    with each report as soon as there is one. Raises like `scan` and `by_core`, for the processes that are named.
    """
    if not needles:
        raise Misuse(
            "scraping: nothing to search for",
            code="scrape-canary",
            hint="give --canary TEXT, --canary-hex HEX or --canary-file FILE",
        )
    below = [child for pid in pids for child in descendants(pid)] if children else []
    reports = []
    for pid in dict.fromkeys((*pids, *below)):
        try:
            report = scan(pid, needles)
        except NotFound:
            if pid in pids:
                raise
            continue
        if gcore:
            report = replace(report, passes=(*report.passes, by_core(pid, needles)))
        reports.append(report)
        on_report(report)
    return tuple(reports)


def load_needle(path: Path) -> bytes:
    """The bytes of a file, to be searched for. Raises `Malformed` for more than 1 MiB."""
    return files.read(path, max_bytes=_CHUNK)


def descendants(pid: int) -> list[int]:
    """All children of a process, and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue  # ended
            parent = int(status.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    all_below = []
    waiting = [pid]
    while waiting:
        below = sorted(children.get(waiting.pop(), ()))
        all_below += below
        waiting += below
    return all_below


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError as failure:
        raise NotFound(f"scraping: there is no process {pid}", code="no-process", hint=_WHICH) from failure


# --- reading ---


def _by_mem(pid: int) -> tuple[Callable[[int, int], bytes], Callable[[], None]]:
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    return lambda address, size: os.pread(memory, size, address), lambda: os.close(memory)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _by_readv(pid: int) -> tuple[Callable[[int, int], bytes], Callable[[], None]]:
    buffer = ctypes.create_string_buffer(_CHUNK)

    def read(address: int, size: int) -> bytes:
        local, remote = _Vector(ctypes.addressof(buffer), size), _Vector(address, size)
        got = LIBC.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
        if got < 0:
            raise OSError(ctypes.get_errno(), "process_vm_readv")
        return buffer.raw[:got]

    return read, lambda: None


def _pass(
    method: str,
    pid: int,
    needles: Sequence[bytes],
    way: Callable[[int], tuple[Callable[[int, int], bytes], Callable[[], None]]],
) -> Pass:
    hits: Counter[tuple[str, str, int]] = Counter()
    unread: Counter[tuple[str, str]] = Counter()
    total = 0
    try:
        regions = maps.regions(pid)
        read, close = way(pid)
    except OSError as failure:
        if isinstance(failure, PermissionError):
            raise Refused(
                f"scraping process {pid}: {failure.strerror}", code="scrape-not-root", hint="run as root"
            ) from failure
        raise NotFound(f"scraping: process {pid} is gone", code="no-process", hint=_WHICH) from failure
    try:
        for region in regions:
            if region.name in _KERNEL_PAGES:
                continue
            name = region.name or "anonymous memory"
            finder = _Finder(needles)
            for piece in _pieces(region, read):
                if isinstance(piece, bytes):
                    total += len(piece)
                    for number, count in enumerate(finder.feed(piece)):
                        hits[name, region.perms, number] += count
                else:
                    reason, size = piece
                    unread[name, reason] += size
                    finder = _Finder(needles)  # nothing spans a hole
    finally:
        close()
    places = dict.fromkeys((name, perms) for (name, perms, _), count in hits.items() if count)
    return Pass(
        method=method,
        read=total,
        hits=tuple(
            Hits(
                region=name,
                perms=perms,
                counts=tuple(hits[name, perms, number] for number in range(len(needles))),
            )
            for name, perms in places
        ),
        unread=tuple(
            Unread(region=name, reason=reason, size=size) for (name, reason), size in unread.items()
        ),
    )


def _pieces(region: maps.Region, read: Callable[[int, int], bytes]) -> Iterator[bytes | tuple[str, int]]:
    """The bytes of a region in order, and (reason, size) for each hole."""
    step = _PAGE if region.end - region.start <= _CAREFUL else _CHUNK
    at = region.start
    while at < region.end:
        size = min(_CHUNK, region.end - at)
        try:
            data = read(at, size)
            reason = "nothing there"
        except (OSError, OverflowError) as failure:
            data = b""
            number = failure.errno if isinstance(failure, OSError) else errno.EIO
            reason = os.strerror(number or errno.EIO)
        if data:
            yield data
            at += len(data)
        else:
            hole = min(step, region.end - at)
            yield reason, hole
            at += hole


class _Finder:
    """Counts needles in a stream, also where they span two pieces."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self._needles = needles
        self._keep = max(map(len, needles)) - 1
        self._tail = b""

    def feed(self, data: bytes) -> list[int]:
        """How often each needle ends in `data`."""
        text = self._tail + data
        counts = [text.count(needle, max(0, len(self._tail) - len(needle) + 1)) for needle in self._needles]
        self._tail = text[-self._keep :]
        return counts


# --- a debugger ---


def by_core(pid: int, needles: Sequence[bytes]) -> Pass:
    """Let gdb attach and write a core dump to a temporary file, and search that.

    Raises `NotFound` when gdb's `gcore` is not installed. A refused attachment is a result, not an error.
    """
    program = shutil.which("gcore")
    if program is None:
        raise NotFound(
            "scraping by core dump: gcore is not installed",
            code="no-gcore",
            hint="apt-get install gdb (Debian, Ubuntu)",
        )
    method = "gcore"
    with tempfile.TemporaryDirectory(prefix="strongroom-core-") as folder:
        try:
            done = subprocess.run(
                [program, "-a", "-o", f"{folder}/core", str(pid)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_DEBUGGER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Pass(method=method, read=0, hits=(), unread=(), refused="the debugger did not finish")
        dump = Path(folder) / f"core.{pid}"
        if not dump.exists():
            words = (done.stderr + done.stdout).decode(errors="replace").splitlines()
            why = next(
                (line for line in words if "ptrace" in line or "permitted" in line), "no core was written"
            )
            return Pass(method=method, read=0, hits=(), unread=(), refused=why.strip())
        finder = _Finder(needles)
        counts = [0] * len(needles)
        total = 0
        with dump.open("rb") as source:
            while data := source.read(_CHUNK):
                total += len(data)
                counts = [sum(pair) for pair in zip(counts, finder.feed(data), strict=True)]
    hits = (Hits(region="core dump", perms="", counts=tuple(counts)),) if any(counts) else ()
    return Pass(method=method, read=total, hits=hits, unread=())
