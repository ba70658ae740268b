"""Waiting at one broker for what ends the run (`POST /v1/watches`), while all else goes on: a stream's end, driven by the room's loop.

One request is open at a time, and the next one follows its answer. A broker that cannot be reached, or answers something else, is asked again ever later: that by itself ends
no run, since renewals decide how long a room goes on without its brokers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from strongroom.agent import http
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom.model import watch as watch_model
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.model.watch import WatchState

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.identifiers import PartyName
    from strongroom.model.party import BrokerAddress
    from strongroom.streams.carrier import Carrier
    from strongroom.streams.mux import Stream

PATH = "/v1/watches"
PATIENCE = watch_model.WAIT_SECONDS + 35.0  # seconds for one connection and its answer
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


class Watcher:
    """The watch at the broker of `party`. request: the bytes to ask with, newest token and all. ended: called once with what ended the run."""

    def __init__(
        self,
        carrier: Carrier,
        party: PartyName,
        address: BrokerAddress,
        *,
        request: Callable[[], bytes],
        ended: Callable[[WatchState], None],
    ) -> None:
        self._carrier = carrier
        self._party = party
        self._address = address
        self._request = request
        self._ended = ended
        self._open: _Asking | None = None
        self._next = 0.0
        self._pause = FIRST_PAUSE

    def step(self, now: float) -> float:
        """Ask where that is due; return when this wants to be called again, at the latest."""
        if self._open is not None and (self._open.outcome is not None or now >= self._open.deadline):
            self._take(self._open, now)
        if self._open is None and now >= self._next:
            asking = _Asking(self._party, self._address, self._request(), begun=now)
            try:
                asking.begin(self._carrier)
            except Unavailable:  # too many streams: later
                self._wait(now)
            else:
                self._open = asking
        return self._next if self._open is None else self._open.deadline

    def close(self) -> None:
        """Ask no more."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _take(self, asking: _Asking, now: float) -> None:
        self.close()
        state = asking.outcome
        if not isinstance(state, WatchState):
            self._wait(now)
            return
        # At once after a long wait; a broker that answers at once is not asked without a pause.
        self._pause, self._next = FIRST_PAUSE, max(now, asking.begun + FIRST_PAUSE)
        if state is not WatchState.STANDS:
            self._next = math.inf
            self._ended(state)

    def _wait(self, now: float) -> None:
        self._next = now + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


class _Asking:
    """One connection with one request. outcome: None while there is none; the state, or why there is no answer."""

    def __init__(self, party: PartyName, address: BrokerAddress, request: bytes, *, begun: float) -> None:
        self.begun, self.deadline = begun, begun + PATIENCE
        self.outcome: WatchState | str | None = None
        self._tls = http.BrokerTls(party, address)
        self._head = http.request_head(address, PATH, len(request)) + request
        self._asked = False
        self._answer = bytearray()
        self._out = bytearray()
        self._stream: Stream | None = None
        self._where = Destination(kind=Kind.BROKER, name=party)

    def begin(self, carrier: Carrier) -> None:
        """Dial. Raises `Unavailable`."""
        self._stream = carrier.dial(self._where, self)
        self._advance()

    def close(self) -> None:
        """Give the stream up."""
        if self._stream is not None and not self._stream.is_over:
            self._stream.reset(Reason.RESET)

    def _advance(self) -> None:
        try:
            if not self._asked and self._tls.handshake():
                self._tls.write(self._head)
                self._asked = True
            if self._asked:
                while self.outcome is None and (data := self._tls.read()):
                    self._answer += data
                    self._parse()
        except (Unavailable, Refused, Malformed) as cause:
            self.outcome = cause.code
        self._out += self._tls.outgoing()
        if self.outcome is not None:
            self.close()  # the room may be busy for a while, and others want the broker's connections
        elif self._out and self._stream is not None:
            self._stream.ready()

    def _parse(self) -> None:
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._answer) > http.MAX_HEAD:
                raise Malformed(
                    "the broker's answer: its head is too long",
                    hint="something else than a broker may answer at that address",
                )
            return
        status, length = http.parse_head(bytes(self._answer[:end]), max_answer=http.MAX_HEAD)
        body = bytes(self._answer[end + 4 :])
        if len(body) >= length:
            self.outcome = (
                watch_model.parse_answer(body[:length]).state if status == http.OK else f"status {status}"
            )

    # What the stream calls

    def take(self, data: memoryview) -> None:
        """Bytes of TLS have come."""
        count = len(data)
        self._tls.incoming(bytes(data))
        if self._stream is not None:
            self._stream.consumed(count)
        if self.outcome is None:
            self._advance()

    def fill(self, view: memoryview) -> int:
        """What TLS has to send."""
        count = min(len(self._out), len(view))
        view[:count] = self._out[:count]
        del self._out[:count]
        return count

    def accepted(self) -> None:
        """Nobody waits for that."""

    def ended(self) -> None:
        """The broker sends no more."""
        self.outcome = self.outcome or "cut-off"

    def over(self, reason: Reason | None) -> None:
        """The stream is over."""
        self.outcome = self.outcome or (reason.value if reason else "cut-off")
