"""Reading bodies within bounds of size, time and memory (rule 59).

The size is checked against the announced length and again while reading. All bodies together may hold only so many
bytes at once. Nothing is parsed before the whole body is in, but for a first line, which may end a request before
more of it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import Request


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """connections: how many at once. Seconds: for the TLS handshake, for the headers of a request, for
    its body, for the whole of it, and of silence between two. bodies: bytes of all bodies at once.
    """

    connections: int = 512
    handshake_seconds: float = 20.0
    header_seconds: float = 15.0
    header_bytes: int = 16 * 1024
    body_seconds: float = 20.0
    request_seconds: float = 60.0
    idle_seconds: int = 30
    bodies: int = 64 * 1024 * 1024


class Bodies:
    """Counts the bytes of all bodies that are being read or served."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(
        self, request: Request, limit: int, *, worth_reading: Callable[[bytes], bool] | None = None
    ) -> AsyncIterator[bytes]:
        """The body, at most `limit` bytes, held until the context ends.

        worth_reading: asked with the first line as soon as it is in; where it says no, no more is read than that.
        """
        _announced(request, limit)
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self._budgets.body_seconds):
                    async for chunk in request.stream():
                        self._hold(len(chunk))
                        body += chunk
                        if len(body) > limit:
                            raise _too_large(limit)
                        if worth_reading is not None and (end := body.find(b"\n")) >= 0:
                            if not worth_reading(bytes(body[:end])):
                                break
                            worth_reading = None
            except TimeoutError:
                raise Misuse(
                    f"request: its body took longer than {self._budgets.body_seconds:g} seconds",
                    code="slow-body",
                ) from None
            yield bytes(body)
        finally:
            self._held -= len(body)

    def _hold(self, count: int) -> None:
        self._held += count
        if self._held > self._budgets.bodies:
            self._held -= count
            raise Unavailable(
                "request: too many bytes are under way", code="overloaded", hint="try again in a moment"
            )


def _announced(request: Request, limit: int) -> None:
    length = request.headers.get("content-length")
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise Malformed("request: bad content length")
    if length is not None and (len(length) > 12 or int(length) > limit):
        raise _too_large(limit)


def _too_large(limit: int) -> Malformed:
    return Malformed(f"request: at most {limit} bytes are allowed here", code="too-large")
