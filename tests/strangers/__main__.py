"""`make strangers`: a line for each member, then what is not as it should be; exit 1 when there is something."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.strangers import runner


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else runner.folder()
    results = [runner.run(path) for path in runner.members(root)]
    if not results:
        print(f"no members: {root} holds no wrong/NAME or right/NAME", file=sys.stderr)
        return 2
    rows = [("name", "right answer", "got", ""), *((r.name, r.right, r.got, r.state) for r in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    bad = [result for result in results if result.state == "NO"]
    for result in bad:
        print(f"\n{result.name}: " + ("; ".join(result.faults) or "right now: take it out of NOT_YET"))
    waiting = sum(result.state == "not yet" for result in results)
    print(
        f"\n{len(results)} members, {len(results) - len(bad) - waiting} ok, {len(bad)} NO, {waiting} not yet"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
