"""A request and its answer, as far as HTTP/1.1 is spoken here. `connection` reads the one and writes the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from strongroom.errors import Malformed
from strongroom.model.identifiers import NO_CONTRACT, ContractDigest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """pieces, length: of a body that is sent as it is made. closes: the connection ends with this answer. fields: more of the
    header, of ASCII without line ends.
    """

    body: bytes = b""
    status: int = 200
    media_type: str = JSON
    kept: str = "no-store"
    retry_after: int | None = None
    pieces: AsyncIterator[bytes] | None = None
    length: int | None = None
    closes: bool = False
    fields: tuple[tuple[str, str], ...] = ()

    def head(self, *, closes: bool) -> bytes:
        """Status line and headers."""
        length = len(self.body) if self.length is None else self.length
        last = "connection: close\r\n" if closes else ""
        retry = "" if self.retry_after is None else f"retry-after: {self.retry_after}\r\n"
        more = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\ncontent-length: {length}\r\n"
            f"content-type: {self.media_type}\r\ncache-control: {self.kept}\r\n{more}{retry}{last}\r\n"
        ).encode("ascii")


class BodySource(Protocol):
    """Where a body comes from."""

    def waiter(self) -> asyncio.Future[None]:
        """A future to wait with for more of the body: who waits wants it."""

    def taken(self) -> None:
        """What had come was taken."""


@dataclass(kw_only=True, slots=True)
class Request:
    """A request whose head is in; its body comes piece by piece.

    peer: by what budgets know the client. length: as the client announced it. parameters: of the path. contract_digest:
    of that which keys are asked for under, once it is known. held: bytes that came and were not taken. counted: bytes
    that were taken, as budgets count them.
    """

    method: str
    path: str
    query: str
    peer: str
    length: str | None
    source: BodySource
    parameters: dict[str, str] = field(default_factory=dict)
    contract_digest: ContractDigest = NO_CONTRACT
    complete: bool = False
    held: int = 0
    counted: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _failure: Exception | None = None
    _waiter: asyncio.Future[None] | None = None

    async def more(self) -> bytes:
        """What has come of the body since the last time; empty at its end. Raises the failure that `fail` was given."""
        while not self._pieces and not self.complete and self._failure is None:
            self._waiter = self.source.waiter()
            await self._waiter
        if self._failure is not None:
            raise self._failure
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self.held = 0
        self.source.taken()
        return data

    def feed(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._pieces.append(piece)
        self.held += len(piece)
        self._wake()

    def end(self) -> None:
        """The whole body has come."""
        self.complete = True
        self._wake()

    def fail(self, failure: Exception) -> None:
        """No more of the body will come."""
        self._failure = failure
        self._wake()

    def queried(self) -> dict[str, str]:
        """The query's parameters, decoded; of a name that stands twice the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def split_target(target: bytes) -> tuple[str, str]:
    """Path, decoded, and query of a request's target. Raises `Malformed`."""
    path, _, query = target.partition(b"?")
    try:
        if b"%" in path:
            path = unquote_to_bytes(path)
        return path.decode("utf-8"), query.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("request: its path: expected UTF-8, and its query: ASCII", code="not-http") from None
