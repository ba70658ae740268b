"""A front before a registry, over TLS on loopback, that forwards and, where a test says so, does mischief.

`spoil` puts the replies to paths that hold a fragment through a function. What a mirror, a content network, a captive
portal or an attacker on the way could answer can be had from here: cut, slow, huge, lying, redirecting.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import ssl
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from strongroom_testing.vendors.vendor_services import Reply, certify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom_testing.registry_server import Tokens

_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str:
        """A header's value, or nothing."""
        return self.headers.get(name.lower(), "")


@dataclass(kw_only=True)
class Front:
    """What is before the registry at `upstream` (HOST:PORT, plain HTTP); `files` answer instead of it.

    loses: which requests break off before they get there.
    """

    upstream: str = ""
    tokens: Tokens | None = None
    files: dict[str, Reply] = field(default_factory=dict)
    loses: Callable[[Asked], bool] = lambda _: False
    asked: list[Asked] = field(default_factory=list)
    host: str = ""
    ca: Path | None = None
    certificate: tuple[Path, Path] | None = None
    _spoilers: list[tuple[str, Callable[[Asked, Reply], Reply]]] = field(default_factory=list)

    def spoil(self, fragment: str, spoiler: Callable[[Asked, Reply], Reply]) -> None:
        """Put the replies to paths that hold `fragment` through `spoiler`."""
        self._spoilers.append((fragment, spoiler))

    def heal(self) -> None:
        """Answer well again, and forget what was asked."""
        self._spoilers.clear()
        self.loses = lambda _: False
        self.asked.clear()

    def reply(self, asked: Asked) -> Reply:
        """The reply to one request."""
        self.asked.append(asked)
        path = asked.target.partition("?")[0]
        if path == "/token" and self.tokens is not None:
            found = self.tokens.reply(
                asked.method, asked.target, asked.header("authorization"), asked.body.decode()
            )
        else:
            found = self.files.get(path) or self._forward(asked)
        for fragment, spoiler in self._spoilers:
            if fragment in asked.target:
                found = spoiler(asked, found)
        return found

    def _forward(self, asked: Asked) -> Reply:
        if self.loses(asked):
            return Reply(raw=())
        if not self.upstream:
            return Reply(status=404)
        connection = http.client.HTTPConnection(self.upstream, timeout=10)
        with contextlib.closing(connection):
            headers = {**asked.headers, "x-forwarded-proto": "https"}
            connection.request(asked.method, asked.target, body=asked.body or None, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            kept = tuple((name, value) for name, value in answer.getheaders() if name.lower() not in _HOP)
            return Reply(status=answer.status, body=body, headers=kept)


@contextlib.contextmanager
def front(  # noqa: C901 - a handler and a server in one scope
    folder: Path, *, upstream: str = "", tokens: Tokens | None = None, like: Front | None = None
) -> Iterator[Front]:
    """The front, answering. folder: where its key and certificate go, unless it has those of another."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Front(upstream=upstream, tokens=tokens)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(method=self.command, target=self.path, headers=headers, body=body)
                self._write(made.reply(asked))

        def _write(self, reply: Reply) -> None:
            if reply.raw is not None:
                for part in reply.raw:
                    self.wfile.write(part)
                    self.wfile.flush()
                return
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in reply.headers):
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            pass

        def get_request(self) -> tuple[Any, Any]:
            sock, address = super().get_request()
            sock.settimeout(30)
            return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if like is None or like.certificate is None:
        certify(folder, context)
        made.certificate = (folder / "server.pem", folder / "server.key")
    else:
        made.certificate = like.certificate
        context.load_cert_chain(*made.certificate)
    made.ca = made.certificate[0]
    server = Server(("127.0.0.1", 0), Handler)
    made.host = f"127.0.0.1:{server.server_address[1]}"
    if tokens is not None:
        tokens.realm = f"https://{made.host}/token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cut(reply: Reply, after: int) -> Reply:
    """The same answer, whose connection breaks after so many bytes of the body."""
    head = [f"HTTP/1.1 {reply.status} OK".encode()]
    head += [f"{name}: {value}".encode() for name, value in reply.headers if name.lower() != "content-length"]
    head += [b"Content-Length: %d" % len(reply.body), b"", b""]
    return replace(reply, raw=(b"\r\n".join(head), reply.body[:after]))
