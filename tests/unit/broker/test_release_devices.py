"""Rooms with GPUs, before the real broker: every device as the contract says, or no keys at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.encoding import canonical
from strongroom.model import messages, record
from strongroom.model.contracts.policy import Devices, Policy
from strongroom.model.evidence import Evidence
from strongroom_testing import brokers, contracts
from strongroom_testing.vendors import fake_nvidia

NOW = contracts.NOW
VENDOR = fake_nvidia.Authority(now=NOW)
GPUS = tuple(fake_nvidia.FakeGpu(now=NOW, authority=VENDOR) for _ in range(3))
MEASURED = {f"m{index}": fake_nvidia.measured(f"measurement {index}").hex() for index in range(1, 65)}
AGREED = Devices(
    count=2,
    roots=(VENDOR.root,),
    machines=("any",),
    facts={"model": ("GH100",), "protected_pcie": ("enabled",)},
    references=(MEASURED,),
)


def over(world, devices=AGREED):
    """A contract whose one platform has these devices."""
    policy = None if devices is None else Policy(devices=devices)
    return world.agreement(lambda one: replace(one, platforms=(replace(one.platforms[0], policy=policy),)))


def asked(world, agreement, gpus=GPUS[:2], change=None):
    """The room, its nonce, and what the broker says; `change` alters the request before it is sent."""
    room = world.room(agreement, gpus=tuple(gpus))
    nonce = world.challenge(agreement).nonce
    request = room.ask(nonce)
    if change is not None:
        request = change(request, room)
    return room, nonce, world.release(request.encode())


def refusal(world, agreement, *args, **kwargs):
    """The checks that failed, in the answer and in the ledger alike; nothing was released."""
    _, _, answer = asked(world, agreement, *args, **kwargs)
    assert isinstance(answer, messages.DenialAnswer), "released, where a denial was due"
    assert world.store.runs_by_room() == []
    entry = record.parse(world.store.ledger.leaves(world.store.ledger.size() - 1, 1)[0])
    assert entry.kind is record.RecordKind.DENIAL
    assert entry.body["verdict"] == answer.verdict
    return [check["name"] for check in answer.verdict["checks"] if not check["ok"]]


def devices_of(request, *devices):
    return replace(request, evidence=replace(request.evidence, devices=devices))


def test_a_room_with_its_gpus_gets_its_keys(world):
    agreement = over(world)
    room, nonce, answer = asked(world, agreement)
    assert isinstance(answer, messages.ReleaseAnswer), answer
    assert room.open(answer, nonce) == {
        agreement.contract.rooms[0].datasets[0].manifest_digest: brokers.DISK_KEY
    }
    told = {check["name"]: check["got"] for check in answer.verdict["checks"]}
    assert told["platform.devices"] == 2
    every = {"of": 2, "failed": 0}
    assert told["platform.devices.reference"] == told["platform.devices.compared"] == every
    named = answer.verdict["claims"]["devices"]
    assert [one["machine"] for one in named] == [gpu.machine for gpu in GPUS[:2]]
    assert answer.verdict["claims"]["simulated"]


def test_eight_gpus_and_four_switches_fit_one_entry_of_the_ledger(world):
    switches = [fake_nvidia.FakeGpu(now=NOW, authority=VENDOR, model="LS_10") for _ in range(4)]
    gpus = [fake_nvidia.FakeGpu(now=NOW, authority=VENDOR) for _ in range(8)]
    agreed = replace(AGREED, count=12, facts={"model": ("GH100", "LS_10")})
    _, _, answer = asked(world, over(world, agreed), [*gpus, *switches])
    assert isinstance(answer, messages.ReleaseAnswer), answer
    assert len(answer.verdict["claims"]["devices"]) == 12
    assert len(answer.ledger.entry) < record.MAX_BYTES // 2


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rule_14_as_many_are_attested_as_the_contract_names(world, count):
    assert refusal(world, over(world), GPUS[:count]) == ["evidence.devices.count"]


def test_rule_14_of_several_platforms_each_has_its_own_number(world):
    def two(one):
        plain = one.platforms[0]
        return replace(one, platforms=(plain, replace(plain, policy=Policy(devices=AGREED))))

    agreement = world.agreement(two)
    assert refusal(world, agreement, GPUS[:1]) == ["evidence.devices.count"]
    for gpus in ((), GPUS[:2]):
        assert isinstance(asked(world, agreement, gpus)[2], messages.ReleaseAnswer)


@pytest.mark.parametrize("agreed", [None, replace(AGREED, count=0)], ids=["no-policy", "none-agreed"])
def test_rule_14_a_gpu_that_no_contract_names_is_refused(world, agreed):
    assert refusal(world, over(world, agreed), GPUS[:1]) == ["evidence.devices.count"]


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "fault", ["bad-signature", "other-nonce", "other-root", "leaf-ended", "other-fwid", "part-missing"]
)
def test_rule_14_one_failing_device_fails_all(world, place, fault):
    fault = fake_nvidia.Fault(fault)

    def spoil(request, room):
        shown = list(request.evidence.devices)
        shown[place] = GPUS[place].evidence(room.binding(request.nonce), fault=fault)
        return devices_of(request, *shown)

    wanted = [f"evidence.devices.{place}.{fake_nvidia.REFUSED_BY[fault]}"]
    assert refusal(world, over(world), change=spoil) == wanted


def test_rule_14_one_device_shown_twice_is_not_two(world):
    def twice(request, room):
        again = GPUS[0].evidence(room.binding(request.nonce))
        return devices_of(request, request.evidence.devices[0], again)

    change = lambda request, room: replace(  # noqa: E731
        twice(request, room), endorsements=fake_nvidia.endorsements([])
    )
    assert refusal(world, over(world), change=change) == ["evidence.devices.distinct"]


def test_rule_14_a_device_in_debug_is_refused(world):
    made = [
        fake_nvidia.FakeGpu(now=NOW, authority=VENDOR, model="GB100", debug=debug) for debug in (False, True)
    ]
    agreed = replace(AGREED, facts={"model": ("GB100",)})
    assert refusal(world, over(world, agreed), made) == ["platform.devices.debug"]
    assert isinstance(
        asked(world, over(world, agreed), [made[0], _another("GB100")])[2], messages.ReleaseAnswer
    )


def _another(model):
    return fake_nvidia.FakeGpu(now=NOW, authority=VENDOR, model=model)


@pytest.mark.parametrize(
    ("agreed", "check"),
    [
        (replace(AGREED, roots=("sha256:" + "00" * 32,)), "evidence.devices.0.chain.root"),
        (replace(AGREED, machines=(GPUS[0].machine,)), "platform.devices.machine"),
        (replace(AGREED, facts={"model": ("GB100",)}), "platform.devices.fact.model"),
        (replace(AGREED, references=({**MEASURED, "m64": "00" * 48},)), "platform.devices.reference"),
        (replace(AGREED, references=(dict(list(MEASURED.items())[:-1]),)), "platform.devices.reference"),
        (replace(AGREED, references=()), "platform.devices.reference"),
    ],
)
def test_devices_other_than_agreed_are_refused(world, agreed, check):
    assert refusal(world, over(world, agreed))[0] == check


def test_rule_35_where_nobody_asked_the_issuers_the_answer_is_no(world):
    without = lambda request, _: replace(request, endorsements=fake_nvidia.endorsements([]))  # noqa: E731
    assert refusal(world, over(world), change=without) == ["platform.devices.compared"]


@pytest.mark.parametrize("doubt", ["revoked", "on-hold", "ended", "swapped"])
def test_rule_04_a_device_that_its_issuers_doubt_is_refused(world, doubt):
    def doubted(request, _):
        said = GPUS[1].endorsements(request.evidence.devices[1], doubt=fake_nvidia.Doubt(doubt))
        renamed = {f"device-1.{name}": data for name, data in said.parts.items()}
        return replace(request, endorsements=replace(said, parts={**request.endorsements.parts, **renamed}))

    assert refusal(world, over(world), change=doubted) == ["evidence.devices.1.chain.revocation"]


def test_rule_25_a_gpu_of_another_machine_is_refused(world):
    """Another room, under the same contract, before the same broker: its GPU's answer is of no use in ours."""
    agreement = over(world)
    nonce = world.challenge(agreement).nonce
    theirs = world.room(agreement, gpus=GPUS[1:]).ask(nonce)

    def mixed(request, room):
        own = GPUS[0].evidence(room.binding(request.nonce))
        return devices_of(request, own, theirs.evidence.devices[0])

    assert refusal(world, agreement, change=mixed) == ["evidence.devices.1.binding"]


def test_rule_25_the_same_nonce_in_another_room_is_another_binding(world):
    agreement = over(world)
    nonce = world.challenge(agreement).nonce
    ours, theirs = (world.room(agreement, gpus=GPUS[:2]).ask(nonce) for _ in range(2))
    answer = world.release(
        replace(ours, evidence=replace(ours.evidence, devices=theirs.evidence.devices)).encode()
    )
    failed = [check["name"] for check in answer.verdict["checks"] if not check["ok"]]
    assert failed == ["evidence.devices.0.binding"]
    assert world.store.runs_by_room() == []


def test_rule_25_the_cpu_of_another_room_is_refused_with_our_gpus(world):
    agreement = over(world)

    def mixed(request, room):
        other = world.room(agreement).ask(request.nonce)
        return replace(request, evidence=replace(other.evidence, devices=request.evidence.devices))

    assert refusal(world, agreement, change=mixed) == ["evidence.binding"]


def test_rule_14_a_device_alone_is_no_room(world):
    def alone(request, _):
        gpu, *others = request.evidence.devices
        return replace(request, evidence=replace(gpu, devices=tuple(others)))

    assert refusal(world, over(world), change=alone) == ["evidence.tee"]


def test_a_cpu_in_place_of_a_device_is_refused(world):
    def cpu(request, room):
        other = Evidence(tee="tpm", parts=request.evidence.parts)
        return devices_of(request, other, *request.evidence.devices[1:])

    assert refusal(world, over(world), change=cpu) == ["evidence.devices.0.tee"]


def test_rule_18_old_evidence_of_devices_does_not_come_again(world):
    agreement = over(world)
    room = world.room(agreement, gpus=GPUS[:2])
    old = room.ask(world.challenge(agreement).nonce)

    def again(request, _):
        return replace(devices_of(request, *old.evidence.devices), keys=room.keys)

    assert refusal(world, agreement, change=again)[0] == "evidence.binding"


def test_rule_15_no_more_devices_than_may_be_are_even_read(world):
    agreement = over(world)

    def many(request, _):
        small = [replace(one, parts={"report": b"x"}) for one in request.evidence.devices]
        return devices_of(request, *small * 40)

    with pytest.raises(Exception, match="devices"):
        asked(world, agreement, change=many)
    assert world.store.ledger.size() == 0


def test_an_issuers_answer_is_judged_at_the_brokers_time(world):
    agreement = over(world)
    world.clock.advance(timedelta(hours=23))  # the answers are an hour old, and count for a day
    assert refusal(world, agreement) == ["evidence.devices.0.chain.revocation"]
    world.clock.advance(timedelta(seconds=-1))
    assert isinstance(asked(world, agreement)[2], messages.ReleaseAnswer)


def test_the_record_names_the_devices_evidence_and_endorsements(world):
    from strongroom.crypto import digest

    agreement = over(world)
    room = world.room(agreement, gpus=GPUS[:2])
    request = room.ask(world.challenge(agreement).nonce)
    answer = world.release(request.encode())
    body = record.parse(answer.ledger.entry).body
    assert body["evidence"] == digest.sha256(request.evidence.encode())
    assert body["endorsements"] == digest.sha256(request.endorsements.encode())
    bare = replace(request.evidence, devices=request.evidence.devices[:1])
    assert digest.sha256(bare.encode()) != body["evidence"]
    assert canonical.loads(request.evidence.encode(), what="evidence", max_bytes=1 << 20).keys() == {
        "tee",
        "parts",
        "devices",
    }
