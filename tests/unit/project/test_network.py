"""Where rooms of one machine are reached."""

from __future__ import annotations

from strongroom.project import network
from tests.unit.project.kit import project, service


def places(parsed, name="web"):
    return network.places(parsed, parsed.service(name))


FILE = project(
    'ports: ["8443:443", "[::1]:9000:90"]\nexpose: [70]\ndepends_on: [db, cache]\nx-strongroom: {open: [443, 70]}',
    others=service("db", "expose: [5432]") + service("cache", 'ports: ["6379:6379"]'),
)


def test_open_ports_are_published_and_others_take_tunnels_there():
    web = places(FILE)
    assert web.published == {"443": "127.0.0.1:8443"}
    assert web.tunnels == {"443": "unix:sockets/web:443", "90": "[::1]:9000", "70": "unix:sockets/web:70"}


def test_peers_are_reached_where_their_tunnels_are():
    assert places(FILE).peers == {"db:5432": "unix:sockets/db:5432", "cache:6379": "127.0.0.1:6379"}
    assert places(FILE, "db").peers == {}
    for name, address in places(FILE).peers.items():
        room, _, port = name.partition(":")
        assert places(FILE, room).tunnels[port] == address
