"""A connection: HTTP/1.1 by the parser of httptools (llhttp, strict), and a clock on each of its phases.

  headers   `header_seconds` from the first byte that may come, and `header_bytes`: else it is cut off
  body      `body_seconds`: then the request fails (`slow-body`). More than `HELD` bytes are not read ahead of who takes them
  request   `request_seconds` for the whole of it, the answer included: then it is cancelled (`too-slow`), or cut off where
            the answer has begun
  silence   `idle_seconds` until the next request: then it is closed

One request at a time: whoever sends a second one before the answer to the first gets that answer, and is closed. Whatever is
no HTTP is answered once and closed. Where an answer comes before the end of its request's body, the rest is not waited for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from strongroom.api import budgets as budgets_model
from strongroom.api import errors as http_errors
from strongroom.api.http import Request, split_target
from strongroom.errors import Malformed, Misuse, Unavailable

if TYPE_CHECKING:
    from strongroom.api.application import Application
    from strongroom.api.budgets import Shares
    from strongroom.api.http import HttpResponse

HELD = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """shares: how many connections each address has. connected: all of them, for who ends them."""

    def __init__(self, app: Application, *, shares: Shares, connected: set[Connection]) -> None:
        self._app = app
        self._budgets = app.budgets
        self._shares = shares
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer: str | None = None  # None: of no connection that is counted
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._target = b""
        self._length: str | None = None
        self._expects = False
        self._head_bytes = 0
        self._in_head = True
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._end = 0.0
        self._keeps_alive = True
        self._last = False  # the answer to the request under way is the last one
        self._deaf = False  # whatever still comes is ignored
        self._late = False
        self._begun = False
        self._holding = False
        self._writable: asyncio.Future[None] | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the new connection, or cut it off."""
        self._transport = transport  # type: ignore[assignment]
        peer = budgets_model.peer(transport.get_extra_info("peername"))
        if not self._shares.take(peer, 1):
            self._deaf = True
            self._transport.abort()  # this address has connections enough: others need theirs
            return
        self._peer = peer
        self._connected.add(self)
        self._expire_in(self._budgets.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. A request that is being decided is decided; one whose body is missing fails."""
        del exc
        self._deaf = True
        self._connected.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._peer is not None:
            self._shares.give_back(self._peer, 1)
            self._peer = None
        if self._request is not None and not self._request.complete:
            self._request.fail(
                Misuse("request: its client is gone", code="cut-off", hint="nobody is left to tell")
            )
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = self._deaf = True  # there is nothing else that it could become
        except httptools.HttpParserError:
            self._refuse(
                Malformed(
                    "request: expected HTTP/1.1 within TLS",
                    code="not-http",
                    hint="a client of another protocol, or a proxy, speaks to this port: give it the https:// address of the party file",
                )
            )

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has read."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._request is not None:
            self._last = self._deaf = True
        if self._deaf:
            return
        self._in_head = True
        self._target, self._length, self._expects, self._head_bytes = b"", None, False, 0
        self._expire_in(self._budgets.header_seconds)

    def on_url(self, url: bytes) -> None:
        """A part of its target."""
        if not self._deaf:
            self._target += url
            self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or of its trailers."""
        if self._deaf:
            return
        self._count(len(name) + len(value))
        if self._in_head:
            lower = name.lower()
            if lower == b"content-length":
                self._length = value.decode("latin-1")
            elif lower == b"expect":
                self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Its head is in: serve it."""
        if self._deaf:
            return
        self._in_head = False
        try:
            path, query = split_target(self._target)
        except Malformed as failure:
            self._refuse(failure)
            return
        self._keeps_alive = self._parser.should_keep_alive()
        self._end = self._loop.time() + self._budgets.request_seconds
        self._late = self._begun = False
        self._request = Request(
            method=self._parser.get_method().decode("ascii"),
            path=path,
            query=query,
            peer=self._peer or "",
            length=self._length,
            source=self,
        )
        self._expire_in(min(self._budgets.body_seconds, self._budgets.request_seconds))
        self._task = self._loop.create_task(self._serve(self._request))

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        if self._deaf or self._request is None:
            return
        self._request.feed(body)
        if self._request.held > HELD:
            self._holding = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Its body is in."""
        if not self._deaf and self._request is not None:
            self._request.end()
            self._expire_at(self._end)

    # What a request asks of where it comes from

    def waiter(self) -> asyncio.Future[None]:
        """A future to wait with for more of the body."""
        if self._expects:
            self._expects = False
            self._transport.write(_CONTINUE)
        return self._loop.create_future()

    def taken(self) -> None:
        """What had come of the body was taken."""
        if self._holding:
            self._holding = False
            self._transport.resume_reading()

    # Serving

    def finish(self) -> None:
        """Close after the answer to the request under way; at once where there is none."""
        self._last = True
        if self._request is None:
            self._close()

    def abort(self) -> None:
        """Cut the connection off."""
        self._deaf = True
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self._app.respond(request)
        except asyncio.CancelledError:
            if not self._late:
                raise
            answer = http_errors.answer(
                Unavailable("request: took too long", code="too-slow", hint="try again in a moment")
            )
        try:
            await self._write(request, answer)
        except Exception as cause:  # noqa: BLE001 - an answer that breaks off: its client sees that it did
            http_errors.defect(cause)
            self._transport.abort()

    async def _write(self, request: Request, answer: HttpResponse) -> None:
        closes = answer.closes or self._last or not self._keeps_alive or not request.complete
        head, bare = answer.head(closes=closes), request.method == "HEAD"
        if self._writable is not None:
            await self._writable
        if self._transport.is_closing():
            return
        if answer.pieces is None:
            self._transport.write(head if bare else head + answer.body)
        else:
            self._begun = True
            self._transport.write(head)
            async for piece in answer.pieces:
                if bare or self._transport.is_closing():
                    break
                self._transport.write(piece)
                if self._writable is not None:
                    await self._writable
        self._request = self._task = None
        if closes or self._last:
            self._close()
        else:
            self._expire_in(self._budgets.idle_seconds)

    def _refuse(self, failure: Malformed) -> None:
        """What cannot be read further: the request under way fails, or the client gets an error and the connection is closed."""
        self._last = self._deaf = True
        if self._request is not None:
            if not self._request.complete:
                self._request.fail(failure)
            return
        answer = http_errors.answer(failure)
        self._transport.write(answer.head(closes=True) + answer.body)
        self._close()

    def _close(self) -> None:
        self._deaf = True
        self._expire_in(self._budgets.idle_seconds)
        self._transport.close()

    def _count(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > self._budgets.header_bytes:
            self._deaf = True
            self._transport.abort()

    # The clock

    def _expire_in(self, seconds: float) -> None:
        self._expire_at(self._loop.time() + seconds)

    def _expire_at(self, deadline: float) -> None:
        """Set the one deadline. A timer that rings too early is set again then, so that most requests touch none."""
        self._deadline = deadline
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now, request = self._loop.time(), self._request
        if now < self._deadline:
            self._expire_at(self._deadline)
        elif request is not None and not request.complete and now < self._end:
            seconds = self._budgets.body_seconds
            request.fail(
                Misuse(
                    f"request: its body took longer than {seconds:g} seconds",
                    code="slow-body",
                    hint="send it at once, or see what slows the way to the broker",
                )
            )
            self._expire_at(self._end)
        elif request is not None and self._task is not None and not (self._late or self._begun):
            self._late = True
            self._task.cancel()
            self._expire_in(self._budgets.header_seconds)
        elif request is None and not self._in_head and not self._deaf:
            self._close()
        else:
            self._transport.abort()
