"""What a room would be refused for is found out before it boots; what nobody can know stays unknown."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.broker.standing import standing
from strongroom.crypto import digest
from strongroom.encoding import dsse
from strongroom.errors import NotFound, PolicyDenied, Refused, Unavailable
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model.room import channel
from strongroom.node import foreseen, launch_record, room
from strongroom.node.vtpm import state
from strongroom_testing import brokers, contracts
from strongroom_testing.contracts import changed

SETTINGS = manifest_model.ImageSettings(
    source="sha256:" + "5" * 64, entrypoint=("/bin/p",), command=(), environment={}, working_directory="/", uid=7,
    gid=8, groups=(),
)  # fmt: skip
PLENTY = 1 << 40


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


class Case:
    """An order whose parts fit, over a broker that is really asked."""

    def __init__(self, world, folder):
        self.world, self.folder = world, folder
        self.base = folder / "base"
        self.base.mkdir()
        for name in (launch_record.KERNEL, launch_record.INITRD, launch_record.DISK):
            (self.base / name).write_bytes(name.encode())
        (self.base / launch_record.CMDLINE).write_bytes(b"root=x")
        self.firmware = folder / "firmware"
        self.firmware.write_bytes(b"firmware")
        self.out = folder / "out"
        self.out.mkdir()
        self.image = self._image(world.scene.bob)
        self.free, self.memory = PLENTY, PLENTY
        self.asked = 0

    def _image(self, signer):
        made = manifest_model.Manifest(
            raw=b"", kind="image", name="query", owner=signer.party().keyid, cipher="none", data_bytes=8192,
            hash_offset=8192, disk_bytes=16384, root_hash="sha256:" + "7" * 64, salt=bytes(32), image=SETTINGS,
        )  # fmt: skip
        bare = dsse.Envelope(
            payload_type=manifest_model.PAYLOAD_TYPE, payload=manifest_model.encode(made), signatures=()
        )
        key = signer.signing
        sig = dsse.DsseSignature(keyid=digest.sha256(key.public.raw), sig=key.sign(bare.pae()))
        return replace(bare, signatures=(sig,)).encode()

    def agreement(self, change=lambda one: one, **options):
        with launch_record.opened(self.base, firmware=self.firmware) as parts:
            reference = parts.record(memory_guard=True).reference()

        def ours(one):
            platform = contracts.platform(self.world.scene.tpm, references=(reference,))
            made = changed(
                one,
                image=replace(
                    one.rooms[0].image, manifest_digest=manifest_model.parse_envelope(self.image)[1].digest
                ),
                platforms=(platform,),
            )
            return change(made)

        return self.world.agreement(ours, **options)

    def order(self, agreement, **changes):
        tpm = self.world.scene.tpm
        node = state.VtpmNode(
            folder=self.folder, name="here", root=tpm.root, machine="sha256:" + "0" * 64, issuers=b""
        )
        made = room.Order(
            room="main", node=node, base=self.base, agreement=agreement, drives=(), out=self.out, firmware=self.firmware,
            manifests={channel.SERIAL_IMAGE: self.image, channel.data_serial(0): self.world.disk},
        )  # fmt: skip
        return replace(made, **changes)

    def ask(self, _address, agreement, room, earlier):
        self.asked += 1
        request = messages.StandingRequest(room=room, agreement=agreement, earlier=earlier)
        return asyncio.run(standing(self.world.broker, request.encode()))

    def foresee(self, order, ask=None):
        return foreseen.foresee(
            order, ask=ask or self.ask, free=lambda _: self.free, memory=lambda: self.memory
        )

    def refused(self, order, ask=None):
        with pytest.raises(PolicyDenied) as caught:
            self.foresee(order, ask)
        assert "no run was used" in caught.value.hint
        return {one.name for one in caught.value.verdict.failed}


@pytest.fixture
def case(world, tmp_path):
    return Case(world, tmp_path)


def test_what_fits_is_let_through_with_the_runs_that_are_used(case):
    agreement = case.agreement()
    assert case.foresee(case.order(agreement)) == foreseen.Foreseen(runs={"alice": 0})
    assert case.asked == 1


def test_a_contract_under_which_nothing_can_run_is_asked_nobody_about(case):
    def alone(one):
        return replace(
            one, members=tuple(replace(m, party=replace(m.party, broker=None)) for m in one.members)
        )

    assert case.refused(case.order(case.agreement(alone))) == {"contract.broker"}
    assert case.asked == 0


def test_missing_signatures_and_another_manifest_are_what_the_room_itself_would_say(case):
    with pytest.raises(Refused) as caught:
        case.foresee(case.order(case.agreement(signers=("alice",))))
    assert caught.value.code == "not-approved"
    order = case.order(case.agreement())
    with pytest.raises(Refused) as caught:
        case.foresee(replace(order, manifests={channel.SERIAL_IMAGE: case.image}))
    assert caught.value.code == "no-manifest"
    assert case.asked == 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda case, order: replace(order, guarded=False), "platform.memory_guard"),
        (
            lambda case, order: replace(order, node=replace(order.node, root="sha256:" + "e" * 64)),
            "platform.root",
        ),
        (
            lambda case, order: (case.base / "cmdline").write_bytes(b"root=y") and order,
            "platform.reference.cmdline",
        ),
        (lambda case, order: case.firmware.write_bytes(b"x") and order, "platform.reference.firmware"),
    ],
)
def test_another_base_node_or_guard_than_the_parties_signed_for(case, change, name):
    order = case.order(case.agreement())
    assert case.refused(change(case, order)) == {name}


def test_of_hardware_rooms_what_the_processor_will_prove_is_not_guessed(case):
    (case.base / "cmdline").write_bytes(b"root=x")
    agreement = case.agreement()
    (case.base / "cmdline").write_bytes(b"another")
    assert case.foresee(case.order(agreement, node=None)).notes == ()


def test_a_full_folder_and_a_small_machine_start_nothing(case):
    order = case.order(case.agreement())
    case.free = 1 << 20
    with pytest.raises(Unavailable, match="1 MiB free, and up to") as caught:
        case.foresee(order)
    assert caught.value.code == "disk-full"
    case.free, case.memory = PLENTY, 256 << 20
    with pytest.raises(Unavailable, match="512 MiB, this machine has 256") as caught:
        case.foresee(order)
    assert caught.value.code == "no-memory"


def test_runs_that_are_used_up_a_version_too_far_and_the_end_of_the_contract(case, world):
    used_up = world.agreement(runs=1)  # over a launch that its rooms prove
    assert isinstance(world.ask(used_up), messages.ReleaseAnswer)
    told = case.ask(None, used_up.encode(), "main", ())
    assert case.refused(case.order(case.agreement()), lambda *_: told) == {"contract.runs"}
    first = case.agreement(lambda one: replace(one, id="another"), runs=1)
    order = case.order(first)
    second = case.agreement(
        lambda one: replace(one, id="another", version=2, replaces=first.contract.digest), runs=1
    )
    assert case.foresee(case.order(second, earlier=(first.encode(),))).runs == {"alice": 0}
    assert case.refused(case.order(second)) == {"contract.version"}
    case.world.clock.advance(timedelta(days=2))
    assert case.refused(order) == {"contract.validity"}


def test_a_broker_that_cannot_be_reached_is_a_refusal_since_the_room_would_not_reach_it_either(case):
    def nobody(*_):
        raise Unavailable("https://h: refused", code="broker-unreachable")

    with pytest.raises(Unavailable, match="the broker of alice does not answer") as caught:
        case.foresee(case.order(case.agreement()), nobody)
    assert caught.value.code == "broker-unreachable"
    assert "broker serve" in caught.value.hint


def test_somebody_else_at_the_brokers_address_is_a_refusal(case):
    def other(*_):
        raise Refused("its key is not the pinned one", code="wrong-broker")

    with pytest.raises(Refused, match="pinned"):
        case.foresee(case.order(case.agreement()), other)


@pytest.mark.parametrize("cause", [NotFound("no route"), Unavailable("busy", code="too-many-readers")])
def test_a_broker_that_cannot_say_decides_nothing_and_is_named(case, cause):
    def mute(*_):
        raise cause

    found = case.foresee(case.order(case.agreement()), mute)
    assert found.runs == {}
    assert "the broker of alice" in found.notes[0]
