"""Whether a program took its new certificate is seen at its port, not believed."""

from __future__ import annotations

import select
import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest

from strongroom.agent import launcher, owners
from strongroom.agent.certificates import renewed, taken
from strongroom.agent.certificates.delivery import CertificateFolder
from strongroom.agent.certificates.renewed import Delivered
from strongroom.agent.certificates.taken import Taken
from strongroom.model.contracts.certificate_terms import Delivery, Signal
from tests.unit.agent import tls_material


class Poll:
    """Waits for descriptors, as a carrier does."""

    def __init__(self):
        self.acts, self.poll = {}, select.poll()

    def watch(self, fd, act, events=select.POLLIN):
        self.acts[fd] = act
        self.poll.register(fd, events)

    def forget(self, fd):
        del self.acts[fd]
        self.poll.unregister(fd)

    def turn(self, timeout):
        ready = self.poll.poll(max(0.0, timeout) * 1000)
        for fd, events in ready:
            self.acts[fd](events)
        return bool(ready)


class Server:
    """A program that serves TLS with what its files had when it last read them."""

    def __init__(self, folder, *, demands=False, maximum=None):
        self.folder = Path(folder)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.demands, self.maximum = demands, maximum
        self.read()
        threading.Thread(target=self._serve, daemon=True).start()

    def read(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "certificate.pem", self.folder / "key.pem")
        if self.demands:
            context.load_verify_locations(self.folder / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        if self.maximum is not None:
            context.maximum_version = self.maximum
        self.context = context

    def _serve(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            with plain:
                try:
                    with self.context.wrap_socket(plain, server_side=True):
                        pass
                except OSError:
                    pass


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(owners, "FIRST", 0)
    (tmp_path / "tls").mkdir()
    made = CertificateFolder(str(tmp_path / "tls"), Delivery(uid=0, gid=0))
    monkeypatch.setattr("os.chown", lambda *_: None)
    monkeypatch.setattr("os.lchown", lambda *_: None)
    made.write(tls_material.generation("alice"))
    return made


def connect():
    plain = socket.socket()
    plain.setblocking(False)
    return plain


def look(port, certificate, seconds=1.0):
    waiter = Poll()
    result = taken.wait_for(waiter, connect, port, certificate, seconds=seconds)
    assert waiter.acts == {}
    return result


@pytest.mark.parametrize("demands", [False, True])
def test_what_the_program_serves_is_compared(place, demands):
    server = Server(place.folder, demands=demands)
    fresh = tls_material.generation("alice")
    place.write(fresh)
    assert look(server.port, fresh.leaf) is Taken.OLD
    server.read()
    assert look(server.port, fresh.leaf) is Taken.NEW


def test_a_program_is_given_time(place):
    server = Server(place.folder)
    fresh = tls_material.generation("alice")
    place.write(fresh)
    timer = threading.Timer(0.5, server.read)
    timer.start()
    assert look(server.port, fresh.leaf, seconds=30) is Taken.NEW
    timer.join()


def test_no_server_a_silent_one_and_one_that_speaks_no_tls_are_unreachable(place):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert look(silent.getsockname()[1], b"x", seconds=0.6) is Taken.UNREACHABLE
    with socket.create_server(("127.0.0.1", 0)) as chatty:

        def chat():
            while True:
                try:
                    plain, _ = chatty.accept()
                    plain.sendall(b"SSH-2.0-x\r\n")
                    plain.close()
                except OSError:
                    return

        threading.Thread(target=chat, daemon=True).start()
        assert look(chatty.getsockname()[1], b"x", seconds=0.6) is Taken.UNREACHABLE
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens there
        assert look(bound.getsockname()[1], b"x", seconds=0.6) is Taken.UNREACHABLE


@pytest.mark.parametrize(
    ("wanted", "reads", "status", "outcome", "says"),
    [
        ({}, True, None, Delivered.WRITTEN, "lies in /run/strongroom/tls"),
        ({"signal": Signal.HUP}, True, 0, Delivered.WRITTEN, "lies in /run/strongroom/tls"),
        ({"signal": Signal.HUP, "check": 1}, True, 0, Delivered.TAKEN, "and the program serves it at port"),
        ({"command": ("x",), "check": 1}, False, 0, Delivered.KEPT_OLD, "still serves another at port"),
        ({"command": ("x",), "check": 1}, False, 3 << 8, Delivered.COMMAND_FAILED, "failed (status 3)"),
        ({"command": ("x",)}, False, 9, Delivered.COMMAND_FAILED, "failed (status -9)"),
        ({"command": ("x",), "check": 1}, True, 3 << 8, Delivered.TAKEN, "and the program serves it"),
    ],
)
def test_what_came_of_a_delivery_is_said_in_one_word_and_one_line(
    place, monkeypatch, wanted, reads, status, outcome, says
):
    server = Server(place.folder)
    if "check" in wanted:
        wanted = {**wanted, "check": server.port}
    place.delivery = Delivery(uid=0, gid=0, **wanted)
    told = []

    def reload(pid):
        told.append(pid)
        if reads:
            server.read()

    monkeypatch.setattr(launcher, "reload", reload)
    monkeypatch.setattr(taken.wait_for, "__kwdefaults__", {**taken.wait_for.__kwdefaults__, "seconds": 1.0})
    delivered, line = renewed.deliver(
        place,
        tls_material.generation("alice"),
        process=4711,
        waiter=Poll(),
        connect=connect,
        reloaded=lambda: status,
    )
    assert delivered is outcome
    assert says in line
    assert delivered.good == (outcome in (Delivered.WRITTEN, Delivered.TAKEN))
    assert told == ([4711] if wanted.keys() & {"signal", "command"} else [])


def test_a_command_that_does_not_end_is_not_waited_for_forever(place, monkeypatch):
    place.delivery = Delivery(uid=0, gid=0, command=("sleep",))
    monkeypatch.setattr(launcher, "reload", lambda _: None)
    at = iter(range(0, 1000, 10))
    delivered, _ = renewed.deliver(
        place,
        tls_material.generation("alice"),
        process=1,
        waiter=Poll(),
        connect=connect,
        reloaded=lambda: None,
        clock=lambda: float(next(at)),
    )
    assert delivered is Delivered.COMMAND_FAILED


def test_who_has_ended_is_told_nothing(monkeypatch):
    def gone(pid, number):
        assert number == signal.SIGUSR1
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", gone)
    launcher.reload(1)
