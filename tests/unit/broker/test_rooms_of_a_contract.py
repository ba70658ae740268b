"""Several rooms under one contract: each gets its own keys, names and runs, and none another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from cryptography import x509

from strongroom.broker.administration.status import status
from strongroom.broker.running.receipt import receipt
from strongroom.errors import Refused
from strongroom.model import messages
from strongroom.model.contracts import certificate_terms
from strongroom_testing import brokers
from strongroom_testing.vendors import fake_tpm
from tests.unit.broker.denials import failed

WEB_NAMES = ("web.flights.example",)


def two_rooms(one):
    """`db` has alice's data; `web` has an image of bob's and a public dataset of alice's."""
    db = replace(one.rooms[0], name="db")
    web = replace(
        db,
        name="web",
        image=replace(db.image, manifest_digest=fake_tpm.digest("web image")),
        datasets=(),
        certificate=certificate_terms.CertificateTerms(names=WEB_NAMES, lifetime_seconds=600),
    )
    return replace(one, rooms=(db, web))


def alices_web(one):
    """As above, and alice owns the web room's image, whose key her broker does not know."""
    db, web = two_rooms(one).rooms
    return replace(one, rooms=(db, replace(web, image=replace(web.image, owner="alice"))))


def ask(world, agreement, role, **changes):
    room = world.room(agreement, role=role)
    return room, world.release(room.request(world.challenge(agreement).nonce, **changes))


def test_a_room_gets_the_keys_and_the_names_of_its_own_part(world):
    agreement = world.agreement(two_rooms)
    room = world.room(agreement, role="db")
    nonce = world.challenge(agreement).nonce
    answer = world.release(room.request(nonce, names=brokers.NAMES))
    assert set(room.open(answer, nonce)) == {agreement.contract.room("db").datasets[0].manifest_digest}
    leaf = x509.load_der_x509_certificate(answer.certificates[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == brokers.NAMES
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uri == f"spiffe://flights.strongroom/room/db/run/{room.keys.run_id}"


def test_rule_40_no_room_gets_the_names_of_another(world):
    agreement = world.agreement(two_rooms)
    assert failed(ask(world, agreement, "db", names=WEB_NAMES)[1])[0] == "certificate.names"


@pytest.mark.parametrize("role", ["web", "elsewhere", "room"])
def test_where_the_owner_has_no_disk_nothing_is_given(world, role):
    agreement = world.agreement(two_rooms)
    assert failed(ask(world, agreement, role)[1])[0] == "request.role"
    assert world.store.runs_by_room() == []


def test_a_room_cannot_ask_as_another_than_its_evidence_says(world):
    """Evidence of the web room, which asks for the keys of the database."""
    agreement = world.agreement(two_rooms)
    room = world.room(agreement, role="web")
    request = replace(room.ask(world.challenge(agreement).nonce), role="db")
    assert "binding" in " ".join(failed(world.release(request.encode())))
    assert world.store.runs_by_room() == []


def test_the_disks_of_another_room_are_not_needed(world):
    """alice's broker has no key for her other room's image: that room is denied, this one is not."""
    agreement = world.agreement(alices_web)
    assert isinstance(ask(world, agreement, "db")[1], messages.ReleaseAnswer)
    assert failed(ask(world, agreement, "web")[1])[0] == "keys.present"


def test_runs_are_counted_by_room(world):
    agreement = world.agreement(_both_of_alice, runs=1)
    assert isinstance(ask(world, agreement, "db")[1], messages.ReleaseAnswer)
    assert isinstance(ask(world, agreement, "web")[1], messages.ReleaseAnswer)
    for role in ("db", "web"):
        assert failed(ask(world, agreement, role)[1])[0] == "contract.runs"
    digest = agreement.contract.digest
    assert sorted(world.store.runs_by_room()) == [(digest, "db", 1, 0), (digest, "web", 1, 0)]
    told = [(row.room, row.used, row.left) for row in status(world.store).contracts]
    assert sorted(told) == [("db", 1, 0), ("web", 1, 0)]


def _both_of_alice(one):
    db = replace(one.rooms[0], name="db")
    return replace(one, rooms=(db, replace(db, name="web")))


def test_a_receipt_is_of_the_room_that_was_released_to(world):
    agreement = world.agreement(_both_of_alice)
    room, answer = ask(world, agreement, "db")
    assert isinstance(answer, messages.ReleaseAnswer)
    with pytest.raises(Refused, match="not of a run that keys were released to"):
        asyncio.run(receipt(world.broker, room.receipt(world.clock(), room="web")))
    asyncio.run(receipt(world.broker, room.receipt(world.clock())))
    assert world.store.runs_by_room() == [(agreement.contract.digest, "db", 1, 1)]
