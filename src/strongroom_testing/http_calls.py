"""Requests to a broker's application through its own connection and parser, without sockets and TLS: an httpx transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx

from strongroom.api.budgets import Shares
from strongroom.api.connection import Connection

if TYPE_CHECKING:
    from strongroom.api.application import Application

BASE = "https://broker"


def split(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a header."""
    name, _, value = line.partition(b": ")
    return name, value


class Pipe:
    """What a connection writes to. Everything is read at once, and nothing more is read after its end."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.written = bytearray()
        self.closed = self.reading = False
        self.connection: Connection | None = None
        self.resume_reading()

    def get_extra_info(self, name: str) -> Any:
        return {"peername": (self.peer, 1)}[name]

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        if not self.closed and self.connection is not None:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close

    def answer(self) -> httpx.Response | None:
        """The answer, once it is whole."""
        head, found, body = bytes(self.written).partition(b"\r\n\r\n")
        while found and head.startswith(b"HTTP/1.1 100 "):
            head, found, body = body.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.split(b"\r\n")
        headers = dict(split(line) for line in lines)
        if not self.closed and len(body) < int(headers[b"content-length"]):
            return None
        return httpx.Response(int(first.split(b" ")[1]), headers=headers, content=body)


class Transport(httpx.AsyncBaseTransport):
    """Each request over a connection of its own, from the address `peer`."""

    def __init__(self, app: Application, *, peer: str = "192.0.2.1") -> None:
        self.app, self.peer = app, peer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pipe = Pipe(self.peer)
        shares = Shares(self.app.budgets.connections, self.app.budgets.share)
        pipe.connection = connection = Connection(self.app, shares=shares, connected=set())
        connection.connection_made(pipe)  # type: ignore[arg-type]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in request.headers.raw)
        connection.data_received(
            b"%s %s HTTP/1.1\r\n%s\r\n" % (request.method.encode(), request.url.raw_path, head)
        )
        chunked = b"transfer-encoding" in {name.lower() for name, _ in request.headers.raw}
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for piece in request.stream:
            connection.data_received(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            for _ in range(5):  # what is decided by what has come is decided before more is sent
                await asyncio.sleep(0)
            if pipe.closed or pipe.written:
                break
        else:
            if chunked:
                connection.data_received(b"0\r\n\r\n")
        while (answer := pipe.answer()) is None:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)
        pipe.close()
        return answer


def call(
    app: Application,
    method: str,
    path: str,
    body: Any = b"",
    *,
    peer: str = "192.0.2.1",
    **options: Any,
) -> httpx.Response:
    """One request, and its answer."""

    async def one() -> httpx.Response:
        transport = Transport(app, peer=peer)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(method, path, content=body, **options)

    return asyncio.run(one())
