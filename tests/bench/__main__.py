"""`make bench`: every benchmark beside this file, then one table of (what, measured, aim), readable at 80 columns.

Medians; this machine's noise is in them. `python -m tests.bench seal broker` runs some of them.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent


def main() -> None:
    """Run the named benchmarks, or all."""
    console = Console()
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    chosen = sys.argv[1:] or known
    if unknown := set(chosen) - set(known):
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    results: dict[str, list[object]] = {}
    failed = []
    for name in chosen:
        started = time.monotonic()
        with console.status(f"{name} …"):
            try:
                rows = importlib.import_module(f"tests.bench.bench_{name}").run()
            except (Exception, SystemExit) as cause:  # noqa: BLE001 - one benchmark's failure must not hide the others
                failed.append(name)
                rows = [("failed", f"{type(cause).__name__}: {cause}"[:200], "")]
        console.print(f"{name}: {time.monotonic() - started:.0f} s", highlight=False)
        results[name] = list(rows)
    console.print(table(results))
    console.print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    sys.exit(1 if failed else 0)


def table(results: dict[str, list[object]]) -> Table:
    """A section a benchmark, headed by its name."""
    out = Table(title="Strongroom, measured")
    out.add_column("what", overflow="fold", ratio=5)
    out.add_column("measured", justify="right", overflow="fold", ratio=4)
    out.add_column("aim", overflow="fold", ratio=2)
    for name, rows in results.items():
        out.add_row(f"[bold]{name}[/]", "", "")
        for row in rows:
            out.add_row(*map(escape, columns(row)))
        out.add_section()
    return out


def columns(row: object) -> tuple[str, str, str]:
    """What a benchmark's row says: a mapping, (what, measured, aim), or (what, plain, guarded, unit)."""
    match row:
        case {"what": what, "value": value, "aim": aim}:
            return str(what), str(value), str(aim)
        case (what, float(plain), float(guarded), unit):
            return str(what), f"{guarded:.3f} {unit} guarded, {plain:.3f} {unit} plain", ""
        case (what, measured, aim):
            return str(what), str(measured), str(aim)
    raise TypeError(f"not a row: {row!r}")


if __name__ == "__main__":
    main()
