"""What room and node speak through: something that carries streams. Today that is a virtio-serial port or a vsock connection
(`strongroom.streams.loop`); a machine whose only way out is a network card would be another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from strongroom.model.room.destination import Destination, Kind
    from strongroom.streams.mux import Answer, Stream, StreamEnd


class Carrier(Protocol):
    """Opens streams to the other side, and takes those that it opens. Whoever waits calls `turn`."""

    @property
    def lost(self) -> str:
        """Why the connection has ended; empty while it has not."""

    @property
    def is_sent(self) -> bool:
        """Whether everything that there is to send is out, or can not be sent any more."""

    def dial(self, where: Destination, end: StreamEnd) -> Stream:
        """Open a stream, which may be sent on at once. Raises `Unavailable` (`too-many`)."""

    def listen(self, kind: Kind, answer: Answer) -> None:
        """Have `answer(stream, name)` say what a stream of the other side's to that kind of destination ends in, or why it is
        not connected. Kinds that nobody listens for are refused.
        """

    def send_control(self, payload: bytes) -> None:
        """Send a control message before all data of streams."""

    def write(self) -> None:
        """Send what can be sent now, without waiting."""

    def turn(self, timeout: float) -> bool:
        """Move what can be moved, waiting up to `timeout` seconds for something; whether there was something."""

    def watch(self, fd: int, act: Callable[[int], None], events: int = ...) -> None:
        """Have `act(events)` called within `turn` when `fd` is ready: by default, to be read."""

    def join(self, connection: socket.socket, act: Callable[[int], None]) -> None:
        """`watch` a non-blocking socket for every change of what it can do."""

    def forget(self, fd: int) -> None:
        """Watch `fd` no more; before the descriptor is closed."""
