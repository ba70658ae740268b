"""From SQLAlchemy Core to what the SQLite driver executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    import sqlite3

    import sqlalchemy as sa

_NAMED = sqlite.dialect(paramstyle="named")
_PLACED = sqlite.dialect(paramstyle="qmark")


def text(statement: sa.ClauseElement, *, placed: bool = False) -> str:
    """The SQL of a statement, its parameters by name, or by place in the order of the table's columns.

    A statement with values of its own is refused.
    """
    compiled = statement.compile(dialect=_PLACED if placed else _NAMED)
    own = [name for name, value in compiled.params.items() if value is not None]
    if own:
        raise ValueError(f"statement with values of its own: {own}")
    return str(compiled)


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """The driver's own connection under SQLAlchemy's, within the same transaction."""
    inner: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return inner
