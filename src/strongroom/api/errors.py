"""Our errors as HTTP answers: {"error": {"code", "message", "hint"}}. The only place that knows statuses."""

from __future__ import annotations

import logging

from strongroom import errors
from strongroom.api.http import HttpResponse
from strongroom.encoding import canonical

_log = logging.getLogger("strongroom.broker")

# A specific code first, then the class.
_BY_CODE = {"too-large": 413, "slow-body": 408, "no-route": 404, "wrong-method": 405}
_BY_CLASS = (
    (errors.Malformed, 400),
    (errors.Misuse, 400),
    (errors.Refused, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
)
_CLOSING = (408, 413, 503)  # statuses after which the connection is closed


def _hint(failure: errors.StrongroomError) -> str:
    """For what parsers refuse: they do not know whose message they read."""
    return "docs/brokers.md says what a broker answers" if isinstance(failure, errors.Malformed) else ""


def answer(failure: errors.StrongroomError) -> HttpResponse:
    """The answer that tells of `failure`."""
    status = _BY_CODE.get(failure.code)
    if status is None:
        status = next((code for kind, code in _BY_CLASS if isinstance(failure, kind)), 500)
    body = {
        "error": {"code": failure.code, "message": failure.message, "hint": failure.hint or _hint(failure)}
    }
    return HttpResponse(
        body=canonical.dumps(body),
        status=status,
        closes=status in _CLOSING,  # the rest of the request is not worth reading
        retry_after=5 if status == 503 else None,
    )


def defect(cause: Exception) -> HttpResponse:
    """The answer for what nobody foresaw. The client learns nothing; the log gets the kind and place."""
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "nowhere" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    # The message itself may hold what the request held, and so stays out of the log.
    _log.error("defect: %s at %s", type(cause).__name__, where)
    body = {"error": {"code": "defect", "message": "the broker failed", "hint": "its log says where"}}
    return HttpResponse(body=canonical.dumps(body), status=500)
