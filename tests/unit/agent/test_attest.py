"""Attestation and receipts against a real broker (its use cases and database) behind a real TLS server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from dataclasses import replace

import pytest

from strongroom import errors
from strongroom.agent import attest, closing, program
from strongroom.agent.agreed import Terms
from strongroom.broker.challenge import challenge
from strongroom.broker.receipt import receipt
from strongroom.broker.release import release
from strongroom.crypto import hpke, sign
from strongroom.encoding import canonical
from strongroom.errors import Malformed, PolicyDenied, Refused, StrongroomError, Unavailable
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model.channel import Start, parse_start
from strongroom.model.endorsements import NONE
from strongroom.model.receipt import Outcome, OutputRecord
from strongroom_testing import brokers
from tests.unit.agent.node_end import NodeEnd, TlsServer


class FakeHardware:
    """The scene's fake TPM in the place of the room's."""

    brought = NONE

    def __init__(self, tpm, **options) -> None:
        self.tpm, self.options = tpm, options

    def evidence(self, binding, start):
        return self.tpm.evidence(binding, **self.options)


class Side:
    def __init__(self, world, node, server) -> None:
        self.world, self.node, self.server = world, node, server
        self.agreement = world.agreement()
        self.contract = self.agreement.contract
        self.start = Start(agreement=self.agreement.encode(), launch_record=b"", issuers=b"", manifests={})
        self.keys = attest.make_keys()
        self.disk = brokers.manifest_digest(world.disk)

    def attest(self, *, expected=None, **evidence):
        hardware = FakeHardware(self.world.scene.tpm, **evidence)
        return attest.attest(
            self.node.channel,
            hardware,
            self.start,
            self.contract,
            self.keys,
            "alice",
            expected or {self.disk},
        )


STATUS = {errors.Malformed: 400, errors.Refused: 403, errors.Conflict: 409, errors.Unavailable: 503}


@contextlib.contextmanager
def side(tmp_path, twist=None):
    with brokers.world(tmp_path) as world:

        def handle(path, body):
            act = {"/v1/challenges": challenge, "/v1/releases": release, "/v1/receipts": receipt}[path]
            try:
                answer = asyncio.run(act(world.broker, body))
            except StrongroomError as cause:
                told = {"code": cause.code, "message": cause.message, "hint": cause.hint}
                status = next(code for kind, code in STATUS.items() if isinstance(cause, kind))
                return status, canonical.dumps({"error": told})
            status = 403 if isinstance(answer, messages.DenialAnswer) else 200
            return twist(path, status, answer) if twist else (status, answer.encode())

        _, settings, secrets = brokers.owner()
        from cryptography.x509 import load_der_x509_certificate

        from strongroom.crypto import tls

        der = tls.self_signed(
            secrets.tls, name="broker", now=brokers.contracts.NOW, random=lambda n: bytes([7]) * n
        )
        from cryptography.hazmat.primitives.serialization import Encoding

        pem = load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        server = TlsServer(tmp_path, handle, own=(pem, secrets.tls.pem(), settings.address.pin))
        node = NodeEnd({"alice": server.address})
        try:
            yield Side(world, node, server)
        finally:
            node.close()
            server.close()


def settle(node, name):
    for _ in range(200):
        if node.files.get(name):
            return node.files[name]
        time.sleep(0.01)
    raise AssertionError(name)


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
    from strongroom_testing import fake_tpm

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


def test_nonsense_from_the_broker_is_no_crash(tmp_path):
    with side(tmp_path, lambda path, status, answer: (500, b"<html>")) as room, pytest.raises(Unavailable):
        room.attest()
    with side(tmp_path, lambda path, status, answer: (200, b"[]")) as room, pytest.raises(Malformed):
        room.attest()


def make_terms(contract) -> Terms:
    disk = manifest_model.parse_envelope(brokers.manifest(brokers.owner()[0].alice))[1]
    return Terms(contract=contract, image=disk, settings=None, datasets=(disk,))  # type: ignore[arg-type]


def ended(outcome=Outcome.EXITED, **changes):
    base = program.Ended(
        outcome=outcome, exit_status=3, detail="", started=time.monotonic(), ended=time.monotonic() + 2
    )
    return replace(base, **changes)


def test_receipt_is_signed_posted_and_proved(tmp_path):
    with side(tmp_path) as room:
        released = room.attest()
        record = OutputRecord(
            path="/out",
            sealed_digest="sha256:" + "1" * 64,
            sealed_bytes=5,
            content_digest="sha256:" + "2" * 64,
        )
        made = closing.make_receipt(make_terms(room.contract), ended(), (record,), released)
        envelope = closing.sign_receipt(made, room.keys)
        closing.post_receipt(room.node.channel, room.contract, envelope)
        proof = messages.parse_ledger_proof(settle(room.node, "receipt-alice.json"))
        assert base64.b64encode(envelope) in proof.entry
        assert made.run == room.keys.public.run_id
        assert abs((made.ended - made.started).total_seconds() - 2) <= 1
        assert (
            abs((made.started - released.moment).total_seconds()) < 60
        )  # the broker's time, not this machine's


def test_receipt_is_posted_again_and_again_then_told(tmp_path):
    with side(tmp_path) as room:
        released = room.attest()
        made = closing.make_receipt(make_terms(room.contract), ended(), (), released)
        envelope = closing.sign_receipt(made, room.keys)
        room.node.routes.clear()
        pauses = []

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 2:
                room.node.routes["alice"] = room.server.address

        closing.post_receipt(room.node.channel, room.contract, envelope, pause=pause)
        assert pauses == [2.0, 4.0]
        room.node.routes.clear()
        with pytest.raises(Unavailable) as caught:
            closing.post_receipt(room.node.channel, room.contract, envelope, pause=lambda seconds: None)
        assert caught.value.code == "receipt-not-recorded"


def test_a_receipt_by_another_key_is_refused_by_the_broker(tmp_path):
    with side(tmp_path) as room:
        released = room.attest()
        made = closing.make_receipt(make_terms(room.contract), ended(), (), released)
        thief = replace(room.keys, signing=sign.generate())
        with pytest.raises(Unavailable, match="receipt"):
            closing.post_receipt(
                room.node.channel,
                room.contract,
                closing.sign_receipt(made, thief),
                pause=lambda seconds: None,
            )


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

            def close(self):
                return

        return Stream()


@pytest.fixture
def contract():
    scene = brokers.owner()[0]
    from strongroom.model.contract import Logs, Output

    outputs = (
        Output(path="/out/a", recipients=("bob",), max_bytes=1000),
        Output(path="/out/b", recipients=("alice", "bob"), max_bytes=20),
    )
    return scene.contract(
        lambda one: replace(one, outputs=outputs, logs=Logs(recipients=("alice",), max_bytes=100))
    )


def test_one_output_too_large_holds_back_all(tmp_path, contract):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_bytes(b"y" * 100)
    kept = Kept()
    after, records = closing.send_outputs(kept, contract, ended(), str(tmp_path))
    assert (after.outcome, records, kept.files) == (Outcome.OUTPUT_TOO_LARGE, (), {})


def test_outputs_leave_for_their_own_recipients(tmp_path, contract):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name.encode())
    (tmp_path / "a/link").symlink_to("/etc")
    kept = Kept()
    after, records = closing.send_outputs(kept, contract, ended(), str(tmp_path))
    scene = brokers.owner()[0]
    assert [one.path for one in records] == ["/out/a", "/out/b"]
    assert b"b" in scene.alice.age.open(kept.files["out-1.tar.age"])
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        scene.alice.age.open(kept.files["out-0.tar.age"])
    assert after.detail.startswith("1 entries left out")


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.EXITED])
def test_nothing_leaves_of_a_program_that_did_not_end_by_itself(tmp_path, contract, outcome):
    kept = Kept()
    assert closing.send_outputs(kept, contract, ended(outcome), str(tmp_path))[1] == ()
    assert kept.files == {}


def test_logs_leave_sealed_but_not_after_corruption(contract):
    kept = Kept()
    closing.send_logs(kept, contract, ended(Outcome.DATA_CORRUPTED, log=b"words"))
    assert kept.files == {}
    closing.send_logs(kept, contract, ended(Outcome.TIMED_OUT, log=b"words"))
    assert brokers.owner()[0].alice.age.open(kept.files["log.age"]) == b"words"


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
        with pytest.raises(errors.PolicyDenied) as caught:
            one.attest()
        assert "contract.version" in {check.name for check in caught.value.verdict if not check.ok}
