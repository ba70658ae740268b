"""New keys of a broker, or of its party: recorded, whole or not at all, and the old ones count for nothing from then on."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace

import pytest

from strongroom.broker import settings as settings_model
from strongroom.broker.administration.rotate import rotate
from strongroom.broker.challenge import challenge
from strongroom.crypto import digest, vault
from strongroom.encoding import fields
from strongroom.errors import Conflict, NotFound, Refused
from strongroom.ledger import describe, merkle, proof, witness
from strongroom.model import identity, messages, record, rotation
from strongroom.seal import disk as sealed_disk
from strongroom.wiring import broker
from strongroom_testing import broker_process, brokers
from tests.unit.broker.denials import failed

NEW = identity.generate("alice")


@pytest.fixture(scope="module", autouse=True)
def derived_once():
    """A broker's key is derived from its passphrase at each start, a tenth of a second long: here once for each vault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vault, "_derive", functools.cache(vault._derive))
        yield


@pytest.fixture
def prepared(tmp_path):
    return broker_process.prepare(tmp_path / "b")


def opened(prepared):
    return broker.open_broker(prepared.directory, brokers.PASSPHRASE)


def ask(one, scene, agreement):
    nonce = asyncio.run(
        challenge(one.broker, messages.encode_challenge_request(agreement.contract.digest))
    ).nonce
    room = brokers.Room(tpm=scene.tpm, agreement=agreement, audience=one.broker.audience)
    answer = asyncio.run(brokers.release(one.broker, room.request(nonce)))
    return room, nonce, answer


def next_version(prepared, settings):
    before = prepared.agreement.contract

    def draw(_one):
        members = tuple(
            replace(one, party=settings.party) if one.party.name == "alice" else one for one in before.members
        )
        return replace(before, members=members, version=2, replaces=before.digest)

    return prepared.scene.agreement(draw)


def first_version(prepared, settings):
    digest = prepared.agreement.contract.rooms[0].datasets[0].manifest_digest
    return prepared.scene.agreement(lambda one: brokers.contract_over(one, settings, digest, runs=3))


def statement(prepared, new=NEW, **changes):
    held = prepared.settings.party
    after = replace(new.party(held.broker), **changes)
    return rotation.make(
        held, after, time=prepared.scene.now, keys=(prepared.scene.alice.signing, new.signing)
    )


def test_with_new_keys_of_the_broker_contracts_from_before_get_nothing_and_the_next_version_does(prepared):
    with opened(prepared) as one:
        assert isinstance(ask(one, prepared.scene, prepared.agreement)[2], messages.ReleaseAnswer)
        note = one.broker.notary.checkpoint(one.store.ledger, one.store.ledger.size())
    rotated = broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    with opened(prepared) as one:
        address, before = one.settings.address, prepared.settings.address
        assert one.settings.party == rotated.party
        assert address.ledger_key == before.ledger_key
        assert {address.pin, address.authority}.isdisjoint({before.pin, before.authority})
        answer = ask(one, prepared.scene, prepared.agreement)[2]
        assert failed(answer)[0] == "own.entry"
        agreement = next_version(prepared, one.settings)
        room, nonce, answer = ask(one, prepared.scene, agreement)
        # The disk's key came along, under the new master key.
        assert list(room.open(answer, nonce).values()) == [brokers.DISK_KEY]
        # It is one ledger, before and after.
        ledger = one.store.ledger
        later = one.broker.notary.checkpoint(ledger, ledger.size())
        witness.observe(note, later, one.broker.notary.public, Source(ledger))


class Source:
    """Where a witness gets its proofs of growth."""

    def __init__(self, ledger):
        self.ledger = ledger

    def consistency(self, first, second):
        return merkle.consistency(self.ledger, first, second)


def test_a_rotation_is_an_entry_that_anybody_can_check(prepared):
    rotated = broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    with opened(prepared) as one:
        entry, _ = proof.verify(rotated.proof, one.broker.notary.public)
    assert (entry.kind, entry.contract_digest, entry.run_id) == (record.RecordKind.ROTATION, "", "")
    said = describe.describe(entry)
    assert said.startswith(
        "keys of alice replaced (broker.pin, broker.authority), vouched for by the old key"
    )
    made = statement(prepared)
    unsigned = replace(made, envelope=replace(made.envelope, signatures=()))
    forged = replace(entry, body={"statement": fields.format_data(unsigned.encode())})
    assert "NOT SIGNED by both keys" in describe.describe(forged)


def test_with_a_new_identity_what_the_old_one_signed_gets_nothing(prepared):
    rotated = broker.rotate_broker_identity(prepared.directory, brokers.PASSPHRASE, statement(prepared))
    assert rotated.party.keyid == NEW.party().keyid
    with opened(prepared) as one:
        assert failed(ask(one, prepared.scene, prepared.agreement)[2])[0] == "own.signature"
        assert one.store.known_disks() == []  # their manifests are of the old key
        assert one.settings.address == prepared.settings.address
        # The same disk under a manifest of the new key, and a contract of the new key.
        manifest = brokers.manifest_model.parse_envelope(brokers.manifest(prepared.scene.alice))[1]
        again = sealed_disk.owned_by(manifest, NEW.signing).encode()
        asyncio.run(brokers.add_key(one.broker, again, brokers.DISK_KEY))
        scene = replace(prepared.scene, alice=NEW)
        digest = brokers.manifest_digest(again)
        agreement = scene.agreement(lambda two: brokers.contract_over(two, one.settings, digest, runs=3))
        room, nonce, answer = ask(one, scene, agreement)
        assert list(room.open(answer, nonce).values()) == [brokers.DISK_KEY]


def test_a_broker_follows_no_statement_but_that_of_its_own_party(prepared):
    mallory = identity.generate("alice")
    held = prepared.settings.party
    foreign = rotation.make(
        mallory.party(held.broker),
        NEW.party(held.broker),
        time=prepared.scene.now,
        keys=(mallory.signing, NEW.signing),
    )
    by_mallory = rotation.make(
        held, NEW.party(held.broker), time=prepared.scene.now, keys=(mallory.signing, NEW.signing)
    )
    for one in (foreign, by_mallory):
        with pytest.raises(Refused, match="rotation: "):
            broker.rotate_broker_identity(prepared.directory, brokers.PASSPHRASE, one)
    elsewhere = statement(prepared, broker=replace(held.broker, pin="sha256:" + "0" * 64))
    with pytest.raises(Refused, match="another address of the broker than the broker's own"):
        broker.rotate_broker_identity(prepared.directory, brokers.PASSPHRASE, elsewhere)
    with pytest.raises(Refused, match="expected a signature by the old key"):
        broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, mallory.signing)
    with opened(prepared) as one:
        assert one.store.ledger.size() == 0
        assert one.settings == prepared.settings


def test_rule_53_killed_between_the_record_and_the_file_the_rotation_is_done(prepared, monkeypatch):
    def killed(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(broker, "_replace_settings", killed)
        with pytest.raises(KeyboardInterrupt):
            broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    assert broker.read_settings(prepared.directory) == prepared.settings  # the old file, and the new record
    with opened(prepared) as one:
        assert one.settings.address.pin != prepared.settings.address.pin
        assert one.store.ledger.size() == 1
        assert one.store.staged_settings() is None
        agreement = first_version(prepared, one.settings)
        room, nonce, answer = ask(one, prepared.scene, agreement)
        assert list(room.open(answer, nonce).values()) == [brokers.DISK_KEY]


def test_rule_53_what_is_not_recorded_changes_nothing(prepared, monkeypatch):
    def full(*_args, **_more):
        raise Refused("no")

    monkeypatch.setattr(record.Record, "encode", full)
    with pytest.raises(Refused, match="no"):
        broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    monkeypatch.undo()
    with opened(prepared) as one:
        assert one.settings == prepared.settings
        room, nonce, answer = ask(one, prepared.scene, prepared.agreement)
        assert list(room.open(answer, nonce).values()) == [brokers.DISK_KEY]


def test_a_broker_that_serves_is_not_rotated(prepared):
    with broker.serving(prepared.directory, replica=True), pytest.raises(Conflict) as caught:
        broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    assert caught.value.code == "already-serving"
    with pytest.raises(Refused, match="is another one than this was locked with"):
        broker.rotate_broker_keys(prepared.directory, b"wrong", prepared.scene.alice.signing)


def test_the_old_master_key_opens_nothing_of_the_new_broker(prepared):
    old = settings_model.unlock(prepared.settings, brokers.PASSPHRASE)
    broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    with opened(prepared) as one:
        (disk,) = one.store.known_disks()
        for sealed, purpose, name in (
            (disk.sealed_key, "disk-key", disk.manifest_digest),
            (one.settings.secrets["tls"], "broker-secret", "tls"),
        ):
            with pytest.raises(Refused, match="does not open under this master key"):
                old.at_rest.open(sealed, purpose=purpose, name=name)


def test_a_brokers_file_from_before_a_rotation_is_not_served_with_the_newer_database(prepared):
    """By the old file the broker would answer as the old identity, with disk keys that it cannot open."""
    file = prepared.directory / broker.SETTINGS
    old = file.read_bytes()
    broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    new = file.read_bytes()
    file.write_bytes(old)
    with (
        pytest.raises(Refused, match="is not of the keys that the database beside it is of") as caught,
        opened(prepared),
    ):
        pass
    assert caught.value.code == "old-settings"
    assert caught.value.message.startswith(f"{file}: ")
    file.write_bytes(new)
    broker.change_passphrase(prepared.directory, brokers.PASSPHRASE, b"another one")
    with broker.open_broker(prepared.directory, b"another one") as one:
        assert one.store.keys() == one.settings.keys


def test_only_a_statement_to_the_very_settings_is_recorded(prepared):
    """The use case itself holds it, whoever calls."""
    with opened(prepared) as one:
        made = settings_model.renew(
            one.settings, brokers.PASSPHRASE, now=prepared.scene.now, random=one.broker.random
        )
        with pytest.raises(Refused, match="another address"):
            asyncio.run(rotate(one.broker, statement(prepared), made.settings, made.at_rest))
        assert one.store.ledger.size() == 0


def test_a_passphrase_changed_after_a_rotation_was_killed_stays_changed(prepared, monkeypatch):
    def killed(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(broker, "_replace_settings", killed)
        with pytest.raises(KeyboardInterrupt):
            broker.rotate_broker_keys(prepared.directory, brokers.PASSPHRASE, prepared.scene.alice.signing)
    broker.change_passphrase(prepared.directory, brokers.PASSPHRASE, b"another one")
    with pytest.raises(Refused, match="is another one than this was locked with"), opened(prepared):
        pass
    with broker.open_broker(prepared.directory, b"another one") as one:
        assert one.settings.address.pin != prepared.settings.address.pin
        assert one.store.staged_settings() is None


def steps(prepared):
    """The three steps, each by a broker's owner: what the folder's roots are after each."""
    folder, passphrase = prepared.directory, brokers.PASSPHRASE
    yield broker.prepare_root(folder, passphrase).roots
    broker.switch_root(folder, passphrase, prepared.scene.alice.signing)
    yield broker.read_settings(folder).roots
    yield broker.retire_root(folder).roots


def of_root(prepared, root):
    """An agreement of a contract of its own that names `root`."""
    digest = prepared.agreement.contract.rooms[0].datasets[0].manifest_digest

    def draw(one):
        drawn = brokers.contract_over(one, prepared.settings, digest, runs=9)
        members = tuple(
            replace(member, party=replace(member.party, broker=replace(member.party.broker, authority=root)))
            if member.party.name == "alice"
            else member
            for member in drawn.members
        )
        return replace(drawn, id=f"of-{root[7:15]}", members=members)

    return prepared.scene.agreement(draw)


def certified_root(prepared, agreement):
    """The digest of the root below which a room gets its certificate; the denial's first check where it gets none."""
    with opened(prepared) as one:
        nonce = asyncio.run(
            challenge(one.broker, messages.encode_challenge_request(agreement.contract.digest))
        ).nonce
        room = brokers.Room(tpm=prepared.scene.tpm, agreement=agreement, audience=one.broker.audience)
        answer = asyncio.run(brokers.release(one.broker, room.request(nonce, names=brokers.NAMES)))
    if isinstance(answer, messages.DenialAnswer):
        return failed(answer)[0]
    return digest.sha256(answer.certificates[-1])


def test_a_root_is_changed_in_three_steps_and_each_contract_keeps_the_one_that_it_names(prepared):
    old = prepared.settings.address.authority
    at = steps(prepared)
    roots = {root.state.value: root.digest for root in next(at)}
    new = roots["next"]
    assert roots == {"current": old, "next": new}
    before, after = of_root(prepared, old), of_root(prepared, new)
    assert certified_root(prepared, before) == old
    assert certified_root(prepared, after) == new  # named before it is the party's
    with pytest.raises(Conflict, match="there is a next root already"):
        broker.prepare_root(prepared.directory, brokers.PASSPHRASE)
    roots = {root.state.value: root.digest for root in next(at)}
    assert roots == {"current": new, "previous": old}
    assert broker.read_settings(prepared.directory).address.authority == new
    assert certified_root(prepared, before) == old
    assert certified_root(prepared, after) == new
    roots = {root.state.value: root.digest for root in next(at)}
    assert roots == {"current": new}
    assert certified_root(prepared, before) == "own.entry"
    assert certified_root(prepared, after) == new


def test_a_switch_of_roots_is_an_entry_and_says_what_it_lacks(prepared):
    folder, key = prepared.directory, prepared.scene.alice.signing
    with pytest.raises(NotFound, match="there is no next root"):
        broker.switch_root(folder, brokers.PASSPHRASE, key)
    with pytest.raises(NotFound, match="there is no previous root"):
        broker.retire_root(folder)
    broker.prepare_root(folder, brokers.PASSPHRASE)
    rotated = broker.switch_root(folder, brokers.PASSPHRASE, key)
    with opened(prepared) as one:
        entry, _ = proof.verify(rotated.proof, one.broker.notary.public)
    assert describe.describe(entry).startswith("keys of alice replaced (broker.authority), vouched for")
    broker.prepare_root(folder, brokers.PASSPHRASE)
    with pytest.raises(Conflict, match="may still name the root before the current one"):
        broker.switch_root(folder, brokers.PASSPHRASE, key)


def test_roots_go_with_a_party_to_its_new_keys(prepared):
    broker.prepare_root(prepared.directory, brokers.PASSPHRASE)
    before = broker.read_settings(prepared.directory).roots
    broker.rotate_broker_identity(prepared.directory, brokers.PASSPHRASE, statement(prepared))
    with opened(prepared) as one:
        assert [root.digest for root in one.settings.roots] == [root.digest for root in before]
        assert one.broker.authority.digests == {root.digest for root in before}
