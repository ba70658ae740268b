"""One HTTP exchange with a registry: any method, bodies that stream, bounded like `client`'s.

The same way out as `client.Client`: an address that is checked and then called itself, TLS that is verified, time of each
read and of all together. Here a body may be larger than memory, and what an answer means is the caller's to say.
No redirect is followed, no proxy asked, no cookie kept; what is sent as a credential is the caller's choice.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom import host_log
from strongroom.errors import Malformed, Unavailable
from strongroom.fetch.http import client as web
from strongroom.fetch.http.deadline import deadline
from strongroom.host_log import LogLevel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strongroom.fetch.http.client import Client, Service

CHUNK = 256 * 1024  # bytes, at most, of one read
REDIRECTS = (301, 302, 303, 307, 308)
# ValueError, AttributeError: of a connection that `deadline` shut while http.client used it.
_FAILURES = (OSError, http.client.HTTPException, ValueError, AttributeError)
_NO_BODY = (204, 304)  # statuses

# The hint where an answer is none that the protocol allows.
BROKEN = "the registry, a mirror, or a proxy in front of it is broken or lies: tell whoever runs it, or take it from another place"


@dataclass(frozen=True, kw_only=True)
class OutgoingRequest:
    """What is asked. url: whole, of the service's own scheme, host and port. `repr` shows no header: one may be a secret."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


class Reply:
    """An answer whose body is still on its way."""

    def __init__(self, response: http.client.HTTPResponse, request: OutgoingRequest, *, address: str) -> None:
        self._response = response
        self._asked_head = request.method == "HEAD"
        self.url = request.url
        # The IP address that answered; the host's name may stand for several.
        self.address = address
        self.status = response.status
        self._headers: dict[str, tuple[str, ...]] = {}
        for name, value in response.headers.items():
            self._headers[name.lower()] = (*self._headers.get(name.lower(), ()), value)

    def header(self, name: str) -> str:
        """The one value of a header, of printable ASCII; else an empty text."""
        values = self._headers.get(name.lower(), ())
        if len(values) != 1 or not values[0].isascii() or not values[0].isprintable():
            return ""
        return values[0].strip()

    def headers(self, name: str) -> tuple[str, ...]:
        """All values of a header that may be given several times, those of printable ASCII."""
        values = self._headers.get(name.lower(), ())
        return tuple(value.strip() for value in values if value.isascii() and value.isprintable())

    @property
    def media_type(self) -> str:
        """The media type, without parameters; empty where the answer has none."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """How many bytes the body has, None where the answer does not say. Raises `Malformed` where it says so in two ways."""
        if len(self._headers.get("content-length", ())) > 1 or (
            {"content-length", "transfer-encoding"} <= self._headers.keys()
        ):
            raise Malformed(
                f"{self.url}: the answer has more than one length", code="registry-answer", hint=BROKEN
            )
        return self._response.length

    def whole(self, *, max_bytes: int) -> bytes:
        """The body, of a stated length or chunked. Raises `Malformed` when it is larger or neither, `Unavailable` when cut."""
        if self._asked_head or self.status in _NO_BODY:
            return b""
        length = self.length
        if length is None and not self._response.chunked:
            # A cut answer would look like a whole one.
            raise Malformed(f"{self.url}: the answer has no length", code="registry-answer", hint=BROKEN)
        if length is not None and length > max_bytes:
            raise self._too_large(max_bytes)
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > max_bytes:
                raise self._too_large(max_bytes)
        if length is not None and len(data) != length:
            raise _unreachable(self.url, "cut off")
        return bytes(data)

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces, as long as it comes. Raises `Unavailable` when it stops coming."""
        if self.header("content-encoding").lower() not in ("", "identity"):
            raise Malformed(
                f"{self.url}: the answer is in a content coding that was not asked for",
                code="registry-answer",
                hint=BROKEN,
            )
        while True:
            try:
                chunk = self._response.read1(CHUNK)
            except _FAILURES as cause:
                raise _unreachable(self.url, web.describe_error(cause)) from None
            if not chunk:
                return
            yield chunk

    def _too_large(self, most: int) -> Malformed:
        return Malformed(f"{self.url}: the answer is larger than {most} bytes", code="too-large", hint=BROKEN)


@contextlib.contextmanager
def exchange(client: Client, service: Service, request: OutgoingRequest, *, ends: float) -> Iterator[Reply]:
    """Ask, and give the answer; the connection is closed afterwards. Raises `Unavailable`, or `Refused`.

    ends: the moment (`time.monotonic`) at which the exchange is cut, however far it came.
    """
    place = service.place()
    with contextlib.ExitStack() as opened:
        log = opened.enter_context(
            host_log.timed(LogLevel.DEBUG, "fetch", method=request.method, url=request.url)
        )
        try:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("no time left")
            sock = opened.enter_context(client.connect(service, place, left))
            opened.enter_context(deadline(sock, left))
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection = http.client.HTTPConnection(*place, timeout=client.read_seconds)
            connection.sock = sock
            parts = urllib.parse.urlsplit(request.url)
            connection.request(
                request.method,
                (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                body=request.body or None,
                headers={
                    "Host": parts.netloc.removesuffix(":80" if service.plain else ":443"),
                    "Accept-Encoding": "identity",
                    "Connection": "close",
                    "User-Agent": "strongroom",
                    **(
                        {}
                        if request.method in ("GET", "HEAD")
                        else {"Content-Length": str(len(request.body))}
                    ),
                    **request.headers,
                },
            )
            response = connection.getresponse()
            opened.callback(response.close)
            reply = Reply(response, request, address=sock.getpeername()[0])
            log |= {"status": reply.status, "address": reply.address}
        except _FAILURES as cause:
            raise _unreachable(request.url, web.describe_error(cause)) from None
        yield reply


def _unreachable(url: str, why: str) -> Unavailable:
    return Unavailable(
        f"{url}: {why}",
        code="registry-unreachable",
        hint="is the registry up, and the way to it open? Type the same again: what has come is kept",
    )
