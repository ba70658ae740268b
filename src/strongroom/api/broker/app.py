"""The application of a broker: the routes of `routes`, each bound to its use case."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from strongroom.acme import exchange
from strongroom.api import budgets as budgets_model
from strongroom.api.application import Application
from strongroom.api.broker import ledger, results, routes
from strongroom.api.http import HttpResponse
from strongroom.broker import request_log
from strongroom.broker.certificates import standing as certificates
from strongroom.broker.challenge import challenge
from strongroom.broker.release import OwnNonce, release, turn_away
from strongroom.broker.running import acme
from strongroom.broker.running.receipt import receipt
from strongroom.broker.running.renewal import renewal
from strongroom.broker.running.watch import Watches, watch
from strongroom.broker.standing import standing
from strongroom.crypto.pki import ocsp_answers
from strongroom.encoding import canonical
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.model import messages
from strongroom.model.identifiers import NO_CONTRACT_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from strongroom.api.application import Handler
    from strongroom.api.http import Request
    from strongroom.broker.broker import Broker

T = TypeVar("T")

CRL_TYPE = "application/pkix-crl"  # RFC 2585
Decide = Callable[..., Awaitable[messages.ReleaseAnswer | messages.DenialAnswer]]

PAUSE = 1.0
"""Seconds that an address whose requests kept failing waits for the refusal of a nonce that is not this broker's."""


class Readiness:
    """Whether the broker would serve a release now; `why_not` is asked on each probe."""

    def __init__(self, why_not: Callable[[], str | None]) -> None:
        self.why_not = why_not


def build(
    broker: Broker, *, readiness: Readiness, budgets: budgets_model.ConnectionBudgets | None = None
) -> Application:
    """The application for `broker`."""
    limits = budgets or budgets_model.ConnectionBudgets()
    bodies = budgets_model.Bodies(limits)
    watches = Watches(broker)
    posts = {
        name: _counted(broker, bodies, name, handler)
        for name, handler in _posts(broker, bodies, watches).items()
    }
    return Application(
        routes.ROUTES, {**posts, **_gets(broker, readiness)}, budgets=limits, on_stop=watches.close
    )


def _counted(broker: Broker, bodies: budgets_model.Bodies, name: str, handler: Handler) -> Handler:
    """The handler of requests with a body, which is held as long; those that end in an error are counted."""

    async def counted(request: Request) -> HttpResponse:
        try:
            return await handler(request)
        except Exception as failure:
            id = broker.agreements.id_of(request.contract_digest)
            request_log.failed(broker.request_log, failure, request=name, peer=request.peer, contract_id=id)
            raise
        finally:
            bodies.give_back(request)

    return counted


def _posts(broker: Broker, bodies: budgets_model.Bodies, watches: Watches) -> dict[str, Handler]:
    limit = {row.name: row.limit for row in routes.ROUTES}

    async def post_challenge(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["challenge"])
        return HttpResponse(body=(await challenge(broker, body)).encode())

    async def post_release(request: Request) -> HttpResponse:
        return await _release(broker, bodies, limit["release"], request, release)

    async def post_renewal(request: Request) -> HttpResponse:
        return await _release(broker, bodies, limit["renewal"], request, renewal)

    async def post_watch(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["watch"])
        return HttpResponse(body=(await watch(broker, watches, body, peer=request.peer)).encode())

    async def post_receipt(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["receipt"])
        proof = await receipt(broker, body, peer=request.peer)
        broker.request_log.recorded(proof, request="receipt", peer=request.peer, contract_id=NO_CONTRACT_ID)
        return HttpResponse(body=proof.encode())

    async def post_standing(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["standing"])
        return HttpResponse(body=(await standing(broker, body, peer=request.peer)).encode())

    async def post_ocsp(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["ocsp"])
        answer = await broker.workers.read(certificates.ocsp, broker, body, peer=request.peer)
        return HttpResponse(body=answer, media_type=ocsp_answers.MEDIA_TYPE)

    async def post_acme(request: Request) -> HttpResponse:
        body = await bodies.read(request, limit["acme"])
        try:
            answer = await acme.answer(broker, request.parameters["path"], body, peer=request.peer)
        except (Malformed, Refused, NotFound) as failure:
            broker.failures.failed(broker.clock(), peer=request.peer)
            answer = exchange.problem(failure)
        return _acme(broker, answer)

    return {
        "acme": post_acme,
        "challenge": post_challenge,
        "ocsp": post_ocsp,
        "release": post_release,
        "renewal": post_renewal,
        "watch": post_watch,
        "receipt": post_receipt,
        "standing": post_standing,
    }


def _gets(broker: Broker, readiness: Readiness) -> dict[str, Handler]:
    async def get_health(_request: Request) -> HttpResponse:
        why = readiness.why_not()
        if why is None:
            return HttpResponse(body=canonical.dumps({"ready": True}))
        return HttpResponse(body=canonical.dumps({"ready": False, "why": why}), status=503)

    def read(request: Request, work: Callable[..., T], *args: Any, begun: bool = False) -> Awaitable[T]:
        return broker.workers.read(work, *args, peer=request.peer, begun=begun)

    async def get_checkpoint(request: Request) -> HttpResponse:
        note = await read(request, ledger.checkpoint, broker)
        return HttpResponse(body=note, media_type="text/plain; charset=utf-8")

    async def get_tile(request: Request) -> HttpResponse:
        length, data = await read(request, ledger.tile, broker, request.parameters["path"])

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await read(request, next, data, b"", begun=True)) != b"":
                yield piece

        return HttpResponse(
            pieces=pieces(),
            length=length,
            media_type="application/octet-stream",
            # A full tile never changes, and a partial one keeps its name and content too.
            kept="public, max-age=31536000, immutable",
        )

    async def get_proof(request: Request) -> HttpResponse:
        query = request.queried()
        index, size = ledger.number(query.get("index"), "index"), ledger.number(query.get("size"), "size")
        return HttpResponse(body=await read(request, ledger.proof, broker, index, size))

    async def get_consistency(request: Request) -> HttpResponse:
        query = request.queried()
        first, second = ledger.number(query.get("from"), "from"), ledger.number(query.get("to"), "to")
        return HttpResponse(body=await read(request, ledger.consistency, broker, first, second))

    async def get_run(request: Request) -> HttpResponse:
        return HttpResponse(body=await read(request, ledger.run, broker, request.parameters["run"]))

    async def get_result(request: Request) -> HttpResponse:
        asked = results.read(request.parameters["run"], request.queried())
        token = await read(request, results.answer, broker, asked)
        return HttpResponse(body=token, media_type=asked.media_type)

    return {
        **_of_authority(broker),
        **_of_acme(broker),
        "health": get_health,
        "checkpoint": get_checkpoint,
        "tile": get_tile,
        "proof": get_proof,
        "consistency": get_consistency,
        "run": get_run,
        "result": get_result,
    }


def _acme(broker: Broker, answer: exchange.Answer) -> HttpResponse:
    """With a nonce for the next request (RFC 8555, section 6.5), and where the resource is."""
    header = [
        ("replay-nonce", broker.acme.nonces.make(broker.clock())),
        ("link", f'<{broker.acme.base}/directory>;rel="index"'),
    ]
    if answer.location:
        header.append(("location", answer.location))
    return HttpResponse(
        body=answer.body, status=answer.status, media_type=answer.media_type, fields=tuple(header)
    )


def _of_acme(broker: Broker) -> dict[str, Handler]:
    async def get_directory(_request: Request) -> HttpResponse:
        return _acme(broker, broker.acme.directory())

    async def get_nonce(_request: Request) -> HttpResponse:
        return _acme(broker, exchange.Answer(body=b"", status=200))

    return {"acme-directory": get_directory, "acme-nonce": get_nonce}


def _of_authority(broker: Broker) -> dict[str, Handler]:
    def read(request: Request, work: Callable[..., T], *args: Any) -> Awaitable[T]:
        return broker.workers.read(work, *args, peer=request.peer)

    async def get_authority(request: Request) -> HttpResponse:
        return HttpResponse(body=await read(request, certificates.roots, broker))

    async def get_crl(request: Request) -> HttpResponse:
        data = await read(request, certificates.root_list, broker, request.queried().get("root"))
        return HttpResponse(body=data, media_type=CRL_TYPE)

    async def get_contract_crl(request: Request) -> HttpResponse:
        contract = certificates.contract_digest(request.parameters["contract"])
        return HttpResponse(
            body=await read(request, certificates.contract_list, broker, contract), media_type=CRL_TYPE
        )

    return {"authority": get_authority, "crl": get_crl, "contract-crl": get_contract_crl}


async def _release(
    broker: Broker, bodies: budgets_model.Bodies, limit: int, request: Request, decide: Decide
) -> HttpResponse:
    """A release, or a renewal: `decide` is the use case."""
    peer = request.peer
    passed: OwnNonce | None = None
    denial: messages.DenialAnswer | None = None

    def worth_reading(line: bytes) -> bool:
        nonlocal passed, denial
        head = messages.parse_release_head(line)
        request.contract_digest = head.contract_digest
        match turn_away(broker, head, peer=peer):
            case OwnNonce() as passed:
                return True
            case denial:
                return False

    patient = broker.failures.patient(broker.clock(), peer=peer)
    body = await bodies.read(request, limit, worth_reading=worth_reading)
    answer = denial or await decide(broker, body, peer=peer, passed=passed)
    id = broker.agreements.id_of(request.contract_digest)
    request_log.answered(broker.request_log, answer, peer=peer, contract_id=id)
    if denial is not None:
        bodies.give_back(request)
        if patient:
            # The client comes again over a new connection, whose handshake costs more than all else of this: not at once.
            await asyncio.sleep(PAUSE)
        return HttpResponse(body=denial.encode(), status=403, closes=True)
    status = 200 if isinstance(answer, messages.ReleaseAnswer) else 403
    return HttpResponse(body=answer.encode(), status=status)
