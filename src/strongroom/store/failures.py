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
    (
        "not a database",
        "store-corrupt",
        "the file is not a database",
        "restore the broker's folder from a backup",
    ),
    (
        "readonly",
        "store-readonly",
        "the database can not be written",
        "make the broker's folder writable for whom it runs as: its owner, its mode, a read-only mount",
    ),
    (
        "unable to open",
        "store-missing",
        "the database can not be opened",
        "is the broker's folder there, and whole? Restore it from a backup if not",
    ),
    (
        "disk i/o",
        "store-io",
        "the disk fails",
        "nothing was released; look at the machine's disk (its kernel log), and restore the folder onto a sound one",
    ),
)


def explained(cause: sqlalchemy.exc.SQLAlchemyError | sqlite3.Error) -> Unavailable:
    """The error to raise in place of `cause`."""
    text = str(getattr(cause, "orig", None) or cause).lower()
    for part, code, said, hint in _KNOWN:
        if part in text:
            return Unavailable(f"broker store: {said}", code=code, hint=hint)
    return Unavailable(
        f"broker store: the database refused: {type(cause).__name__}",
        code="store-failed",
        hint="nothing was released; try again, and if it stays so, restore the broker's folder from a backup",
    )


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    """Turn database errors into `Unavailable`."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error) as cause:
        raise explained(cause) from None
