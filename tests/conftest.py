"""What every run of the tests knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import promises

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--promises",
        choices=promises.TABLES,
        help="fail unless every promise in that table of docs/claims.md was tested and held",
    )


def pytest_configure(config: pytest.Config) -> None:
    table = config.getoption("--promises")
    if table and not hasattr(config, "workerinput"):  # a worker's reports reach the process that started it
        rows = promises.read(table, promises.CLAIMS.read_text())
        config.pluginmanager.register(promises.Keeper(rows))


def pytest_make_parametrize_id(val: object) -> str | None:
    # Workers must collect the same tests, and bytes may be random: pytest numbers them instead.
    return "bytes" if isinstance(val, bytes | bytearray) else None
