"""Serves the Workload API on a Unix socket: gRPC over HTTP/2, one thread, in a process that has no other key than it hands out.

Who may connect is who sees the socket: the room's program alone, so that the program needs no secret to ask by ("The SPIFFE Workload
API" section 4). Every request must carry the metadata `workload.spiffe.io: true`, which a web page cannot make a program send.

  FetchX509SVID      the SVID now, and every one that follows it on the same stream
  FetchX509Bundles   the trust domain's authorities, likewise
  all others         UNIMPLEMENTED

The program is a stranger too. What it can make this process hold is bounded: connections, streams of each, bytes that it sends
and bytes that it does not read. Whoever passes a bound is cut off, and no other connection notices.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from strongroom.errors import Malformed
from strongroom.spiffe import svid as svid_model

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.spiffe.svid import X509Svid

MAX_CONNECTIONS = 64
MAX_STREAMS = 16  # at once, on a connection
MAX_REQUESTS = 10_000  # on a connection, in its life
MAX_UNREAD = 1 << 20  # bytes
_MAX_BODY = 4096  # bytes of a request: its messages are empty
_READ = 64 * 1024
_SERVICE = "/SpiffeWorkloadAPI/"
_INVALID_ARGUMENT, _PERMISSION_DENIED, _UNIMPLEMENTED = "3", "7", "12"
_RESPONSES: dict[str, Callable[[X509Svid], bytes]] = {
    f"{_SERVICE}FetchX509SVID": svid_model.x509_svid_response,
    f"{_SERVICE}FetchX509Bundles": svid_model.x509_bundles_response,
}


def serve(listener: socket.socket, updates: socket.socket) -> None:
    """Serve until `updates` ends. It carries SVIDs, each a line of JSON (`X509Svid.encode`). Raises `Malformed` for another line."""
    _Server(listener, updates).run()


class _Server:
    def __init__(self, listener: socket.socket, updates: socket.socket) -> None:
        self._listener = listener
        self._updates = updates
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._pending = bytearray()
        self.svid: X509Svid | None = None

    def run(self) -> None:
        for plug, act in ((self._listener, self._accept), (self._updates, self._update)):
            plug.setblocking(False)
            self._selector.register(plug, selectors.EVENT_READ, act)
        try:
            while self._selector.get_map().get(self._updates.fileno()) is not None:
                for key, events in self._selector.select():
                    key.data(events)
        finally:
            for client in tuple(self._clients):
                self.drop(client)
            self._selector.close()

    def drop(self, client: _Client) -> None:
        """Cut the client off, once: an update may have done so before what came on its socket is looked at."""
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.plug)
            client.plug.close()

    def has(self, client: _Client) -> bool:
        """Whether the client is still there."""
        return client in self._clients

    def want(self, client: _Client, events: int) -> None:
        self._selector.modify(client.plug, events, client.act)

    def _accept(self, _events: int) -> None:
        try:
            plug, _ = self._listener.accept()
        except OSError:  # it went again, or there is no descriptor left
            return
        if len(self._clients) >= MAX_CONNECTIONS:
            plug.close()
            return
        plug.setblocking(False)
        client = _Client(self, plug)
        self._clients.add(client)
        self._selector.register(plug, selectors.EVENT_READ, client.act)
        client.flush()

    def _update(self, _events: int) -> None:
        data = self._updates.recv(_READ)
        if not data:
            self._selector.unregister(self._updates)
            return
        self._pending += data
        if len(self._pending) > 2 * svid_model.MAX_BYTES:
            raise Malformed("SVID: a line that does not end", code="too-large")
        *lines, rest = bytes(self._pending).split(b"\n")
        self._pending[:] = rest
        if lines:
            self.svid = svid_model.parse(lines[-1])
            for client in tuple(self._clients):
                client.renew(self.svid)


class _Client:
    """One connection. `streams`: path of each that waits for what follows, with the bytes of its request so far."""

    def __init__(self, server: _Server, plug: socket.socket) -> None:
        self._server = server
        self.plug = plug
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=False)
        )
        self._http.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS}
        )
        self._http.initiate_connection()
        self._streams: dict[int, str] = {}
        self._bodies: dict[int, int] = {}
        self._requests = 0
        self._unsent = bytearray()

    def act(self, events: int) -> None:
        if not self._server.has(self):
            return
        try:
            if events & selectors.EVENT_READ and not self._read():
                self._server.drop(self)
                return
        except Exception:  # noqa: BLE001 - whatever one connection makes of it, the others have theirs
            self._server.drop(self)
            return
        self.flush()

    def renew(self, svid: X509Svid) -> None:
        """Send the SVID on all streams that wait."""
        try:
            for stream, path in tuple(self._streams.items()):
                self._send(stream, _RESPONSES[path](svid))
        except h2.exceptions.ProtocolError:
            self._server.drop(self)
            return
        self.flush()

    def flush(self) -> None:
        self._unsent += self._http.data_to_send()
        try:
            if self._unsent:
                del self._unsent[: self.plug.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._server.drop(self)
            return
        if len(self._unsent) > MAX_UNREAD:
            self._server.drop(self)
            return
        self._server.want(self, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0))

    def _read(self) -> bool:
        """Whether the connection goes on."""
        try:
            data = self.plug.recv(_READ)
        except BlockingIOError:
            return True
        if not data:
            return False
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._requests += 1
                if self._requests > MAX_REQUESTS:
                    return False
                self._answer(event.stream_id, dict(event.headers))
            elif isinstance(event, h2.events.DataReceived):
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self._count_body(event.stream_id, event.flow_controlled_length)
            elif isinstance(event, h2.events.StreamReset):
                self._forget(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                return False
        return True

    def _answer(self, stream: int, headers: dict[bytes, bytes]) -> None:
        path = headers.get(b":path", b"").decode("latin-1")
        if headers.get(b"workload.spiffe.io") != b"true":
            self._refuse(stream, _INVALID_ARGUMENT, "the metadata workload.spiffe.io must be true")
        elif path not in _RESPONSES:
            self._refuse(stream, _UNIMPLEMENTED, "a room hands out X.509-SVIDs and their bundles")
        elif self._server.svid is None:
            self._refuse(stream, _PERMISSION_DENIED, "no certificate yet")
        else:
            self._http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            self._streams[stream] = path
            self._bodies[stream] = 0
            self._send(stream, _RESPONSES[path](self._server.svid))

    def _refuse(self, stream: int, status: str, message: str) -> None:
        answer = [(":status", "200"), ("content-type", "application/grpc")]
        self._http.send_headers(
            stream, [*answer, ("grpc-status", status), ("grpc-message", message)], end_stream=True
        )

    def _send(self, stream: int, message: bytes) -> None:
        """A message, uncompressed. A stream whose client gives no room for it is ended: the next SVID would wait behind it for ever."""
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        if self._http.local_flow_control_window(stream) < len(framed):
            self._http.reset_stream(stream, h2.errors.ErrorCodes.FLOW_CONTROL_ERROR)
            self._forget(stream)
            return
        size = self._http.max_outbound_frame_size
        for at in range(0, len(framed), size):
            self._http.send_data(stream, framed[at : at + size])

    def _count_body(self, stream: int, count: int) -> None:
        if stream not in self._bodies:
            return
        self._bodies[stream] += count
        if self._bodies[stream] > _MAX_BODY:
            self._http.reset_stream(stream, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        self._streams.pop(stream, None)
        self._bodies.pop(stream, None)
