"""Rooms: from the start of `strongroom run` to the program's first instruction, with and without the guard."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from pathlib import Path

from tests.e2e import real_rooms

ROUNDS = 3


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    if real_rooms.missing():
        raise SystemExit(real_rooms.missing())
    root = Path(tempfile.mkdtemp(prefix="strongroom-bench-"))
    world = real_rooms.prepare(root)
    try:
        contract = world.contract("exit 0", "--runs", 4 * ROUNDS, "--memory-mib", 512)
        starts: dict[bool, list[float]] = {False: [], True: []}
        totals: dict[bool, list[float]] = {False: [], True: []}
        for number in range(ROUNDS):
            for guarded in (False, True):  # in turns, so that a noisy neighbour hits both
                folder = root / f"bench-{number}-{guarded}"
                done = real_rooms.strongroom(
                    "run", contract, "--node", root / "node", "--base", root / "base",
                    "--disk", root / "query.disk", "--disk", root / "flights.disk", "--out", folder,
                    *(() if guarded else ("--no-memory-guard",)),
                )  # fmt: skip
                status = real_rooms.Ran(code=done.returncode, text="", folder=folder).status
                at = {one["name"]: one["milliseconds"] / 1000 for one in status["phases"]}
                starts[guarded].append(at["program-started"])
                totals[guarded].append(status["total_milliseconds"] / 1000)
    finally:
        world.close()
        shutil.rmtree(root)
    return [
        {
            "what": f"room: `run` to the program's first instruction, {'with' if guarded else 'without'} the guard, s",
            "value": f"{statistics.median(starts[guarded]):.2f}",
            "aim": "≤ 8" if guarded else "≤ 6",
        }
        for guarded in (False, True)
    ] + [
        {
            "what": f"room: a whole run of `exit 0`, {'with' if guarded else 'without'} the guard, s",
            "value": f"{statistics.median(totals[guarded]):.2f}",
            "aim": "",
        }
        for guarded in (False, True)
    ]


def main() -> None:
    """Print the rows."""
    for row in run():
        print(f"{row['what']:75} {row['value']!s:>8}  {row['aim']}")


if __name__ == "__main__":
    main()
