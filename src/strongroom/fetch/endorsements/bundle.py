"""Statements as one file, for rooms and verifiers that no network reaches.

JSON: {"format": "strongroom-endorsements/1", "statements": [{"fetched", "key", "parts"}, …]}, sorted by key. The file
is not signed, since each statement is by its vendor: whoever imports judges each as if a service had said it, refuses
the whole file for one that is forged, damaged or older than seen, and passes over those that are past their end.
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
    found = [one.statement for one in source.listed(now=now) if one.state == library.CURRENT]
    return encode(found)


def encode(statements: list[Statement]) -> bytes:
    """The file of these statements."""
    listed = sorted(statements, key=lambda one: one.key)
    data = canonical.dumps({"format": FORMAT, "statements": [one.to_json() for one in listed]})
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
    found = tuple(statement.read(one) for one in top.objects("statements", max_items=MAX_STATEMENTS))
    top.done()
    if len({one.key for one in found}) != len(found):
        raise Malformed(
            f"{what}: the same statement twice",
            code="duplicate-key",
            hint="give the file as `strongroom endorsements export` wrote it",
        )
    return found


def take(data: bytes, target: Library, *, now: datetime) -> Imported:
    """Import a file. Raises `Malformed` or `Refused` without having kept anything."""
    good, past = [], []
    for one in parse(data):
        if one.fetched > now:
            raise Refused(
                f"{one.key}: fetched {fields.format_time(one.fetched)}, which is yet to come",
                code="not-yet",
                hint="set the clocks of both machines: the one that fetched, and this one",
            )
        terms = validate.judge(one, roots=target.roots, now=now)
        if now > terms.until:
            past.append(one.key)
            continue
        target.marks.check(terms.marks)
        good.append(one)
    kept: list[str] = []
    before: list[str] = []
    for one in good:
        try:
            (kept if target.put(one, now=now) else before).append(one.key)
        except Unavailable:
            past.append(one.key)
    return Imported(kept=tuple(kept), newer_before=tuple(before), past=tuple(past))
