"""What went wrong in the database, said in our own errors. Nothing here ever counts as an acceptance."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import sqlalchemy.exc

from strongroom.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

# Part of SQLite's message → (code, what we say, what to do).
_KNOWN = (
    ("locked", "store-busy", "the database is locked by another writer", "try again in a moment"),
    ("full", "disk-full", "the disk is full", "free space on the broker's disk; nothing was released"),
    (
        "malformed",
        "store-corrupt",
        "the database is damaged",
        "stop the broker and restore it from a backup, then let a witness compare its ledger",
    ),
    ("not a database", "store-corrupt", "the file is not a database", "restore the broker's directory"),
    (
        "readonly",
        "store-readonly",
        "the database can not be written",
        "check the directory's owner and mount",
    ),
    ("unable to open", "store-missing", "the database can not be opened", "check the broker's directory"),
    ("disk i/o", "store-io", "the disk fails", "check the broker's disk; nothing was released"),
)


def explained(cause: sqlalchemy.exc.SQLAlchemyError | sqlite3.Error) -> Unavailable:
    """The error to raise in place of `cause`."""
    text = str(getattr(cause, "orig", None) or cause).lower()
    for part, code, said, hint in _KNOWN:
        if part in text:
            return Unavailable(f"broker store: {said}", code=code, hint=hint)
    return Unavailable(
        f"broker store: {type(cause).__name__}",
        code="store-failed",
        hint="the database refused; nothing was released",
    )


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Turn database errors into `Unavailable`."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as cause:
        raise explained(cause) from None
