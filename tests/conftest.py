"""What every run of the tests knows."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from tests import durations, effort, promises

if TYPE_CHECKING:
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--promises",
        choices=promises.TABLES,
        help="fail unless every promise in that table of docs/claims.md was tested and held",
    )
    parser.addoption("--promises-of", metavar="FILE", help="only those that this file of tests holds")
    parser.addoption(
        "--effort",
        choices=effort.SCALE,
        default="test",
        help="how many random examples; `fast` also leaves out rooms, bases, releases, transcripts and what is slow",
    )
    parser.addoption(
        "--measure", action="store_true", help="write into tests/durations.txt what each long file took"
    )


# Objects made before Python looks for cycles among them. Thousands of tests live as long as the run, and are looked through
# again and again: parsing the sources took three times as long by it.
_UNTIL_CYCLES_ARE_SOUGHT = 50_000


def pytest_configure(config: pytest.Config) -> None:
    gc.set_threshold(_UNTIL_CYCLES_ARE_SOUGHT)
    effort.set_to(config.getoption("--effort"))
    table = config.getoption("--promises")
    if table == "test":
        from tests import refusals

        config.pluginmanager.register(refusals)
    run = durations.run_of(config.getoption("markexpr"))
    if run and config.getoption("--measure"):
        config.pluginmanager.register(durations.Meter())
    if hasattr(config, "workerinput"):  # a worker's reports reach the process that started it
        return
    if table:
        rows = promises.read(table, promises.CLAIMS.read_text())
        if file := config.getoption("--promises-of"):
            rows = tuple(row for row in rows if row.test.startswith(f"{file}::"))
        config.pluginmanager.register(promises.Keeper(rows))
    if run and config.getoption("--measure"):
        config.pluginmanager.register(durations.Stopwatch(run))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Each worker would import the tests of these folders, only to leave them out.
    if config.getoption("--effort") == "fast" and collection_path.is_relative_to(config.rootpath):
        return effort.holds_long(collection_path.relative_to(config.rootpath)) or None
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--effort") == "fast":
        kept = []
        long = []
        for item in items:
            (long if effort.is_long(item) else kept).append(item)
        if long:
            config.hook.pytest_deselected(items=long)
        items[:] = kept
        effort.skip_slow(kept)
    items[:] = effort.long_first(items, durations.read(durations.run_of(config.getoption("markexpr"))))


def pytest_collection_finish() -> None:
    gc.freeze()  # what was collected stays: no search for cycles goes through it


def pytest_make_parametrize_id(val: object) -> str | None:
    # Workers must collect the same tests, and bytes may be random: pytest numbers them instead.
    return "bytes" if isinstance(val, bytes | bytearray) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
