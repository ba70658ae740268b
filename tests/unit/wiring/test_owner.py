"""A broker's owner by files, in this process: what is done is in the ledger, and nobody is asked for a passphrase for a wrong file."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from strongroom.crypto import age
from strongroom.errors import Conflict, Malformed, Misuse, NotFound, Refused
from strongroom.model import identity, record
from strongroom.model.contracts import agreement
from strongroom.parties import papers
from strongroom.wiring import broker, owner, serving
from strongroom_testing import brokers, contracts

SECRET = b"correct horse"


def nobody():
    raise AssertionError("nobody is asked")


def secret():
    return SECRET


@pytest.fixture
def home(tmp_path):
    """alice, her broker's folder `b`, her disk's manifest and key, and a contract that she and bob signed."""
    alice = identity.generate("alice")
    broker.set_up_broker(
        tmp_path / "b",
        alice.party(),
        listen="127.0.0.1:0",
        url=None,
        party_file=tmp_path / "alice.party.json",
        passphrase=secret,
    )
    (tmp_path / "flights.manifest.json").write_bytes(brokers.manifest(alice))
    (tmp_path / "flights.key.age").write_bytes(age.seal((alice.age.recipient,), brokers.DISK_KEY))
    scene = contracts.Scene(
        tpm=contracts.fake_tpm.FakeTpm(now=contracts.NOW),
        alice=alice,
        bob=identity.generate("bob"),
        now=contracts.NOW,
    )
    own = papers.load_party(tmp_path / "alice.party.json")

    def version(number=1, before=None):
        return scene.agreement(
            lambda one: replace(
                one,
                version=number,
                replaces=None if before is None else before.contract.digest,
                members=(replace(one.members[0], party=own), *one.members[1:]),
            )
        )

    return SimpleNamespace(folder=tmp_path, broker=tmp_path / "b", alice=alice, version=version)


def add(home, *, identity=None, passphrase=secret, **changes):
    asked = {
        "manifest": home.folder / "flights.manifest.json",
        "key": home.folder / "flights.key.age",
        **changes,
    }
    return owner.add_disk(
        home.broker, identity=identity or (lambda: home.alice), passphrase=passphrase, **asked
    )


def test_a_disk_is_added_with_its_key_and_taken_away_by_digest_or_by_manifest(home):
    manifest = add(home)
    assert manifest.name == "flights"
    assert [disk.manifest_digest for disk in broker.broker_status(home.broker)[1].disks] == [manifest.digest]
    for name in (manifest.digest, str(home.folder / "flights.manifest.json")):
        removed = owner.remove_disk(home.broker, name, passphrase=secret)
        assert removed.manifest_digest == manifest.digest
        assert record.parse(removed.proof.entry).kind is record.RecordKind.DISK_REMOVAL
        with pytest.raises(NotFound, match="has no disk"):
            owner.remove_disk(home.broker, name, passphrase=secret)
        add(home)


def test_a_wrong_file_is_named_before_anybody_is_asked(home):
    (home.folder / "junk").write_bytes(b"junk")
    for call in (
        lambda: add(home, manifest=home.folder / "junk", identity=nobody, passphrase=nobody),
        lambda: add(home, key=home.folder / "junk", passphrase=nobody),
        lambda: owner.remove_disk(home.broker, str(home.folder / "junk"), passphrase=nobody),
        lambda: owner.admit_contract(home.broker, home.folder / "junk", passphrase=nobody),
        lambda: owner.withdraw_contract(home.broker, str(home.folder / "junk"), passphrase=nobody),
    ):
        with pytest.raises(Malformed, match="junk"):
            call()
    stranger = age.seal((age.generate().recipient,), brokers.DISK_KEY)
    (home.folder / "flights.key.age").write_bytes(stranger)
    with pytest.raises(Refused, match=r"flights\.key\.age") as caught:
        add(home, passphrase=nobody)
    assert caught.value.code == "not-ours"


def test_a_public_disk_asks_for_no_identity_and_an_encrypted_one_needs_its_key(home):
    with pytest.raises(Misuse, match="a key was not given"):
        add(home, key=None, identity=nobody)
    (home.folder / "flights.manifest.json").write_bytes(brokers.manifest(home.alice, cipher="none"))
    assert add(home, key=None, identity=nobody).cipher == "none"
    with pytest.raises(Refused) as caught:
        add(home, key=None, passphrase=lambda: b"another")
    assert caught.value.code == "wrong-passphrase"


def test_contracts_are_admitted_in_order_and_withdrawn_for_good(home):
    first = home.version()
    second = home.version(2, first)
    third = home.version(3, second)
    paths = [home.folder / f"{number}.json" for number in (1, 2, 3)]
    for path, version in zip(paths, (first, second, third), strict=True):
        path.write_bytes(version.encode())
    admitted = owner.admit_contract(home.broker, paths[0], passphrase=secret)
    assert (admitted.contract, admitted.proof.index) == (first.contract, 0)
    with pytest.raises(Conflict, match="with all between"):
        owner.admit_contract(home.broker, paths[2], passphrase=secret)
    admitted = owner.admit_contract(home.broker, paths[2], earlier=[paths[1]], passphrase=secret)
    assert admitted.contract.version == 3
    proof = owner.withdraw_contract(home.broker, third.contract.digest, passphrase=secret)
    assert record.parse(proof.entry).kind is record.RecordKind.WITHDRAWAL
    (known,) = broker.broker_status(home.broker)[1].contracts
    assert known.withdrawn


def test_a_contract_that_the_owner_has_not_signed_is_not_admitted(home):
    (home.folder / "unsigned.json").write_bytes(agreement.draft(home.version().contract).encode())
    with pytest.raises(Refused) as caught:
        owner.admit_contract(home.broker, home.folder / "unsigned.json", passphrase=secret)
    assert caught.value.code == "not-ours"
    assert broker.broker_status(home.broker)[1].ledger_size == 0


def test_new_keys_are_written_into_the_owners_party_file_and_no_other(home):
    party_file = home.folder / "alice.party.json"
    before = papers.load_party(party_file)
    rotated = owner.rotate_keys(home.broker, identity=home.alice, party_file=party_file, passphrase=secret)
    assert papers.load_party(party_file) == rotated.party
    assert rotated.party.broker.pin != before.broker.pin
    assert rotated.party.broker.ledger_key == before.broker.ledger_key
    (home.folder / "bob.party.json").write_bytes(identity.generate("bob").party().encode())
    with pytest.raises(Misuse, match="is not alice's party file"):
        owner.rotate_keys(
            home.broker, identity=home.alice, party_file=home.folder / "bob.party.json", passphrase=nobody
        )


def serve(home, **changes):
    asked = {"passphrase": nobody, "endorser": None, "tell": print, "on_ready": print, "on_failure": print}
    serving.serve_broker(home.broker, **{**asked, **changes})


def test_nothing_is_served_nor_asked_for_where_something_is_wrong(home):
    with pytest.raises(Misuse, match="HOST:PORT"):
        serve(home, listen="nowhere")
    (home.folder / "note").write_bytes(b"\xff")
    with pytest.raises(Malformed, match="note"):
        serve(home, expect=home.folder / "note")
    with pytest.raises(NotFound, match="not a broker's folder"):
        serving.serve_broker(
            home.folder, passphrase=nobody, endorser=None, tell=print, on_ready=print, on_failure=print
        )
    with pytest.raises(Refused) as caught:
        serve(home, passphrase=lambda: b"another")
    assert caught.value.code == "wrong-passphrase"
    with broker.serving(home.broker, replica=False), pytest.raises(Conflict, match="another broker serves"):
        serve(home, passphrase=secret)


def test_an_endorser_keeps_in_the_brokers_folder_and_gives_vendors_less_time(home):
    endorser = serving.open_endorser(home.broker, offline=True)
    assert endorser.library.shelf.folder == home.broker / broker.ENDORSEMENTS
    assert (endorser.library.offline, endorser.library.client.total_seconds) == (True, 15.0)
    with pytest.raises(Misuse, match="--pccs"):
        serving.open_endorser(home.broker, pccs="http://pccs.example")
