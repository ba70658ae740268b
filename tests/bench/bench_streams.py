"""Streams between a room and its node, beside the same connection raw: over a socket pair to another process, and over the
virtio port of a real emulated room where a base is there.

`socket` is the way of a connection through both loops, a socket and another process at the room's side. `relay` is the whole
way of a program's: by the agent's own relay, to a server in a network namespace of its own.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from strongroom.bases import build, initramfs
from strongroom.model.room.destination import Destination, Kind
from strongroom.node import children, launch_record
from strongroom.node.qemu import machine as qemu
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side
from tests.bench.turns import row
from tests.e2e import tiny
from tests.e2e.shared_cache import SHARED

ROOM = Path(__file__).with_name("streams_room.py")
ROUNDTRIPS = 300
CONNECTIONS = 1000
TOGETHER = 16
OPEN = 1000
MOST_SECONDS = 120.0


class Memory:
    """Sends `left` bytes and then its end, and counts what comes."""

    def __init__(self, left: int) -> None:
        self.stream = None
        self.left, self.came, self.is_over = left, 0, False

    def take(self, data: memoryview) -> None:
        self.came += len(data)
        self.stream.consumed(len(data))

    def fill(self, view: memoryview) -> int:
        count = min(self.left, len(view))
        self.left -= count
        return count or -1 if not self.left else count

    def accepted(self) -> None:
        pass

    def ended(self) -> None:
        pass

    def over(self, reason: object) -> None:
        self.is_over = True


class Ping(Memory):
    """Sends a byte when asked to, and stays open."""

    def fill(self, view: memoryview) -> int:
        if not self.left or not view:
            return 0
        view[0] = 1
        self.left -= 1
        return 1


class Link:
    """This side of the connection; the room's side says one byte when it is there."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        self.sock, self.size = sock, size
        assert select.select([sock], [], [], MOST_SECONDS)[0]
        assert sock.recv(1) == b"r"

    def raw(self) -> dict[str, float]:
        """MB/s in and out of the room, and the median round trip in microseconds."""
        begun = time.perf_counter()
        self.sock.sendall(b"i" + bytes(self.size))
        self.sock.recv(1)
        into = self.size / (time.perf_counter() - begun) / 1e6
        begun, left = time.perf_counter(), self.size
        self.sock.sendall(b"o")
        while left:
            left -= len(self.sock.recv(min(left, 1 << 16)))
        out = self.size / (time.perf_counter() - begun) / 1e6
        trips = []
        for _ in range(ROUNDTRIPS):
            begun = time.perf_counter()
            self.sock.sendall(b"e")
            self.sock.recv(1)
            trips.append((time.perf_counter() - begun) * 1e6)
        self.sock.sendall(b"q")
        self.loop = Loop(self.sock.fileno(), Side.NODE, print)
        return {"in": into, "out": out, "trip": statistics.median(trips)}

    def dial(self, name: str, end: Memory) -> Memory:
        """A stream to that port of the room."""
        end.stream = self.loop.dial(Destination(kind=Kind.PORT, name=name), end)
        return end

    def turn_until(self, holds) -> None:
        """Turn the loop until that holds."""
        ends = time.monotonic() + MOST_SECONDS
        while not holds():
            self.loop.turn(1.0)
            assert not self.loop.lost, self.loop.lost
            assert time.monotonic() < ends

    def streams(self, kind: str) -> dict[str, float]:
        """The same of a stream that ends in the room's memory (kind ""), or in a socket there, and connections a second."""
        begun = time.perf_counter()
        end = self.dial(f"{kind}sink", Memory(self.size))
        self.turn_until(lambda: end.is_over)
        into = self.size / (time.perf_counter() - begun) / 1e6
        begun = time.perf_counter()
        end = self.dial(f"{kind}source", Ping(0))
        self.turn_until(lambda: end.came >= self.size)
        out = self.size / (time.perf_counter() - begun) / 1e6
        end.stream.reset("reset")
        ping, trips = self.dial(f"{kind}echo", Ping(0)), []
        for number in range(ROUNDTRIPS):
            begun = time.perf_counter()
            ping.left = 1
            ping.stream.ready()
            self.turn_until(lambda number=number: ping.came > number)
            trips.append((time.perf_counter() - begun) * 1e6)
        ping.stream.reset("reset")
        return {
            "in": into,
            "out": out,
            "trip": statistics.median(trips),
            "connections": self.connections(f"{kind}echo"),
        }

    def connections(self, name: str) -> float:
        """Opened, one byte there and back, ended both ways: how many a second, some at once."""
        begun, left, going = time.perf_counter(), CONNECTIONS, []
        while left or going:
            while left and len(going) < TOGETHER:
                going.append(self.dial(name, Memory(1)))
                left -= 1
            self.turn_until(lambda going=going: any(end.is_over for end in going))
            going = [end for end in going if not end.is_over]
        return CONNECTIONS / (time.perf_counter() - begun)

    def open_many(self) -> tuple[int, int]:
        """KiB of memory that the room's side had at most, before and after many streams were open and used."""
        before = self.memory()
        ends = [self.dial("echo", Ping(1)) for _ in range(OPEN)]
        self.turn_until(lambda: all(end.came for end in ends))
        assert self.loop.open_streams == OPEN
        for end in ends:
            end.stream.reset("reset")
        return before, self.memory()

    def memory(self) -> int:
        """The room's own word."""
        return int(self.word("memory"))

    def loopback(self) -> dict[str, float]:
        """What the program's server does in the room without any stream: the most that a relay to it can do."""
        rate, trip = map(float, self.word("loopback").split())
        return {"connections": rate, "trip": trip}

    def word(self, name: str) -> bytes:
        """All that comes from there."""
        got = bytearray()
        end = self.dial(name, Memory(0))
        end.take = lambda data: (got.extend(data), end.stream.consumed(len(data)))
        self.turn_until(lambda: end.is_over)
        return bytes(got)


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    rows = _rows("pair", _over_a_pair())
    return rows + _rows("room", _over_a_port())


def _rows(where: str, seen: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    raw, rows = seen["raw"], []
    for kind in ("memory", "socket", "relay"):
        got = seen[kind]
        goal = ("≥ 60 %", "≥ 1000", "≤ 1.5") if where == "room" else ("", "", "")
        rows += [
            row(
                f"{where}, {kind}: into the room, MB/s, of raw",
                f"{got[way]:.1f} = {100 * got[way] / raw[way]:.0f} %",
                goal[0],
            )
            for way in ("in", "out")
        ]
        rows[-1]["what"] = f"{where}, {kind}: out of the room, MB/s, of raw"
        rows += [
            row(
                f"{where}, {kind}: round trip, ms (raw {raw['trip'] / 1000:.2f})",
                f"{got['trip'] / 1000:.2f}",
                goal[2],
            ),
            row(f"{where}, {kind}: connections a second", f"{got['connections']:.0f}", goal[1]),
        ]
    alone = seen["loopback"]
    rows += [
        row(f"{where}, no stream: round trip to the server, ms", f"{alone['trip'] / 1000:.2f}"),
        row(f"{where}, no stream: connections a second", f"{alone['connections']:.0f}"),
    ]
    before, after = seen["many"]["before"], seen["many"]["after"]
    return [*rows, row(f"{where}: memory for {OPEN} open streams, KiB", f"{after - before:.0f}", "≤ 4000")]


def _measured(sock: socket.socket, size: int) -> dict[str, dict[str, float]]:
    link = Link(sock, size)
    out = {"raw": link.raw()}
    before, after = link.open_many()
    out["many"] = {"before": before, "after": after}
    out["memory"] = link.streams("")
    out["socket"] = link.streams("socket-")
    out["relay"] = link.streams("relay-")
    out["loopback"] = link.loopback()
    link.loop.close()
    return out


def _over_a_pair() -> dict[str, dict[str, float]]:
    ours, theirs = socket.socketpair()
    size = 256 << 20
    with ours, theirs:
        fd = theirs.fileno()
        child = subprocess.Popen(
            [sys.executable, ROOM, str(fd), str(size)], pass_fds=[fd], start_new_session=True
        )
        theirs.close()
        try:
            return _measured(ours, size)
        finally:
            os.killpg(child.pid, 9)
            child.wait()


def _over_a_port() -> dict[str, dict[str, float]]:
    base = build.build(build.sources(), SHARED, lambda _: None).folder
    folder = Path(tempfile.mkdtemp(prefix="strongroom-bench-"))
    ours, theirs = socket.socketpair()
    size = 32 << 20
    opened = [
        os.open(path, os.O_RDONLY)
        for path in (launch_record.FIRMWARE, base / "bzImage", _initrd(base, folder, size))
    ]
    machine = qemu.Machine(
        accelerator="tcg", memory_mib=512, tpm=None, channel=theirs.fileno(), serial=None,
        firmware=opened[0], kernel=opened[1], initrd=opened[2], cmdline=(base / "cmdline").read_bytes(),
        drives=(qemu.Drive(serial=initramfs.SERIAL, path=base / "base.disk"),),
    )  # fmt: skip
    guest = children.start(qemu.arguments(machine), descriptors=machine.descriptors, guarded=False)
    try:
        theirs.close()
        return _measured(ours, size)
    finally:
        guest.stop()
        ours.close()
        for fd in opened:
            os.close(fd)
        shutil.rmtree(folder)


def _initrd(base: Path, folder: Path, size: int) -> Path:
    """An initrd as the base's, with this benchmark in the agent's place."""
    text = ROOM.read_text()
    init = re.search(
        rb"#!/bin/busybox sh\n.*?\nexec \$b env [^\n]*\n", (base / "initrd").read_bytes(), re.DOTALL
    )
    assert init is not None
    archive = tiny.Cpio()
    script = init[0].decode().replace("-m strongroom.agent", f"-c {shlex.quote(text)} {size}")
    archive.file("init", script.encode(), 0o755)
    path = folder / "initrd"
    path.write_bytes((base / "initrd").read_bytes() + archive.done())
    return path


def main() -> None:
    """Print the rows."""
    for name in sys.argv[1:] or ["pair", "room"]:
        for one in _rows(name, {"pair": _over_a_pair, "room": _over_a_port}[name]()):
            print(f"{one['what']:56} {one['value']!s:>16}  {one['aim']}")


if __name__ == "__main__":
    main()
