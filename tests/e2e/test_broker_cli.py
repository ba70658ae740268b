"""`strongroom broker …` as its owner types it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest

from strongroom.crypto import age
from strongroom.model import identity, party
from strongroom.model.contracts import agreement
from strongroom_testing import brokers, contracts
from tests import verbs

SECRET = "correct horse"


def strongroom(*words, ok=True, env=None, pass_fds=()):
    environment = {**os.environ, "STRONGROOM_PASSPHRASE": SECRET, **(env or {})}
    env = {name: value for name, value in environment.items() if value is not None}
    if pass_fds:
        done = subprocess.run(
            [*verbs.COMMAND, *map(str, words)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=60,
            pass_fds=pass_fds,
        )
    else:
        done = verbs.run(*words, env=env, timeout=60)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) is ok, done.stderr
    return done


@pytest.fixture
def home(tmp_path):
    """alice's identity, her broker's folder, her disk's manifest and key."""
    strongroom("identity", "new", "alice", "--out", tmp_path)
    alice = identity.unlock((tmp_path / "alice.identity").read_bytes(), SECRET.encode())
    (tmp_path / "flights.manifest.json").write_bytes(brokers.manifest(alice))
    (tmp_path / "flights.key.age").write_bytes(age.seal((alice.age.recipient,), brokers.DISK_KEY))
    strongroom(
        "broker", "init", tmp_path / "b", "--identity", tmp_path / "alice.identity", "--listen", "127.0.0.1:0"
    )
    return tmp_path, alice


def test_init_writes_the_address_into_the_party_file(home):
    folder, alice = home
    written = party.parse((folder / "alice.party.json").read_bytes())
    assert written.signing_key == alice.signing.public
    assert written.broker is not None
    assert written.broker.url.startswith("https://127.0.0.1:")
    assert 0 < written.broker.port < 65536
    shown = strongroom("identity", "show", folder / "alice.party.json").stdout
    assert written.broker.url in shown


def test_init_twice_is_refused_and_changes_nothing(home):
    folder, _ = home
    before = (folder / "alice.party.json").read_bytes()
    done = strongroom("broker", "init", folder / "b", "--identity", folder / "alice.identity", ok=False)
    assert done.returncode == 2
    assert "hint:" in done.stderr
    assert (folder / "alice.party.json").read_bytes() == before


def test_add_key_admit_and_status(home):
    folder, alice = home
    added = strongroom(
        "broker",
        "add-key",
        folder / "b",
        folder / "flights.manifest.json",
        folder / "flights.key.age",
        "--identity",
        folder / "alice.identity",
    )
    assert "with its key" in added.stdout
    scene = contracts.Scene(
        tpm=contracts.fake_tpm.FakeTpm(now=contracts.NOW),
        alice=alice,
        bob=identity.generate("bob"),
        now=contracts.NOW,
    )
    own = party.parse((folder / "alice.party.json").read_bytes())

    def with_broker(one):
        return replace(one, members=(replace(one.members[0], party=own), *one.members[1:]))

    deal = scene.agreement(with_broker)
    (folder / "contract.json").write_bytes(deal.encode())
    assert (
        "version 1: admitted" in strongroom("broker", "admit", folder / "b", folder / "contract.json").stdout
    )
    told = json.loads(strongroom("broker", "status", folder / "b", "--json").stdout)
    assert told["party"] == "alice"
    assert told["ledger_size"] == 1
    (known,) = told["contracts"]
    assert (known["id"], known["version"], known["digest"]) == ("flights", 1, deal.contract.digest)
    assert (known["runs_used"], known["runs_left"]) == (0, deal.contract.limits.runs)
    assert [(disk["cipher"], disk["key"]) for disk in told["disks"]] == [("aes-xts-plain64", True)]
    assert told["denials"] == told["earlier_versions"] == []
    assert "ledger: 1 entries" in strongroom("broker", "status", folder / "b").stdout
    bare = agreement.draft(deal.contract)
    (folder / "unsigned.json").write_bytes(bare.encode())
    refused = strongroom("broker", "admit", folder / "b", folder / "unsigned.json", ok=False)
    assert refused.returncode == 3
    assert "not-ours" in refused.stderr
    # A later version brings the one between along, or is not admitted.
    second = scene.agreement(lambda one: replace(with_broker(one), version=2, replaces=deal.contract.digest))
    third = scene.agreement(lambda one: replace(with_broker(one), version=3, replaces=second.contract.digest))
    (folder / "second.json").write_bytes(second.encode())
    (folder / "third.json").write_bytes(third.encode())
    skipping = strongroom("broker", "admit", folder / "b", folder / "third.json", ok=False)
    assert skipping.returncode == 6
    assert "--earlier" in skipping.stderr
    earlier = ("--earlier", folder / "second.json")
    done = strongroom("broker", "admit", folder / "b", folder / "third.json", *earlier)
    assert "version 3: admitted" in done.stdout


def test_add_key_without_the_key_of_an_encrypted_disk_is_refused(home):
    folder, _ = home
    done = strongroom(
        "broker",
        "add-key",
        folder / "b",
        folder / "flights.manifest.json",
        "--identity",
        folder / "alice.identity",
        ok=False,
    )
    assert done.returncode == 2
    assert "cipher" in done.stderr


def test_add_key_with_somebody_elses_key_file_is_refused(home):
    folder, _ = home
    (folder / "flights.key.age").write_bytes(age.seal((age.generate().recipient,), brokers.DISK_KEY))
    done = strongroom(
        "broker",
        "add-key",
        folder / "b",
        folder / "flights.manifest.json",
        folder / "flights.key.age",
        "--identity",
        folder / "alice.identity",
        ok=False,
    )
    assert done.returncode == 3
    assert "not-ours" in done.stderr


def test_rule_51_the_passphrase_comes_by_descriptor_and_never_by_argument(home):
    folder, _ = home
    read, write = os.pipe()
    os.write(write, b"wrong")
    os.close(write)
    done = strongroom("broker", "serve", folder / "b", "--passphrase-fd", read, ok=False, pass_fds=(read,))
    os.close(read)
    assert done.returncode == 3
    assert "wrong-passphrase" in done.stderr
    done = strongroom("broker", "serve", folder / "b", "--passphrase", "x", ok=False)
    assert done.returncode == 2
    done = strongroom("broker", "serve", folder / "b", ok=False, env={"STRONGROOM_PASSPHRASE": None})
    assert done.returncode == 2
    assert "nobody to ask" in done.stderr


@pytest.mark.parametrize("verb", [("serve",), ("status",)])
def test_a_folder_that_is_no_broker(tmp_path, verb):
    done = strongroom("broker", *verb, tmp_path, ok=False)
    assert done.returncode == 5
    assert "strongroom broker init" in done.stderr


def test_a_taken_address_is_said_to_be_taken(home):
    import socket

    folder, _ = home
    address = party.parse((folder / "alice.party.json").read_bytes()).broker
    with socket.create_server((address.host, address.port)):
        done = strongroom("broker", "serve", folder / "b", ok=False)
    assert done.returncode == 4
    assert "address-taken" in done.stderr
