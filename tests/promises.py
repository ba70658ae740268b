"""What docs/claims.md promises, and a pytest plugin by which a whole run proves it.

A promise is held when its test was collected, ran and passed, in every one of its parametrisations. A skip
is no pass. Everything is decided from reports, so that it does not matter which process ran a test.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.terminal import TerminalReporter

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "docs/claims.md"
TABLES = ("test", "soak")  # headings of the two tables: "## Held by `make test`", "## Held by `make soak`"


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One row: a sentence, and the id of the test that holds it, without parameters."""

    sentence: str
    test: str


def read(table: str, text: str) -> tuple[Promise, ...]:
    """The rows below the heading of that table, in their order."""
    _, heading, rest = text.partition(f"\n## Held by `make {table}`\n")
    if not heading:
        raise ValueError(f"docs/claims.md has no table of what `make {table}` holds")
    rows = [line.split("|") for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return tuple(Promise(sentence=row[1].strip(), test=row[2].strip(" `")) for row in rows[1:])


class Keeper:
    """Watches the tests that promises name; at the end each promise that is not held is a failure."""

    def __init__(self, promises: Iterable[Promise]) -> None:
        self._promises = tuple(promises)
        self._tests = {promise.test for promise in self._promises}
        self._collected: dict[str, set[str]] = defaultdict(set)
        self._passed: dict[str, set[str]] = defaultdict(set)
        self._faults: dict[str, dict[str, str]] = defaultdict(dict)
        self._broken: list[tuple[Promise, str]] = []

    def _add(self, nodeid: str, to: dict[str, set[str]]) -> None:
        if (test := nodeid.partition("[")[0]) in self._tests:
            to[test].add(nodeid)

    def _fault(self, nodeid: str, why: str) -> None:
        if (test := nodeid.partition("[")[0]) in self._tests:
            self._faults[test].setdefault(nodeid, why)

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        for item in items:
            self._fault(item.nodeid, "was deselected")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._add(item.nodeid, self._collected)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Iterable[str]) -> None:
        for nodeid in ids:
            self._add(nodeid, self._collected)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._fault(report.nodeid, "failed")
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected to fail"
            self._fault(report.nodeid, f"was skipped: {reason.removeprefix('Skipped: ')}")
        elif report.when == "call":
            self._add(report.nodeid, self._passed)

    def why_not(self, promise: Promise) -> str:
        """Empty when the promise is held."""
        if faults := self._faults.get(promise.test):
            nodeid, why = next(iter(faults.items()))
            more = f" ({len(faults)} of its tests are not held)" if len(faults) > 1 else ""
            return f"{nodeid} {why}{more}"
        if not self._collected[promise.test]:
            return f"{promise.test} was not collected"
        if missing := self._collected[promise.test] - self._passed[promise.test]:
            return f"{min(missing)} did not run"
        return ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._broken = [(promise, why) for promise in self._promises if (why := self.why_not(promise))]
        for promise, why in self._broken:
            # A report of its own, so that every reader of pytest's results counts it.
            report = pytest.TestReport(
                nodeid=f"docs/claims.md::{promise.sentence}",
                location=("docs/claims.md", None, promise.sentence),
                keywords={},
                outcome="failed",
                longrepr=f"This promise is not held: {why}",
                when="call",
            )
            session.config.hook.pytest_runtest_logreport(report=report)
        if self._broken and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        held = len(self._promises) - len(self._broken)
        terminalreporter.section("promises of docs/claims.md")
        terminalreporter.line(
            f"{held} promises held" + (f", {len(self._broken)} not:" if self._broken else "")
        )
        for promise, why in self._broken:
            terminalreporter.line(f"not held: {promise.sentence}\n    {why}")
