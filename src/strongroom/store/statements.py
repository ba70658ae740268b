"""From SQLAlchemy Core to what the SQLite driver executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    import sqlite3

    import sqlalchemy as sa

_BY_NAME = sqlite.dialect(paramstyle="named")
_BY_PLACE = sqlite.dialect(paramstyle="qmark")


def text(statement: sa.ClauseElement, *, placed: bool = False) -> str:
    """The SQL of a statement, its parameters by name; placed: by place (`?`), in the order of the table's columns.

    Raises `ValueError` for a statement with literal values: they would be lost.
    """
    compiled = statement.compile(dialect=_BY_PLACE if placed else _BY_NAME)
    own = [name for name, value in compiled.params.items() if value is not None]
    if own:
        raise ValueError(f"statement with values of its own: {own}")
    return str(compiled)


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """The driver's own connection under SQLAlchemy's, within the same transaction."""
    inner: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return inner
