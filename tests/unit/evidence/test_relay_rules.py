"""Rules 20 and 22: a relay that holds the room's TLS key, and sessions that would outlive their verdict."""

from __future__ import annotations

import secrets
import ssl
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.api import server
from strongroom.appraisal import judge
from strongroom.crypto import hpke, tls
from strongroom.errors import EvidenceRefused, Refused
from strongroom.evidence import verify
from strongroom.model import messages
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.verdict import Accepted, Check, Denied
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm

GATE = (Check(name="nonce.fresh", expected="a fresh nonce", got="one", ok=True),)


@pytest.fixture
def room():
    """An honest room: its scene, its KEM key, its binding and its evidence."""
    scene = contracts.scene()
    kem = hpke.generate()
    bound = Binding(
        nonce=b"n" * 32,
        contract_digest=scene.agreement().contract.digest,
        keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=kem.public),
        role="main",
        audience=fake_tpm.digest("audience"),
    )
    return scene, kem, bound, scene.tpm.evidence(bound)


def test_rule_20_a_relay_that_holds_the_tls_key_opens_nothing(room):
    """It sees every byte of the release, since TLS ends with it; the disk keys are sealed to the attested KEM key."""
    _, kem, bound, _ = room
    sealed = hpke.seal(bound.keys.kem, b"disk keys", info=messages.release_info(bound))
    assert b"disk keys" not in sealed
    with pytest.raises(Refused, match="sealed message does not open with this key"):
        hpke.generate().open(sealed, info=messages.release_info(bound))
    assert kem.open(sealed, info=messages.release_info(bound)) == b"disk keys"


def test_rule_20_a_relay_cannot_put_its_own_key_in_the_place_of_the_rooms(room):
    scene, _, bound, evidence = room
    roots = frozenset({scene.tpm.root})
    verify.verify(evidence, NONE, binding=bound, roots=roots, now=scene.now)
    for keys in (
        replace(bound.keys, kem=hpke.generate().public),
        replace(bound.keys, tls=b"u" * 91),
        replace(bound.keys, signing=b"r" * 32),
    ):
        with pytest.raises(EvidenceRefused) as refusal:
            verify.verify(evidence, NONE, binding=replace(bound, keys=keys), roots=roots, now=scene.now)
        assert refusal.value.check == "binding"


def test_rule_20_what_was_made_for_one_broker_does_not_count_at_another(room):
    scene, _, bound, evidence = room
    with pytest.raises(EvidenceRefused) as refusal:
        verify.verify(
            evidence,
            NONE,
            binding=replace(bound, audience=fake_tpm.digest("another broker")),
            roots=frozenset({scene.tpm.root}),
            now=scene.now,
        )
    assert refusal.value.check == "binding"


def decide(room, *, now, lifetime=timedelta(minutes=10)):
    scene, _, bound, evidence = room
    return judge.judge(
        scene.agreement(), evidence, NONE, binding=bound, gates=GATE, runs_used=0, now=now, lifetime=lifetime
    )


def test_rule_22_a_verdict_ends_and_is_not_renewed_by_the_clock(room):
    scene = room[0]
    first = decide(room, now=scene.now)
    assert isinstance(first, Accepted)
    assert first.expires == scene.now + timedelta(minutes=10)
    ended = scene.agreement().contract.limits.not_after
    assert isinstance(decide(room, now=ended), Denied)
    late = decide(room, now=ended - timedelta(minutes=1))
    assert isinstance(late, Accepted)
    assert late.expires == ended


def test_rule_22_brokers_resume_no_session():
    """Tickets would let a connection go on after its verdict; there are none to be had."""
    key = tls.generate()
    context = server.tls_context(
        tls.self_signed(key, name="broker", now=contracts.NOW, random=secrets.token_bytes), key
    )
    assert context.num_tickets == 0
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
