"""Why a room ended is said of what ended it; a result that its folder does not take is tried again, and told."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from strongroom.errors import Unavailable
from strongroom.model import agreement as agreement_model
from strongroom.node import inbox, room
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
        node=None, base=tmp_path, agreement=agreement_model.draft(samples.a_contract()), drives=(), manifests={},
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
        self.answers = list(answers)

    def settle(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_what_waits_in_memory_is_told_and_tried_until_the_folder_takes_it(tmp_path):
    told = []
    one = made(tmp_path, on_held=told.append)
    one._settle(Box(("out-0.tar.age",), ("out-0.tar.age",), ()))
    assert told == [("out-0.tar.age",)] * 2


def test_what_the_folder_never_takes_is_lost_and_that_is_said(tmp_path):
    with pytest.raises(Unavailable, match="60 minutes there was no room for out-0") as caught:
        made(tmp_path)._settle(Box(("out-0.tar.age",)))
    assert caught.value.code == "run-folder"


def test_an_empty_box_waits_for_nothing(tmp_path):
    one = made(tmp_path, pause=lambda _: pytest.fail("waited"))
    one._settle(inbox.Inbox(tmp_path, samples.a_contract()))
