"""What the owner does: add disks, admit versions; and the settings file with its secrets."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.api import server
from strongroom.broker import nonces
from strongroom.broker import settings as settings_model
from strongroom.broker.administration.add_key import add_key
from strongroom.broker.admit_contract import admit
from strongroom.crypto import aead
from strongroom.encoding import canonical
from strongroom.errors import Conflict, Malformed, Misuse, NotFound, Refused, Unavailable
from strongroom.ledger import proof
from strongroom.model import manifest as manifest_model
from strongroom.model import messages, record
from strongroom.seal import disk as sealed_disk
from strongroom.seal import folder
from strongroom.wiring import broker
from strongroom_testing import brokers, ports
from strongroom_testing.contracts import changed
from tests import samples


def add(world, manifest, key, disk=None):
    return asyncio.run(add_key(world.broker, manifest, key, disk=disk))


def test_a_public_disk_needs_no_key_and_gets_none(world):
    disk = brokers.manifest(world.scene.alice, name="open", cipher="none")
    parsed = add(world, disk, None)

    def over(one):
        return changed(one, datasets=(replace(one.rooms[0].datasets[0], manifest_digest=parsed.digest),))

    agreement = world.agreement(over)
    room = world.room(agreement)
    nonce = world.challenge(agreement).nonce
    answer = world.release(room.request(nonce))
    assert room.open(answer, nonce) == {}


def test_key_and_cipher_must_agree(world):
    with pytest.raises(Misuse, match="the disk's cipher is none, and a key was given"):
        add(world, brokers.manifest(world.scene.alice, cipher="none"), brokers.DISK_KEY)
    with pytest.raises(Misuse, match="the disk's cipher is aes-xts-plain64, and a key was not"):
        add(world, brokers.manifest(world.scene.alice), None)
    with pytest.raises(Misuse, match="the key has 5 bytes, expected 64"):
        add(world, brokers.manifest(world.scene.alice), b"short")


def test_the_key_of_another_disk_is_refused(world):
    disk = brokers.manifest(world.scene.alice, name="other", key=brokers.DISK_KEY)
    another = brokers.DISK_KEY[::-1]
    with pytest.raises(
        Refused, match=r"key\.check: this is not the key of the disk other: expected a key"
    ) as caught:
        add(world, disk, another)
    assert caught.value.code == "wrong-key"
    assert ".key.age" in caught.value.hint
    for secret in (another, brokers.DISK_KEY):
        assert secret.hex()[:16] not in caught.value.message
    assert world.store.read(lambda state: state.disks.find(brokers.manifest_digest(disk))) is None
    add(world, disk, brokers.DISK_KEY)


def test_without_a_check_value_the_key_is_tried_on_the_disk_itself(world, tmp_path):
    """Manifests of format 1 say nothing of the key."""
    key, another = brokers.DISK_KEY, brokers.DISK_KEY[::-1]
    target = tmp_path / "old.disk"
    made = sealed_disk.seal(
        folder.from_paths([world_file(tmp_path)]),
        kind="dataset", name="old", owner_key=world.scene.alice.signing, key=key, image=None, target=target,
    )  # fmt: skip
    first = manifest_model.parse(manifest_model.encode(replace(made, key_check=None)))
    envelope = sealed_disk.signed(first, world.scene.alice.signing).encode()
    with pytest.raises(Misuse, match=r"key\.check: the manifest of old is of a format without") as caught:
        add(world, envelope, key)
    assert caught.value.code == "key-unproved"
    assert "--disk" in caught.value.hint
    with pytest.raises(Refused, match="expected what is sealed in it, read with this key, got noise"):
        add(world, envelope, another, disk=target)
    data = bytearray(target.read_bytes())
    target.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(Refused, match="data block 0"):
        add(world, envelope, key, disk=target)
    target.write_bytes(data)
    assert add(world, envelope, key, disk=target).digest == first.digest


def world_file(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b")
    return tmp_path / "rows.csv"


def test_disks_of_others_are_refused(world):
    with pytest.raises(Refused, match="the disk 'flights' belongs to another identity"):
        add(world, brokers.manifest(world.scene.bob), brokers.DISK_KEY)


def test_a_manifest_that_the_owner_did_not_sign_is_refused(world):
    envelope, _ = manifest_model.parse_envelope(brokers.manifest(world.scene.alice))
    forged = replace(envelope.signatures[0], sig=world.scene.bob.signing.sign(envelope.pae()))
    for signatures in ((), (forged,), (forged, replace(forged, keyid="other"))):
        with pytest.raises(Refused, match="the owner has not signed this manifest"):
            add(world, replace(envelope, signatures=signatures).encode(), brokers.DISK_KEY)


def test_admitting_a_version_withdraws_lower_ones(world):
    first = world.agreement()
    assert isinstance(world.ask(first), messages.ReleaseAnswer)
    second = world.agreement(lambda c: replace(c, version=2, replaces=first.contract.digest))
    proved = asyncio.run(admit(world.broker, second.encode()))
    entry, _ = proof.verify(proved, world.broker.notary.public)
    assert entry.kind is record.RecordKind.CONTRACT
    assert entry.body == {"id": "flights", "version": 2}
    assert isinstance(world.ask(first), messages.DenialAnswer)
    with pytest.raises(Conflict, match=r"contract\.version: expected version 2, "):
        asyncio.run(admit(world.broker, first.encode()))
    clash = world.agreement(
        lambda c: changed(
            c,
            version=2,
            replaces=first.contract.digest,
            wall_seconds=99,
        )
    )
    with pytest.raises(Conflict, match=r"contract\.version: expected version 2, "):
        asyncio.run(admit(world.broker, clash.encode()))


def test_only_what_the_owner_signed_is_admitted(world):
    with pytest.raises(Refused, match=r"own.signature: expected a signature of"):
        asyncio.run(admit(world.broker, world.agreement(signers=("bob",)).encode()))


def make(passphrase=b"secret"):
    scene, _, _ = brokers.owner()
    return settings_model.make(
        scene.alice.party(),
        listen="127.0.0.1:8443",
        url="https://127.0.0.1:8443",
        passphrase=passphrase,
        now=datetime.now(UTC),
        random=secrets.token_bytes,
    )


def test_settings_open_with_their_passphrase_alone():
    made = settings_model.parse(make().encode())
    opened = settings_model.unlock(made, b"secret")
    assert opened.tls.pin == made.address.pin
    assert opened.ledger.public.raw == made.address.ledger_key
    with pytest.raises(Refused) as caught:
        settings_model.unlock(made, b"Secret")
    assert caught.value.code == "wrong-passphrase"


def test_rule_46_secrets_do_not_open_under_another_name_owner_or_purpose():
    made = settings_model.parse(make().encode())
    swapped = {**made.secrets, "tls": made.secrets["ledger"], "ledger": made.secrets["tls"]}
    with pytest.raises(Refused, match="the stored broker-secret does not open under this"):
        settings_model.unlock(replace(made, secrets=swapped), b"secret")
    root = replace(made.roots[0], key=made.secrets["tls"])
    with pytest.raises(Refused, match="the stored authority-root does not open under this"):
        settings_model.unlock(replace(made, roots=(root,)), b"secret")
    master = bytes(32)
    one = aead.AtRest(master, owner="alice")
    sealed = one.seal(b"x" * 64, purpose="disk-key", name="a", random=secrets.token_bytes)
    assert one.open(sealed, purpose="disk-key", name="a") == b"x" * 64
    for who, purpose, name, why in (
        ("bob", "disk-key", "a", "the stored disk-key does not open under this master key"),
        ("alice", "broker-secret", "a", "the stored broker-secret does not open under this"),
        ("alice", "disk-key", "b", "the stored disk-key does not open under this master key"),
    ):
        with pytest.raises(Refused, match=why):
            aead.AtRest(master, owner=who).open(sealed, purpose=purpose, name=name)
    with pytest.raises(Refused, match="the stored disk-key does not open under this master key"):
        aead.AtRest(bytes(31) + b"\x01", owner="alice").open(sealed, purpose="disk-key", name="a")


def test_rule_46_a_disk_key_moved_to_another_row_does_not_open(world):
    import sqlalchemy as sa

    from strongroom.store import schema

    key = brokers.DISK_KEY[::-1]
    other = brokers.manifest(world.scene.alice, name="other", key=key)
    add(world, other, key)
    digest, moved = brokers.manifest_digest(world.disk), brokers.manifest_digest(other)
    with world.store._reading.begin() as connection:
        key = connection.execute(
            sa.select(schema.disks.c.sealed_key).where(schema.disks.c.manifest == moved)
        ).scalar_one()
        connection.execute(
            sa.update(schema.disks).where(schema.disks.c.manifest == digest).values(sealed_key=key)
        )
    agreement = world.agreement()
    body = world.room(agreement).request(world.challenge(agreement).nonce)
    with pytest.raises(Refused, match="the stored disk-key does not open under this master key"):
        world.release(body)
    assert world.store.ledger.size() == 0


@pytest.mark.parametrize("key", ["format", "listen", "party", "certificate", "roots", "master", "secrets"])
def test_settings_are_parsed_strictly(key):
    top = canonical.loads(make().encode(), what="test", max_bytes=1 << 20)
    lacking = {name: one for name, one in top.items() if name != key}
    for spoilt, why in (({**top, "more": 1}, "unknown key 'more'"), (lacking, f"key '{key}' is missing")):
        with pytest.raises(Malformed, match=why):
            settings_model.parse(canonical.dumps(spoilt))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda roots: [make().roots[0].to_json()], "root is not the one of the broker's address"),
        (lambda roots: [], "root is not the one of the broker's address"),
        (lambda roots: [{**roots[0], "state": "previous"}], "root is not the one of the broker's address"),
        (lambda roots: [*roots, *roots], "two roots of one state"),
        (lambda roots: [{**roots[0], "state": "old"}], "expected one of next, current, previous"),
    ],
)
def test_settings_with_roots_that_are_not_theirs_are_refused(changed, why):
    top = canonical.loads(make().encode(), what="test", max_bytes=1 << 20)
    top["roots"] = changed(top["roots"])
    with pytest.raises(Malformed, match=why):
        settings_model.parse(canonical.dumps(top))


def test_rule_51_no_secret_shows_in_a_repr():
    made = make()
    opened = settings_model.unlock(made, b"secret")
    kept = (made, opened, opened.tls, opened.ledger, opened.at_rest, opened.roots[0], opened.authority)
    for shown in map(repr, (*kept, opened.roots[0].signer, opened.roots[0].signer.key)):
        scalar = opened.roots[0].signer.key.key.private_numbers().private_value.to_bytes(32, "big")
        for secret in (opened.tls.der, opened.ledger.raw, scalar):
            assert repr(secret)[2:40] not in shown
            assert secret.hex()[:32] not in shown


def test_rule_51_files_are_private(tmp_path):
    scene, _, _ = brokers.owner()
    before = os.umask(0)
    try:
        broker.init_broker(
            tmp_path / "b",
            scene.alice.party(),
            listen="127.0.0.1:8443",
            url="https://127.0.0.1:8443",
            passphrase=b"x",
        )
        with broker.open_broker(tmp_path / "b", b"x"), broker.serving(tmp_path / "b", replica=False):
            modes = {one.name: one.stat().st_mode & 0o777 for one in (tmp_path / "b").iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700


def test_init_never_overwrites(tmp_path):
    scene, _, _ = brokers.owner()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Misuse, match="not empty"):
        broker.init_broker(
            tmp_path, scene.alice.party(), listen="127.0.0.1:1", url="https://a:1", passphrase=b"x"
        )
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_what_is_no_broker_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="not a broker's folder"):
        broker.read_settings(tmp_path)


@pytest.mark.parametrize("listen", ["", "localhost", ":1", "a:b", "a:70000", "a b:1", "http://a:1"])
def test_bad_listen_addresses(listen):
    with pytest.raises(Misuse, match="expected HOST:PORT"):
        settings_model.listen_parts(listen)


@pytest.mark.parametrize(
    ("host", "port", "url", "reached"),
    [
        ("127.0.0.1", 8443, None, "https://127.0.0.1:8443"),
        ("::1", 8443, None, "https://[::1]:8443"),
        ("0.0.0.0", 8443, "https://keys.example:443", "https://keys.example:443"),  # noqa: S104
    ],
)
def test_a_broker_is_reached_where_it_listens_or_where_one_says(host, port, url, reached):
    assert settings_model.url_of(host, port, url) == reached


EVERYWHERE = ("0.0.0.0", "0", "0.0", "00.0.0.0", "0x0", "::", "0:0::0", "::ffff:0:0")  # noqa: S104


@pytest.mark.parametrize("host", EVERYWHERE)
def test_no_broker_gets_an_address_that_stands_for_every_one(host):
    shown = f"[{host}]" if ":" in host else host
    for listening, url in ((host, None), ("127.0.0.1", f"https://{shown}:8443")):
        with pytest.raises(Misuse, match="stands for every address") as caught:
            settings_model.url_of(listening, 8443, url)
        assert caught.value.code == "no-address"
        assert "--url" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["http://a:1", "https://a", "https://a:0", "https://a:70000", "https://a:1/x"]
)
def test_a_url_that_no_room_can_use_is_refused_before_anything_is_made(url):
    with pytest.raises(Misuse, match="expected https://HOST:PORT"):
        settings_model.url_of("127.0.0.1", 1, url)


def test_another_passphrase_locks_the_same_keys():
    made = make()
    again = settings_model.relock(made, b"secret", b"another", random=secrets.token_bytes)
    assert (again.party, again.secrets, again.certificate) == (made.party, made.secrets, made.certificate)
    assert (
        settings_model.unlock(again, b"another").ledger.raw
        == settings_model.unlock(made, b"secret").ledger.raw
    )
    for spoilt in (
        lambda: settings_model.unlock(again, b"secret"),
        lambda: settings_model.relock(made, b"no", b"x", random=secrets.token_bytes),
    ):
        with pytest.raises(Refused) as caught:
            spoilt()
        assert caught.value.code == "wrong-passphrase"


def test_a_passphrase_is_changed_in_one_step(tmp_path, monkeypatch):
    scene, _, _ = brokers.owner()
    folder = tmp_path / "b"
    broker.init_broker(folder, scene.alice.party(), listen="127.0.0.1:1", url="https://a:1", passphrase=b"x")
    before = (folder / broker.SETTINGS).read_bytes()

    def fails(_fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="No space left"):
            broker.change_passphrase(folder, b"x", b"y")
    assert (folder / broker.SETTINGS).read_bytes() == before
    assert not list(folder.glob(".*.part"))
    broker.change_passphrase(folder, b"x", b"y")
    assert (folder / broker.SETTINGS).stat().st_mode & 0o777 == 0o600
    with broker.open_broker(folder, b"y"):
        pass
    with (
        pytest.raises(Refused, match="is another one than this was locked with"),
        broker.open_broker(folder, b"x"),
    ):
        pass


def test_rule_50_the_clock_never_goes_back():
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    clock = broker.SteadyClock(wall=wall, monotonic=100.0, floor=wall + timedelta(days=3))
    assert clock.at(100.0) == wall + timedelta(days=3)
    assert clock.at(50.0) == wall + timedelta(days=3)
    assert clock.at(160.0) == wall + timedelta(days=3, seconds=60)


def test_rule_50_a_host_clock_set_back_does_not_revive_a_nonce(tmp_path):
    with brokers.world(tmp_path) as world:
        agreement = world.agreement()
        world.challenge(agreement)
        world.clock.advance(timedelta(hours=5))
        latest = world.challenge(agreement)
        assert broker._latest(world.store) == latest.time
        # Between two writes of the time, nonces last no longer than until the next one.
        world.clock.advance(timedelta(seconds=9))
        later = world.challenge(agreement)
        assert later.time - broker._latest(world.store) < nonces.KEPT
        world.ask(agreement)
        assert broker._latest(world.store) == later.time


def test_rule_50_a_nonce_is_good_no_longer_by_a_clock_that_lags(tmp_path):
    """Two replicas, of which one is an hour ahead: whatever either gives out ends by the later clock."""
    with brokers.world(tmp_path) as behind, brokers.world(tmp_path) as ahead:
        agreement = behind.agreement()
        early = behind.challenge(agreement)
        ahead.clock.advance(timedelta(hours=1))
        ahead.challenge(agreement)
        answer = behind.release(behind.room(agreement).request(early.nonce))
        assert [check["name"] for check in answer.verdict["checks"] if not check["ok"]] == ["nonce.fresh"]
        # What it gives out after it has heard of the time is good.
        behind.clock.advance(nonces.KEPT)
        assert behind.challenge(agreement).time == ahead.clock.now
        assert isinstance(behind.ask(agreement), messages.ReleaseAnswer)


def test_one_server_a_folder_unless_all_are_replicas(tmp_path):
    with broker.serving(tmp_path, replica=False):
        for replica in (False, True):
            with (
                pytest.raises(Conflict, match="another broker serves this folder"),
                broker.serving(tmp_path, replica=replica),
            ):
                pass
    with (
        broker.serving(tmp_path, replica=True),
        broker.serving(tmp_path, replica=True),
        pytest.raises(Conflict, match="another broker serves this folder"),
        broker.serving(tmp_path, replica=False),
    ):
        pass


def test_rule_47_a_restored_backup_is_refused_against_a_witnessed_checkpoint(tmp_path):
    import shutil

    scene, _, _ = brokers.owner()
    folder, backup = tmp_path / "b", tmp_path / "backup"
    broker.init_broker(
        folder, scene.alice.party(), listen="127.0.0.1:1", url="https://127.0.0.1:1", passphrase=b"x"
    )

    def grow(opened, entry):
        asyncio.run(opened.store.write(lambda tx: tx.ledger.append(entry, run_id="")))
        ledger = opened.store.ledger
        return opened.broker.notary.checkpoint(ledger, ledger.size())

    with broker.open_broker(folder, b"x") as opened:
        early = grow(opened, record_bytes(1))
    shutil.copytree(folder, backup)
    with broker.open_broker(folder, b"x") as opened:
        witnessed = grow(opened, record_bytes(2))
        broker.expect_checkpoint(opened, early)
        broker.expect_checkpoint(opened, witnessed)
    with broker.open_broker(backup, b"x") as opened:
        broker.expect_checkpoint(opened, early)
        with pytest.raises(Refused, match="does not extend"):
            broker.expect_checkpoint(opened, witnessed)
        grow(opened, record_bytes(3))  # as long as the true one, but another
        with pytest.raises(Refused, match="does not extend"):
            broker.expect_checkpoint(opened, witnessed)


def record_bytes(version):
    return record.Record(
        kind=record.RecordKind.CONTRACT,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        broker="alice",
        contract_digest="sha256:" + "0" * 64,
        run_id="",
        body={"id": "x", "version": version},
    ).encode()


@pytest.mark.parametrize(
    ("given_out", "first", "last", "count"),
    [
        ("32768\t60999\n", 10_000, 65_535, 22_768 + 4_536),
        ("1024 9999", 10_000, 65_535, 55_536),
        ("1024 65000", 65_001, 65_535, 535),
    ],
)
def test_port_0_is_one_that_the_kernel_gives_to_nobody(given_out, first, last, count):
    ports = broker.ports_to_choose(given_out)
    assert (ports[0], ports[-1], len(ports)) == (first, last, count)
    given = range(*map(int, given_out.split()))
    assert not set(given) & set(ports)
    assert broker.ports_to_choose("1024 65535") == []


def made(folder, host="127.0.0.1"):
    return broker.set_up_broker(
        folder / "b",
        samples.ALICE.party(),
        listen=f"{host}:0",
        url="https://keys.example:443",
        party_file=folder / "alice.party.json",
        passphrase=lambda: b"secret",
    )


def test_a_chosen_port_is_kept_and_one_that_is_taken_is_not_chosen(tmp_path, monkeypatch):
    with server.bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(broker, "ports_to_choose", lambda _: [port])
        with pytest.raises(Unavailable, match=f"listening on 127.0.0.1:{port}") as caught:
            made(tmp_path)
        assert caught.value.code == "address-taken"
        assert not (tmp_path / "b").exists()
        free = ports.free()
        monkeypatch.setattr(broker, "ports_to_choose", lambda _: [port, free])
        made(tmp_path)
    assert broker.read_settings(tmp_path / "b").listen == f"127.0.0.1:{free}"


def test_where_the_kernel_gives_out_every_port_one_is_to_be_named(tmp_path, monkeypatch):
    monkeypatch.setattr(broker, "ports_to_choose", lambda _: [])
    with pytest.raises(Unavailable, match="gives out every port") as caught:
        made(tmp_path)
    assert (caught.value.code, "--listen HOST:PORT" in caught.value.hint) == ("address-taken", True)
