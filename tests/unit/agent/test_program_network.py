"""The program's network for real: fresh namespaces, a program that knows nothing of streams, and a node that serves or not."""

from __future__ import annotations

import os
import resource
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.agent import container
from strongroom.agent.network import namespace, places, relay
from strongroom.errors import Malformed
from strongroom.model.contracts.network_terms import Egress, Peer, Port
from strongroom.model.receipt import EgressCount, Outcome
from strongroom.model.room.destination import Destination, Kind, Reason
from strongroom.streams import mux
from strongroom.streams.loop import Loop
from strongroom.streams.mux import Side
from strongroom.streams.socket_end import SocketEnd
from tests.unit.agent.tls_hosts import Authority
from tests.unit.streams.place import Place

pytestmark = pytest.mark.root

WEB, ADMIN = Port(name="web", number=80, open=True), Port(name="admin", number=81, open=False)
OUTSIDE = places.Outward(
    host="api.example", port=443, terms=Egress(host="api.example", port=443),
    destination=Destination(kind=Kind.EGRESS, name="api.example:443"),
)  # fmt: skip
DB = places.Outward(
    host="db", port=5432, terms=Peer(room="db", port="sql", wait=False),
    destination=Destination(kind=Kind.PEER, name="db:sql"),
)  # fmt: skip


INDEX, END = (b"GET /%s HTTP/1.0\r\n\r\n" % path for path in (b"index.html", b"cgi-bin/end"))


class Node(Place):
    """The node's side. serve: by name of a stream's destination, what is done with its connection; others are refused."""

    def __init__(self, sock, serve):
        super().__init__(sock, Side.NODE)
        self.asked = []
        for kind in (Kind.EGRESS, Kind.PEER):
            self.loop.listen(kind, lambda stream, name, kind=kind: self._answer(stream, kind, name, serve))

    def _answer(self, stream, kind, name, serve):
        self.asked.append((kind, name))
        if name not in serve:
            return Reason.UNREACHABLE
        ours, theirs = socket.socketpair()
        end = SocketEnd(self.loop)
        end.attach(stream, theirs)
        stream.accept()
        threading.Thread(target=serve[name], args=(ours,), daemon=True).start()
        return end


class House:
    """A container with a network of its own, and the node at the other end of its channel."""

    def __init__(self, room):
        self.room = room
        for name in ("nc", "httpd", "wget", "nslookup", "seq", "xargs", "timeout", "sort", "tr"):
            link = room.root / "bin" / name
            if not link.is_symlink():
                link.symlink_to("busybox")

    def run(self, script, *, ports=(), ways=(), serve=None, meanwhile=None, until=lambda: True, **changes):
        ours, theirs = socket.socketpair()
        node = Node(theirs, serve or {})
        carrier = Loop(ours.fileno(), Side.ROOM, print)
        plain = {"peer_end": lambda connection, _way: connection}  # in place of a tunnel
        self.network = relay.ProgramNetwork(carrier, ports=ports, ways=ways, **{**plain, **changes})
        self.node = node.start()
        self.answers = []
        helper = threading.Thread(target=lambda: self.answers.append(meanwhile(node)))
        try:
            self.ended = self.room.run(
                "/bin/sh",
                "-c",
                script,
                waiter=carrier,
                network=self.network,
                listeners=self.network.listeners,
                on_start=helper.start
                if meanwhile
                else lambda: None,  # no process forked later has sockets of this one
            )
            for _ in range(1000):
                carrier.turn(0.01)
                if carrier.is_sent and until():
                    break
            return self.ended.log.decode()
        finally:
            if meanwhile:
                helper.join(30)
            node.close()
            carrier.close()
            ours.close()

    def serve_files(self, where, meanwhile, ports=(WEB,)):
        """A web server of the program's, until `meanwhile` is done."""
        cgi = self.room.root / "www/cgi-bin"
        cgi.mkdir(parents=True)
        (self.room.root / "www/index.html").write_text("inside\n")
        (cgi / "end").write_text(
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nends\\n'; touch /tmp/end\n"
        )
        (cgi / "end").chmod(0o755)

        def and_end(node):
            try:
                return meanwhile(node)
            finally:
                until_answered(node, "web", END)

        script = f"httpd -f -p {where} -h /www & httpd -f -p 81 -h /www & until [ -e /tmp/end ]; do sleep 0.05; done; sleep 0.3"
        self.run(script, ports=ports, meanwhile=and_end)


@pytest.fixture
def house(room):
    return House(room)


def receive_all(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def received(connection):
    """A byte, or nothing where there is none ever."""
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""


def echo(connection):
    """All of it back, once it has ended."""
    with connection:
        connection.sendall(receive_all(connection))


def until_answered(node, name, sent):
    """The answer of the room's port, which may not be there yet."""
    for _ in range(500):
        with node.dial(Destination(kind=Kind.PORT, name=name)) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                if answer := receive_all(connection):
                    return answer
            except OSError:
                pass
        threading.Event().wait(0.02)
    raise AssertionError("no answer")


def test_program_reaches_a_peer_and_a_host_by_name_and_each_direction_ends_by_itself(house):
    log = house.run(
        "echo to-db | nc db 5432; echo to-api | nc api.example 443; for a in 127.77.0.2 fd7e:7374:726f:6e67::2; do echo $a | nc $a 443; done;"
        "cat /etc/hosts",
        ways=(DB, OUTSIDE), serve={"db:sql": echo, "api.example:443": echo},
    )  # fmt: skip
    lines = log.splitlines()
    assert lines[1:5] == ["to-db", "to-api", "127.77.0.2", "fd7e:7374:726f:6e67::2"]
    assert lines[5:9] == [
        "127.77.0.1\tdb", "fd7e:7374:726f:6e67::1\tdb", "127.77.0.2\tapi.example", "fd7e:7374:726f:6e67::2\tapi.example",
    ]  # fmt: skip
    assert "127.0.0.1\tlocalhost" in lines
    assert house.node.asked[0] == (Kind.PEER, "db:sql")
    assert set(house.node.asked[1:]) == {(Kind.EGRESS, "api.example:443")}


def test_connections_and_bytes_to_each_host_are_counted_and_peers_are_not(house):
    house.run(
        "echo 12345 | nc api.example 443 >&2; echo 1 | nc api.example 443 >&2; echo x | nc db 5432",
        ways=(DB, OUTSIDE), serve={"db:sql": echo, "api.example:443": echo},
    )  # fmt: skip
    (count,) = house.ended.egress
    assert count == EgressCount(host="api.example", port=443, connections=2, sent=8, received=8)


def test_what_a_program_sends_last_arrives_when_it_is_gone(house):
    got = []

    def keep(connection):
        with connection:
            got.append(receive_all(connection))

    house.run(
        "head -c 3000000 /dev/zero | nc api.example 443 & sleep 0.5; exit 3", ways=(OUTSIDE,),
        serve={"api.example:443": keep}, until=lambda: got,
    )  # fmt: skip
    assert house.ended.exit_status == 3
    assert len(got[0]) == house.ended.egress[0].sent > 0


def test_nothing_else_has_a_way_out(house):
    """Other hosts, other ports, other addresses, datagrams and questions to resolvers: by IPv4 and IPv6."""
    log = house.run(
        't() { timeout 3 "$@" </dev/null >/dev/null 2>&1; echo "$? $*"; };'
        "t nc 192.0.2.1 443; t nc 2001:db8::1 443; t nc other.example 443; t nc api.example 80; t nc 127.77.0.9 443;"
        "t nc 10.0.0.1 53; t nc 169.254.169.254 80; t nslookup api.example; t nslookup api.example 192.0.2.53;"
        "t nslookup secret.api.example 127.77.0.1; t ping -c 1 -W 1 192.0.2.1;"
        "for f in udp udp6; do cat /proc/net/$f | wc -l; done; grep -c . /proc/net/route; ip addr | grep -c mtu",
        ways=(OUTSIDE,), serve={"api.example:443": echo},
    )  # fmt: skip
    lines = log.splitlines()
    assert [line for line in lines[1:12] if line.startswith("0 ")] == []
    assert lines[12:] == ["1", "1", "1", "1"]
    assert house.node.asked == []
    assert lines[0] == (
        "[strongroom: network: reached at no port; reaches api.example:443; "
        "nothing else has a way in or out, of UDP and DNS nothing at all]"
    )


def test_a_host_that_cannot_be_reached_resets_the_connection_and_the_log_says_why_once(house):
    log = house.run(
        "for n in 1 2; do wget -O - http://api.example:443/; echo status $?; done", ways=(OUTSIDE,)
    )
    assert log.count("[strongroom: network: api.example:443: it cannot be reached from the node]") == 1
    assert log.count("Connection reset by peer") == log.count("status 1") == 2


def test_an_open_port_is_reached_and_the_others_are_not(house):
    def meanwhile(node):
        answer, refused = until_answered(node, "web", INDEX), []
        for kind, name in (
            (Kind.PORT, "admin"),
            (Kind.PORT, "absent"),
            (Kind.TUNNEL, "web"),
            (Kind.TUNNEL, "admin"),
        ):
            with node.dial(Destination(kind=kind, name=name)) as connection:
                refused.append(received(connection))
        return answer, refused

    house.serve_files("0.0.0.0:80", meanwhile, ports=(WEB, ADMIN))
    ((answer, refused),) = house.answers
    assert answer.endswith(b"inside\n")
    assert refused == [b""] * 4


def test_a_stream_of_a_tunnel_ends_in_the_tunnel_and_not_in_the_program(house):
    """Whoever comes has proven nothing yet: the program sees no connection."""
    ended = []

    def tunnel_end():
        ours, theirs = socket.socketpair()
        threading.Thread(target=lambda: ended.append(theirs.recv(100)) or theirs.close(), daemon=True).start()
        return ours

    def meanwhile(node):
        with node.dial(Destination(kind=Kind.TUNNEL, name="admin")) as connection:
            connection.sendall(b"hello")
            return received(connection)

    house.run("sleep 1", ports=(WEB, ADMIN), meanwhile=meanwhile, tunnel_end=tunnel_end)
    assert ended == [b"hello"]
    assert house.answers == [b""]


def test_a_peer_is_not_reached_without_tunnels(house):
    log = house.run("echo secret | nc db 5432", ways=(DB,), serve={"db:sql": echo}, peer_end=None)
    assert "[strongroom: network: db:5432: there are no tunnels]" in log
    assert house.node.asked == []


def test_a_port_that_the_program_has_by_ipv6_alone_is_reached(house):
    house.serve_files("[::1]:80", lambda node: until_answered(node, "web", INDEX))
    assert house.answers[0].endswith(b"inside\n")


def test_listeners_are_there_before_the_first_instruction_and_gone_with_the_program(house):
    assert "first" in house.run("echo first | nc db 5432", ways=(DB,), serve={"db:sql": echo})
    assert house.network.is_drained
    failed = []
    house.network.to_program(80, failed.append, lambda: failed.append("no"))
    assert failed == ["no"]


def test_a_flood_of_connections_waits_in_the_programs_own_kernel(house, monkeypatch):
    monkeypatch.setattr(relay, "MAX_OUTWARD", 3)
    most = []

    def slow(connection):
        most.append(house.node.loop.open_streams)
        with connection:
            threading.Event().wait(0.05)
            connection.sendall(receive_all(connection))

    log = house.run(
        "for n in $(seq 20); do (echo $n | nc db 5432) & done; wait", ways=(DB,), serve={"db:sql": slow}
    )
    assert sorted(map(int, log.splitlines()[1:])) == list(range(1, 21))
    assert max(most) <= 3


def test_a_peer_that_reads_nothing_stops_no_other_connection(house):
    """Each stream is held back by itself: 200 connections are full, and the next host answers."""

    def deaf(connection):
        with connection:
            release.wait(60)

    def answer(connection):
        echo(connection)
        release.set()

    release = threading.Event()
    log = house.run(
        "for n in $(seq 200); do (timeout 20 head -c 400000 /dev/zero | nc db 5432) & done; sleep 1; echo heard | nc api.example 443; kill 0",
        ways=(DB, OUTSIDE), serve={"db:sql": deaf, "api.example:443": answer},
    )  # fmt: skip
    assert "heard" in log
    assert release.is_set()


def test_a_flood_of_2048_streams_to_a_port_leaves_the_agent_its_own(house):
    """As many as a connection may have at once: 1000 reach the program, the others are refused, and the room still asks a broker."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, before[1]), before[1]))

    def meanwhile(node):
        until_answered(node, "web", INDEX)
        held = []
        for _ in range(mux.MAX_OPEN):
            held.append(node.dial(Destination(kind=Kind.PORT, name="web")))
        for _ in range(1000):
            if node.act(lambda: node.loop.open_streams) == relay.MAX_INWARD:
                break
            threading.Event().wait(0.02)
        most = node.act(lambda: node.loop.open_streams)
        for connection in held:
            connection.close()
        return most

    try:
        house.serve_files("0.0.0.0:80", meanwhile)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert house.answers == [relay.MAX_INWARD]
    assert relay.MAX_INWARD + relay.MAX_OUTWARD <= mux.MAX_OPEN - 40


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_who_comes_to_a_port_and_leaves_again_holds_no_file_of_the_agents(house):
    """A program that takes nobody leaves each connection without an answer for two minutes. Whoever connects and resets, over and over, took
    one of the agent's files each time, and then it had none for a renewal.
    """

    def meanwhile(node):
        held = []
        for _ in range(300):  # until more have come than its kernel keeps for it
            held.append(
                node.act(
                    lambda: node.loop.dial(Destination(kind=Kind.PORT, name="web"), SocketEnd(node.loop))
                )
            )
            threading.Event().wait(0.02)
            if len(house.network._attempts) >= 3:
                break
        waited = len(house.network._attempts)
        before = open_files()
        for stream in held:
            node.act(lambda stream=stream: stream.reset(Reason.RESET))
        for _ in range(500):
            if not house.network._inward:
                break
            threading.Event().wait(0.01)
        return waited, len(house.network._attempts), before - open_files()

    deaf = "httpd -f -p 127.0.0.1:80 & P=$!; sleep 0.5; kill -STOP $P; sleep 5; kill -KILL $P"
    house.run(deaf, ports=(WEB,), meanwhile=meanwhile)
    ((waited, left, closed),) = house.answers
    assert waited > 0
    assert left == 0
    assert closed >= waited


def test_more_connections_to_a_port_than_allowed_are_refused_and_the_room_lives(house, monkeypatch):
    monkeypatch.setattr(relay, "MAX_INWARD", 2)

    def number_is(number):
        for _ in range(500):
            if len(house.network._inward) == number:
                return
            threading.Event().wait(0.01)
        raise AssertionError(len(house.network._inward))

    def meanwhile(node):
        until_answered(node, "web", INDEX)
        number_is(0)
        held = [node.dial(Destination(kind=Kind.PORT, name="web")) for _ in range(2)]
        number_is(2)
        over = node.dial(Destination(kind=Kind.PORT, name="web"))
        refused = received(over)
        for connection in (*held, over):
            connection.close()
        number_is(0)
        return refused, until_answered(node, "web", INDEX)

    house.serve_files("0.0.0.0:80", meanwhile)
    ((refused, answer),) = house.answers
    assert refused == b""
    assert answer.endswith(b"inside\n")


def test_tls_of_the_agents_own_is_on_the_stream_and_not_in_the_program(house, monkeypatch):
    authority = Authority()
    way = replace(OUTSIDE, terms=Egress(host="api.example", port=443, authority=authority.der))
    log = house.run(
        "echo secret | nc api.example 443", ways=(way,), serve={"api.example:443": authority.serving("api.example", lambda secured: secured.sendall(receive_all(secured)))}
    )  # fmt: skip
    assert log.splitlines()[1:] == ["secret"]
    (count,) = house.ended.egress
    assert count.sent > 100 < count.received


def test_a_host_of_another_authority_gets_nothing_of_the_programs(house):
    authority, other = Authority(), Authority()
    way = replace(OUTSIDE, terms=Egress(host="api.example", port=443, authority=authority.der))
    log = house.run(
        "echo secret | nc api.example 443", ways=(way,), serve={"api.example:443": other.serving("api.example", echo)}
    )  # fmt: skip
    assert "secret" not in log
    assert "network: api.example:443: TLS: " in log
    assert other.served == []


def test_an_images_own_hosts_stand_behind_the_contracts(house):
    (house.room.root / "etc/hosts").write_text("192.0.2.7 db mine\n")
    lines = house.run("cat /etc/hosts", ways=(DB,)).splitlines()
    assert lines[1:] == ["127.77.0.1\tdb", "fd7e:7374:726f:6e67::1\tdb", "192.0.2.7 db mine"]
    (house.room.root / "etc/hosts").unlink()
    (house.room.root / "etc/hosts").symlink_to("/out/hosts")
    assert house.run("cat /etc/hosts", ways=(DB,)).count("db") == 3
    assert not (house.room.out / "hosts").exists()


def test_a_program_that_does_not_start_has_no_network(house):
    ended = house.room.run("/absent", network=None)
    assert ended.outcome is Outcome.NOT_STARTED
    assert house.run("true", ports=(WEB,)).startswith(
        "[strongroom: network: reached at web on 80; reaches nothing;"
    )


def test_what_the_launcher_hands_over_is_counted():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(theirs, [b"\x00\x01"], [fd])
        os.close(fd)
        with pytest.raises(Malformed, match="hands over 1 descriptors"):
            namespace.take_over(ours.fileno(), ("db:5432",))
        theirs.close()
        assert namespace.take_over(ours.fileno(), ()) is None


def test_the_pipe_to_the_launcher_says_where_to_listen(room):
    launch = container.parse_launch(room.launch.encode())
    assert launch.listeners == ()
