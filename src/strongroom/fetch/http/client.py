"""Asking a vendor's service over HTTPS: one GET, bounded in every direction.

HTTPS by the system's trust store (or the one CA that a configured service names), TLS 1.2 or newer; plain HTTP only
to a loopback address and only where the caller says so. Checked of the way and of the answer:

  1 the address      resolved once, of a kind that the service may have (`addresses`), and that very one is called
  2 the redirect     at most one, and only to the same scheme, host and port
  3 the status       200; 404 is `NotFound`; 429 and 503 are asked again a few times, after Retry-After or longer and longer
  4 the type         one of those that the service documents for what was asked
  5 the length       stated (or chunked), kept, and within the caller's bound; no content coding
  6 the time         of each read, and of all of it together

No proxy is asked, no cookie kept, no credential sent. Headers are read one by one and count only when given once.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ipaddress
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom import host_log
from strongroom.errors import Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.fetch.http import addresses
from strongroom.fetch.http.deadline import deadline
from strongroom.host_log import LogLevel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_SECONDS = 10.0  # without a byte
TOTAL_SECONDS = 60.0  # for one answer, with every try for it
TRIES = 4
LONGEST_WAIT = 20.0  # seconds: a service that asks for more is for another day
FIRST_WAIT = 0.5
MAX_URL = 4096
MAX_HEADER = 32 * 1024
_AGAIN = (429, 503)
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, kw_only=True)
class Service:
    """Where a vendor's service, a PCCS or a mirror answers. base: `https://HOST[:PORT][/PREFIX]`.

    private: may be in a private network, as only what the operator configured may be. ca: a PEM file of the only
    certificates trusted for it, instead of the system's. plain: HTTP, which a loopback address alone may speak.
    """

    base: str
    private: bool = False
    ca: Path | None = None
    plain: bool = False

    @property
    def prefix(self) -> str:
        """The path before every path."""
        return urllib.parse.urlsplit(self.base).path.rstrip("/")

    def place(self) -> tuple[str, int]:
        """Host and port. Raises `Misuse` for a base that is none."""
        return place_of(self.base, plain=self.plain)


@dataclass(frozen=True, kw_only=True)
class Download:
    """The body of a 200 answer, and its headers by lower-case name, each with every value it was given."""

    url: str
    body: bytes
    headers: dict[str, tuple[str, ...]] = field(repr=False)

    def header(self, name: str) -> str:
        """The one value of a header: printable ASCII. Raises `Malformed`."""
        values = self.headers.get(name.lower(), ())
        if len(values) != 1:
            raise Malformed(
                f"{self.url}: header {name} is there {len(values)} times, expected once", code="vendor-answer"
            )
        (value,) = values
        if not value.isascii() or not value.isprintable() or len(value) > MAX_HEADER:
            raise Malformed(f"{self.url}: header {name} is no line of plain text", code="vendor-answer")
        return value

    def decoded(self, name: str) -> bytes:
        """The one value of a header that the service percent-encodes, as Intel does with certificates."""
        return urllib.parse.unquote_to_bytes(self.header(name))


@dataclass(frozen=True, kw_only=True)
class Client:
    """The only way out to a service. sleep: how waiting is done, an argument so that tests need not wait."""

    read_seconds: float = READ_SECONDS
    total_seconds: float = TOTAL_SECONDS
    tries: int = TRIES
    sleep: Callable[[float], None] = time.sleep

    def get(self, service: Service, path: str, *, types: frozenset[str], max_bytes: int) -> Download:
        """The answer to `path` (below the service's base, query included).

        Raises `NotFound`, `Refused` (a redirect or an address that leads elsewhere), or `Unavailable`.
        """
        place = service.place()
        url = _url(service, place, service.prefix + path)
        ends = time.monotonic() + self.total_seconds
        for attempt in range(self.tries):
            answer = self._follow(service, place, url, ends, max_bytes=max_bytes)
            if answer.status not in _AGAIN:
                return _accept(answer, url, types)
            wait = back_off(answer.header, attempt)
            if attempt + 1 == self.tries or wait > LONGEST_WAIT or time.monotonic() + wait > ends:
                raise Unavailable(
                    f"{url}: HTTP {answer.status}, asks to come back in {wait:.0f} s",
                    code="vendor-busy",
                    hint="the service has too much to do, or you ask too often: try again later",
                )
            self.sleep(wait)
        raise Misuse("client: tries: expected at least 1, got 0", hint="make it with tries=1 or more")

    def _follow(
        self, service: Service, place: tuple[str, int], url: str, ends: float, *, max_bytes: int
    ) -> _Raw:
        answer = self._once(service, place, url, ends, max_bytes=max_bytes)
        if answer.status not in _REDIRECTS:
            return answer
        target = answer.header("location")
        try:
            target = urllib.parse.urljoin(url, target)
            elsewhere = place_of(target, plain=service.plain) != place
        except (Misuse, ValueError):
            elsewhere = True
        if elsewhere:
            raise Refused(
                f"{url}: sends us to {target[:200]!r}, which is another place",
                code="redirect",
                hint="a service is not followed to other hosts: give the address at which it answers itself, with --pccs or --kds",
            )
        answer = self._once(service, place, target, ends, max_bytes=max_bytes)
        if answer.status in _REDIRECTS:
            raise Refused(
                f"{url}: sends us on more than once",
                code="redirect",
                hint="give the address at which the service itself answers: --pccs or --kds",
            )
        return answer

    def _once(
        self, service: Service, place: tuple[str, int], url: str, ends: float, *, max_bytes: int
    ) -> _Raw:
        with host_log.timed(LogLevel.DEBUG, "fetch", method="GET", url=url) as log:
            answer = self._ask(service, place, url, ends, max_bytes=max_bytes)
            log |= {"status": answer.status, "size": len(answer.body)}
            return answer

    def _ask(
        self, service: Service, place: tuple[str, int], url: str, ends: float, *, max_bytes: int
    ) -> _Raw:
        parts = urllib.parse.urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        left = ends - time.monotonic()
        try:
            with self.connect(service, place, left) as sock, deadline(sock, max(left, 0.001)):
                if isinstance(sock, ssl.SSLSocket):
                    sock.do_handshake()
                connection = http.client.HTTPConnection(*place, timeout=self.read_seconds)
                connection.sock = sock
                connection.request(
                    "GET",
                    path,
                    headers={
                        "Host": parts.netloc.removesuffix(":80" if service.plain else ":443"),
                        "Accept": "*/*",
                        "Accept-Encoding": "identity",
                        "Connection": "close",
                        "User-Agent": "strongroom",
                    },
                )
                answer = _read(connection.getresponse(), max_bytes)
                if answer.problem and time.monotonic() >= ends:
                    raise TimeoutError
                return answer
        # ValueError, AttributeError: a connection that was shut under http.client's hands.
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as cause:
            late = time.monotonic() >= ends
            raise Unavailable(
                f"{url}: "
                + (f"took longer than {self.total_seconds:g} s" if late else describe_error(cause)),
                code="vendor-unreachable",
                hint="is the service up, and is the way to it open? What is kept still serves, while it counts",
            ) from None

    def connect(self, service: Service, place: tuple[str, int], left: float) -> socket.socket:
        """A connection to one of the service's checked addresses, TLS prepared but not spoken yet."""
        host, port = place
        if service.plain:
            _only_loopback(host)
        resolved = addresses.resolve(host, port, private=service.private)
        failure: OSError = OSError("no address")
        for address in resolved:
            try:
                plain = socket.create_connection(
                    (address, port), timeout=min(self.read_seconds, max(left, 0.001))
                )
            except OSError as cause:
                failure = cause
                continue
            if service.plain:
                return plain
            try:
                return _context(service).wrap_socket(
                    plain, server_hostname=host, do_handshake_on_connect=False
                )
            except BaseException:
                plain.close()
                raise
        raise failure


@dataclass(frozen=True, kw_only=True)
class _Raw:
    status: int
    body: bytes
    problem: str
    headers: dict[str, tuple[str, ...]]

    def header(self, name: str) -> str:
        """The one value of a header, or an empty text."""
        values = self.headers.get(name, ())
        return values[0].strip() if len(values) == 1 else ""


def _read(answer: http.client.HTTPResponse, max_bytes: int) -> _Raw:
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in answer.headers.items():
        headers[name.lower()] = (*headers.get(name.lower(), ()), value)
    if answer.status != http.HTTPStatus.OK:
        # Nothing is read of an error page.
        return _Raw(status=answer.status, body=b"", problem="", headers=headers)
    length = answer.length
    body, problem = b"", ""
    if headers.keys() & {"content-length", "transfer-encoding"} == set() or (
        length is None and not answer.chunked
    ):
        problem = "without a length"  # a cut answer would look like a whole one
    elif length is not None and length > max_bytes:
        problem = f"{length} bytes, at most {max_bytes} allowed"
    elif (
        len(headers.get("content-length", ())) > 1
        or {"content-length", "transfer-encoding"} <= headers.keys()
    ):
        problem = "with more than one length"
    else:
        body = answer.read(max_bytes + 1)
        if len(body) > max_bytes:
            problem = f"more than {max_bytes} bytes"
        elif length is not None and len(body) != length:
            problem = "cut off"
    return _Raw(status=answer.status, body=body, problem=problem, headers=headers)


def _accept(answer: _Raw, url: str, types: frozenset[str]) -> Download:
    if answer.status == http.HTTPStatus.NOT_FOUND:
        raise NotFound(
            f"{url}: not found",
            code="not-published",
            hint="the vendor does not know this platform or version: is the evidence of genuine hardware, and --pccs or --kds of this vendor?",
        )
    if answer.status != http.HTTPStatus.OK:
        raise Unavailable(
            f"{url}: HTTP {answer.status}, expected 200",
            code="vendor-answer",
            hint="the vendor's service, or what answers for it, fails: try again later; what is kept still serves",
        )
    kind = answer.header("content-type").partition(";")[0].strip().lower()
    problem = answer.problem
    if answer.header("content-encoding").lower() not in ("", "identity"):
        problem = "in a content coding that was not asked for"
    elif kind not in types:
        problem = f"of type {kind[:80]!r}, expected {' or '.join(sorted(types))}"
    if problem:
        raise Unavailable(
            f"{url}: the answer is {problem}",
            code="vendor-answer",
            hint="a proxy or another program answers there in the vendor's place, or its service is broken",
        )
    return Download(url=url, body=answer.body, headers=answer.headers)


def back_off(header: Callable[[str], str], attempt: int) -> float:
    """Seconds to wait: what the service asks for, and at least our own longer and longer time."""
    own_wait: float = FIRST_WAIT * 2**attempt
    stated = header("retry-after")
    if stated.isascii() and stated.isdecimal() and len(stated) < 10:
        return max(own_wait, float(stated))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        # A date counts by the service's own clock.
        until = email.utils.parsedate_to_datetime(stated)
        since = email.utils.parsedate_to_datetime(header("date"))
        return max(own_wait, (until - since).total_seconds())
    return own_wait


def _context(service: Service) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if service.ca is None else str(service.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


_SUCH_URL = "for example {}://pccs.example:8081"


def place_of(url: str, *, plain: bool) -> tuple[str, int]:
    """Host and port of a URL of the one scheme. Raises `Misuse`."""
    wanted = "http" if plain else "https"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise Misuse(f"{url[:200]!r}: not a URL", code="bad-url", hint=_SUCH_URL.format(wanted)) from None
    if (
        parts.scheme != wanted
        or not parts.hostname
        or "@" in parts.netloc
        or parts.fragment
        or not is_plain_url(url)
    ):
        raise Misuse(
            f"{url[:200]!r}: not {wanted}://HOST[:PORT]/…, without a name, a password or a fragment",
            code="bad-url",
            hint=_SUCH_URL.format(wanted),
        )
    return parts.hostname, port or (80 if plain else 443)


def is_plain_url(url: str) -> bool:
    """Whether a URL has only characters that a request line can carry."""
    return len(url) <= MAX_URL and url.isascii() and url.isprintable() and " " not in url and "\\" not in url


def _url(service: Service, place: tuple[str, int], path: str) -> str:
    host, port = place
    host_text = f"[{host}]" if ":" in host else host
    url = f"{'http' if service.plain else 'https'}://{host_text}:{port}{path}"
    if not path.startswith("/") or not is_plain_url(url):
        raise Misuse(
            f"{path[:200]!r}: not a path: expected / and printable ASCII without spaces",
            code="bad-url",
            hint=_SUCH_URL.format("https"),
        )
    return url


def _only_loopback(host: str) -> None:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Misuse(
            f"{host}: plain HTTP is spoken to a loopback address alone",
            code="bad-url",
            hint="give an https:// address, or one like http://127.0.0.1:8080",
        )


def describe_error(cause: BaseException) -> str:
    """A library's error, in short."""
    return f"{type(cause).__name__}: {cause}"[:300]
