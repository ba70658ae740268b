"""Both ends of tunnels as processes of their own, for the benchmark: a room of a contract, and who comes to it from outside."""

from __future__ import annotations

import contextlib
import secrets
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

from strongroom.model.tunnel import TlsSide
from strongroom.tunnel.handshake import Handshake
from strongroom.tunnel.link import TunnelLink
from strongroom.tunnel.loop import TunnelLoop
from strongroom.tunnel.tls import Credentials
from strongroom_testing import packs, tunnels


class Owner:
    """Makes links for what a listener takes, each to `target`."""

    def __init__(self, listener, side, target, ours, signs):
        self.loop, self.side, self.target, self.ours, self.signs = TunnelLoop(), side, target, ours, signs
        self.listener, self.plains = listener, {}
        self.credentials = Credentials(now=ours.now(), random=secrets.token_bytes)
        listener.setblocking(False)
        self.loop.watch(listener.fileno(), self.accept)

    def accept(self):
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                taken, _ = self.listener.accept()
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                net = taken if self.side is TlsSide.SERVER else connected(self.target)
                link = TunnelLink(self.loop, self, self.credentials, self.side, net, self.greet)
                if net is not taken:
                    self.plains[link] = taken
                self.loop.add(link)

    def greet(self, channel):
        return Handshake(self.ours, channel, self.side, peer=tunnels.WEB, port="http")

    def sign(self, link, facts):
        link.signed(self.signs(facts.message()))

    def proven(self, link):
        link.attach(self.plains.pop(link, None) or connected(self.target))

    def closed(self, link, _cause):
        self.loop.remove(link)
        with contextlib.suppress(KeyError):
            self.plains.pop(link).close()

    def serve(self):
        while True:
            self.loop.turn(1)


def connected(port):
    """A connection to that port of this machine."""
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def parts():
    """What both ends of a tunnel need: (client's part, server's part, the room's signature)."""
    with tempfile.TemporaryDirectory() as scratch, packs.world(Path(scratch)) as world:
        signed = tunnels.agreement(world)
        room = tunnels.room(world, signed, tunnels.WEB)
        now = world.scene.now
        outside = tunnels.outside(signed, lambda: now)
        judged = {}

        def judge(data, role):
            if data not in judged:  # as a room's process does
                judged[data] = outside.judge(data, role)
            return judged[data]

        return replace(outside, judge=judge), room.ours(), room.signs


def serve(listener, side, target, own):
    """Be one end."""
    client, server, signs = own
    Owner(listener, side, target, client if side is TlsSide.CLIENT else server, signs).serve()
