"""Reading bodies within bounds of size, time and memory (rule 59).

The size is checked against the announced length and again while reading. All bodies together may hold only so many
bytes at once, and those of one address a share of them. Nothing is parsed before the whole body is in, but for a first line, which may end a request before
more of it is read.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.api.http import Request


FIRST_LINE = 1024  # bytes: more than any first line has


@dataclass(frozen=True, kw_only=True)
class ConnectionBudgets:
    """connections: how many at once. Seconds: for the TLS handshake, for the headers of a request, for
    its body, for the whole of it, and of silence between two. bodies: bytes of all bodies at once.
    share: one address has at most one in so many of the connections, and of the bytes. handshakes, handshake_share: the
    same of TLS handshakes that are not over, which are no connections yet.
    """

    connections: int = 512
    handshake_seconds: float = 20.0
    header_seconds: float = 15.0
    header_bytes: int = 16 * 1024
    body_seconds: float = 20.0
    request_seconds: float = 60.0
    idle_seconds: int = 30
    bodies: int = 64 * 1024 * 1024
    share: int = 4
    handshakes: int = 2048
    handshake_share: int = 16


def peer(client: tuple[str, int] | None) -> str:
    """By what budgets know a client: its address, or of IPv6 the network of 64 bits that one host may have whole.

    A socket for both has IPv4's addresses within one such network (RFC 4291, section 2.5.5.2): each counts for itself.
    """
    host = "" if client is None else client[0]
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Shares:
    """How much of a whole each address holds, so that none holds more than its share."""

    __slots__ = ("_all", "_held", "_most", "_whole")

    def __init__(self, whole: int, share: int) -> None:
        self._whole = whole
        self._most = whole // share
        self._all = 0
        self._held: Counter[str] = Counter()

    def take(self, name: str, count: int) -> bool:
        """Whether `count` more may be held; if so they are."""
        if self._held[name] + count > self._most or self._all + count > self._whole:
            return False
        self._held[name] += count
        self._all += count
        return True

    def full(self, name: str) -> bool:
        """Whether not one more may be held."""
        return self._held[name] >= self._most or self._all >= self._whole

    def give_back(self, name: str, count: int) -> None:
        """What was taken is held no longer. Who holds nothing is not remembered."""
        self._all -= count
        self._held[name] -= count
        if not self._held[name]:
            del self._held[name]


class Bodies:
    """Counts the bytes of all bodies that are being read or served."""

    def __init__(self, budgets: ConnectionBudgets) -> None:
        self._held = Shares(budgets.bodies, budgets.share)

    async def read(
        self, request: Request, limit: int, *, worth_reading: Callable[[bytes], bool] | None = None
    ) -> bytes:
        """The body, at most `limit` bytes, held until `give_back`.

        worth_reading: asked with the first line as soon as it is in, or with so much of it as is too long; where it
        says no, no more is read than that.
        """
        _announced(request, limit)
        body = bytearray()
        while piece := await request.more():
            if not self._held.take(request.peer, len(piece)):
                raise _overloaded()
            request.counted += len(piece)
            body += piece
            if len(body) > limit:
                raise _too_large(limit)
            if worth_reading is not None and (line := _first_line(body)) is not None:
                if not worth_reading(line):
                    break
                worth_reading = None
        return bytes(body)

    def give_back(self, request: Request) -> None:
        """Its body is held no longer."""
        if request.counted:
            self._held.give_back(request.peer, request.counted)
            request.counted = 0


def _first_line(body: bytearray) -> bytes | None:
    """The first line without its end, once it is in; so much of it as is longer than any should be."""
    end = body.find(b"\n", 0, FIRST_LINE)
    if end < 0 and len(body) < FIRST_LINE:
        return None
    return bytes(body[: end if end >= 0 else FIRST_LINE])


def _overloaded() -> Unavailable:
    return Unavailable(
        "request: too many bytes are under way", code="overloaded", hint="try again in a moment"
    )


def _announced(request: Request, limit: int) -> None:
    length = request.length
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise Malformed(f"request: Content-Length: expected a number of bytes, got {length[:20]!r}")
    if length is not None and (len(length) > 12 or int(length) > limit):
        raise _too_large(limit)


def _too_large(limit: int) -> Malformed:
    return Malformed(f"request: at most {limit} bytes are allowed here", code="too-large")
