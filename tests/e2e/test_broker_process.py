"""The broker as a real process: killed, raced, starved, stopped, restarted."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.api import budgets
from strongroom.api.broker import routes
from strongroom.authority import roots
from strongroom.broker import nonces
from strongroom.broker import settings as settings_model
from strongroom.crypto import tls, vault
from strongroom.ledger import checkpoint, proof
from strongroom.model import identity, messages, record
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting
from strongroom.store import sqlite
from strongroom.wiring import broker
from strongroom_testing import broker_process, brokers, https_client, ports, traces
from strongroom_testing.contracts import changed


@pytest.fixture
def prepared(tmp_path):
    return broker_process.prepare(tmp_path / "broker")


def release(prepared, client, room=None):
    room = room or prepared.room()
    nonce = prepared.challenge(client).nonce
    status, answer = client.request("POST", "/v1/releases", room.request(nonce))
    return room, nonce, status, answer


def counted(prepared):
    """Runs in the run table, releases in the ledger: they must always agree."""
    store = sqlite.open_store(prepared.directory / broker.DATABASE)
    try:
        size = store.ledger.size()
        entries = [record.parse(one) for one in store.ledger.leaves(0, size)]
        in_ledger = sum(one.kind is record.RecordKind.RELEASE for one in entries)
        in_table = sum(runs for _, _, runs, _ in store.runs_by_room())
        return in_table, in_ledger
    finally:
        store.close()


def test_rule_56_ready_means_ready_and_a_room_gets_its_keys(prepared):
    with broker_process.served(prepared), prepared.client() as client:
        assert client.json("GET", "/v1/health") == (200, {"ready": True})
        room, nonce, status, answer = release(prepared, client)
        assert status == 200
        parsed = messages.parse_release_answer(answer)
        assert list(room.open(parsed, nonce).values()) == [brokers.DISK_KEY]
        entry, _ = proof.verify(parsed.ledger, checkpoint_key(prepared))
        assert entry.kind is record.RecordKind.RELEASE
        status, answer = client.request("POST", "/v1/receipts", room.receipt(prepared.scene.now))
        assert status == 200
        proof.verify(messages.parse_ledger_proof(answer), checkpoint_key(prepared))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_owner_sees_each_entry_as_it_is_made(prepared, workers):
    with (
        broker_process.served(prepared, "--json", "--workers", workers) as process,
        prepared.client() as client,
    ):
        room, _, status, _ = release(prepared, client)
        assert status == 200
        assert client.request("POST", "/v1/releases", prepared.room().request(bytes(32)))[0] == 403
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
    by_kind = {one["event"]: one for one in told}
    entry = by_kind["entry"]
    assert (entry["decision"], entry["entry"], entry["run"]) == ("released", 0, room.keys.run_id)
    assert (entry["contract"]["id"], entry["peer"]) == ("flights", "127.0.0.1")
    assert [one["reason"] for one in by_kind["sum"]["kinds"]] == ["nonce.fresh"]


def test_a_broker_whose_lines_nobody_reads_serves_on(prepared):
    """The pipe to its reader is full, then closed."""
    with broker_process.served(prepared) as process, prepared.client() as client:
        for _ in range(4):
            assert release(prepared, client)[2] == 200
        process.stdout.close()
        for _ in range(4):
            assert release(prepared, client)[2] == 200
        assert process.poll() is None


def checkpoint_key(prepared):
    from strongroom.crypto import sign

    return sign.VerifyingKey(prepared.settings.address.ledger_key)


def test_a_relying_party_asks_for_a_result_and_reads_it(prepared, tmp_path, capsys):
    from strongroom.cli.evidence import result as verb
    from strongroom.errors import NotFound, Refused

    party, token = tmp_path / "alice.party.json", tmp_path / "result.jwt"
    party.write_bytes(prepared.settings.party.encode())
    asked = {"audience": "database", "nonce": "ab" * 16}
    with broker_process.served(prepared), prepared.client() as client:
        room, _, status, _ = release(prepared, client)
        assert status == 200
        verb.ask(party, room.keys.run_id, **asked, out=token)
        with pytest.raises(NotFound):
            verb.ask(party, "run-" + "0" * 32, **asked, out=tmp_path / "other.jwt")
    assert room.keys.run_id in capsys.readouterr().out
    # Genuine, for us, under our contract, and of a room that no hardware stands behind.
    with pytest.raises(Refused, match="not affirmed: hardware") as caught:
        verb.verify(token, trust=party, policy=prepared.agreement.contract.digest, **asked)
    assert caught.value.code == "token-not-affirming"


def test_tls_1_3_with_the_pinned_key_only_and_no_tickets(prepared):
    with broker_process.served(prepared), prepared.client() as client:
        assert client.socket.version() == "TLSv1.3"
        client.request("GET", "/v1/health")
        assert client.socket.session is None or not client.socket.session.has_ticket
        pin = https_client.spki_pin(client.socket.getpeercert(binary_form=True))
        assert pin == prepared.settings.address.pin
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection((prepared.settings.host, prepared.settings.port)) as raw,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(raw)


@pytest.mark.parametrize(("moment", "kept"), [("after-commit", 1), ("in-transaction", 0)])
def test_rule_53_killed_between_decision_and_answer(prepared, moment, kept):
    """After the commit a run is used up and recorded; before it nothing happened. Never in between."""
    kill = {"program": broker_process.FAULTY, "STRONGROOM_TEST_KILL_AT": moment}
    with broker_process.served(prepared, **kill) as process, prepared.client() as client:
        room = prepared.room()
        nonce = prepared.challenge(client).nonce
        body = room.request(nonce)
        with pytest.raises((ConnectionError, ssl.SSLError, OSError)):
            client.request("POST", "/v1/releases", body)
        assert process.wait(60) == -signal.SIGKILL
    assert counted(prepared) == (kept, kept)
    with broker_process.served(prepared), prepared.client() as client:
        status, answer = client.request("POST", "/v1/releases", body)
        if kept:
            # The nonce is gone: the same request is not released a second time.
            assert status == 403
            assert "nonce.fresh" in json.loads(answer)["error"]["message"]
        else:
            assert status == 200
        assert release(prepared, client)[2] == 200
        note = client.request("GET", "/v1/ledger/checkpoint")[1].decode()
        assert checkpoint.verify(note, checkpoint_key(prepared)).size == 2
    assert counted(prepared) == (2, 2)


def test_rule_53_killed_at_random_under_load(prepared):
    """Whatever was answered is recorded; whatever is recorded is counted."""
    answered = []
    for more in (1, 7, 40):
        goal = len(answered) + more
        with broker_process.served(prepared) as process:
            stop = threading.Event()

            def load(stop=stop):
                try:
                    with prepared.client() as client:
                        while not stop.is_set():
                            room, _, status, answer = release(prepared, client)
                            if status == 200:
                                answered.append((room.keys.run_id, messages.parse_release_answer(answer)))
                except (OSError, AssertionError):
                    pass

            threads = [threading.Thread(target=load) for _ in range(6)]
            for one in threads:
                one.start()
            deadline = time.monotonic() + 60
            while len(answered) < goal and time.monotonic() < deadline:
                time.sleep(0.001)
            process.kill()
            process.wait(60)
            stop.set()
            for one in threads:
                one.join()
    table, ledger = counted(prepared)
    assert table == ledger >= len(answered) >= 48
    store = sqlite.open_store(prepared.directory / broker.DATABASE)
    for run, answer in answered:
        assert [entry for _, entry in store.ledger.of_run(run)] == [answer.ledger.entry]
        note = checkpoint.parse(answer.ledger.checkpoint)
        from strongroom.ledger import merkle

        assert merkle.root(store.ledger, note.size) == note.root  # no signed view was ever taken back
    store.close()


@pytest.mark.parametrize("attempt", range(3))
def test_thirty_two_rooms_race_for_the_last_run_and_one_wins(tmp_path, attempt):
    prepared = broker_process.prepare(tmp_path / "broker", runs=1)
    with broker_process.served(prepared):
        gate = threading.Barrier(32)
        statuses = []

        def racer():
            with prepared.client() as client:
                room = prepared.room()
                body = room.request(prepared.challenge(client).nonce)
                gate.wait(60)
                statuses.append(client.request("POST", "/v1/releases", body)[0])

        threads = [threading.Thread(target=racer) for _ in range(32)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert sorted(statuses) == [200] + [403] * 31
    assert counted(prepared) == (1, 1)


def test_rule_18_two_replica_processes_accept_a_nonce_once_between_them(prepared):
    second = f"127.0.0.1:{ports.free()}"
    host, port = second.split(":")
    with (
        broker_process.served(prepared, "--replica"),
        broker_process.served(prepared, "--replica", "--listen", second),
        prepared.client() as one,
        https_client.Client(host, int(port), pin=prepared.settings.address.pin) as two,
    ):
        for _ in range(10):
            nonce = prepared.challenge(one).nonce
            statuses = []

            def ask(client, body, statuses=statuses):
                statuses.append(client.request("POST", "/v1/releases", body)[0])

            threads = [
                threading.Thread(target=ask, args=(client, prepared.room().request(nonce)))
                for client in (one, two)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(statuses) == [200, 403]
    assert counted(prepared) == (10, 10)


def workers_of(process):
    return [int(one) for one in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_rule_53_every_worker_is_killed_in_turn_and_nothing_is_lost_or_counted_twice(prepared):
    """Whatever was answered is recorded, by whichever worker; the dead are replaced; SIGTERM ends them all."""
    answered, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            with contextlib.suppress(OSError, AssertionError, ValueError), prepared.client() as client:
                while not stop.is_set():
                    room, _, status, answer = release(prepared, client)
                    if status == 200:
                        answered.append((room.keys.run_id, messages.parse_release_answer(answer)))

    def more(count, seconds=60):
        goal, deadline = len(answered) + count, time.monotonic() + seconds
        while len(answered) < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(answered) >= goal

    with broker_process.served(prepared, "--workers", "2") as process:
        first = workers_of(process)
        assert len(first) == 2
        threads = [threading.Thread(target=load) for _ in range(6)]
        for one in threads:
            one.start()
        more(10)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
            more(10)
        deadline = time.monotonic() + 60
        while len(workers_of(process)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(set(workers_of(process)) - set(first)) == 2
        more(20)
        stop.set()
        for one in threads:
            one.join()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    table, ledger = counted(prepared)
    assert table == ledger >= len(answered) >= 50
    store = sqlite.open_store(prepared.directory / broker.DATABASE)
    for run, answer in answered:
        assert [entry for _, entry in store.ledger.of_run(run)] == [answer.ledger.entry]
    store.close()


def test_workers_end_with_their_supervisor_and_do_not_share_an_address(prepared):
    with broker_process.served(prepared, "--workers", "2") as process:
        workers = workers_of(process)
        other = broker_process.prepare(prepared.directory.parent / "other")
        address = f"{prepared.settings.host}:{prepared.settings.port}"
        with (
            pytest.raises(AssertionError, match="address-taken"),
            broker_process.served(other, "--workers", "2", "--listen", address),
        ):
            pass
        process.kill()
        process.wait(60)
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_second_server_on_one_folder_is_refused(prepared):
    with (
        broker_process.served(prepared),
        pytest.raises(AssertionError, match="already-serving"),
        broker_process.served(prepared, "--listen", f"127.0.0.1:{ports.free()}"),
    ):
        pass


def test_sigterm_ends_it_cleanly_and_a_restart_remembers(prepared):
    with broker_process.served(prepared) as process:
        with prepared.client() as client:
            assert release(prepared, client)[2] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    assert not (prepared.directory / "broker.db-wal").exists()  # folded into the file
    with broker_process.served(prepared), prepared.client() as client:
        note = client.request("GET", "/v1/ledger/checkpoint")[1].decode()
        assert checkpoint.verify(note, checkpoint_key(prepared)).size == 1


def test_rule_59_slow_and_silent_clients_do_not_stop_others(prepared):
    slow = []
    with broker_process.served(prepared) as process:
        for _ in range(100):
            slow.append(socket.create_connection((prepared.settings.host, prepared.settings.port)))
        for _ in range(40):
            client = prepared.client()
            client.socket.sendall(b"POST /v1/releases HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
            slow.append(client)
        for _ in range(40):
            client = prepared.client()
            client.socket.sendall(b"POST /v1/rel")
            slow.append(client)
        with prepared.client() as client:  # while those others are there
            assert release(prepared, client)[2] == 200
        assert process.poll() is None
        for one in slow:
            one.close()


def test_rule_59_endless_headers_are_cut_off(prepared):
    with broker_process.served(prepared), prepared.client() as client:

        def endless():
            client.socket.sendall(b"GET /v1/health HTTP/1.1\r\n")
            for _ in range(200):
                client.socket.sendall(b"X-Filler: " + b"a" * 4000 + b"\r\n")
                time.sleep(0.002)
            client.receive()

        with pytest.raises((ConnectionError, ssl.SSLError)):
            endless()


def test_rule_59_an_oversize_body_is_refused_before_it_is_read(prepared):
    with broker_process.served(prepared), prepared.client() as client:
        head = b"POST /v1/releases HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
        client.socket.sendall(head)
        status, answer = client.receive()
        assert status == 413
        assert json.loads(answer)["error"]["code"] == "too-large"
        assert client.socket.recv(10) == b""  # and the connection is closed


def test_junk_on_the_port_prints_nothing_and_breaks_nothing(prepared):
    with broker_process.served(prepared) as process:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(500), b"\x16\x03\x01" + bytes(200), b""):
            with socket.create_connection((prepared.settings.host, prepared.settings.port)) as raw:
                raw.sendall(junk)
        for junk in (
            b"\0" * 100,
            b"PRI * HTTP/2.0\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"x y z\r\n\r\n",
        ):
            with prepared.client() as client:
                client.socket.sendall(junk)
        with prepared.client() as client:
            assert release(prepared, client)[2] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()


def secrets_of(prepared):
    """Every private key and passphrase that the broker or its owner has."""
    opened = settings_model.unlock(prepared.settings, brokers.PASSPHRASE)
    alice = prepared.scene.alice
    private = {
        "tls key": tls.load(opened.tls),
        **{f"{root.state} root's key": root.signer.key.key for root in opened.roots},
    }
    scalars = {name: key.private_numbers().private_value.to_bytes(32, "big") for name, key in private.items()}
    return {
        "passphrase": brokers.PASSPHRASE,
        "disk key": brokers.DISK_KEY,
        "master key": vault.unlock(
            brokers.PASSPHRASE, prepared.settings.master, purpose=settings_model._PURPOSE
        ),
        "ledger key": opened.ledger.raw,
        "issuers' secret": opened.at_rest.mac_key(roots.PURPOSE),
        "nonce key": opened.at_rest.mac_key(nonces.PURPOSE),
        "alice's signing key": alice.signing.raw,
        "alice's age key": alice.age.text.removeprefix("AGE-SECRET-KEY-1").encode(),
        **scalars,
    }


def every_answer(prepared, client):
    """Bodies of all routes by what was asked: with what is due, with nothing, and with what is not due."""
    answers = {}

    def ask(what, method, path, body=b""):
        status, answers[what] = client.request(method, path, body)
        return status, answers[what]

    room, _, status, answers["release"] = release(prepared, client)
    assert status == 200
    stranger = prepared.room()
    stranger.agreement = replace(
        prepared.agreement, envelope=replace(prepared.agreement.envelope, signatures=())
    )
    _, _, status, answers["denial"] = release(prepared, client, stranger)
    assert status == 403
    assert ask("receipt", "POST", "/v1/receipts", room.receipt(prepared.scene.now))[0] == 200
    for row in routes.ROUTES:
        path = row.path.replace("{path:path}", "0/000").replace("{run}", room.keys.run_id)
        for query in ("", "?index=0&size=1", "?from=1&to=2", f"?audience=database&nonce={'ab' * 16}"):
            ask(f"{row.name}{query}", row.method, path + query)
        if row.method == "POST":
            ask(f"{row.name} of junk", row.method, row.path, b'{"nonce": "?"}')
    ask("no route", "GET", "/v1/keys")
    return answers


def test_rule_51_the_passphrase_and_keys_are_nowhere_to_be_seen(prepared):
    """Raw, in hexadecimal and in base64, whole or by fifteen bytes: see strongroom_testing/traces.py."""
    places = {}
    with broker_process.served(prepared) as process, prepared.client() as client:
        places |= every_answer(prepared, client)
        for name in ("cmdline", "environ", "comm", "status"):
            places[name] = Path(f"/proc/{process.pid}/{name}").read_bytes()
        assert b"PATH=" in places["environ"]  # what it was started with shows there
        for path in prepared.directory.rglob("*"):  # with the write-ahead log
            if path.is_file():
                places[f"{path.name} while it serves"] = path.read_bytes()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core"))
        assert core.split()[4:6] == ["0", "0"]
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        places["standard output"], places["standard error"] = process.stdout.read(), process.stderr.read()
    for path in prepared.directory.rglob("*"):
        if path.is_file():
            places[path.name] = path.read_bytes()
    store = sqlite.open_store(prepared.directory / broker.DATABASE)
    places["ledger"] = b"\n".join(store.ledger.leaves(0, store.ledger.size()))
    store.close()
    assert {"release", "denial", "broker.db", "broker.db-wal while it serves", "ledger"} <= places.keys()
    assert traces.shown(secrets_of(prepared), places) == []
    assert [name for name, data in places.items() if b"PRIVATE KEY" in data] == []
    assert [name for name, data in places.items() if b"AGE-SECRET-KEY" in data] == []


def test_a_wrong_passphrase_is_refused(prepared):
    environment = {**os.environ, "STRONGROOM_PASSPHRASE": "wrong"}
    command = [sys.executable, *broker_process.SERVE, str(prepared.directory)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 3
    assert b"wrong-passphrase" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.root
def test_rule_52_disk_full_releases_nothing_and_recovers(tmp_path):
    """A real full file system under the broker's database."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(mount)], check=True)
    try:
        prepared = broker_process.prepare(mount / "broker")
        with broker_process.served(prepared), prepared.client() as client:
            assert release(prepared, client)[2] == 200
            filler = mount / "filler"
            with filler.open("wb", buffering=0) as full, contextlib.suppress(OSError):
                while True:
                    full.write(bytes(4096))
            statuses, failure = [], b""
            for _ in range(400):
                # Pages that are free within the database's own files are used up first.
                status, answer = client.request(
                    "POST",
                    "/v1/challenges",
                    messages.encode_challenge_request(prepared.agreement.contract.digest),
                )
                if status == 200:
                    nonce = messages.parse_challenge(answer).nonce
                    status, answer = client.request("POST", "/v1/releases", prepared.room().request(nonce))
                statuses.append(status)
                if status != 200:
                    failure = answer
                    break
            assert statuses[-1] == 503
            assert json.loads(failure)["error"]["code"] == "disk-full"
            client.close()
            released = 1 + statuses.count(200)
            with prepared.client() as other:
                status, health = other.json("GET", "/v1/health")
                assert (status, health) == (503, {"ready": False, "why": "disk-full"})
            filler.unlink()
            with prepared.client() as other:
                assert release(prepared, other)[2] == 200
                assert other.json("GET", "/v1/health") == (200, {"ready": True})
        assert counted(prepared) == (released + 1, released + 1)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_rule_47_a_restored_backup_is_not_served_against_a_witness(prepared, tmp_path):
    backup = tmp_path / "backup"
    shutil.copytree(prepared.directory, backup)
    with broker_process.served(prepared), prepared.client() as client:
        assert release(prepared, client)[2] == 200
        witnessed = tmp_path / "witnessed"
        witnessed.write_bytes(client.request("GET", "/v1/ledger/checkpoint")[1])
    with broker_process.served(prepared, "--expect", str(witnessed)):
        pass
    shutil.rmtree(prepared.directory)
    shutil.copytree(backup, prepared.directory)
    with (
        pytest.raises(AssertionError, match="restored-backup"),
        broker_process.served(prepared, "--expect", str(witnessed)),
    ):
        pass


def test_a_damaged_database_is_said_to_be_damaged(prepared):
    file = prepared.directory / broker.DATABASE
    file.write_bytes(b"SQLite format 3\0" + os.urandom(8192))
    with pytest.raises(AssertionError, match="store-"), broker_process.served(prepared):
        pass


def test_the_database_is_ordinary_sqlite(prepared):
    raw = sqlite3.connect(prepared.directory / broker.DATABASE)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


def test_a_strangers_contract_leaves_no_trace_over_the_network(prepared, tmp_path):
    """mallory alone owns, signs and approves; alice's public party file stands in it as the auditor's."""
    mallory = identity.generate("mallory")
    owner = contract_model.Member(party=mallory.party(), role=contract_model.Role.DATA_OWNER)
    auditor = contract_model.Member(party=prepared.settings.party, role=contract_model.Role.AUDITOR)

    def usurping(version):
        one = prepared.agreement.contract
        drawn = changed(
            one,
            version=version,
            replaces=None if version == 1 else one.digest,
            members=(owner, auditor),
            image=replace(one.rooms[0].image, owner="mallory"),
            datasets=(replace(one.rooms[0].datasets[0], owner="mallory"),),
            outputs=(replace(one.rooms[0].outputs[0], recipients=("mallory",)),),
            approvals=contract_model.Approvals(parties=("mallory",), threshold=1),
        )
        draft = agreement_model.draft(contract_model.parse(drafting.encode(drawn)))
        return agreement_model.add_signature(draft, mallory.signing)

    with broker_process.served(prepared), prepared.client() as client:
        assert release(prepared, client)[2] == 200
        _, before = client.request("GET", "/v1/ledger/checkpoint")
        for version in (1, 2, 1_000_000):
            theirs = replace(prepared, agreement=usurping(version))
            room, nonce = theirs.room(), theirs.challenge(client).nonce
            status, answer = client.request("POST", "/v1/releases", room.request(nonce, names=brokers.NAMES))
            denial = brokers.parse_denial(answer)
            assert status == 403
            assert [one["name"] for one in denial.verdict["checks"]] == ["own.signature"]
            assert denial.ledger is None
        _, after = client.request("GET", "/v1/ledger/checkpoint")
        assert after == before
        assert release(prepared, client)[2] == 200
    _, told = broker.broker_status(prepared.directory)
    assert [one.digest for one in told.contracts] == [prepared.agreement.contract.digest]
    assert [(one.used, one.receipts) for one in told.contracts] == [(2, 0)]


def test_rule_59_one_address_takes_no_more_than_its_share_of_the_connections(prepared):
    """A stranger opens as many as there may be, and says nothing; who comes from elsewhere is served."""
    host, port = prepared.settings.host, prepared.settings.port
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def connect(source):
        return context.wrap_socket(socket.create_connection((host, port), 30, source_address=(source, 0)))

    limits = budgets.ConnectionBudgets()
    with broker_process.served(prepared), contextlib.ExitStack() as opened:
        for _ in range(limits.connections // limits.share + 20):
            with contextlib.suppress(OSError):
                opened.enter_context(contextlib.closing(connect("127.0.0.1")))
        refused = opened.enter_context(socket.create_connection((host, port), 30))
        assert refused.recv(100) == b"", "closed before it costs a handshake"
        other = opened.enter_context(contextlib.closing(connect("127.0.0.2")))
        other.sendall(b"GET /v1/health HTTP/1.1\r\nHost: broker\r\n\r\n")
        assert other.recv(100).startswith(b"HTTP/1.1 200 ")


def test_rule_59_a_thousand_connections_that_say_nothing_use_up_no_files(prepared):
    """Most systems give a process 1,024 open files, until it asks for more."""
    host, port = prepared.settings.host, prepared.settings.port
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        opened.enter_context(broker_process.served(prepared))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
        for at in range(1100):
            source = (f"127.0.1.{1 + at // 100}", 0)
            opened.enter_context(socket.create_connection((host, port), 30, source_address=source))
        with prepared.client() as client:
            assert client.json("GET", "/v1/health") == (200, {"ready": True})


def test_rule_59_one_address_has_no_more_than_its_share_of_unfinished_handshakes(prepared):
    """Beyond it a connection is closed before it costs a handshake; who comes from elsewhere is served."""
    address = (prepared.settings.host, prepared.settings.port)
    limits = budgets.ConnectionBudgets(handshake_seconds=60)
    allowed = limits.handshakes // limits.handshake_share
    with broker_process.served(prepared), contextlib.ExitStack() as opened:
        silent = [
            opened.enter_context(socket.create_connection(address, 30, source_address=("127.0.0.3", 0)))
            for _ in range(allowed + 40)
        ]
        with prepared.client() as client:
            assert client.json("GET", "/v1/health") == (200, {"ready": True})
        closed, _, _ = select.select(silent, [], [], 5)
        assert len(closed) == 40
        assert all(one.recv(1) == b"" for one in closed)
