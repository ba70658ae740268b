"""tests/durations.txt: what each file with long tests took when somebody last measured, by `pytest --measure`.

In seconds of the processor, of the tests and of the programs that they started and saw end: another machine's other work
does not count. Workers take the longest files first by it, and `make soak ARGS=--list` shows it. Nothing else depends on it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import verbs

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

TABLE = Path(__file__).with_name("durations.txt")
RUNS = ("test", "soak")
_LEAST = 5.0  # seconds; a shorter file is not worth a line
_HEAD = """\
# What ran, the seconds of the processor that it took, and the file or part. Written by `pytest --measure`; see tests/durations.py.
"""


def run_of(markers: str) -> str:
    """Which of RUNS an expression of markers (`-m`) selects; empty when it is another selection."""
    return {"soak": "soak", "not soak": "test"}.get(markers, "")


def processor() -> float:
    """Seconds of the processor that this process, its ended children and the commands of `tests.verbs` have had."""
    return sum(os.times()[:4]) + verbs.seconds()


class Meter:
    """In each process that runs tests: gives every report what its phase took."""

    def __init__(self) -> None:
        self._before = processor()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        now = processor()
        report.processor_seconds, self._before = now - self._before, now
        return report


def rows() -> dict[tuple[str, str], float]:
    """Seconds by what ran and file."""
    lines = [line.split() for line in TABLE.read_text().splitlines() if line and not line.startswith("#")]
    return {(run, file): float(seconds) for run, seconds, file in lines}


def read(run: str) -> dict[str, float]:
    """Seconds by file, of one of RUNS."""
    return {file: seconds for (one, file), seconds in rows().items() if one == run}


def write(run: str, measured: dict[str, float]) -> None:
    """Put these files in the place of what was known of them."""
    known = {key: seconds for key, seconds in rows().items() if key[0] != run or key[1] not in measured}
    known |= {(run, file): seconds for file, seconds in measured.items() if seconds >= _LEAST}
    ordered = sorted(known.items(), key=lambda one: (RUNS.index(one[0][0]), -one[1], one[0][1]))
    TABLE.write_text(_HEAD + "".join(f"{run} {seconds:6.0f} {file}\n" for (run, file), seconds in ordered))


class Stopwatch:
    """Adds up what each file's tests took; at the end of a run that passed the table has it."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._seconds: dict[str, float] = defaultdict(float)
        self._wrote = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.processor_seconds

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK:
            write(self._run, self._seconds)
            self._wrote = True

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        said = "has what these tests took" if self._wrote else "stays as it was: not everything passed"
        terminalreporter.line(f"{TABLE.name} {said}")
