"""Where the operator says that something listens: HOST:PORT, or unix:PATH for a socket on this machine."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Misuse, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = "127.0.0.1"
_UNIX = "unix:"
_MOST_PATH = 107  # bytes of a Unix socket's path
_TCP = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.%a-z]{2,60}\]):)?(?P<port>[0-9]{1,5})", re.ASCII
)
_LIKE = "HOST:PORT, PORT on this machine alone, or unix:PATH"
BACKLOG = 256


@dataclass(frozen=True, kw_only=True)
class Address:
    """A TCP address, or the path of a Unix socket where `path` is not empty."""

    host: str = HERE
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read(text: str, option: str) -> Address:
    """An address as somebody typed it. option: what it was given to. Raises `Misuse`."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path or len(path.encode()) > _MOST_PATH or "\x00" in path:
            raise Misuse(
                f"{option}: expected unix: and a path of 1 to {_MOST_PATH} bytes, got {text!r}",
                code="bad-address",
                hint="name a socket in a folder of a shorter path",
            )
        return Address(path=path)
    match = _TCP.fullmatch(text)
    if match is None or int(match["port"]) > 65_535:
        raise Misuse(
            f"{option}: expected {_LIKE}, got {text!r}",
            code="bad-address",
            hint=f"for example {option.split(maxsplit=1)[0]} NAME=127.0.0.1:8080",
        )
    return Address(host=(match["host"] or HERE).strip("[]"), port=int(match["port"]))


def read_all(texts: Sequence[str], option: str) -> dict[str, Address]:
    """`NAME=ADDRESS`, each name once. Raises `Misuse`."""
    out: dict[str, Address] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if not equals or not name or name in out:
            raise Misuse(
                f"{option}: expected NAME=ADDRESS, each name once, got {text!r}",
                code="bad-address",
                hint=f"an address is {_LIKE}",
            )
        out[name] = read(address, f"{option} {name}")
    return out


def listen(address: Address, option: str) -> tuple[socket.socket, Address]:
    """A listener that does not block, and where it listens: port 0 is a free one. Raises `Unavailable`, `Misuse`."""
    try:
        if address.path:
            return _listen_at_path(address)
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as cause:
        raise Unavailable(
            f"{option}: listening at {address}: {cause.strerror or cause}",
            code="address-in-use",
            hint="another program listens there, or the address is not of this machine: name another",
        ) from None
    listener.setblocking(False)
    return listener, Address(host=address.host, port=listener.getsockname()[1])


def _listen_at_path(address: Address) -> tuple[socket.socket, Address]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address.path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener, address


def connect(address: Address, timeout: float) -> socket.socket:
    """A connection to who listens there. Raises `OSError`."""
    if not address.path:
        return socket.create_connection((address.host, address.port), timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A socket with Python's own time limit does not wait where the listener has many connections to take.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), 0))
        connection.connect(address.path)
    except BaseException:
        connection.close()
        raise
    return connection
