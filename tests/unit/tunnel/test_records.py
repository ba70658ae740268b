"""What a room believes of another: each fact of a record, changed by a broker that lies or by whoever shows another's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.crypto import sign
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Refused
from strongroom.model import tunnel
from strongroom.model.tunnel import Wants
from strongroom.tunnel import records
from strongroom_testing import tunnels


def verify(room, proof=None, **changes):
    encoded = (proof or room.proof).encode(Wants.RECORDS)
    options = {"role": room.room.role, "now": room.clock(), **changes}
    return records.verify(encoded, room.room.agreement.contract, options["role"], now=options["now"])


def first(proof, **changes):
    return replace(proof, releases=(replace(proof.releases[0], **changes), *proof.releases[1:]))


def lied(world, room, change):
    """alice's broker signs an entry that `change` has edited."""
    entry = canonical.loads(room.proof.releases[0].ledger.entry, what="entry", max_bytes=1 << 20)
    change(entry)
    return first(room.proof, ledger=world.forge("alice", entry))


def test_a_genuine_room_is_who_it_is(db):
    attested = verify(db)
    assert (attested.role, attested.run_id) == ("db", db.room.keys.run_id)
    assert attested.signing_key == db.room.signing.public.raw
    assert attested.simulated
    assert attested.decided < attested.expires
    verify(db, now=attested.expires - timedelta(seconds=1))
    with pytest.raises(Refused, match="the verdict ended"):
        verify(db, now=attested.expires)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("kind", lambda entry: entry.update(kind="denial")),
        ("broker", lambda entry: entry.update(broker="bob")),
        ("contract", lambda entry: entry.update(contract="sha256:" + "0" * 64)),
        ("run", lambda entry: entry.update(run="run-" + "0" * 32)),
        ("binding", lambda entry: entry["body"].update(binding="AAAA")),
        ("signing key", lambda entry: entry["body"].update(signing_key="AAAA")),
        ("verdict", lambda entry: entry["body"]["verdict"].update(result="denied")),
        ("verdict's contract", lambda entry: entry["body"]["verdict"].update(contract="sha256:" + "0" * 64)),
    ],
)
def test_a_record_of_something_else(world, db, what, change):
    with pytest.raises(Refused, match=f"{what}: expected") as caught:
        verify(db, lied(world, db, change))
    assert caught.value.code == "tunnel-proof"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("verdict", lambda entry: entry["body"].pop("verdict")),
        ("claims", lambda entry: entry["body"]["verdict"].update(claims=None)),
        ("expires", lambda entry: entry["body"]["verdict"].update(expires="soon")),
        ("simulated", lambda entry: entry["body"]["verdict"]["claims"].update(simulated="no")),
    ],
)
def test_a_record_without_what_is_asked(world, db, what, change):
    with pytest.raises(Malformed, match=what):
        verify(db, lied(world, db, change))


def test_one_simulated_verdict_makes_the_room_simulated(world, db):
    proof = lied(world, db, lambda entry: entry["body"]["verdict"]["claims"].update(simulated=False))
    assert verify(db, proof).simulated


def test_the_first_verdict_that_ends_ends_it(world, db):
    expires = verify(db).expires
    proof = db.renewed(timedelta(hours=1))
    assert verify(db, proof).expires == expires + timedelta(hours=1)
    assert verify(db, replace(proof, releases=(proof.releases[0], db.proof.releases[1]))).expires == expires


def test_another_ledgers_entry(world, db):
    proof = first(db.proof, ledger=db.proof.releases[1].ledger)
    with pytest.raises(Refused, match=r"checkpoint|signature|origin"):
        verify(db, proof)


def test_a_binding_that_is_not_the_recorded(db, web):
    binding = db.proof.releases[0].binding
    for changed in (
        replace(binding, role="web"),
        replace(binding, nonce=bytes(32)),
        replace(binding, audience="sha256:" + "0" * 64),
        replace(binding, contract_digest="sha256:" + "0" * 64),
        replace(binding, keys=replace(binding.keys, signing=sign.generate().public.raw)),
        replace(binding, keys=replace(binding.keys, tls=b"another")),
        web.proof.releases[0].binding,
    ):
        with pytest.raises(Refused, match="expected"):
            verify(db, first(db.proof, binding=changed))


def test_every_broker_once(db, world, agreement):
    releases = db.proof.releases
    another = tunnels.room(world, agreement, tunnels.DB).proof.releases
    for wrong in (releases[:1], releases[:1] * 2, (*releases, releases[0])):
        with pytest.raises(Refused, match="each once"):
            verify(db, replace(db.proof, releases=wrong))
    with pytest.raises(Refused, match="several rooms"):
        verify(db, replace(db.proof, releases=(releases[0], another[1])))


def test_a_party_that_is_none_or_has_no_broker(db, world, monkeypatch):
    with pytest.raises(Malformed, match="no party is called"):
        verify(db, first(db.proof, party="mallory"))
    contract = db.room.agreement.contract
    bare = replace(contract.members[0], party=replace(contract.members[0].party, broker=None))
    without = replace(contract, members=(bare, *contract.members[1:]))
    with pytest.raises(Refused, match="has no broker"):
        records.verify(db.proof.encode(Wants.RECORDS), without, tunnels.DB, now=db.clock())


def test_any_changed_byte_is_refused(db):
    """Of the whole proof, at a few hundred places: no byte of it is looked at by nobody."""
    data = db.proof.encode(Wants.RECORDS)
    contract = db.room.agreement.contract
    for at in range(0, len(data), max(1, len(data) // 300)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises((Refused, Malformed)):
            records.verify(bytes(changed), contract, tunnels.DB, now=db.clock())


def test_a_proof_has_one_spelling(db):
    data = db.proof.encode(Wants.RECORDS)
    whole = db.proof.encode(Wants.EVIDENCE)
    assert tunnel.parse_proof(whole, wants=Wants.EVIDENCE).encode(Wants.EVIDENCE) == whole
    with pytest.raises(Malformed, match="one canonical form"):
        tunnel.parse_proof(whole, wants=Wants.RECORDS)
    with pytest.raises(Malformed, match="canonical"):
        tunnel.parse_proof(data.replace(b":", b": ", 1), wants=Wants.RECORDS)
