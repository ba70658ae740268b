"""The ASGI application: finds the route of a request, gives it its time, and answers every error in one shape.

Our own few lines rather than a framework's layers: those cost a release as much as all of its signatures do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request

from strongroom.api import errors as http_errors
from strongroom.errors import Misuse, NotFound, StrongroomError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

    from strongroom.api.routes import RouteRow

    Handler = Callable[[Request], Awaitable[Response]]


class Route:
    """A row of the table with its handler. A path may end in one parameter, `{name}` or `{name:path}`."""

    def __init__(self, row: RouteRow, handler: Handler) -> None:
        self.name, self.path, self.handler = row.name, row.path, handler
        self.methods = frozenset({"GET", "HEAD"} if row.method == "GET" else {row.method})
        self._prefix, _, rest = row.path.partition("{")
        self._parameter, _, self._kind = rest.rstrip("}").partition(":")

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters; None where it is another path."""
        if not self._parameter:
            return {} if path == self.path else None
        value = path.removeprefix(self._prefix)
        if not value or not path.startswith(self._prefix) or ("/" in value and self._kind != "path"):
            return None
        return {self._parameter: value}


class Application:
    """Serves the routes of a table. seconds: how long a request may take as a whole."""

    def __init__(
        self, rows: tuple[RouteRow, ...], handlers: Mapping[str, Handler], *, seconds: float
    ) -> None:
        self.routes = tuple(Route(row, handlers[row.name]) for row in rows)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3). Anything but HTTP is not served."""
        if scope["type"] != "http":
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._seconds):
                response = await self._respond(scope, receive)
                await response(scope, receive, sending)
        except TimeoutError:
            if begun:
                raise  # a client that does not read: the server ends its connection
            slow = Unavailable("request: took too long", code="too-slow", hint="try again in a moment")
            await http_errors.answer(slow)(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        try:
            handler = self._find(scope)
            return await handler(Request(scope, receive))
        except StrongroomError as failure:
            return http_errors.answer(failure)
        except asyncio.CancelledError:
            raise
        except Exception as cause:  # noqa: BLE001 - no traceback ever reaches a client
            return http_errors.defect(cause)

    def _find(self, scope: Scope) -> Handler:
        for route in self.routes:
            parameters = route.match(scope["path"])
            if parameters is None:
                continue
            if scope["method"] not in route.methods:
                raise Misuse("this route does not know that method", code="wrong-method")
            scope["path_params"] = parameters
            return route.handler
        raise NotFound("no such route", code="no-route")
