"""The node's end of a channel, frame by frame, and a TLS broker that answers as it is told, for tests of the agent."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from strongroom.agent.channel import Channel
from strongroom.crypto import digest
from strongroom.model.room import channel as wire
from strongroom.model.room import destination
from strongroom.streams import mux


class NodeEnd(threading.Thread):
    """Relays streams to `routes[party]` = (host, port); keeps control messages and files."""

    def __init__(self, routes: dict[str, tuple[str, int]]) -> None:
        super().__init__(daemon=True)
        self._sending = threading.Lock()
        ours, theirs = socket.socketpair()
        self.sock, self.channel = ours, Channel(theirs.detach())
        self.routes, self.controls, self.files = routes, [], {}
        self._names: dict[int, str] = {}
        self._peers: dict[int, socket.socket] = {}
        self._credit: dict[int, int] = {}
        self._halt, self._wake = os.pipe()
        self._closing = False
        self.start()

    def send(self, type: wire.FrameType, stream: int, payload: bytes = b"") -> None:
        with self._sending:  # frames of two threads must not mix
            self.sock.sendall(wire.Frame(type=type, stream=stream, payload=payload).encode())

    def control(self, **values: object) -> None:
        self.send(wire.FrameType.CONTROL, 0, json.dumps(values).encode())

    def close(self) -> None:
        self._closing = True
        os.write(self._wake, b"x")
        self.sock.shutdown(socket.SHUT_RDWR)  # ends a send to an agent that reads no more
        self.join(60)
        for one in (self.sock, *self._peers.values()):
            one.close()
        for fd in (self._halt, self._wake, self.channel._fd):
            os.close(fd)

    def run(self) -> None:
        try:
            self._serve()
        except OSError:
            if not self._closing:
                raise

    def _serve(self) -> None:
        decoder = wire.Decoder()
        while True:
            waiting = [peer for number, peer in self._peers.items() if self._credit[number]]
            sockets = [self.sock, self._halt, *waiting]
            for one in select.select(sockets, [], [])[0]:
                if one == self._halt:
                    return
                if one is self.sock:
                    data = self.sock.recv(65536)
                    if not data:
                        return
                    for frame in decoder.feed(data):
                        self._take(frame)
                else:
                    self._relay(one)

    def _relay(self, peer: socket.socket) -> None:
        stream = next((number for number, one in self._peers.items() if one is peer), None)
        if stream is None:
            return
        try:
            data = peer.recv(min(wire.MAX_DATA, self._credit[stream]))
        except OSError:
            data = b""
        if data:
            self._credit[stream] -= len(data)
            self.send(wire.FrameType.DATA, stream, data)
        else:
            self.send(wire.FrameType.RESET, stream, b"reset")
            self._peers.pop(stream).close()

    def _take(self, frame: wire.Frame) -> None:
        if frame.type == wire.FrameType.CONTROL:
            self.controls.append(json.loads(frame.payload))
        elif frame.type == wire.FrameType.OPEN:
            self._open(frame.stream, destination.parse(frame.payload))
        elif frame.type == wire.FrameType.CREDIT:
            if frame.stream in self._credit:
                self._credit[frame.stream] += int.from_bytes(frame.payload, "big")
        elif frame.stream in self._names:
            self.files[self._names[frame.stream]] += frame.payload
            self._give_back(frame)
            if frame.type == wire.FrameType.END:
                self.send(wire.FrameType.END, frame.stream)
        elif frame.stream in self._peers:
            if frame.type == wire.FrameType.DATA:
                with contextlib.suppress(OSError):  # a peer that has left: reading from it tells the room
                    self._peers[frame.stream].sendall(frame.payload)
                self._give_back(frame)
            else:
                self._peers.pop(frame.stream).close()

    def _open(self, stream: int, where: destination.Destination) -> None:
        if where.kind is destination.Kind.FILE:
            self._names[stream] = where.name
            self.files[where.name] = b""
        else:
            try:
                self._peers[stream] = socket.create_connection(self.routes[where.name], timeout=5)
            except (OSError, KeyError):
                self.send(wire.FrameType.RESET, stream, b"unreachable")
                return
            self._credit[stream] = mux.FIRST_WINDOW
        self.send(wire.FrameType.ACCEPT, stream)

    def _give_back(self, frame: wire.Frame) -> None:
        if frame.payload:
            self.send(wire.FrameType.CREDIT, frame.stream, len(frame.payload).to_bytes(4, "big"))


def certificate(lifetime_days: int = 1) -> tuple[bytes, bytes, str]:
    """(certificate PEM, key PEM, pin); a negative lifetime has long ended."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1000))
        .not_valid_after(now + timedelta(days=lifetime_days))
        .sign(key, hashes.SHA256())
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), private, digest.sha256(public)


class TlsServer(threading.Thread):
    """Answers each request with what `handler(path, body)` returns: raw answer bytes, or (status, body)."""

    def __init__(self, tmp_path, handler, *, maximum=None, lifetime_days=1, own=None) -> None:
        super().__init__(daemon=True)
        pem, key, self.pin = own or certificate(lifetime_days)
        (tmp_path / "c.pem").write_bytes(pem + key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(tmp_path / "c.pem")
        if maximum is not None:
            self.context.maximum_version = maximum
        self.handler, self.requests = handler, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.start()

    def run(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as tls:
                    self._serve(tls)
            except OSError:
                plain.close()

    def _serve(self, tls: ssl.SSLSocket) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = tls.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            length = int(
                next(
                    line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                ).split(b":")[1]
            )
            while len(data) < length:
                data += tls.recv(65536)
            body, data = data[:length], data[length:]
            path = head.split(b" ")[1].decode()
            self.requests.append((path, head, body))
            answer = self.handler(path, body)
            if isinstance(answer, tuple):
                status, content = answer
                answer = (
                    b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                    % (status, len(content))
                    + content
                )
            if answer is None:
                return
            tls.sendall(answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(60)
