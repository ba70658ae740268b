"""A small HTTPS client over one kept connection, which knows the server by the pin of its key."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization


class Client:
    """Speaks HTTP/1.1 to one server. `pin` None: whoever answers. source: the address to speak from, "" for any."""

    def __init__(
        self, host: str, port: int, *, pin: str | None = None, timeout: float = 30, source: str = ""
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = socket.create_connection((host, port), timeout=timeout, source_address=(source, 0))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw)
        self._file = self.socket.makefile("rb")
        if pin is not None and spki_pin(self.socket.getpeercert(binary_form=True) or b"") != pin:
            self.close()
            raise AssertionError("the server has another key")

    def send(self, method: str, path: str, body: bytes = b"", *, headers: str = "") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: broker\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def receive(self) -> tuple[int, bytes]:
        """Status and body of one answer."""
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed without an answer")
        status = int(line.split(b" ")[1])
        length = 0
        while (header := self._file.readline()) != b"\r\n":
            if not header:
                raise ConnectionError("closed within an answer")
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self._file.read(length)
        if len(body) != length:
            raise ConnectionError("closed within an answer")
        return status, body

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        self.send(method, path, body)
        return self.receive()

    def json(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        status, answer = self.request(method, path, body)
        return status, json.loads(answer)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spki_pin(certificate: bytes) -> str:
    """The digest of a certificate's SubjectPublicKeyInfo."""
    spki = (
        x509.load_der_x509_certificate(certificate)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()
