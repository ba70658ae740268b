from __future__ import annotations

import contextlib
import socket

import pytest

from strongroom.model.tunnel import TlsSide
from strongroom.tunnel.loop import TunnelLoop
from strongroom_testing import packs, tunnels


@pytest.fixture(scope="package")
def world(tmp_path_factory):
    with packs.world(tmp_path_factory.mktemp("tunnels")) as made:
        yield made


@pytest.fixture(scope="package")
def agreement(world):
    return tunnels.agreement(world)


@pytest.fixture(scope="package")
def web(world, agreement):
    return tunnels.room(world, agreement, tunnels.WEB)


@pytest.fixture(scope="package")
def db(world, agreement):
    return tunnels.room(world, agreement, tunnels.DB)


@pytest.fixture
def both(web, db):
    return {"web": web, "db": db}


@pytest.fixture
def loop():
    made = TunnelLoop()
    yield made
    made.close()


@pytest.fixture
def end(loop):
    """Makes one end; all of them are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(ours, signs=None, credentials=None):
            one = tunnels.End(loop, ours, signs, credentials)
            stack.callback(one.close)
            return one

        yield make


@pytest.fixture
def pair(end, loop):
    """(client, server) joined by a socket pair, turned until both are proven or one is over. Fields of the client's by `client`."""

    def make(client, server, *, server_side=TlsSide.SERVER, until=None, **called):
        one, other = socket.socketpair()
        server.start(server_side, other)
        client.start(TlsSide.CLIENT, one, **called)
        both = (client, server)
        tunnels.turn(
            loop, until or (lambda: all(one.is_proven for one in both) or all(one.is_closed for one in both))
        )
        return client, server

    return make
