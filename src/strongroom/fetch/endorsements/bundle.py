"""Statements as one file, for rooms and verifiers that no network reaches.

JSON: {"format": "strongroom-endorsements/1", "statements": [{"fetched", "key", "parts"}, …]}, sorted by key. The file
is not signed, since each statement is signed by its vendor. An import judges each statement as if a service had sent it.
It refuses the whole file for one that is forged, damaged or older than seen, and passes over those that are past their end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.fetch.endorsements import library, statement, validate

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.fetch.endorsements.library import Library
    from strongroom.fetch.endorsements.statement import Statement

FORMAT = "strongroom-endorsements/1"
MAX_BYTES = 48 * 1024 * 1024
MAX_STATEMENTS = 2048


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did, by keys: kept now, passed over for a newer one kept before, passed over as past its end."""

    kept: tuple[str, ...]
    newer_before: tuple[str, ...]
    past: tuple[str, ...]


def export(source: Library, *, now: datetime) -> bytes:
    """Everything that counts at `now`. Raises `Malformed` when that is too much for one file."""
    current = [listed.statement for listed in source.listed(now=now) if listed.state == library.CURRENT]
    return encode(current)


def encode(statements: list[Statement]) -> bytes:
    """The file of these statements."""
    listed = sorted(statements, key=lambda statement: statement.key)
    data = canonical.dumps({"format": FORMAT, "statements": [statement.to_json() for statement in listed]})
    if len(data) > MAX_BYTES or len(listed) > MAX_STATEMENTS:
        raise Malformed(
            f"{len(listed)} statements of {len(data)} bytes: expected at most {MAX_STATEMENTS} of {MAX_BYTES} in one file",
            code="too-large",
            hint="fetch for fewer machines into a folder of its own (--folder), and export that",
        )
    return data


def parse(data: bytes) -> tuple[Statement, ...]:
    """The statements of a file, unjudged. Raises `Malformed`."""
    what = "endorsements file"
    top = fields.Fields(canonical.loads(data, what=what, max_bytes=MAX_BYTES), what)
    top.constant("format", FORMAT)
    statements = tuple(statement.read(entry) for entry in top.objects("statements", max_items=MAX_STATEMENTS))
    top.done()
    if len({parsed.key for parsed in statements}) != len(statements):
        raise Malformed(
            f"{what}: the same statement twice",
            code="duplicate-key",
            hint="give the file as `strongroom endorsements export` wrote it",
        )
    return statements


def take(data: bytes, target: Library, *, now: datetime) -> Imported:
    """Import a file. Raises `Malformed` or `Refused` without having kept anything."""
    good, past = [], []
    for offered in parse(data):
        if offered.fetched > now:
            raise Refused(
                f"{offered.key}: fetched {fields.format_time(offered.fetched)}, which is yet to come",
                code="not-yet",
                hint="set the clocks of both machines: the one that fetched, and this one",
            )
        terms = validate.judge(offered, roots=target.roots, now=now)
        if now > terms.until:
            past.append(offered.key)
            continue
        target.marks.check(terms.marks)
        good.append(offered)
    kept: list[str] = []
    before: list[str] = []
    for offered in good:
        try:
            (kept if target.put(offered, now=now) else before).append(offered.key)
        except Unavailable:
            past.append(offered.key)
    return Imported(kept=tuple(kept), newer_before=tuple(before), past=tuple(past))
