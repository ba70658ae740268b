"""The application: the routes of `routes`, each bound to its use case. No documents, no schema route."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import Route

from strongroom.api import budgets as budgets_model
from strongroom.api import errors as http_errors
from strongroom.api import ledger, results, routes
from strongroom.broker.challenge import challenge
from strongroom.broker.receipt import receipt
from strongroom.broker.release import release, turn_away
from strongroom.encoding import canonical
from strongroom.errors import Misuse, NotFound, StrongroomError, Unavailable
from strongroom.model import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from strongroom.broker.broker import Broker

    Handler = Callable[[Request], Awaitable[Response]]

JSON = http_errors.JSON


class Readiness:
    """Whether the broker would serve a release now; `why_not` is asked on each look."""

    def __init__(self, why_not: Callable[[], str | None]) -> None:
        self.why_not = why_not


def build(broker: Broker, *, readiness: Readiness, budgets: budgets_model.Budgets | None = None) -> FastAPI:
    """The application for `broker`."""
    limits = budgets or budgets_model.Budgets()
    app = FastAPI(
        title="Strongroom broker",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False},
    )
    handlers = _handlers(broker, readiness, budgets_model.Bodies(limits))
    for row in routes.ROUTES:
        # Plain routes: messages are parsed by `model`, so that FastAPI's own parsing would only cost.
        app.router.routes.append(
            Route(row.path, _guarded(handlers[row.name]), methods=[row.method], name=row.name)
        )
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_middleware(_Hurry, seconds=limits.request_seconds)
    return app


def _handlers(broker: Broker, readiness: Readiness, bodies: budgets_model.Bodies) -> dict[str, Handler]:
    limit = {row.name: row.limit for row in routes.ROUTES}

    async def post_challenge(request: Request) -> Response:
        async with bodies.read(request, limit["challenge"]) as body:
            return _json((await challenge(broker, body)).encode())

    async def post_release(request: Request) -> Response:
        return await _release(broker, bodies, limit["release"], request)

    async def post_receipt(request: Request) -> Response:
        async with bodies.read(request, limit["receipt"]) as body:
            return _json((await receipt(broker, body, peer=budgets_model.peer(request.client))).encode())

    async def get_health(_request: Request) -> Response:
        why = await run_in_threadpool(readiness.why_not)
        if why is None:
            return _json(canonical.dumps({"ready": True}))
        return _json(canonical.dumps({"ready": False, "why": why}), status=503)

    async def get_checkpoint(_request: Request) -> Response:
        note = await run_in_threadpool(ledger.checkpoint, broker)
        return Response(note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})

    async def get_tile(request: Request) -> Response:
        length, data = await run_in_threadpool(ledger.tile, broker, request.path_params["path"])
        # A full tile never changes, and a partial one keeps its name and content too.
        kept = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Length": str(length)}
        return StreamingResponse(data, media_type="application/octet-stream", headers=kept)

    async def get_proof(request: Request) -> Response:
        index = ledger.number(request.query_params.get("index"), "index")
        size = ledger.number(request.query_params.get("size"), "size")
        return _json(await run_in_threadpool(ledger.proof, broker, index, size))

    async def get_consistency(request: Request) -> Response:
        first = ledger.number(request.query_params.get("from"), "from")
        second = ledger.number(request.query_params.get("to"), "to")
        return _json(await run_in_threadpool(ledger.consistency, broker, first, second))

    async def get_run(request: Request) -> Response:
        return _json(await run_in_threadpool(ledger.run, broker, request.path_params["run"]))

    async def get_result(request: Request) -> Response:
        asked = results.read(request.path_params["run"], request.query_params)
        token = await run_in_threadpool(results.answer, broker, asked)
        return Response(token, media_type=asked.media_type, headers={"Cache-Control": "no-store"})

    return {
        "challenge": post_challenge,
        "release": post_release,
        "receipt": post_receipt,
        "health": get_health,
        "checkpoint": get_checkpoint,
        "tile": get_tile,
        "proof": get_proof,
        "consistency": get_consistency,
        "run": get_run,
        "result": get_result,
    }


async def _release(broker: Broker, bodies: budgets_model.Bodies, limit: int, request: Request) -> Response:
    peer = budgets_model.peer(request.client)
    denial: messages.DenialAnswer | None = None

    def worth_reading(line: bytes) -> bool:
        nonlocal denial
        denial = turn_away(broker, messages.parse_release_head(line), peer=peer)
        return denial is None

    async with bodies.read(request, limit, worth_reading=worth_reading) as body:
        if denial is not None:
            return _json(denial.encode(), status=403, close=True)
        answer = await release(broker, body, peer=peer)
    status = 200 if isinstance(answer, messages.ReleaseAnswer) else 403
    return _json(answer.encode(), status=status)


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except StrongroomError as failure:
            return http_errors.answer(failure)
        except asyncio.CancelledError:
            raise
        except Exception as cause:  # noqa: BLE001 - no traceback ever reaches a client
            return http_errors.defect(cause)

    return guarded


async def _unrouted(_request: Request, cause: Exception) -> Response:
    status = cause.status_code if isinstance(cause, HTTPException) else 500
    if status == 405:
        return http_errors.answer(Misuse("this route does not know that method", code="wrong-method"))
    return http_errors.answer(NotFound("no such route", code="no-route"))


def _json(body: bytes, *, status: int = 200, close: bool = False) -> Response:
    headers = {"Cache-Control": "no-store", **({"Connection": "close"} if close else {})}
    return Response(body, status_code=status, media_type=JSON, headers=headers)


class _Hurry:
    """Ends a request that takes too long as a whole, be it us or a client that does not read."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: object) -> None:
            nonlocal begun
            begun = True
            await send(message)  # type: ignore[arg-type]

        try:
            async with asyncio.timeout(self._seconds):
                await self._app(scope, receive, sending)
        except TimeoutError:
            if begun:
                raise
            slow = Unavailable("request: took too long", code="too-slow", hint="try again in a moment")
            await http_errors.answer(slow)(scope, receive, send)
