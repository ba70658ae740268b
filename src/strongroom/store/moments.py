"""Times as the database keeps them: whole seconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime


def seconds(time: datetime) -> int:
    """Whole seconds since 1970."""
    return int(time.timestamp())


def moment(value: int) -> datetime:
    """The time of so many seconds since 1970."""
    return datetime.fromtimestamp(value, UTC)
