"""The application: the routes of `routes`, each bound to its use case."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response, StreamingResponse

from strongroom.api import budgets as budgets_model
from strongroom.api import errors as http_errors
from strongroom.api import ledger, results, routes
from strongroom.api.application import Application
from strongroom.broker import request_log
from strongroom.broker.challenge import challenge
from strongroom.broker.receipt import receipt
from strongroom.broker.release import release, turn_away
from strongroom.broker.standing import standing
from strongroom.encoding import canonical
from strongroom.model import messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from starlette.requests import Request

    from strongroom.api.application import Handler
    from strongroom.broker.broker import Broker

T = TypeVar("T")

JSON = http_errors.JSON
PAUSE = 1.0
"""Seconds that an address whose requests kept failing waits for the no to a nonce of nobody's."""


class Readiness:
    """Whether the broker would serve a release now; `why_not` is asked on each look."""

    def __init__(self, why_not: Callable[[], str | None]) -> None:
        self.why_not = why_not


def build(
    broker: Broker, *, readiness: Readiness, budgets: budgets_model.Budgets | None = None
) -> Application:
    """The application for `broker`."""
    limits = budgets or budgets_model.Budgets()
    handlers = _handlers(broker, readiness, budgets_model.Bodies(limits))
    return Application(routes.ROUTES, handlers, seconds=limits.request_seconds)


def _handlers(broker: Broker, readiness: Readiness, bodies: budgets_model.Bodies) -> dict[str, Handler]:
    return {**_posts(broker, bodies), **_gets(broker, readiness)}


def _posts(broker: Broker, bodies: budgets_model.Bodies) -> dict[str, Handler]:
    limit = {row.name: row.limit for row in routes.ROUTES}

    async def post_challenge(request: Request) -> Response:
        with _counted(broker, "challenge", request):
            async with bodies.read(request, limit["challenge"]) as body:
                return _json((await challenge(broker, body)).encode())

    async def post_release(request: Request) -> Response:
        return await _release(broker, bodies, limit["release"], request)

    async def post_receipt(request: Request) -> Response:
        peer = budgets_model.peer(request.client)
        with _counted(broker, "receipt", request):
            async with bodies.read(request, limit["receipt"]) as body:
                proof = await receipt(broker, body, peer=peer)
        broker.request_log.recorded(proof, request="receipt", peer=peer, contract="")
        return _json(proof.encode())

    async def post_standing(request: Request) -> Response:
        with _counted(broker, "standing", request):
            async with bodies.read(request, limit["standing"]) as body:
                return _json((await standing(broker, body, peer=budgets_model.peer(request.client))).encode())

    return {
        "challenge": post_challenge,
        "release": post_release,
        "receipt": post_receipt,
        "standing": post_standing,
    }


def _gets(broker: Broker, readiness: Readiness) -> dict[str, Handler]:
    async def get_health(_request: Request) -> Response:
        why = readiness.why_not()
        if why is None:
            return _json(canonical.dumps({"ready": True}))
        return _json(canonical.dumps({"ready": False, "why": why}), status=503)

    def look(request: Request, work: Callable[..., T], *args: Any, begun: bool = False) -> Awaitable[T]:
        return broker.workers.look(work, *args, peer=budgets_model.peer(request.client), begun=begun)

    async def get_checkpoint(request: Request) -> Response:
        note = await look(request, ledger.checkpoint, broker)
        return Response(note, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})

    async def get_tile(request: Request) -> Response:
        length, data = await look(request, ledger.tile, broker, request.path_params["path"])
        # A full tile never changes, and a partial one keeps its name and content too.
        kept = {"Cache-Control": "public, max-age=31536000, immutable", "Content-Length": str(length)}

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await look(request, next, data, b"", begun=True)) != b"":
                yield piece

        return StreamingResponse(pieces(), media_type="application/octet-stream", headers=kept)

    async def get_proof(request: Request) -> Response:
        index = ledger.number(request.query_params.get("index"), "index")
        size = ledger.number(request.query_params.get("size"), "size")
        return _json(await look(request, ledger.proof, broker, index, size))

    async def get_consistency(request: Request) -> Response:
        first = ledger.number(request.query_params.get("from"), "from")
        second = ledger.number(request.query_params.get("to"), "to")
        return _json(await look(request, ledger.consistency, broker, first, second))

    async def get_run(request: Request) -> Response:
        return _json(await look(request, ledger.run, broker, request.path_params["run"]))

    async def get_result(request: Request) -> Response:
        asked = results.read(request.path_params["run"], request.query_params)
        token = await look(request, results.answer, broker, asked)
        return Response(token, media_type=asked.media_type, headers={"Cache-Control": "no-store"})

    return {
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
    head: messages.ReleaseHead | None = None
    denial: messages.DenialAnswer | None = None

    def worth_reading(line: bytes) -> bool:
        nonlocal head, denial
        head = messages.parse_release_head(line)
        denial = turn_away(broker, head, peer=peer)
        return denial is None

    patient = broker.failures.patient(broker.clock(), peer=peer)
    with _counted(broker, "release", request, lambda: "" if head is None else head.contract):
        async with bodies.read(request, limit, worth_reading=worth_reading) as body:
            answer = denial or await release(broker, body, peer=peer, head=head)
    request_log.answered(broker, answer, peer=peer, contract="" if head is None else head.contract)
    if denial is not None:
        if patient:
            # It comes again over a new connection, whose handshake costs more than all else of this: not at once.
            await asyncio.sleep(PAUSE)
        return _json(denial.encode(), status=403, close=True)
    status = 200 if isinstance(answer, messages.ReleaseAnswer) else 403
    return _json(answer.encode(), status=status)


@contextlib.contextmanager
def _counted(
    broker: Broker, name: str, request: Request, contract: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Count a request that ends in an error. contract: the digest that it names, as far as it is known by then."""
    try:
        yield
    except Exception as failure:
        peer = budgets_model.peer(request.client)
        request_log.failed(broker, failure, request=name, peer=peer, contract=contract())
        raise


def _json(body: bytes, *, status: int = 200, close: bool = False) -> Response:
    headers = {"Cache-Control": "no-store", **({"Connection": "close"} if close else {})}
    return Response(body, status_code=status, media_type=JSON, headers=headers)
