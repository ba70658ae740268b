"""The application: finds the route of a request, and answers every error in one shape.

A few lines of this project's own rather than a framework's layers, which cost a release as much as all of its signatures do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.api import errors as http_errors
from strongroom.errors import Misuse, NotFound, StrongroomError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from strongroom.api.budgets import ConnectionBudgets
    from strongroom.api.http import HttpResponse, Request
    from strongroom.api.routing import RouteRow

    Handler = Callable[[Request], Awaitable[HttpResponse]]


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
    """Serves the routes of a table. budgets: what a connection to it may take. on_stop: called when the server is asked to stop."""

    def __init__(
        self,
        rows: tuple[RouteRow, ...],
        handlers: Mapping[str, Handler],
        *,
        budgets: ConnectionBudgets,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.budgets = budgets
        self.on_stop = on_stop
        self.routes = tuple(Route(row, handlers[row.name]) for row in rows)

    async def respond(self, request: Request) -> HttpResponse:
        """The answer to one request. Raises nothing but that it was cancelled."""
        try:
            return await self._find(request)(request)
        except StrongroomError as failure:
            return http_errors.answer(failure)
        except Exception as cause:  # noqa: BLE001 - no traceback ever reaches a client
            return http_errors.defect(cause)

    def _find(self, request: Request) -> Handler:
        for route in self.routes:
            parameters = route.match(request.path)
            if parameters is None:
                continue
            if request.method not in route.methods:
                raise Misuse(
                    f"{request.path[:200]}: expected the method {' or '.join(sorted(route.methods))}, got {request.method[:20]}",
                    code="wrong-method",
                    hint="docs/brokers.md says what a broker answers",
                )
            request.parameters = parameters
            return route.handler
        raise NotFound(
            f"{request.path[:200]}: a broker has no such path",
            code="no-route",
            hint="docs/brokers.md says what a broker answers",
        )
