"""The host's side of a room's network: what a room may reach through it, who may reach the room, and what the operator may say."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from strongroom.errors import Misuse, Refused, Unavailable
from strongroom.fetch.http import addresses as safe_addresses
from strongroom.model.contracts.network_terms import Egress, Peer, Port
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.node.network import addresses, connecting, inward, outward
from strongroom.node.network.addresses import Address
from strongroom.node.network.connecting import Connector
from strongroom.node.network.inward import InwardStreams, Listeners
from strongroom.node.network.options import NO_NETWORK, NetworkOptions
from strongroom.streams.mux import Side
from strongroom.streams.poll import Poll
from strongroom.streams.socket_end import SocketEnd
from tests import samples
from tests.unit.streams.place import Place

TERMS = replace(
    samples.a_room(),
    ports=(Port(name="web", number=80, open=True), Port(name="admin", number=81, open=False)),
    peers=(Peer(room="db", port="sql", wait=False), Peer(room="queue", port="in", wait=False), Peer(room="queue", port="out", wait=False)),
    egress=(Egress(host="api.example", port=443), Egress(host="localhost.example", port=443)),
)  # fmt: skip
HERE = Address()


def receive_all(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


class Host:
    """A node's loop and a room's, and what a room's agent would do."""

    def __init__(self, options=NO_NETWORK):
        ours, theirs = socket.socketpair()
        self.room, self.node = Place(ours, Side.ROOM), Place(theirs, Side.NODE)
        self.notes, self.reasons = [], []
        self.connector = Connector(self.node.loop)
        self.outward = outward.OutwardStreams(
            self.node.loop, self.connector, TERMS, options, self.notes.append
        )
        self.listeners = Listeners(options)
        self.inward = InwardStreams(self.node.loop, self.listeners)
        self.room.start()
        self.node.start()

    def dial(self, kind, name):
        """A connection of the program's; its stream's end is in `reasons`."""
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        reasons = self.reasons

        class End(SocketEnd):
            def over(self, reason):
                reasons.append(reason)
                super().over(reason)

        def act():
            end = End(self.room.loop)
            end.attach(self.room.loop.dial(Destination(kind=kind, name=name), end), theirs)

        self.room.act(act)
        return ours

    def refusal(self, kind, name):
        with self.dial(kind, name) as connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        return self.reasons[-1]

    def phase(self, name):
        self.node.act(lambda: self.inward.phase(name))

    def place(self, kind, name):
        address = self.listeners.places[Destination(kind=kind, name=name)]
        return address.path or (address.host, address.port)

    def close(self):
        for place in (self.room, self.node):
            place.close()
        self.connector.close()
        self.listeners.close()


@pytest.fixture
def host(request):
    hosts = []

    def make(**options):
        hosts.append(Host(NetworkOptions(**options)))
        return hosts[-1]

    yield make
    for one in hosts:
        one.close()


@contextlib.contextmanager
def server(serve, family=socket.AF_INET, where=("127.0.0.1", 0)):
    """Something that listens on this machine; `serve(connection)` runs in a thread for each connection."""
    with socket.socket(family) as listener:
        listener.bind(where)
        listener.listen()

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=act, args=(connection,), daemon=True).start()

        def act(connection):
            with connection:
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def echo(connection):
    connection.sendall(receive_all(connection))


def resolves(monkeypatch, **names):
    """What names stand for, in the place of DNS."""

    def getaddrinfo(host, port, **_):
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names[host], port))]

    monkeypatch.setattr(safe_addresses.socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Kind.EGRESS, "other.example:443"), (Kind.EGRESS, "api.example:80"), (Kind.EGRESS, "secret.api.example:443"),
        (Kind.EGRESS, "127.0.0.1:443"), (Kind.PEER, "db:admin"), (Kind.PEER, "other:sql"), (Kind.PEER, "api:example"),
    ],
)  # fmt: skip
def test_a_room_reaches_nothing_that_its_contract_does_not_list(host, monkeypatch, kind, name):
    def asked(*_, **__):
        raise AssertionError("a name that the contract does not list was looked up")

    monkeypatch.setattr(safe_addresses, "resolve", asked)
    monkeypatch.setattr(addresses, "connect", asked)
    here = host(egress_to_private=True)
    assert here.refusal(kind, name) is Reason.NOT_ALLOWED
    assert here.refusal(kind, name) is Reason.NOT_ALLOWED
    assert len(here.notes) == 1
    assert name in here.notes[0]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "::1", "fe80::1", "fd00:ec2::254", "::ffff:10.0.0.1", "::"]
)  # fmt: skip
def test_rule_55_a_hosts_name_leads_to_no_private_address(host, monkeypatch, address):
    resolves(monkeypatch, **{"api.example": address})
    here = host()
    assert here.refusal(Kind.EGRESS, "api.example:443") is Reason.NOT_ALLOWED
    assert "--egress-to-private allows private addresses" in here.notes[0]


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "fd00:ec2::254", "169.254.1.1", "224.0.0.1"]
)
def test_rule_55_a_hosts_name_never_leads_to_a_clouds_metadata(host, monkeypatch, address):
    resolves(monkeypatch, **{"api.example": address})
    assert host(egress_to_private=True).refusal(Kind.EGRESS, "api.example:443") is Reason.NOT_ALLOWED


def test_a_host_is_reached_at_the_address_that_was_looked_at(host, monkeypatch):
    answers = iter(["127.0.0.1", "169.254.169.254"])
    with server(echo) as where:
        monkeypatch.setattr(
            safe_addresses.socket, "getaddrinfo",
            lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 443))],
        )  # fmt: skip
        seen = []

        def create_connection(asked, _timeout):
            seen.append(asked)
            connection = socket.socket()
            connection.connect(where)
            return connection

        monkeypatch.setattr(outward.socket, "create_connection", create_connection)
        with host(egress_to_private=True).dial(Kind.EGRESS, "api.example:443") as connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == b"hello"
    assert seen == [("127.0.0.1", 443)]


def test_a_host_that_is_not_there_is_unreachable_and_noted(host, monkeypatch):
    resolves(monkeypatch)
    here = host()
    assert here.refusal(Kind.EGRESS, "api.example:443") is Reason.UNREACHABLE
    assert here.notes == [
        "egress to api.example:443: api.example: no address: [Errno -2] Name or service not known"
    ]


def test_a_peer_is_reached_where_the_operator_says(host, tmp_path):
    path = str(tmp_path / "db.sock")
    with server(echo, socket.AF_UNIX, path), server(echo) as where:
        here = host(peers={"db:sql": Address(path=path), "queue:in": Address(host=where[0], port=where[1])})
        for name in ("db:sql", "queue:in"):
            with here.dial(Kind.PEER, name) as connection:
                connection.sendall(b"x" * 100_000)
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == b"x" * 100_000
        assert here.refusal(Kind.PEER, "queue:out") is Reason.UNREACHABLE
        assert "--peer queue:out=ADDRESS" in here.notes[0]


def test_a_peer_that_takes_no_connection_refuses(host, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = host(peers={"db:sql": Address(port=free.getsockname()[1])})
        assert here.refusal(Kind.PEER, "db:sql") is Reason.REFUSED


def test_many_connections_at_once_are_made_by_few_threads(host, tmp_path):
    path = str(tmp_path / "db.sock")
    with server(echo, socket.AF_UNIX, path):
        here = host(peers={"db:sql": Address(path=path)})
        connections = [here.dial(Kind.PEER, "db:sql") for _ in range(200)]
        assert here.connector._threads <= connecting.MOST_THREADS
        for connection in connections:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
        for connection in connections:
            assert receive_all(connection) == b"hello"
            connection.close()


def test_a_peer_that_is_slow_to_take_connections_is_waited_for_and_not_for_ever(tmp_path):
    path = str(tmp_path / "slow.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        first = addresses.connect(Address(path=path), 1)
        with pytest.raises(BlockingIOError):
            addresses.connect(Address(path=path), 1)

        def accept():
            listener.accept()[0].close()

        late = threading.Timer(0.2, accept)
        late.start()
        with first, addresses.connect(Address(path=path), 30):
            late.join()


def test_connections_wait_for_the_programs_start_and_find_the_port_by_its_name(host, tmp_path):
    path = str(tmp_path / "admin.sock")
    here = host(published={"web": HERE}, tunnels={"admin": Address(path=path)})
    opened = []

    def answer(kind):
        def open_stream(stream, name):
            opened.append((kind, name))
            ours, theirs = socket.socketpair()
            end = SocketEnd(here.room.loop)
            end.attach(stream, theirs)
            stream.accept()
            threading.Thread(target=lambda: (echo(ours), ours.close()), daemon=True).start()
            return end

        return open_stream

    for kind in (Kind.PORT, Kind.TUNNEL):
        here.room.act(lambda kind=kind: here.room.loop.listen(kind, answer(kind)))
    with socket.create_connection(here.place(Kind.PORT, "web"), 30) as early:
        early.sendall(b"early")
        early.shutdown(socket.SHUT_WR)
        assert here.node.act(lambda: here.node.loop.open_streams) == 0
        here.phase("program-started")
        assert receive_all(early) == b"early"
    with socket.socket(socket.AF_UNIX) as tunnel:
        tunnel.connect(path)
        tunnel.sendall(b"tunnel")
        tunnel.shutdown(socket.SHUT_WR)
        assert receive_all(tunnel) == b"tunnel"
    assert opened == [(Kind.PORT, "web"), (Kind.TUNNEL, "admin")]
    place = here.place(Kind.PORT, "web")
    here.phase("program-ended")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, 30)
    assert not (tmp_path / "admin.sock").exists()


def test_a_port_that_nobody_takes_resets_the_connection(host):
    here = host(published={"web": HERE})
    here.phase("program-started")

    def one_byte():
        with socket.create_connection(here.place(Kind.PORT, "web"), 30) as connection:
            connection.recv(1)

    with pytest.raises(ConnectionResetError):  # as early as connecting, where the room is quick
        one_byte()


def test_more_connections_than_are_carried_wait_and_slow_ones_stop_no_other(host, monkeypatch):
    monkeypatch.setattr(inward, "MAX_INWARD", 3)
    here = host(published={"web": HERE})
    here.room.listen(Kind.PORT, echo)
    here.room.act(lambda: here.room.loop.listen(Kind.PORT, lambda stream, _name: serving(here.room, stream)))
    here.phase("program-started")
    slow = [socket.create_connection(here.place(Kind.PORT, "web"), 30) for _ in range(2)]
    for _ in range(20):
        with socket.create_connection(here.place(Kind.PORT, "web"), 30) as quick:
            quick.sendall(b"quick")
            quick.shutdown(socket.SHUT_WR)
            assert receive_all(quick) == b"quick"
    waiting = [socket.create_connection(here.place(Kind.PORT, "web"), 30) for _ in range(20)]
    assert here.node.act(lambda: here.node.loop.open_streams) <= 3
    for connection in (*slow, *waiting):
        connection.sendall(b"late")
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == b"late"
        connection.close()


def serving(place, stream):
    ours, theirs = socket.socketpair()
    end = SocketEnd(place.loop)
    end.attach(stream, theirs)
    stream.accept()
    threading.Thread(target=lambda: (echo(ours), ours.close()), daemon=True).start()
    return end


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        ({"published": {"other": HERE}}, "unknown-port", "--publish other: expected a port of the room main, which has web, admin"),
        ({"tunnels": {"other": HERE}}, "unknown-port", "--tunnel other: expected a port of the room"),
        ({"published": {"admin": HERE}}, "port-not-open", "--publish admin: the contract opens this port to tunnels alone"),
        ({"peers": {"other": HERE}}, "unknown-peer", "--peer other: expected a peer of the room main, which has db:sql"),
        ({"peers": {"queue": HERE}}, "unknown-peer", "--peer queue: expected a peer"),
        ({"peers": {"db": HERE, "db:sql": HERE}}, "unknown-peer", "--peer db:sql: expected a peer"),
    ],
)  # fmt: skip
def test_what_the_contract_does_not_have_is_refused_before_anything_boots(options, code, why):
    with pytest.raises(Misuse) as caught:
        NetworkOptions(**options).fitted(TERMS)
    assert caught.value.code == code
    assert why in caught.value.message


def test_a_peer_with_one_port_is_named_by_its_room_alone():
    fitted = NetworkOptions(peers={"db": HERE, "queue:in": HERE}, tunnels={"admin": HERE}).fitted(TERMS)
    assert fitted.peers == {"db:sql": HERE, "queue:in": HERE}


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("8080", Address(port=8080), "127.0.0.1:8080"),
        ("10.0.0.1:80", Address(host="10.0.0.1", port=80), "10.0.0.1:80"),
        ("[::1]:80", Address(host="::1", port=80), "[::1]:80"),
        ("db.internal:5432", Address(host="db.internal", port=5432), "db.internal:5432"),
        ("unix:/run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
    ],
)
def test_addresses_as_they_are_typed(text, address, shown):
    assert addresses.read_all([f"web={text}"], "--publish") == {"web": address}
    assert str(address) == shown


@pytest.mark.parametrize(
    "text",
    ["", "web", "=80", "web=", "web=x", "web=1:2:3", "web=h:65536", "web=unix:", f"web=unix:{'a' * 108}"],
)
def test_addresses_that_are_none(text):
    with pytest.raises(Misuse, match="--publish") as caught:
        addresses.read_all([text], "--publish")
    assert caught.value.code == "bad-address"
    with pytest.raises(Misuse, match="each name once"):
        addresses.read_all(["a=1", "a=2"], "--publish")


def test_an_address_that_is_taken_is_said_before_anything_boots(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address in (Address(port=taken.getsockname()[1]), Address(path=str(tmp_path))):
            with pytest.raises(Unavailable, match="--publish web: listening at") as caught:
                Listeners(NetworkOptions(published={"web": address}))
            assert caught.value.code == "address-in-use"


def test_reasons_that_a_room_learns():
    assert connecting.reason_of(ConnectionRefusedError()) is Reason.REFUSED
    assert connecting.reason_of(TimeoutError()) is Reason.UNREACHABLE
    assert connecting.reason_of(Unavailable("no")) is Reason.UNREACHABLE
    assert connecting.reason_of(Refused("no", code="forbidden-address")) is Reason.NOT_ALLOWED


def test_streams_that_are_over_wait_for_no_connection():
    """A room's program connects and leaves, over and over, to a host that never answers: the node kept each of them."""
    release, reached = threading.Event(), []
    here, there = SimpleNamespace(is_over=False), SimpleNamespace(is_over=True)

    def slow():
        reached.append(1)
        release.wait(30)
        raise OSError

    loop = Poll()
    connector = Connector(loop)
    for _ in range(connecting.MOST_THREADS):
        connector.connect(SimpleNamespace(stream=here), slow, print)
    for _ in range(4 * connecting.MOST_WAITING):
        connector.connect(SimpleNamespace(stream=there), slow, print)
        assert len(connector._waiting) <= connecting.MOST_WAITING
    release.set()
    for _ in range(1000):
        if not (connector._waiting or connector._threads):
            break
        threading.Event().wait(0.01)
    assert len(reached) == connecting.MOST_THREADS
    connector.close()
    loop.close()
