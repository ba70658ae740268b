"""What a contract says of rooms' networks, and of services: its own spelling, and what nothing could mean is refused."""

import json

import pytest

from strongroom.errors import Malformed
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting
from strongroom.model.contracts.network_terms import Egress, Peer, Port
from strongroom.model.contracts.room_terms import Restart, ServiceTerms
from tests.samples import a_contract, a_room

WEB = a_room(
    name="web",
    certificate=None,
    ports=(Port(name="https", number=8443, open=True),),
    peers=(Peer(room="app", port="http", wait=True),),
    egress=(Egress(host="api.flights.example", port=443, authority=b"DER"), Egress(host="plain", port=80)),
    wall_seconds=0,
    service=ServiceTerms(renewal_seconds=300, restart=Restart.ON_FAILURE),
    processors=2,
)
APP = a_room(name="app", certificate=None, ports=(Port(name="http", number=8000, open=False),))


def drawn(change=None):
    """The contract's document as an object, changed and parsed again."""
    document = json.loads(drafting.encode(a_contract(rooms=(WEB, APP))))
    if change is not None:
        change(document["rooms"][0])
    return contract_model.parse(json.dumps(document).encode())


def test_rooms_with_a_network_are_read_as_they_were_written():
    assert drawn().rooms == (WEB, APP)
    assert drawn(lambda room: room.update(processors=64)).rooms[0].processors == 64


def test_a_job_without_network_is_spelled_as_before():
    written = APP.to_json()
    assert written["wall_seconds"] == 60
    assert not {"service", "processors"} & written.keys()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ports", [{"name": "https", "number": 0, "open": True}], "number: expected an integer from 1"),
        ("ports", [{"name": "https", "number": 1}], "key 'open' is missing"),
        ("ports", [{"name": "a", "number": 1, "open": True}] * 2, "ports: name 'a' appears twice"),
        (
            "ports",
            [{"name": "a", "number": 1, "open": True}, {"name": "b", "number": 1, "open": True}],
            "ports: number '1' appears twice",
        ),
        ("ports", [{"name": "p", "number": 8000, "open": True}], "listens on port 8000, and reaches app"),
        ("ports", [{"name": "p", "number": 443, "open": True}], "reaches api.flights.example on that port"),
        ("peers", [{"room": "app", "port": "ssh", "wait": True}], "no room 'app' has a port 'ssh'"),
        ("peers", [{"room": "db", "port": "http", "wait": True}], "no room 'db' has a port 'http'"),
        ("peers", [{"room": "web", "port": "https", "wait": True}], "is its own peer"),
        ("peers", [{"room": "app", "port": "http", "wait": True}] * 2, "'app:http' appears twice"),
        ("egress", [{"host": "app", "port": 443, "authority": None}], "the name of a peer and of a host"),
        ("egress", [{"host": "10.0.0.1", "port": 443, "authority": None}], "no address"),
        ("egress", [{"host": "localhost", "port": 443, "authority": None}], "no address"),
        ("egress", [{"host": "Api.example", "port": 443, "authority": None}], "in lower case"),
        ("egress", [{"host": "*.example", "port": 443, "authority": None}], "no address"),
        ("egress", [{"host": "a.example", "port": 443, "authority": ""}], "authority: empty"),
        ("egress", [{"host": "a.example", "port": 443, "authority": None}] * 2, "appears twice"),
        ("processors", 1, "processors: expected an integer from 2"),
        ("service", {"renewal_seconds": 59, "restart": "never"}, "expected an integer from 60"),
        ("service", {"renewal_seconds": 60, "restart": "unless-stopped"}, "restart: expected one of"),
        ("wall_seconds", 60, "has wall_seconds and service"),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused(key, value, told):
    with pytest.raises(Malformed) as failure:
        drawn(lambda room: room.update({key: value}))
    assert told in failure.value.message
