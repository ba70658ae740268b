"""Where a stream of the room's channel leads, as the payload of OPEN: kind(1) ‖ name, and why one is not connected.

    1 broker  the broker of the party NAME, for the room
    2 file    the file NAME of the run's folder, written by the room
    3 egress  HOST:PORT outside, for the room's program
    4 peer    ROLE:PORT, another room's port by its name, for the room's program
    5 port    the room's open port of that name, for who connects to it at the node: the program's own bytes
    6 tunnel  the room's port of that name, through a tunnel that the room ends

Which of them exist is for the side that is asked, and it refuses all others.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from strongroom.encoding import fields
from strongroom.errors import Malformed
from strongroom.model.room.channel import MAX_DESTINATION

_NAME = fields.NAME.pattern
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


class Kind(enum.IntEnum):
    """What is at a stream's other end."""

    BROKER = 1
    FILE = 2
    EGRESS = 3
    PEER = 4
    PORT = 5
    TUNNEL = 6


class Reason(enum.StrEnum):
    """Why a stream was reset: nobody took the connection, the host is not there, the contract has no place for it, more at
    once than allowed, or the connection broke.
    """

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_ALLOWED = "not-allowed"
    TOO_MANY = "too-many"
    RESET = "reset"


# Texts, which `re` compiles when they are first used: the agent opens streams and seldom reads a destination.
_NAMES = {
    Kind.BROKER: _NAME,
    Kind.FILE: "[a-z0-9][a-z0-9._-]{0,127}",
    Kind.EGRESS: rf"(?=[^:]{{1,240}}:){_LABEL}(?:\.{_LABEL})*:[1-9][0-9]{{0,4}}",
    Kind.PEER: f"{_NAME}:{_NAME}",
    Kind.PORT: _NAME,
    Kind.TUNNEL: _NAME,
}
_REASONS = {reason.encode("ascii"): reason for reason in Reason}


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A kind and a name that fits it."""

    kind: Kind
    name: str

    def encode(self) -> bytes:
        """The payload of OPEN."""
        return bytes([self.kind]) + self.name.encode("ascii")

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name}"


def parse(payload: bytes) -> Destination:
    """The payload of OPEN. Raises `Malformed`."""
    if not 1 < len(payload) <= MAX_DESTINATION:
        raise Malformed(
            f"stream's destination: {len(payload)} bytes, expected 2 to {MAX_DESTINATION}", code="bad-channel"
        )
    try:
        kind, name = Kind(payload[0]), payload[1:].decode("ascii")
    except ValueError:
        raise Malformed(
            f"stream's destination: kind {payload[0]} and {len(payload) - 1} bytes, expected a kind from 1 to {len(Kind)} and ASCII",
            code="bad-channel",
        ) from None
    if re.fullmatch(_NAMES[kind], name, re.ASCII) is None:
        raise Malformed(f"stream's destination: no name of a {kind.name.lower()}", code="bad-channel")
    return Destination(kind=kind, name=name)


def parse_reason(payload: bytes) -> Reason:
    """The payload of RESET. Raises `Malformed`."""
    reason = _REASONS.get(payload)
    if reason is None:
        raise Malformed(
            f"stream's reset: expected one of {', '.join(Reason)}, got {len(payload)} other bytes",
            code="bad-channel",
        )
    return reason
