"""The NBD server before real clients, the agent's client before real servers, and each before the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.agent.disks import nbd as client
from strongroom.errors import Malformed, NotFound, Refused, StrongroomError, Unavailable
from strongroom.model.room import nbd as wire
from strongroom.node.nitro import nbd
from tests.effort import examples


def content(blocks, seed):
    return b"".join(hashlib.sha512(bytes([seed]) + n.to_bytes(4, "big")).digest() * 64 for n in range(blocks))


@pytest.fixture
def disks(tmp_path):
    made = {"image": content(700, 1), "data-0": content(3, 2)}
    for serial, data in made.items():
        (tmp_path / serial).write_bytes(data)
    return made


@pytest.fixture
def served(tmp_path, disks):
    """The server on a Unix socket."""
    server = nbd.NbdServer({serial: tmp_path / serial for serial in disks})
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)

    def accept():
        while True:
            try:
                server.take(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(60)
    server.close()


def connected(path):
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(10)
    made.connect(path)
    return made


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*line):
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@needs("nbdinfo")
def test_nbdinfo_sees_exactly_the_disks_of_the_room(served, disks):
    told = json.loads(run("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={served}").stdout)
    assert {one["export-name"]: one["export-size"] for one in told["exports"]} == {
        k: len(v) for k, v in disks.items()
    }
    assert all(one["is_read_only"] and one["can_multi_conn"] for one in told["exports"])
    assert run("nbdinfo", f"nbd+unix:///other?socket={served}").returncode


@needs("nbdcopy")
def test_nbdcopy_reads_every_byte_over_several_connections(served, disks, tmp_path):
    for serial, data in disks.items():
        out = tmp_path / f"{serial}.out"
        assert run("nbdcopy", f"nbd+unix:///{serial}?socket={served}", str(out)).returncode == 0
        assert out.read_bytes() == data


@needs("qemu-img")
def test_qemu_reads_the_same(served, disks, tmp_path):
    out = tmp_path / "copy"
    done = run(
        "qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///data-0?socket={served}", str(out)
    )
    assert (done.returncode, out.read_bytes()) == (0, disks["data-0"])


@needs("qemu-io")
def test_qemu_cannot_write(served, disks, tmp_path):
    done = run("qemu-io", "-f", "raw", "-c", "write 0 4096", f"nbd+unix:///image?socket={served}")
    assert done.returncode
    assert (tmp_path / "image").read_bytes() == disks["image"]


@needs("nbd-client")
def test_nbd_client_lists_them(served):
    told = run("nbd-client", "-l", "-unix", served)
    if "image" not in told.stdout + told.stderr:
        told = run("nbd-client", "-l", "-u", served)
    assert {"image", "data-0"} <= set((told.stdout + told.stderr).split())


@needs("qemu-nbd")
def test_the_agents_client_before_qemus_server(tmp_path, disks):
    path = str(tmp_path / "theirs")
    process = subprocess.Popen(
        ["qemu-nbd", "-r", "-f", "raw", "-x", "image", "-k", path, "-t", str(tmp_path / "image")],
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            if (tmp_path / "theirs").exists():
                break
            time.sleep(0.05)
        with connected(path) as connection:
            assert client.negotiate(connection, "image") == len(disks["image"])
            assert read(connection, 4096, 8192) == (0, disks["image"][4096:12288])
        with connected(path) as connection, pytest.raises(NotFound, match="no disk has the serial 'data-0'"):
            client.negotiate(connection, "data-0")
    finally:
        process.kill()
        process.wait()


def request(kind, cookie, offset, length):
    return struct.pack(wire.REQUEST, wire.REQUEST_MAGIC, 0, kind, cookie, offset, length)


def read(connection, offset, length):
    connection.sendall(request(wire.READ, 7, offset, length))
    magic, error, cookie = struct.unpack(">IIQ", wire.receive(connection, 16))
    assert (magic, cookie) == (wire.REPLY_MAGIC, 7)
    return error, b"" if error else wire.receive(connection, length)


def test_the_agents_client_before_our_server(served, disks):
    with connected(served) as connection:
        assert client.negotiate(connection, "data-0") == len(disks["data-0"])
        assert read(connection, 0, len(disks["data-0"])) == (0, disks["data-0"])
        assert read(connection, 5, 100) == (0, disks["data-0"][5:105])
        end = len(disks["data-0"])
        for offset, length in ((end, 1), (end - 1, 2), ((1 << 64) - 1, 4096)):
            assert read(connection, offset, length)[0] == 22
        connection.sendall(request(wire.WRITE, 8, 0, 4096) + bytes(4096))
        assert struct.unpack(">IIQ", wire.receive(connection, 16)) == (wire.REPLY_MAGIC, 1, 8)
        assert read(connection, 0, 4096)[1] == disks["data-0"][:4096]
        for kind, error in ((3, 22), (4, 1), (6, 1), (99, 22)):
            connection.sendall(request(kind, 9, 0, 512))
            assert struct.unpack(">IIQ", wire.receive(connection, 16))[1] == error
        connection.sendall(request(wire.DISCONNECT, 10, 0, 0))
        assert connection.recv(1) == b""


@pytest.mark.parametrize("name", ["", "other", "../image", "image\0", "IMAGE", "/etc/passwd"])
def test_no_other_name_is_served(served, name):
    refused = pytest.raises(NotFound, match=re.escape(f"no disk has the serial {name!r}"))
    with connected(served) as connection, refused:
        client.negotiate(connection, name)


def test_what_was_open_is_what_is_served(served, disks, tmp_path):
    (tmp_path / "new").write_bytes(bytes(4096))
    (tmp_path / "new").rename(tmp_path / "data-0")
    with connected(served) as connection:
        assert client.negotiate(connection, "data-0") == len(disks["data-0"])
        assert read(connection, 0, 4096)[1] == disks["data-0"][:4096]


def test_a_missing_disk_is_told_before_a_room_starts(tmp_path, disks):
    with pytest.raises(FileNotFoundError):
        nbd.NbdServer({"image": tmp_path / "image", "data-0": tmp_path / "absent"})


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.0\r\n\r\n" + bytes(64),
        struct.pack(">I", 8) + bytes(64),  # unknown flags
        struct.pack(">I", 3) + bytes(16),  # no option's magic
        struct.pack(">IQII", 3, wire.OPTION_MAGIC, wire.GO, 1 << 30),  # an endless option
        struct.pack(">IQII", 3, wire.OPTION_MAGIC, wire.GO, 4) + b"\xff" * 4,
        struct.pack(">IQII", 3, wire.OPTION_MAGIC, wire.EXPORT_NAME, 3) + b"abc",
        (struct.pack(">I", 3) + struct.pack(">QII", wire.OPTION_MAGIC, 77, 0) * 65),
    ],
)
def test_whoever_breaks_the_protocol_is_hung_up_on(served, said):
    with connected(served) as connection:
        wire.receive(connection, 18)
        connection.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("length", [wire.MAX_REQUEST + 1, (1 << 32) - 1])
def test_a_request_for_too_much_is_hung_up_on(served, length):
    for kind in (wire.READ, wire.WRITE):
        with connected(served) as connection:
            client.negotiate(connection, "image")
            connection.sendall(request(kind, 1, 0, length))
            assert connection.recv(1) == b""


@given(st.binary(max_size=200))
def test_whatever_a_server_says_the_client_refuses_or_returns(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(StrongroomError):
            client.negotiate(ours, "image")


@examples(60)
@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_client_says_the_server_answers_or_hangs_up(data, begun):
    fd = os.memfd_create("disk")
    os.truncate(fd, 8192)
    server = nbd.NbdServer({"image": Path(f"/proc/self/fd/{fd}")})
    ours, theirs = socket.socketpair()
    with ours:
        server.take(theirs)
        if begun:
            client.negotiate(ours, "image")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(65536):
                pass
    server.close()
    os.close(fd)


def answer(size, flags):
    export = struct.pack(">HQH", wire.INFO_EXPORT, size, flags)
    replies = b"".join(
        struct.pack(">QIII", wire.OPTION_REPLY_MAGIC, wire.GO, kind, len(data)) + data
        for kind, data in ((wire.INFORM, export), (wire.ACK, b""))
    )
    return struct.pack(">QQH", wire.MAGIC, wire.OPTION_MAGIC, wire.FIXED) + replies


@pytest.mark.parametrize(
    ("size", "flags", "expected"),
    [(0, 3, Malformed), (4095, 3, Malformed), (1 << 60, 3, Malformed), (8192, 1, Refused)],
)
def test_disks_that_are_none(size, flags, expected):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer(size, flags))
        with pytest.raises(expected):
            client.negotiate(ours, "image")


class Kernel:
    """/dev/nbdN: notes what it is told, and reads its disk's first and last block while it serves it."""

    def __init__(self, fail=None):
        self.asked, self.fail, self.read, self.served = [], fail, {}, threading.Semaphore(0)
        self._sockets, self._sizes = {}, {}

    def __call__(self, fd, number, argument):
        if number == self.fail:
            raise OSError(22, "Invalid argument")
        self.asked.append((number, argument))
        if number == client.SET_SIZE_BLOCKS:
            self._sizes[fd] = argument * wire.BLOCK
        if number == client.SET_SOCK:
            self._sockets[fd] = socket.socket(fileno=os.dup(argument))
            # What Linux's driver takes.
            assert self._sockets[fd].family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if number == client.DO_IT:
            self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            time.sleep(0.2)
            os.truncate(fd, self._sizes[fd])  # it has its size from here on
            with self._sockets[fd] as connection:
                size = self._sizes[fd]
                pieces = [read(connection, 0, 4096), read(connection, size - 4096, 4096)]
                pieces.append(read(connection, 0, size))
                connection.sendall(request(wire.DISCONNECT, 1, 0, 0))
                self.read[size] = pieces
        if number == client.CLEAR_SOCK:
            self._sockets[fd].close()
            self.served.release()
        return 0


def test_disks_are_attached_once_each_in_order_and_read_by_the_kernel(served, tmp_path, disks):
    for number in range(2):
        (tmp_path / f"nbd{number}").touch()
    kernel = Kernel()
    made = client.NbdDisks(lambda: connected(served), folder=str(tmp_path), ioctl=kernel)
    for number, serial in enumerate(disks):
        assert made.find(serial) == f"nbd{number}"
        assert (tmp_path / f"nbd{number}").stat().st_size == len(disks[serial])  # not before it can be read
    assert made.find("image") == "nbd0"
    for _ in disks:
        assert kernel.served.acquire(timeout=20)  # and told to let go of what was never answered
    asked = [(number, argument) for number, argument in kernel.asked if number != client.DO_IT]
    sizes = [argument for number, argument in asked if number == client.SET_SIZE_BLOCKS]
    assert sizes == [len(data) // 4096 for data in disks.values()]
    assert asked[0] == (client.SET_BLOCK_SIZE, 4096)
    assert {argument for number, argument in asked if number == client.SET_FLAGS} == {wire.FLAGS}
    for data in disks.values():
        assert kernel.read[len(data)] == [(0, data[:4096]), (0, data[-4096:]), (0, data)]
    assert signal.SIGALRM in kernel.blocked  # the room's own clock would end the disk


def test_a_disk_that_never_gets_its_size_is_none(served, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "ATTACH_SECONDS", 0.1)
    (tmp_path / "nbd0").touch()
    with pytest.raises(Unavailable, match="no disk of that size") as caught:
        client.NbdDisks(
            lambda: connected(served), folder=str(tmp_path), ioctl=Kernel(fail=client.DO_IT)
        ).find("image")
    assert caught.value.code == "no-disk"


def test_a_kernel_without_nbd_is_told(served, tmp_path):
    with pytest.raises(Unavailable) as caught:
        client.NbdDisks(lambda: connected(served), folder=str(tmp_path / "absent")).find("image")
    assert caught.value.code == "no-disk"
    (tmp_path / "nbd0").touch()
    with pytest.raises(Unavailable, match="nbd0: Invalid argument"):
        client.NbdDisks(
            lambda: connected(served), folder=str(tmp_path), ioctl=Kernel(fail=client.SET_SOCK)
        ).find("image")


def test_a_server_that_is_closed_lets_nobody_hang(tmp_path, disks):
    server = nbd.NbdServer({"image": tmp_path / "image"})
    ours, theirs = socket.socketpair()
    server.take(theirs)
    assert client.negotiate(ours, "image")
    server.close()
    assert ours.recv(1) == b""
    ours.close()
