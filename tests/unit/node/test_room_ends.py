"""Why a room ended is said of what ended it; a result that its folder does not take is tried again, and told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from strongroom.cli.rooms import run_ends
from strongroom.crypto import digest, sign
from strongroom.encoding import dsse
from strongroom.errors import Refused, Unavailable
from strongroom.model import receipt as receipt_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.room import run_files
from strongroom.node import room, run_folder
from tests import samples


@dataclass
class Child:
    fd: int
    status: int | None
    said: str = ""

    def wait(self, _seconds):
        return self.status

    def complaint(self):
        return self.said


def made(tmp_path, **changes):
    order = room.Order(
        room="main", node=None, base=tmp_path, agreement=agreement_model.draft(samples.a_contract()), drives=(), manifests={},
        out=tmp_path,
    )  # fmt: skip
    one = room.Room(order=order, pause=lambda _: None)
    for name, value in changes.items():
        setattr(one, name, value)
    return one


def ended(one, child):
    with pytest.raises(Unavailable) as caught:
        one._watched(SimpleNamespace(failure=None))[child.fd]()
    assert caught.value.code == "room-died"
    return caught.value.message


def test_a_tpm_that_ended_because_its_machine_did_is_not_the_reason(tmp_path):
    """So it is where the base is none for this machine: QEMU gives up, and its TPM goes with it."""
    tpm = Child(8, 0)
    one = made(tmp_path, swtpm=tpm, qemu=Child(9, 1, "no kernel"))
    assert "the room ended by itself (exit status 1)" in ended(one, tpm)
    assert "no kernel" in ended(one, tpm)


def test_a_tpm_that_ended_while_its_machine_runs_is_the_reason(tmp_path):
    tpm = Child(8, -9)
    assert "the room's TPM ended (killed by signal 9)" in ended(
        made(tmp_path, swtpm=tpm, qemu=Child(9, None)), tpm
    )


class Box:
    def __init__(self, *answers):
        self.answers = [run_folder.UnwrittenFiles(names=names, size=1 << 20) for names in answers]

    @property
    def held(self):
        return self.answers[0]

    def settle(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


OUT = ("out-0.tar.age",)
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def test_what_waits_in_memory_is_told_and_tried_until_the_folder_takes_it(tmp_path):
    told = []
    one = made(tmp_path, on_held=lambda held, left: told.append((held.names, left)))
    one._settle(Box(OUT, OUT, ()))
    assert told == [(OUT, 3600.0), ((), 0.0)]


def test_what_waits_in_memory_is_told_again_every_minute(tmp_path):
    told = []
    one = made(tmp_path, on_held=lambda _held, left: told.append(left))
    one._settle(Box(*[OUT] * 30, ()))
    assert told == [3600.0, 3540.0, 3480.0, 0.0]


def test_what_the_folder_never_takes_is_lost_and_that_is_said(tmp_path):
    with pytest.raises(Unavailable, match="60 minutes there was no room for out-0") as caught:
        made(tmp_path)._settle(Box(OUT))
    assert caught.value.code == "run-folder"
    assert "1.0 MiB free" in caught.value.hint


def test_whoever_stops_a_run_that_waits_for_room_is_told_what_is_lost(tmp_path):
    held = run_folder.UnwrittenFiles(names=OUT, size=3 << 20)
    waiting, lost, again = (list(run_ends.tell_held(tmp_path, *told)) for told in ((held, 3600.0), (held, 0.0), (run_folder.UnwrittenFiles(), 0.0)))  # fmt: skip
    assert waiting[0].startswith(f"NO ROOM in {tmp_path}: out-0.tar.age (3.0 MiB) is in memory alone")
    assert "free 3.0 MiB there and do not stop this command" in waiting[1]
    assert lost == [f"LOST: out-0.tar.age (3.0 MiB): in memory alone, since {tmp_path} had no room for it"]
    assert again == [f"{tmp_path} has room again: everything is in it"]


def test_an_empty_box_waits_for_nothing(tmp_path):
    one = made(tmp_path, pause=lambda _: pytest.fail("waited"))
    one._settle(run_folder.Inbox(tmp_path, samples.a_contract(), "main"))


def a_receipt(**changes):
    key = sign.generate()
    disk = receipt_model.Disk(manifest_digest=samples.DIGEST, root_hash=samples.DIGEST)
    made = receipt_model.Receipt(
        room="main", run_id="run-" + "0" * 32, contract_digest=samples.a_contract().digest, signing_key=key.public.raw, image=disk, datasets=(),
        outputs=(), outcome=receipt_model.Outcome.EXITED, exit_status=0, details=(), started=NOW, ended=NOW,
    )  # fmt: skip
    made = replace(made, **changes)
    payload = made.encode()
    good = key.sign(dsse.pae(receipt_model.PAYLOAD_TYPE, payload))
    signature = dsse.DsseSignature(keyid=digest.sha256(key.public.raw), sig=good)
    return dsse.Envelope(payload_type=receipt_model.PAYLOAD_TYPE, payload=payload, signatures=(signature,))


def test_a_receipt_counts_at_the_node_as_it_does_for_an_auditor(tmp_path):
    """One signature by the key that it names, under whatever key id; a second one beside it changes nothing."""
    one = made(tmp_path)
    file = tmp_path / run_files.RECEIPT

    def result(envelope):
        file.write_bytes(envelope.encode())
        return one._result([run_files.RECEIPT]).receipt

    good = a_receipt()
    assert result(good).outcome is receipt_model.Outcome.EXITED
    stranger = dsse.DsseSignature(keyid="sha256:" + "0" * 64, sig=bytes(64))
    assert result(replace(good, signatures=(*good.signatures, stranger)))
    assert result(replace(good, signatures=(replace(good.signatures[0], keyid=stranger.keyid),)))
    unsigned = replace(good, signatures=())
    for bad, why in (
        (unsigned, "no signature of it verifies"),
        (a_receipt(signing_key=sign.generate().public.raw), "no signature of it verifies"),
        (a_receipt(contract_digest=samples.DIGEST), "it is about the contract sha256:"),
    ):
        with pytest.raises(Refused, match=why) as caught:
            result(bad)
        assert caught.value.code == "wrong-receipt"
