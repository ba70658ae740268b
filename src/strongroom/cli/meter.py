"""How far a long run over bytes has got: a bar on a terminal, a few plain lines elsewhere, all on standard error.

The bar redraws only when progress is reported. It starts no thread, so that the work may fork.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from strongroom.cli.printable import printable

GB = 1e9
_REDRAW = 0.1  # seconds
_LINE = 5.0


@contextlib.contextmanager
def meter(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that takes (bytes done, bytes in all)."""
    named = printable(what)
    shown = _bar(named) if sys.stderr.isatty() else _lines(named)
    with shown as advance:
        yield advance


def rate(count: int, seconds: float) -> str:
    """Bytes per time, for people."""
    return f"{size(count)} in {seconds:.1f} s, {count / GB / max(seconds, 1e-6):.2f} GB/s"


def size(count: int) -> str:
    """A number of bytes, for people: powers of ten."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{count} bytes"


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        # Not the text itself: it holds names of files, and a column's own text is a format and markup to rich.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task(what, total=None, speed="")
        begin = last = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _REDRAW or done == total:
                last = now
                speed = f"{done / GB / max(now - begin, 1e-6):.2f} GB/s"
                progress.update(task, completed=done, total=total, speed=speed, refresh=True)

        yield advance


@contextlib.contextmanager
def _lines(what: str) -> Iterator[Callable[[int, int], None]]:
    begin = last = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE:
            last = now
            percent = 100 * done // max(total, 1)
            print(f"{what}: {percent} %, {rate(done, now - begin)}", file=sys.stderr, flush=True)

    yield advance
