"""Statements fetched once, kept while they count, and never older than what was seen.

Asked for a statement, in this order:

  1 the shelf      what is kept is served while its vendor says that it counts at `now` and nothing newer was seen;
                   no limit shorter than the vendor's is imposed
  2 alone          of all threads and processes that want it, one asks; the others take what it brings, or its failure
  3 the service    unless offline; so many at once and a minute, whoever makes us ask (rule 59)
  4 the judgement  the answer is about what was asked for, and signed up to one of `roots`: verification asks all of
                   that again, but what is not so must neither be kept nor push the numbers seen
  5 its end        one that is past its end already is not taken
  6 the numbers    not lower than seen; they are raised, durably, before the statement is kept

A statement that is past its end is never served: offline, or with the service away, the answer is `Unavailable`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.errors import Malformed, Refused, StrongroomError, Unavailable
from strongroom.fetch.endorsements import validate
from strongroom.fetch.endorsements.statement import Statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from strongroom.fetch.endorsements.disk_cache import Shelf
    from strongroom.fetch.endorsements.rollback import Marks
    from strongroom.fetch.endorsements.statement import StatementRequest, StatementTerms
    from strongroom.fetch.http.client import Client

LOCK_SECONDS = 120.0
MAX_OUTBOUND = 8  # at once
MAX_A_MINUTE = 120
_MAX_FAILURES = 1024

CURRENT, PAST, OLD, UNTRUSTED = "current", "past its end", "older than seen", "not signed by a trusted root"


@dataclass(frozen=True, kw_only=True)
class ListedStatement:
    """One kept statement, for people. terms: None where the statement does not say them."""

    statement: Statement
    state: str
    terms: StatementTerms | None


@dataclass(frozen=True, kw_only=True)
class Library:
    """What was fetched. roots: digests of the roots that count. offline: never ask anybody. Safe among threads."""

    shelf: Shelf
    marks: Marks
    client: Client
    roots: frozenset[str]
    offline: bool = False
    a_minute: int = MAX_A_MINUTE
    _asked: deque[float] = field(default_factory=deque, repr=False)
    _failures: dict[str, tuple[float, StrongroomError]] = field(default_factory=dict, repr=False)
    _outbound: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(MAX_OUTBOUND), repr=False
    )

    def get(self, ask: StatementRequest, *, now: datetime, refresh: bool = False) -> Statement:
        """The statement, kept or fetched. refresh: ask the service, though what is kept still counts.

        Raises `Unavailable`, `NotFound`, `Malformed`, or `Refused`: the answer is not the vendor's, or older than seen.
        """
        # 1 the shelf; a statement that comes onto it from here on is new to the check below
        before, since = self.shelf.changed(ask.key), time.monotonic()
        kept, ended = self._kept(ask.key, now)
        if kept is not None and not refresh:
            return kept
        if self.offline:
            raise Unavailable(
                f"{ask.key}: "
                + (f"what is kept ended {ended}" if ended else "not kept")
                + ", and this is offline",
                code="offline",
                hint="fetch it where there is a network, and bring it: `strongroom endorsements export` and `import`",
            )
        # 2 alone
        with self.shelf.alone(ask.key, seconds=LOCK_SECONDS):
            if self.shelf.changed(ask.key) != before:
                kept, ended = self._kept(ask.key, now)
                if kept is not None:
                    return kept
            failed = self._failures.get(ask.key)
            if failed is not None and failed[0] > since:
                raise failed[1].with_traceback(None)
            try:
                return self._fetch(ask, now)
            except StrongroomError as cause:
                if len(self._failures) >= _MAX_FAILURES:
                    self._failures.clear()
                self._failures[ask.key] = (time.monotonic(), cause)
                raise

    def put(self, statement: Statement, *, now: datetime) -> bool:
        """Keep a statement that came another way, judged like one from a service. False when a newer statement is kept.

        Raises `Malformed`, `Refused`, or `Unavailable` when it is past its end.
        """
        terms = self._judge(statement, now)
        kept = self.shelf.get(statement.key)
        if kept is not None:
            try:
                if validate.judge(kept, roots=self.roots, now=now).issued >= terms.issued:
                    return kept.parts == statement.parts
            except (Malformed, Refused):
                pass  # what is kept is worth nothing
        self._keep(statement, terms)
        return True

    def drop(self, key: str) -> None:
        """Forget a statement; the numbers that it raised stay."""
        self.shelf.drop(key)

    def listed(self, *, now: datetime) -> Iterator[ListedStatement]:
        """Every kept statement, by key."""
        seen = self.marks.seen()
        for key in self.shelf.everything():
            statement = self.shelf.get(key)
            if statement is None:
                continue
            try:
                terms = validate.judge(statement, roots=self.roots, now=now)
            except (Malformed, Refused):
                yield ListedStatement(statement=statement, state=UNTRUSTED, terms=None)
                continue
            state = CURRENT
            if now > terms.until:
                state = PAST
            elif any(mark.number < seen.get(mark.name, -1) for mark in terms.marks):
                state = OLD
            yield ListedStatement(statement=statement, state=state, terms=terms)

    def _kept(self, key: str, now: datetime) -> tuple[Statement | None, str]:
        """The kept statement, where it counts; else None, and the time at which it ended (empty for none)."""
        statement = self.shelf.get(key)
        if statement is None:
            return None, ""
        try:
            terms = validate.judge(statement, roots=self.roots, now=now)
            if now > terms.until:
                return None, fields.format_time(terms.until)
            self.marks.check(terms.marks)
        except (Malformed, Refused) as cause:
            if cause.code == "marks-damaged":
                raise
            return None, ""
        return statement, ""

    def _fetch(self, ask: StatementRequest, now: datetime) -> Statement:
        # 3 the service
        self._spend(ask.key)
        if not self._outbound.acquire(timeout=LOCK_SECONDS):
            raise Unavailable(
                f"{ask.key}: too many fetches at once", code="fetch-busy", hint="try again in a moment"
            )
        try:
            answer = self.client.get(ask.service, ask.path, types=ask.types, max_bytes=ask.max_bytes)
        finally:
            self._outbound.release()
        try:
            statement = Statement(key=ask.key, parts=ask.take(answer), fetched=now.replace(microsecond=0))
            terms = self._judge(statement, now)
        except Unavailable as cause:
            raise Unavailable(f"{answer.url}: {cause.message}", code=cause.code, hint=cause.hint) from None
        except Malformed as cause:
            if cause.code == "marks-damaged":
                raise
            raise Malformed(
                f"{answer.url}: {cause.message}",
                code="vendor-answer",
                hint="a proxy or another program answers there in the vendor's place, or its service is broken; nothing was kept",
            ) from None
        except Refused as cause:
            if cause.code == "downgrade":
                raise
            raise Refused(
                f"{answer.url}: not what the vendor says of {ask.key}: {cause.message}",
                code="not-the-vendors",
                hint="somebody else answers there, or the service is broken; nothing of it was kept",
            ) from None
        self._keep(statement, terms)
        return statement

    def _spend(self, key: str) -> None:
        """One of the minute's asks. A deque's own operations are atomic; one ask more or less is no matter."""
        times, now = self._asked, time.monotonic()
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= self.a_minute:
            raise Unavailable(
                f"{key}: {self.a_minute} fetches within a minute already",
                code="fetch-budget",
                hint="somebody makes us ask for much that is not kept: try again in a minute",
            )
        times.append(now)

    def _judge(self, statement: Statement, now: datetime) -> StatementTerms:
        # 4 the judgement
        terms = validate.judge(statement, roots=self.roots, now=now)
        # 5 its end
        if now > terms.until:
            raise Unavailable(
                f"{statement.key}: it ended {fields.format_time(terms.until)}",
                code="stale",
                hint="whoever gave it is behind its vendor: leave --pccs and --kds out to ask the vendor itself, or bring a newer file",
            )
        # 6 the numbers
        self.marks.check(terms.marks)
        return terms

    def _keep(self, statement: Statement, terms: StatementTerms) -> None:
        self.marks.raise_to(terms.marks)
        self.shelf.put(statement)
