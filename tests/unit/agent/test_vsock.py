"""The enclave's way out, as far as a machine that is no enclave goes."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from strongroom.agent import channel, vsock
from strongroom.errors import Unavailable
from strongroom.model.room import channel as wire
from tests.unit.agent.node_end import NodeEnd


def test_nobody_who_listens_is_told_in_time():
    with pytest.raises(Unavailable) as caught:
        vsock.connect(vsock.CHANNEL, seconds=0.3)
    assert caught.value.code == "no-channel"


def test_a_boot_that_nobody_asks_about_is_no_failure():
    vsock.report_boot()


class Family:
    """AF_VSOCK by way of Unix sockets: addresses are (context, port)."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        real = socket.socket

        class Socket(real):
            def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
                local = family == socket.AF_VSOCK
                super().__init__(socket.AF_UNIX if local else family, type, proto, fileno)

            def connect(self, address):
                assert address[0] == vsock.PARENT
                super().connect(str(folder / str(address[1])))

        monkeypatch.setattr(vsock.socket, "socket", Socket)
        self.real = real

    def listen(self, port):
        made = self.real(socket.AF_UNIX)
        made.bind(str(self.folder / str(port)))
        made.listen()
        return made


def test_the_boot_is_told_by_its_byte_which_comes_back(tmp_path, monkeypatch):
    with Family(tmp_path, monkeypatch).listen(9000) as listener:
        told = []

        def answer():
            connection, _ = listener.accept()
            with connection:
                told.append(connection.recv(1))
                connection.sendall(told[0])

        thread = threading.Thread(target=answer)
        thread.start()
        vsock.report_boot()
        thread.join(60)
        assert told == [b"\xb7"]


def test_a_node_that_listens_later_is_waited_for(tmp_path, monkeypatch):
    family = Family(tmp_path, monkeypatch)
    listening = []
    timer = threading.Timer(0.3, lambda: listening.append(family.listen(vsock.DISKS)))
    timer.start()
    with vsock.connect(vsock.DISKS, seconds=10) as made:
        assert made.gettimeout() is None
    timer.join()
    listening[0].close()


def test_without_a_virtio_port_the_channel_is_a_vsock_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(channel, "PORTS", str(tmp_path / "absent"))
    monkeypatch.setattr(channel.find_port, "__defaults__", (str(tmp_path / "absent"),))
    with Family(tmp_path, monkeypatch).listen(vsock.CHANNEL) as listener:
        made = channel.open_any()
        connection, _ = listener.accept()
        assert made.ends
        made.send_control("hello")
        (frame,) = wire.Decoder().feed(connection.recv(4096))
        assert frame.type is wire.FrameType.CONTROL
        connection.close()
        with pytest.raises(Unavailable) as caught:
            made.receive_control(10)
        assert caught.value.code == "channel-lost"
        os.close(made._fd)


def test_a_virtio_port_that_reads_nothing_waits_for_its_host():
    node = NodeEnd({})
    try:
        assert not node.channel.ends
    finally:
        node.close()
