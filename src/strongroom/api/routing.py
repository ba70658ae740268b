"""A row of a table of routes: what is served where, to whom, and why that is enough."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Auth(enum.StrEnum):
    """What a request must prove before it gets more than a no."""

    NONE = "none"  # public by design; the route says why
    EVIDENCE = "evidence"  # a nonce of this broker and hardware evidence bound to it
    RUN_TOKEN = "run-token"  # noqa: S105 - a token that came with the release or renewal of that run
    ACCOUNT = "account"  # a signature by the key of an ACME account, which was bound to what a room got with its release
    ROOM_SIGNATURE = "room-signature"  # a signature by the signing key of a released run


@dataclass(frozen=True, kw_only=True)
class RouteRow:
    """One route. `limit` is the largest body in bytes; `why` says why that authentication is enough."""

    name: str
    method: str
    path: str
    auth: Auth
    limit: int
    why: str
