"""Attestation and receipts against a real broker (its use cases and database) behind a real TLS server."""

from __future__ import annotations

import base64
import os
import time
from dataclasses import replace

import pytest

from strongroom.agent import attest, finish, program
from strongroom.crypto import hpke, sign
from strongroom.encoding import canonical
from strongroom.errors import Malformed, PolicyDenied, Refused, Unavailable
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model.endorsements import Endorsements
from strongroom.model.receipt import Outcome, OutputRecord
from strongroom.model.room.agreed import Terms
from strongroom.model.room.channel import parse_start
from strongroom_testing import brokers, contracts
from tests.unit.agent.broker_side import settle, side


def test_keys_are_released_and_the_public_part_is_recorded(tmp_path):
    with side(tmp_path) as room:
        got = room.attest()
        assert got.disk_keys == {room.disk: brokers.DISK_KEY}
        assert len(got.answer.certificates) >= 1
        record = got.record()
        assert base64.b64encode(brokers.DISK_KEY) not in record
        assert b"sealed" not in record
        assert settle(room.node, "evidence-alice.json") == got.evidence.encode()
        assert str(brokers.DISK_KEY) not in repr(got)
        assert got.time(got.heard + 5) == got.moment.replace(second=got.moment.second + 5)


def test_a_denial_arrives_with_every_check(tmp_path):
    from strongroom_testing.vendors import fake_tpm

    other = replace(fake_tpm.RECORD, initrd=fake_tpm.digest("evil"))
    with side(tmp_path) as room, pytest.raises(PolicyDenied) as caught:
        room.attest(record=other)
    checks = caught.value.verdict
    assert any(not check.ok for check in checks)
    assert any(check.ok for check in checks)
    assert "denied by" in caught.value.message


def test_keys_for_other_disks_than_expected_are_refused(tmp_path):
    with side(tmp_path) as room, pytest.raises(Refused) as caught:
        room.attest(expected={"sha256:" + "0" * 64})
    assert caught.value.code == "wrong-keys"


def test_keys_sealed_under_another_binding_do_not_open(tmp_path):
    def twist(path, status, answer):
        if isinstance(answer, messages.ReleaseAnswer):
            keys = messages.encode_disk_keys({})
            answer = replace(answer, sealed=hpke.seal(hpke.generate().public, keys, info=b"other"))
        return status, answer.encode()

    with side(tmp_path, twist) as room, pytest.raises(Refused) as caught:
        room.attest()
    assert caught.value.code == "not-ours"


def elsewhere(proof):
    """A ledger of the same key, in which that entry stands at another place than is claimed."""
    return replace(proof, index=proof.index + 1)


def changed(proof):
    entry = canonical.loads(proof.entry, what="entry", max_bytes=1 << 20)
    entry["body"]["disks"] = []
    return replace(proof, entry=canonical.dumps(entry))


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("elsewhere", "ledger-proof"),
        ("changed", "ledger-proof"),
        ("another", "wrong-proof"),
        ("endorsements", "wrong-proof"),
    ],
)
def test_keys_of_a_release_that_is_not_in_the_brokers_ledger_do_not_count(tmp_path, lie, code):
    """A broker's operator would release, and have no record of it: the room asks for the record."""
    proofs = []

    def twist(path, status, answer):
        if isinstance(answer, messages.ReleaseAnswer):
            proofs.append(answer.ledger)
            told = {"elsewhere": elsewhere, "changed": changed}.get(lie, lambda _proof: proofs[0])
            answer = replace(answer, ledger=told(answer.ledger))
            if lie == "endorsements":  # others than it judged with: nobody could judge again
                answer = replace(answer, endorsements=Endorsements(parts={"vek": b"other"}))
        return status, answer.encode()

    with side(tmp_path, twist) as room:
        if lie == "another":  # the genuine proof of a release before this one
            assert room.attest().disk_keys
            room.keys = attest.make_keys()
        with pytest.raises(Refused) as caught:
            room.attest()
    assert caught.value.code == code


def test_nonsense_from_the_broker_is_no_crash(tmp_path):
    with (
        side(tmp_path, lambda path, status, answer: (500, b"<html>")) as room,
        pytest.raises(Unavailable, match="status 500 and no explanation"),
    ):
        room.attest()
    with (
        side(tmp_path, lambda path, status, answer: (200, b"[]")) as room,
        pytest.raises(Malformed, match="challenge: expected an object"),
    ):
        room.attest()


def make_terms(contract) -> Terms:
    disk = manifest_model.parse_envelope(brokers.manifest(brokers.owner()[0].alice))[1]
    return Terms(contract=contract, room=contract.rooms[0], image=disk, settings=None, datasets=(disk,))  # type: ignore[arg-type]


def ended(outcome=Outcome.EXITED, **changes):
    base = program.Ended(
        outcome=outcome, exit_status=3, details=(), started=time.monotonic(), ended=time.monotonic() + 2
    )
    return replace(base, **changes)


def test_receipt_is_signed_posted_and_proved(tmp_path):
    with side(tmp_path) as room:
        released = room.attest()
        record = OutputRecord(
            path="/out",
            sealed_digest="sha256:" + "1" * 64,
            sealed_bytes=5,
            content_commitment="sha256:" + "2" * 64,
        )
        made = finish.make_receipt(make_terms(room.contract), ended(), (record,), released)
        envelope = finish.sign_receipt(made, room.keys)
        post(room, envelope)
        proof = messages.parse_ledger_proof(settle(room.node, "receipt-alice.json"))
        assert base64.b64encode(envelope) in proof.entry
        assert made.run_id == room.keys.public.run_id
        assert abs((made.ended - made.started).total_seconds() - 2) <= 1
        assert (
            abs((made.started - released.moment).total_seconds()) < 60
        )  # the broker's time, not this machine's


def post(room, envelope, **options):
    finish.post_receipt(
        room.node.channel, room.contract, envelope, **{"parties": ("alice",), "wait_seconds": 0, **options}
    )


def signed_receipt(room, keys=None):
    made = finish.make_receipt(make_terms(room.contract), ended(), (), room.attest())
    return finish.sign_receipt(made, keys or room.keys)


def test_a_receipt_is_posted_until_the_contracts_time_is_up_and_the_broker_is_named(tmp_path):
    with side(tmp_path) as room:
        envelope = signed_receipt(room)
        room.node.routes.clear()
        now, pauses, failed, back = [1000.0], [], [], [room.server.address]

        def pause(seconds):
            pauses.append(seconds)
            now[0] += seconds
            if seconds == 8.0 and back:
                room.node.routes["alice"] = back.pop()

        post(room, envelope, wait_seconds=60, clock=lambda: now[0], pause=pause, on_failure=failed.append)
        assert (pauses, failed) == ([2.0, 4.0, 8.0], ["alice"])
        room.node.routes.clear()
        pauses.clear()
        with pytest.raises(Unavailable) as caught:
            post(room, envelope, wait_seconds=60, clock=lambda: now[0], pause=pause)
        assert caught.value.code == "receipt-not-recorded"
        assert "alice" in caught.value.message
        assert sum(pauses) == 60


def test_a_receipt_by_another_key_is_refused_by_the_broker_and_not_tried_again(tmp_path):
    with side(tmp_path) as room:
        thief = replace(room.keys, signing=sign.generate())
        with pytest.raises(Unavailable, match="receipt"):
            post(room, signed_receipt(room, thief), wait_seconds=1000, pause=lambda _: pytest.fail("waited"))


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: replace(proof, entry=proof.entry + b" "),
        lambda proof: replace(proof, entry=proof.entry.replace(b'"receipt"', b'"release"')),
        lambda proof: replace(proof, index=proof.index + 1),
        lambda proof: replace(proof, hashes=(*proof.hashes, bytes(32))),
        lambda proof: replace(proof, checkpoint=proof.checkpoint.replace("\n", "\n\n", 1)),
    ],
)
def test_a_proof_that_does_not_hold_is_no_record(tmp_path, change):
    def twist(path, status, answer):
        return status, (change(answer) if path == "/v1/receipts" else answer).encode()

    with side(tmp_path, twist) as room, pytest.raises(Unavailable) as caught:
        post(room, signed_receipt(room))
    assert caught.value.code == "receipt-not-recorded"
    assert "receipt-alice.json" not in room.node.files


def test_the_sound_proof_of_another_entry_is_no_record(tmp_path):
    kept = []

    def twist(path, status, answer):
        if path == "/v1/releases":
            kept.append(answer.ledger)
        return status, (kept[0] if path == "/v1/receipts" else answer).encode()

    with side(tmp_path, twist) as room, pytest.raises(Unavailable, match="proves another entry"):
        post(room, signed_receipt(room))


def test_errors_are_read_with_their_code_and_bounded():
    known = canonical.dumps({"error": {"code": "nonce-used", "message": "m", "hint": "h"}})
    assert isinstance(attest.read_error(403, known, "alice"), Refused)
    assert attest.read_error(403, known, "alice").code == "nonce-used"
    assert isinstance(attest.read_error(503, known, "alice"), Unavailable)
    for junk in (b"", b"{}", b'{"error": 1}', b'{"error": {"code": "x"}}', b"\xff"):
        assert attest.read_error(400, junk, "alice").code == "broker-error"


class Kept:
    """A channel that keeps what leaves."""

    def __init__(self) -> None:
        self.files = {}

    def send_file(self, name, content):
        self.files[name] = content

    def open_file(self, name):
        kept = self.files

        class Stream:
            def write(self, data):
                kept[name] = kept.get(name, b"") + data
                return len(data)

            def finish(self):
                return

        return Stream()


@pytest.fixture
def contract():
    scene = brokers.owner()[0]
    from strongroom.model.contracts.room_terms import Logs, Output

    outputs = (
        Output(path="/out/a", recipients=("bob",), max_bytes=1000),
        Output(path="/out/b", recipients=("alice", "bob"), max_bytes=20),
    )
    return scene.contract(
        lambda one: contracts.changed(one, outputs=outputs, logs=Logs(recipients=("alice",), max_bytes=100))
    )


def close(contract, end, folder, *, memory=1 << 30):
    """What reaches the node of a run that ended so: how it is told, the records, the files."""
    sealed = finish.seal(
        contract, contract.rooms[0], end, str(folder), memory=lambda: memory, random=os.urandom
    )
    kept = Kept()
    finish.send(kept, sealed)
    sealed.close()
    return sealed.ended, sealed.records, kept.files


def test_one_output_too_large_holds_back_all(tmp_path, contract):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_bytes(b"y" * 100)
    after, records, files = close(contract, ended(), tmp_path)
    assert (after.outcome, after.details, records) == (Outcome.OUTPUT_TOO_LARGE, ("output-bytes",), ())
    assert list(files) == ["log.age"]


def test_outputs_that_the_memory_cannot_hold_twice_stay(tmp_path, contract):
    for name in "ab":
        (tmp_path / name).mkdir()
    after, records, files = close(contract, ended(), tmp_path, memory=1 << 16)
    assert (after.outcome, after.details, records) == (Outcome.OUTPUT_TOO_LARGE, ("output-memory",), ())
    assert list(files) == ["log.age"]


def test_outputs_leave_for_their_own_recipients(tmp_path, contract):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode())
    (tmp_path / "a/link").symlink_to("/etc")
    after, records, files = close(contract, ended(), tmp_path)
    scene = brokers.owner()[0]
    assert [one.path for one in records] == ["/out/a", "/out/b"]
    assert b"b" in scene.alice.age.open(files["out-1.tar.age"])
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        scene.alice.age.open(files["out-0.tar.age"])
    assert after.details == ("entries-left-out",)


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.EXITED])
def test_nothing_leaves_of_a_program_that_did_not_end_by_itself(tmp_path, contract, outcome):
    _, records, files = close(contract, ended(outcome), tmp_path)
    assert records == ()
    assert set(files) <= {"log.age"}


def test_logs_leave_sealed_but_not_after_corruption(tmp_path, contract):
    corrupted = ended(Outcome.DATA_CORRUPTED, log=b"words")
    assert close(contract, corrupted, tmp_path)[2] == {}
    files = close(contract, ended(Outcome.TIMED_OUT, log=b"words"), tmp_path)[2]
    assert brokers.owner()[0].alice.age.open(files["log.age"]) == b"words"
    files = close(contracts.changed(contract, logs=None), ended(Outcome.TIMED_OUT, log=b"words"), tmp_path)[2]
    assert files == {}


@pytest.mark.parametrize("brought", [True, False])
def test_a_later_version_is_attested_with_the_ones_before_it(tmp_path, brought):
    with side(tmp_path) as one:
        first = one.agreement
        second = one.world.agreement(lambda drawn: replace(drawn, version=2, replaces=first.contract.digest))
        earlier = (first.encode(),) if brought else ()
        one.contract, one.start = (
            second.contract,
            replace(one.start, agreement=second.encode(), earlier=earlier),
        )
        assert parse_start(one.start.encode()) == one.start
        if brought:
            assert set(one.attest().disk_keys) == {one.disk}
            return
        with pytest.raises(PolicyDenied) as caught:
            one.attest()
        assert "contract.version" in {check.name for check in caught.value.verdict if not check.ok}
