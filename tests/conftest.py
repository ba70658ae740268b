"""What every run of the tests knows."""

from __future__ import annotations

import os

import pytest

from tests import promises


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--promises",
        choices=promises.TABLES,
        help="fail unless every promise in that table of docs/claims.md was tested and held",
    )


def pytest_configure(config: pytest.Config) -> None:
    table = config.getoption("--promises")
    if table == "test":
        from tests import refusals

        config.pluginmanager.register(refusals)
    if table and not hasattr(config, "workerinput"):  # a worker's reports reach the process that started it
        rows = promises.read(table, promises.CLAIMS.read_text())
        config.pluginmanager.register(promises.Keeper(rows))


def pytest_make_parametrize_id(val: object) -> str | None:
    # Workers must collect the same tests, and bytes may be random: pytest numbers them instead.
    return "bytes" if isinstance(val, bytes | bytearray) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
