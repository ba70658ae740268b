"""A release's verdict as a token for relying parties: what it says, how long, and what it can never be taken for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.appraisal import ear, ear_token
from strongroom.broker import result as use_case
from strongroom.broker.budgets import Budgets
from strongroom.broker.result import result
from strongroom.encoding import canonical
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.ledger import checkpoint
from strongroom.model import messages, record
from strongroom_testing import brokers

NONCE = b"relying party's nonce"


def released(world, **budgets):
    agreement = world.agreement()
    room = world.room(agreement)
    answer = world.release(room.request(world.challenge(agreement).nonce))
    assert isinstance(answer, messages.ReleaseAnswer)
    return agreement, room.keys.run_id, answer


def expected(world, agreement, **changes):
    made = ear_token.Expected(
        key=world.broker.notary.public,
        issuer="alice",
        audience="database",
        policy=agreement.contract.digest,
        nonce=NONCE,
    )
    return replace(made, **changes)


def hardware(answer):
    """The record as it would be of the same room on hardware: no fake's root is pinned, so it has to be told."""
    entry = record.parse(answer.ledger.entry)
    verdict = dict(entry.body["verdict"])
    verdict["claims"] = {**verdict["claims"], "simulated": False}
    return replace(entry, body={**entry.body, "verdict": verdict})


def vouched(world, answer, *, cwt=False, **changes):
    made = ear.of_release(
        hardware(answer),
        **{
            "nonce": NONCE,
            "issuer": "alice",
            "audience": "database",
            "verifier": "strongroom",
            "issued": world.clock.now,
            "expires": world.clock.now + timedelta(hours=1),
            **changes,
        },
    )
    return made, world.broker.notary.sign_result(made, cwt=cwt)


@pytest.mark.parametrize("cwt", [False, True], ids=["jwt", "cwt"])
def test_a_relying_party_reads_what_the_broker_decided(world, cwt):
    agreement, _, answer = released(world)
    made, token = vouched(world, answer, cwt=cwt)
    read = ear_token.read(token, expected(world, agreement), now=world.clock.now)
    assert read == made
    assert (read.attester, read.status) == ("tpm", ear.AFFIRMING)
    assert read.vector == {"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 2}
    body = record.parse(answer.ledger.entry).body
    assert read.evidence_digest == body["evidence"]


@pytest.mark.parametrize("cwt", [False, True], ids=["jwt", "cwt"])
def test_a_simulated_room_is_never_affirmed(world, cwt):
    agreement, run, answer = released(world)
    token = result(world.broker, run, nonce=NONCE, audience="database", cwt=cwt)
    with pytest.raises(Refused) as caught:
        ear_token.read(token, expected(world, agreement), now=world.clock.now)
    assert caught.value.code == "token-not-affirming"
    assert "hardware" in caught.value.message
    assert answer.verdict["claims"]["simulated"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"issuer": "bob"}, "token-issuer"),
        ({"audience": "somebody"}, "token-audience"),
        ({"nonce": b"another nonce of theirs"}, "token-nonce"),
        ({"policy": "sha256:" + "00" * 32}, "token-policy"),
    ],
)
def test_rule_24_a_result_is_for_one_audience_nonce_and_contract(world, change, code):
    agreement, _, answer = released(world)
    _, token = vouched(world, answer)
    with pytest.raises(Refused) as caught:
        ear_token.read(token, expected(world, agreement, **change), now=world.clock.now)
    assert caught.value.code == code


def test_rule_41_a_result_never_outlives_its_verdict(world):
    agreement, run, answer = released(world)
    ends = expiry(answer)
    made, token = vouched(world, answer)
    assert made.expires == world.clock.now + timedelta(hours=1)
    world.clock.now = ends - timedelta(minutes=5)
    made, token = vouched(world, answer)
    assert (made.issued, made.expires) == (world.clock.now, ends)
    ear_token.read(token, expected(world, agreement), now=ends - timedelta(seconds=1))
    with pytest.raises(Refused, match="used at"):
        ear_token.read(token, expected(world, agreement), now=ends)
    world.clock.now = ends
    with pytest.raises(Refused) as caught:
        result(world.broker, run, nonce=NONCE, audience="database")
    assert caught.value.code == "verdict-ended"


def expiry(answer):
    from strongroom.encoding import fields

    return fields.Fields(answer.verdict, "verdict").time("expires")


def test_only_releases_have_results(world):
    with pytest.raises(NotFound, match="no release to this run is in the ledger"):
        result(world.broker, "run-" + "0" * 32, nonce=NONCE, audience="database")
    unsigned = world.agreement(signers=("alice",))
    room = world.room(unsigned)
    answer = world.release(room.request(world.challenge(unsigned).nonce))
    assert isinstance(answer, messages.DenialAnswer)
    with pytest.raises(NotFound) as caught:
        result(world.broker, room.keys.run_id, nonce=NONCE, audience="database")
    assert caught.value.code == "no-release"
    denial = record.parse(answer.ledger.entry)
    for entry in (denial, replace(denial, kind=record.RecordKind.RELEASE)):
        with pytest.raises(Malformed, match="expected an accepted release, got a"):
            ear.of_release(
                entry,
                nonce=NONCE,
                issuer="alice",
                audience="database",
                verifier="strongroom",
                issued=world.clock.now,
                expires=world.clock.now + timedelta(hours=1),
            )


def test_what_fails_in_a_record_is_never_affirmed(world):
    """A record that says accepted over a failed check (no broker of ours writes one) is told by its checks."""
    agreement, _, answer = released(world)
    entry = hardware(answer)
    for place, check in enumerate(entry.body["verdict"]["checks"]):
        checks = [dict(one) for one in entry.body["verdict"]["checks"]]
        checks[place]["ok"] = False
        spoiled = replace(entry, body={**entry.body, "verdict": {**entry.body["verdict"], "checks": checks}})
        made = ear.of_release(
            spoiled,
            nonce=NONCE,
            issuer="alice",
            audience="database",
            verifier="strongroom",
            issued=world.clock.now,
            expires=world.clock.now + timedelta(hours=1),
        )
        assert made.status != ear.AFFIRMING, check["name"]
        token = world.broker.notary.sign_result(made, cwt=False)
        with pytest.raises(Refused, match="not affirmed: "):
            ear_token.read(token, expected(world, agreement), now=world.clock.now)


@pytest.mark.parametrize("cwt", [False, True], ids=["jwt", "cwt"])
def test_one_key_signs_results_and_checkpoints_and_neither_is_the_other(world, cwt):
    agreement, run, answer = released(world)
    key = world.broker.notary.public
    token = result(world.broker, run, nonce=NONCE, audience="database", cwt=cwt)
    note = answer.ledger.checkpoint
    checkpoint.verify(note, key)
    with pytest.raises((Malformed, Refused), match="expected three lines, a blank line and signatures"):
        checkpoint.verify(token.decode("latin-1"), key)
    for wrong in (note.encode(), note.replace("\n", ".").encode(), note.encode()[:-1]):
        with pytest.raises((Malformed, Refused), match="neither a JWT nor a CWT"):
            ear_token.read(wrong, expected(world, agreement), now=world.clock.now)
    # What is signed differs in form: text of several lines, one line without a space, CBOR that is no text.
    signed = checkpoint.parse(note).text().encode()
    assert b"\n" in signed
    if cwt:
        assert token[:1] == b"\xd2"
        assert b"Signature1" in ear_token.sign1.parse(token, "token", max_bytes=1 << 16).signed()[:16]
    else:
        assert not set(token) & set(b" \n")


def test_the_token_is_small_and_holds_no_secret(world):
    _, run, _ = released(world)
    for cwt in (False, True):
        token = result(world.broker, run, nonce=NONCE, audience="database", cwt=cwt)
        assert len(token) < 2048
        assert brokers.DISK_KEY[:8] not in token
    assert use_case.LIFETIME <= ear_token.MAX_LIFETIME
    assert Budgets().verdict_lifetime <= ear_token.MAX_LIFETIME


def test_of_a_room_with_a_failing_device_no_claim_is_made_good():
    from strongroom.model.verdict import Check

    def vector(*bad):
        names = ("evidence.verified", "platform.tee", "platform.debug", "platform.reference.kernel")
        names += tuple(
            f"platform.devices.{name}" for name in ("debug", "root", "machine", "reference", "simulated")
        )
        checks = tuple(Check(name=name, expected="a", got="a", ok=name not in bad) for name in names)
        return ear.trust_vector(checks, "snp", simulated=False, debug=False)

    assert set(vector().values()) == {2, 3}
    assert vector("platform.devices.debug")["configuration"] == 96
    assert vector("platform.devices.debug")["runtime-opaque"] == 96
    assert vector("platform.devices.root")["instance-identity"] == 97
    assert vector("platform.devices.machine")["instance-identity"] == 97
    assert vector("platform.devices.reference")["executables"] == 33
    assert vector("platform.devices.simulated")["hardware"] == 32
    assert canonical.dumps(vector())  # plain values
