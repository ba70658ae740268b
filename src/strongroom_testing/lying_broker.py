"""A TLS server with a ledger key of its own that answers as a test pleases: brokers that lie, trickle or redirect."""

from __future__ import annotations

import base64
import contextlib
import http.server
import ssl
import textwrap
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from strongroom.crypto import sign, tls
from strongroom.model import identity, party

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Answer = Callable[[str, sign.SigningKey], tuple[int, Iterable[bytes] | None]]


PROMISED = 60_000


@contextlib.contextmanager
def serve(
    folder: Path, answer: Answer, *, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> Iterator[tuple[Path, party.BrokerAddress]]:
    """The party file that names it, and its address.

    `answer(path, ledger key)` gives status and body parts; parts that are no list or tuple are sent under
    the length PROMISED, however many there are; None sends some without any length.
    """
    key, ledger = tls.generate(), sign.generate()
    certificate = tls.self_signed(key, name="liar", now=datetime.now(UTC), random=lambda n: b"\x01" * n)
    (folder / "key.pem").write_bytes(_pem(key.der, "PRIVATE KEY"))
    (folder / "cert.pem").write_bytes(_pem(certificate, "CERTIFICATE"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                status, parts = answer(self.path, ledger)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "/v1/ledger/elsewhere")
                if parts is None:
                    parts = [b"no length"]
                else:
                    whole = isinstance(parts, list | tuple)
                    self.send_header("Content-Length", str(sum(map(len, parts)) if whole else PROMISED))
                self.end_headers()
                for part in parts:
                    self.wfile.write(part)
                    self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = party.BrokerAddress(
        url=f"https://127.0.0.1:{server.server_address[1]}",
        pin=key.pin,
        ledger_key=ledger.public.raw,
        authority="sha256:" + "0" * 64,
    )
    file = folder / "alice.party.json"
    file.write_bytes(identity.generate("alice").party(address).encode())
    try:
        yield file, address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pem(data: bytes, what: str) -> bytes:
    lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))
    return f"-----BEGIN {what}-----\n{lines}\n-----END {what}-----\n".encode()
