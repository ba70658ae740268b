"""The host's end of the room's channel: frames in, TCP connections to brokers and files out.

Formats: `model/room/channel.py`; streams: `strongroom.streams`. One thread, one loop; the room's side is not trusted:

- a stream goes to the broker that the contract names for a party, or nowhere
- files are for the inbox to judge; unknown frames, controls and streams end the room
- what is held for a slow broker is bounded by its stream's window, and stops no other stream
- the room must say hello in time, must not fall silent, and must end in time

The bytes that pass are TLS between the room and the broker; this side sees ciphertext.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom import host_log
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, PolicyDenied, Refused, StrongroomError, Unavailable
from strongroom.model import verdict
from strongroom.model.identifiers import PartyName
from strongroom.model.room import channel as wire
from strongroom.model.room.destination import Kind, Reason
from strongroom.node.network.connecting import Connector
from strongroom.node.network.inward import InwardStreams
from strongroom.node.network.outward import OutwardStreams
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side
from strongroom.streams.socket_end import SocketEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from strongroom.node.network.inward import RoomNetwork
    from strongroom.node.run_folder import Inbox
    from strongroom.streams.mux import Stream, StreamEnd

MAX_BROKER_STREAMS = 16
CONNECT_SECONDS = 10.0
_MAX_PHASES = _MAX_NOTES = 1000  # that are passed on: a room can go on without end
_LAST_WORDS = (
    4 << 20
)  # bytes that are read once something that the room needs has ended: more than a socket holds
_RENEWAL_SECONDS = 0.1  # between two phases of renewals that are passed on, at least
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
    """How long the relay waits, in seconds: for hello, between two signs of life, and for the end; for the end once the room was asked to stop."""

    hello: float
    silence: float
    total: float
    stopping: float = 0.0


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
    network: what the room's program may reach and who may reach it; None: nothing and nobody.
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
        network: RoomNetwork | None = None,
    ) -> None:
        self._channel = channel
        self._brokers = brokers
        self._start = start
        self._inbox = inbox
        self._on_phase = on_phase
        self._on_note = on_note
        self._watched = watched
        self._loop = Loop(channel.fileno(), Side.NODE, self._take_control)
        self._loop.listen(Kind.BROKER, self._open_broker)
        self._loop.listen(Kind.FILE, self._open_file)
        self._to_brokers: set[_BrokerEnd] = set()
        self._connecting = 0  # to brokers, of streams that were given up, too
        self._connector = Connector(self._loop)
        self._inward: InwardStreams | None = None
        if network is not None:
            self._inward = InwardStreams(self._loop, network.listeners)
            OutwardStreams(self._loop, self._connector, network.terms, network.options, self._note)
        self._phases = self._notes = 0
        self._unreachable = ""
        self._greeted = False
        self._done = False
        self._renewed = -math.inf  # when the last renewal's phase was passed on
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped: float | None = None

    def stop(self) -> None:
        """Ask the room to end its program, which only a service's heeds. May be called by a signal's handler."""
        os.eventfd_write(self._stop, 1)

    def serve(self, patience: Patience) -> None:
        """Return when the room says that it is done.

        Raises `PolicyDenied` or `Refused` when the room says why it failed, `Unavailable` when it ends
        or falls silent without a word, `Malformed` when it does not keep to the protocol.
        """
        started = heard = time.monotonic()
        self._loop.watch(self._stop, self._send_stop)
        for fd, ended in self._watched.items():
            self._loop.watch(fd, self._after_last_words(ended))
        while not self._is_done():
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
            left = patience.total - (now - started)
            if self._stopped is not None:
                left = min(left, patience.stopping - (now - self._stopped))
                if left < 0:
                    raise Unavailable(
                        f"the room has not ended within {patience.stopping:.0f} s after it was asked to",
                        code="room-overran",
                        hint="its program, its brokers or the machine may be too slow; nothing of its outputs has left",
                    )
            wait = min(left, allowed - silent)
            before = self._loop.received
            with _of_the_room():
                self._loop.turn(max(0.0, wait) + 0.01)
            if self._loop.received != before:
                heard = time.monotonic()

    def _send_stop(self, _events: int) -> None:
        os.eventfd_read(self._stop)
        if self._stopped is None:
            self._stopped = time.monotonic()
            self._loop.send_control(canonical.dumps({"kind": wire.STOP}))

    def _is_done(self) -> bool:
        return self._done

    def _after_last_words(self, ended: Callable[[], None]) -> Callable[[int], None]:
        """`ended`, called once what the room said before its end was read: that counts first."""

        def serve(_events: int) -> None:
            first = self._loop.received
            while not (self._done or self._loop.lost) and self._loop.received - first < _LAST_WORDS:
                before = self._loop.received
                self._loop.read()
                if self._loop.received == before:
                    break
            if not self._done:
                ended()

        return serve

    def close(self) -> None:
        """Close every connection."""
        self._loop.close()
        self._connector.close()
        self._channel.close()
        os.close(self._stop)

    def _take_control(self, payload: bytes) -> None:
        top = fields.Fields(
            canonical.loads(payload, what="room's message", max_bytes=wire.MAX_CONTROL), "room's message"
        )
        kind = top.text("kind", max_length=16)
        if kind == "hello":
            if self._greeted:
                raise Malformed("the room says hello twice", code="bad-channel")
            self._greeted = True
            self._loop.send_control(self._start)
        elif kind == "phase":
            self._phases += 1
            name = top.text("name", max_length=129, pattern=_PHASE)
            moment = top.integer("milliseconds", low=0, high=canonical.MAX_INTEGER)
            if self._inward is not None:
                self._inward.phase(name)
            if self._phases <= _MAX_PHASES or self._is_renewal(name):
                self._on_phase(name, moment)
        elif kind == "failed":
            raise _failure(top, self._unreachable)
        elif kind == "done":
            self._done = True
        else:
            raise Malformed(f"the room sends a message of unknown kind {kind!r}", code="bad-channel")
        top.done()

    def _is_renewal(self, name: str) -> bool:
        """Whether that is a renewal's phase, or of its certificates: a service has them without end, so that some are passed on, and no more."""
        now = time.monotonic()
        if not name.startswith((wire.RENEWED, wire.CERTIFICATE)) or now - self._renewed < _RENEWAL_SECONDS:
            return False
        self._renewed = now
        return True

    def _open_file(self, stream: Stream, name: str) -> StreamEnd:
        self._must_have_greeted()
        self._inbox.begin(stream.number, name)
        stream.accept()
        return _FileEnd(stream, self._inbox)

    def _open_broker(self, stream: Stream, name: str) -> StreamEnd | Reason:
        self._must_have_greeted()
        party = PartyName(name)  # which may be nobody's
        address = self._brokers.get(party)
        if address is None:
            self._note(f"connection to {party!r} refused: the contract names no broker for it")
            return Reason.NOT_ALLOWED
        if max(len(self._to_brokers), self._connecting) >= MAX_BROKER_STREAMS:
            self._note(f"connection to {party!r} refused: too many at once")
            return Reason.TOO_MANY
        end = _BrokerEnd(self._loop, stream, self._to_brokers)
        self._connecting += 1
        host, port = address

        def reach() -> socket.socket:
            connection = socket.create_connection(address, timeout=CONNECT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host_log.debug("room connected to broker", party=party, host=host, port=port)
            return connection

        def settled(cause: Exception | None) -> None:
            self._connecting -= 1
            if cause is not None:
                self._unreachable = f"broker of {party} at {host}:{port}: {cause}"
                self._note(self._unreachable)

        self._connector.connect(end, reach, settled)
        return end

    def _note(self, line: str) -> None:
        self._notes += 1
        if self._notes <= _MAX_NOTES:
            self._on_note(line)

    def _must_have_greeted(self) -> None:
        if not self._greeted:
            raise Malformed("the room opens a stream before it says hello", code="bad-channel")


class _FileEnd:
    """A stream that ends in a file of the inbox."""

    def __init__(self, stream: Stream, inbox: Inbox) -> None:
        self._stream = stream
        self._inbox = inbox
        self._is_whole = False

    def take(self, data: memoryview) -> None:
        """Into the file."""
        self._inbox.write(self._stream.number, data)
        self._stream.consumed(len(data))

    def fill(self, _view: memoryview) -> int:
        """The end, once the file is whole."""
        return -1 if self._is_whole else 0

    def accepted(self) -> None:
        """Never, on a stream that the room opened."""

    def ended(self) -> None:
        """The file is whole."""
        self._inbox.finish(self._stream.number)
        self._is_whole = True
        self._stream.ready()

    def over(self, reason: Reason | None) -> None:
        """Raises `Malformed` for a file that is given up."""
        if reason is not None:
            raise Malformed("the room gives up a file that it hands out", code="bad-channel")


class _BrokerEnd(SocketEnd):
    """A stream that ends in a connection to a broker, one of `all_of_them` until it is over."""

    __slots__ = ("_all", "stream")

    def __init__(self, loop: Loop, stream: Stream, all_of_them: set[_BrokerEnd]) -> None:
        super().__init__(loop)
        self.stream = stream
        self._all = all_of_them
        self._all.add(self)

    def over(self, reason: Reason | None) -> None:
        """Close the socket."""
        self._all.discard(self)
        super().over(reason)


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
