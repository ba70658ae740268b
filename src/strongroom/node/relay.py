"""The host's end of the room's channel: frames in, TCP connections to brokers and files out.

Formats: `model/room/channel.py`. One thread, one selector; the room's side is not trusted:

- a stream goes to the broker that the contract names for a party, or nowhere
- files are for the inbox to judge; unknown frames, controls and streams end the room
- what is held for a slow peer is bounded: past `MAX_HELD` nothing more is read from the other side
- the room must say hello in time, must not fall silent, and must end in time

The bytes that pass are TLS between the room and the broker; this side sees ciphertext.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom import host_log
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, PolicyDenied, Refused, StrongroomError, Unavailable
from strongroom.model import verdict
from strongroom.model.identifiers import PartyName
from strongroom.model.room import channel as wire
from strongroom.node.relay_socket import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from strongroom.node.run_folder import Inbox

MAX_STREAMS = 16
MAX_HELD = 1 << 20
CONNECT_SECONDS = 10.0
_ROOM = 0  # stream 0 is the control stream, never a broker
MAX_OPENED = (
    1 << 17
)  # streams in a room's life: each of 32 brokers is tried every half minute for up to a day
_MAX_PHASES = 1000
_NOT_RECORDED = "receipt-not-recorded"
# What a room's failure may be called when trying again can help.
_LOOK_AT_BOTH = "run it again; if it stays so, `strongroom base verify` looks at the base, and `strongroom node doctor` at this machine"
_OF_THE_MACHINE = frozenset(
    {"channel-lost", "tpm-failed", "tsm-failed", "sev-guest-failed", "tdx-guest-failed", "nsm-failed"}
)
_PASSING = frozenset(
    {
        *("timed-out", "cut-off", "tls-failed", "broker-error", "unavailable", "stopped"),
        *("too-slow", "overloaded", "too-many-challenges", "closing", "ledger-full", "disk-full"),
        *("channel-lost", "tpm-failed", _NOT_RECORDED),
        *("tsm-failed", "sev-guest-failed", "tdx-guest-failed", "nsm-failed"),
        # A broker could not ask a vendor.
        *(
            "vendor-slow",
            "vendor-busy",
            "vendor-unreachable",
            "fetch-busy",
            "fetch-budget",
            "stale",
            "offline",
        ),
    }
)
_PHASE = re.compile(r"[a-z0-9-]{1,64}(?::[a-z0-9._-]{1,64})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the relay waits, in seconds: for hello, between two signs of life, and for the end."""

    hello: float
    silence: float
    total: float


@dataclass(frozen=True, kw_only=True)
class RoomRefusal:
    """Why a room gave up: checks of a broker's verdict that did not hold. Stands for a verdict in errors."""

    checks: tuple[verdict.Check, ...]

    @property
    def failed(self) -> tuple[verdict.Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)


class Relay:
    """Serves one room over `channel` (a connected socket, taken over) until it is done.

    brokers: (host, port) by party name. start: the start message's bytes. watched: descriptors that
    become readable when something that the room needs has ended, with the function that raises why.
    on_phase: called with (name, guest's milliseconds). on_note: called with lines for the log.
    """

    def __init__(
        self,
        channel: socket.socket,
        *,
        brokers: Mapping[PartyName, tuple[str, int]],
        start: bytes,
        inbox: Inbox,
        on_phase: Callable[[str, int], None],
        on_note: Callable[[str], None],
        watched: Mapping[int, Callable[[], None]],
    ) -> None:
        self._peer = Peer(channel)
        self._brokers = brokers
        self._start = start
        self._inbox = inbox
        self._on_phase = on_phase
        self._on_note = on_note
        self._watched = watched
        self._decoder = wire.Decoder()
        self._streams: dict[int, Peer] = {}
        self._used: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._connected: deque[tuple[int, socket.socket | None, str]] = deque()
        self._waker, self._woken = socket.socketpair()
        self._phases = 0
        self._unreachable = ""
        self._greeted = False
        self._done = False
        self._heard_bytes = 0

    def serve(self, patience: Patience) -> None:
        """Return when the room says that it is done.

        Raises `PolicyDenied` or `Refused` when the room says why it failed, `Unavailable` when it ends
        or falls silent without a word, `Malformed` when it does not keep to the protocol.
        """
        started = heard = time.monotonic()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._take_connections)
        for fd, ended in self._watched.items():
            self._selector.register(fd, selectors.EVENT_READ, self._after_last_words(ended))
        while not self._is_done():
            self._arm()
            now = time.monotonic()
            silent = now - heard
            allowed = patience.silence if self._greeted else patience.hello
            if now - started > patience.total:
                raise Unavailable(
                    f"the room has not ended after {patience.total:.0f} s",
                    code="room-overran",
                    hint="it should have been stopped by its own time limit",
                )
            if silent > allowed:
                raise Unavailable(
                    f"the room has said nothing for {allowed:.0f} s",
                    code="room-silent",
                    hint="the base may be damaged, or the machine overloaded",
                )
            wait = min(patience.total - (now - started), allowed - silent)
            ready = self._selector.select(max(0.0, wait) + 0.01)
            for key, events in ready:
                if key.data == _ROOM:
                    heard = time.monotonic()
                    self._serve_room(events)
                elif isinstance(key.data, int):
                    self._serve_stream(key.data, events)
                else:
                    key.data()

    def _is_done(self) -> bool:
        return self._done

    def _after_last_words(self, ended: Callable[[], None]) -> Callable[[], None]:
        """`ended`, called once what the room said before its end was read: that counts first."""

        def serve() -> None:
            while not self._done and self._peer.connection is not None:
                before = self._heard_bytes
                self._serve_room(selectors.EVENT_READ)
                if self._heard_bytes == before:
                    break
            if not self._done:
                ended()

        return serve

    def close(self) -> None:
        """Close every connection."""
        for peer in (self._peer, *self._streams.values()):
            peer.close()
        for _, connection, _ in self._connected:
            if connection is not None:
                connection.close()
        self._streams.clear()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _arm(self) -> None:
        """Register for what each side may do now: this is where backpressure happens."""
        # A full room-side queue stops reading from brokers; one full broker stops reading from the room.
        reads_room = all(peer.held < MAX_HELD for peer in self._streams.values())
        self._register(self._peer, _ROOM, reads=reads_room)
        reads_brokers = self._peer.held < MAX_HELD
        for number, peer in self._streams.items():
            self._register(peer, number, reads=reads_brokers)

    def _register(self, peer: Peer, data: object, *, reads: bool) -> None:
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if peer.held else 0)
        if peer.connection is None or events == peer.events:
            return
        if peer.events:
            self._selector.unregister(peer.connection)
        if events:
            self._selector.register(peer.connection, events, data)
        peer.events = events

    def _serve_room(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._peer.flush()
        if events & selectors.EVENT_READ:
            data = self._peer.receive()
            if data == b"":
                # QEMU closed the socket: its process descriptor says why, in a moment.
                self._forget(self._peer)
                return
            self._heard_bytes += len(data or b"")
            for frame in self._decoder.feed(data or b""):
                with _of_the_room():
                    self._take(frame)
                if self._done:
                    return

    def _take(self, frame: wire.Frame) -> None:
        if frame.type == wire.FrameType.CONTROL:
            self._take_control(frame.payload)
        elif not self._greeted:
            raise Malformed("the room sends before it says hello", code="bad-channel")
        elif frame.type == wire.FrameType.OPEN:
            self._open(frame.stream, frame.payload)
        elif self._inbox.takes(frame.stream):
            if frame.type == wire.FrameType.DATA:
                self._inbox.write(frame.stream, frame.payload)
            else:
                self._inbox.finish(frame.stream)
        elif frame.stream not in self._used:
            raise Malformed("the room sends on a stream that it never opened", code="bad-channel")
        elif frame.stream in self._streams:
            peer = self._streams[frame.stream]
            if frame.type == wire.FrameType.DATA:
                peer.send(frame.payload)
            else:
                peer.closing = True
                self._end_if_flushed(frame.stream)

    def _take_control(self, payload: bytes) -> None:
        top = fields.Fields(
            canonical.loads(payload, what="room's message", max_bytes=wire.MAX_CONTROL), "room's message"
        )
        kind = top.text("kind", max_length=16)
        if kind == "hello":
            if self._greeted:
                raise Malformed("the room says hello twice", code="bad-channel")
            self._greeted = True
            self._to_room(wire.FrameType.CONTROL, 0, self._start)
        elif kind == "phase":
            self._phases += 1
            name = top.text("name", max_length=129, pattern=_PHASE)
            moment = top.integer("milliseconds", low=0, high=canonical.MAX_INTEGER)
            if self._phases <= _MAX_PHASES:
                self._on_phase(name, moment)
        elif kind == "file":
            stream = top.integer("stream", low=1, high=(1 << 32) - 1)
            self._use(stream)
            self._inbox.begin(stream, top.text("name", max_length=200))
        elif kind == "failed":
            raise _failure(top, self._unreachable)
        elif kind == "done":
            self._done = True
        else:
            raise Malformed(f"the room sends a message of unknown kind {kind!r}", code="bad-channel")
        top.done()

    def _open(self, number: int, payload: bytes) -> None:
        party = PartyName(payload.decode("ascii", errors="replace"))  # which may be nobody's
        self._use(number)
        address = self._brokers.get(party)
        if address is None or len(self._streams) >= MAX_STREAMS:
            why = "too many at once" if address else "the contract names no broker for it"
            self._on_note(f"connection to {party[:64]!r} refused: {why}")
            self._to_room(wire.FrameType.CLOSE, number, b"")
            return
        # A stream that is being connected holds what the room sends meanwhile.
        self._streams[number] = Peer()
        threading.Thread(
            target=self._connect, args=(number, party, address), name=f"connect-{party}", daemon=True
        ).start()

    def _use(self, number: int) -> None:
        if number == 0 or number in self._used or len(self._used) >= MAX_OPENED:
            raise Malformed(f"the room opens stream {number} twice, or too many", code="bad-channel")
        self._used.add(number)

    def _connect(self, number: int, party: PartyName, address: tuple[str, int]) -> None:
        """In a thread of its own, because names take their time."""
        try:
            connection = socket.create_connection(address, timeout=CONNECT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as cause:
            host, port = address
            self._connected.append((number, None, f"broker of {party} at {host}:{port}: {cause}"))
        else:
            host_log.debug("room connected to broker", party=party, host=address[0], port=address[1])
            self._connected.append((number, connection, ""))
        with contextlib.suppress(OSError):  # the room has ended meanwhile
            self._waker.send(b"w")

    def _take_connections(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._connected:
            number, connection, problem = self._connected.popleft()
            peer = self._streams.get(number)
            if connection is None:
                self._unreachable = problem
                self._on_note(problem)
                self._streams.pop(number, None)
                self._to_room(wire.FrameType.CLOSE, number, b"")
            elif peer is None:
                connection.close()
            else:
                peer.attach(connection)
                self._end_if_flushed(number)

    def _serve_stream(self, number: int, events: int) -> None:
        peer = self._streams.get(number)
        if peer is None:
            return
        if events & selectors.EVENT_WRITE:
            peer.flush()
            self._end_if_flushed(number)
        if events & selectors.EVENT_READ and number in self._streams:
            data = peer.receive()
            if data:
                self._to_room(wire.FrameType.DATA, number, data)
            elif data == b"":
                self._to_room(wire.FrameType.CLOSE, number, b"")
                self._drop(number)

    def _end_if_flushed(self, number: int) -> None:
        peer = self._streams[number]
        # A CLOSE of the room ends a broker's stream both ways, once everything before it is out.
        if peer.closing and not peer.held and peer.connection is not None:
            self._drop(number)

    def _drop(self, number: int) -> None:
        peer = self._streams.pop(number)
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if peer.events and peer.connection is not None:
            self._selector.unregister(peer.connection)
            peer.events = 0
        peer.close()

    def _to_room(self, kind: wire.FrameType, stream: int, payload: bytes) -> None:
        self._peer.send(wire.Frame(type=kind, stream=stream, payload=payload).encode())


def _failure(top: fields.Fields, unreachable: str) -> StrongroomError:
    """The error that the room reports. `unreachable`: what this side knows of a broker that it did not reach."""
    checks = verdict.read_checks(top)
    texts = top.text_map_of(("code", "message", "hint"), max_length=wire.MAX_TEXT)
    top.done()
    plain = {key: _printable(text) for key, text in texts.items()}
    if checks:
        failed = RoomRefusal(checks=tuple(_printable_check(check) for check in checks))
        error: StrongroomError = PolicyDenied(plain["message"], verdict=failed, hint=plain["hint"])
        error.code = plain["code"] or error.code
        return error
    if plain["code"] not in _PASSING and not plain["code"].startswith("store-"):
        return Refused(
            f"the room gave up: {plain['message']}", code=plain["code"], hint=plain["hint"] or _LOOK_AT_BOTH
        )
    message = f"the room gave up: {plain['message']}" + (f" ({unreachable})" if unreachable else "")
    hint = plain["hint"] or (
        _LOOK_AT_BOTH
        if plain["code"] in _OF_THE_MACHINE
        else "start the broker, or wait for it, and run again: no run was used up without a release"
    )
    # A receipt that is not recorded keeps its name: the run has ended, and running again is another run.
    code = plain["code"] if plain["code"] == _NOT_RECORDED or not unreachable else "broker-unreachable"
    return Unavailable(message, code=code, hint=hint)


@contextlib.contextmanager
def _of_the_room() -> Iterator[None]:
    """What does not parse here came from the room: it is no file of the user's, and `--help` has no answer to it."""
    try:
        yield
    except Malformed as failure:
        failure.hint = (
            failure.hint
            or "a room of this version never does that: the base may have been changed; `strongroom base verify` tells"
        )
        raise


def _printable_check(check: verdict.Check) -> verdict.Check:
    words = check.words
    return replace(
        check,
        name=_printable(check.name),
        expected=_printable_data(check.expected),
        got=_printable_data(check.got),
        words=words and verdict.Words(**{key: _printable(text) for key, text in words.texts().items()}),
    )


def _printable_data(value: verdict.Data) -> verdict.Data:
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, dict):
        return {_printable(key): _printable_data(item) for key, item in value.items()}
    return [_printable_data(item) for item in value] if isinstance(value, list) else value


def _printable(text: str) -> str:
    """What the room says is shown on a terminal: no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
