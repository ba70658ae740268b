"""`make vectors`: a table of the result for each TEE, then every mismatch; exit 1 when there is one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from strongroom.appraisal import standing
from tests.vectors import runner
from tests.vectors.runner import AGREES, ARGUED, MISMATCH, Result


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else runner.folder()
    results = runner.run(root)
    if not results:
        print(f"no cases: {root} holds no <tee>/<case>/case.json", file=sys.stderr)
        return 2
    print(f"{len(results)} cases in {root}\n")
    table(results)
    for state, title in ((ARGUED, "argued in docs/evidence-disagreements.md"), (MISMATCH, "mismatches")):
        told = [result for result in results if result.state == state]
        if told:
            print(f"\n{title}:")
        for result in told:
            got = result.outcome
            print(
                f"  {result.case}\n    expected {result.expected}, got {got.verdict} by {got.check or 'no check'}"
            )
            print(f"    {got.detail}" if got.detail else "", end="\n" if got.detail else "")
    return 1 if any(result.state == MISMATCH for result in results) else 0


def table(results: list[Result]) -> None:
    """Per TEE: cases by what is known of them, how many agree, disagreements, in part (no whole evidence), skipped."""
    head = (
        "tee",
        "cases",
        *standing.WORDS,
        "as expected",
        "argued",
        "mismatches",
        "in part",
        "skipped",
    )
    rows = [head]
    for tee in (*dict.fromkeys(result.tee for result in results), "all"):
        mine = [result for result in results if tee in (result.tee, "all")]
        states = Counter(result.state for result in mine)
        verdicts = Counter(result.outcome.verdict for result in mine)
        rows.append(
            (
                tee,
                str(len(mine)),
                *(str(verdicts[word]) for word in standing.WORDS),
                *(str(states[state]) for state in (AGREES, ARGUED, MISMATCH)),
                str(sum(result.partial for result in mine)),
                "0",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        first, *others = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join((first.strip().ljust(widths[0]), *others)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
