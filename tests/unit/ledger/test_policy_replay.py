"""Every feature of the policy language: what a broker decided under it is recomputed from the record, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.appraisal import judge
from strongroom.encoding import canonical, fields
from strongroom.ledger import inspect, proofpack
from strongroom.model import endorsements, messages, verdict
from strongroom.model.contracts import policy as policy_model
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_nvidia

END = contracts.NOW + timedelta(hours=1)
PAST = contracts.NOW - timedelta(hours=1)
ACCEPTED = {
    "no-policy": None,
    "default": policy_model.DEFAULT,
    "facts": policy_model.Policy(facts={"clock_safe": (True, False)}),
    "strict": policy_model.Policy(profile="strict"),
    "no-devices": policy_model.Policy(devices=policy_model.Devices(count=0, roots=(), machines=())),
    "registers": policy_model.Policy(registers={"machine": ("q35", "other")}),
    "allowances": policy_model.Policy(advisories={"INTEL-SA-00615": END}, waived=("policy.migrate_ma",)),
}
DENIED = {
    "platform.fact.nothing": policy_model.Policy(facts={"nothing": (1,)}),
    "platform.tcb.committed.snp": policy_model.Policy(tcb={"committed.snp": 1}),
    "platform.status": policy_model.Policy(status={"UpToDate": PAST}),
    "platform.vmpl": policy_model.Policy(vmpl=0),
    "platform.age": policy_model.Policy(max_age_seconds=60),
    "platform.product": policy_model.Policy(products_denied=("Milan",)),
    "platform.revocation": policy_model.Policy(revocation="checked"),
    "evidence.devices.count": policy_model.Policy(
        devices=policy_model.Devices(count=1, roots=(), machines=("any",))
    ),
    "platform.reference.machine": policy_model.Policy(registers={"machine": ()}),
    "platform.profile.machines": policy_model.Policy(profile="physical-attacker"),
    "platform.profile.allowances": policy_model.Policy(profile="strict", any_value=("machine",)),
}


def under(world, policy, name):
    """The two owners' agreement over the same disks, with that policy."""
    contract = world.agreement.contract
    platforms = (replace(contract.platforms[0], policy=policy),)
    return world.scene.agreement(
        lambda _: replace(contract, id=name.replace("platform.", "p.")[:60], platforms=platforms)
    )


def again(agreement, room, request, answer):
    """The verdict, recomputed from what the ledger and the room keep; and the recorded one."""
    body = canonical.loads(answer.ledger.entry, what="entry", max_bytes=1 << 20)["body"]
    recorded = fields.Fields(body["verdict"], "verdict")
    judged = body["judged"]
    made = judge.judge(
        agreement,
        request.evidence,
        request.endorsements,
        binding=room.binding(request.nonce),
        gates=verdict.read_checks(fields.Fields(body["verdict"], "verdict"))[: judged["gates"]],
        runs_used=judged["runs_used"],
        now=recorded.time("decided"),
        lifetime=timedelta(seconds=judged["lifetime_seconds"]),
    )
    return made, body["verdict"]


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_acceptances_are_recomputed_bit_for_bit(world, name):
    agreement = under(world, ACCEPTED[name], f"accepted-{name}")
    pack = world.pack(world.room(agreement))
    judgement = inspect.inspect(pack, anchors=world.anchors)
    assert judgement.failed == ()
    parsed = agreement.contract.platforms[0].policy
    assert parsed == ACCEPTED[name]


@pytest.mark.parametrize("check", sorted(DENIED))
def test_denials_are_recomputed_bit_for_bit(world, check):
    agreement = under(world, DENIED[check], f"denied-{check}")
    room = world.room(agreement)
    request, answer = world.ask(room, "alice")
    assert isinstance(answer, messages.DenialAnswer)
    made, recorded = again(agreement, room, request, answer)
    assert isinstance(made, verdict.Denied)
    assert check in {one.name for one in made.failed}
    assert canonical.dumps(made.to_json()) == canonical.dumps(recorded)
    # The same record form reaches whoever asked.
    assert canonical.dumps(answer.verdict) == canonical.dumps(recorded)


VENDOR = fake_nvidia.Authority(now=contracts.NOW)
GPUS = tuple(fake_nvidia.FakeGpu(now=contracts.NOW, authority=VENDOR) for _ in range(2))
ATTACHED = policy_model.Devices(
    count=2,
    roots=(VENDOR.root,),
    machines=tuple(gpu.machine for gpu in GPUS),
    facts={"family": ("Hopper",)},
    references=({f"m{index}": fake_nvidia.measured(f"measurement {index}").hex() for index in range(1, 65)},),
)


def test_a_room_with_devices_is_recomputed_bit_for_bit_and_none_of_them_can_be_left_out(world):
    agreement = under(world, policy_model.Policy(devices=ATTACHED), "attached")
    pack = world.pack(world.room(agreement, gpus=GPUS))
    judgement = inspect.inspect(pack, anchors=world.anchors)
    assert judgement.failed == ()
    assert judgement.simulated
    assert proofpack.parse(pack.encode()) == pack
    first, *others = pack.releases

    def failing(**changes):
        changed = replace(pack, releases=(replace(first, **changes), *others))
        return {one.name for one in inspect.inspect(changed, anchors=world.anchors).failed}

    gpus, said = first.evidence.devices, first.endorsements.parts
    for devices in ((), gpus[:1], gpus[::-1], (*gpus, gpus[0]), (gpus[0], gpus[0])):
        assert {"record.alice", "verdict.alice"} <= failing(evidence=replace(first.evidence, devices=devices))
    assert {"record.alice", "verdict.alice"} <= failing(endorsements=endorsements.NONE)
    less = {name: data for name, data in said.items() if not name.startswith("device-1")}
    assert {"record.alice", "verdict.alice"} <= failing(endorsements=replace(first.endorsements, parts=less))


@pytest.mark.parametrize("spoiled", ["reference", "machine", "fact.family"])
def test_denials_of_devices_are_recomputed_bit_for_bit(world, spoiled):
    changes = {
        "reference": {"references": ({**ATTACHED.references[0], "m1": "00"},)},
        "machine": {"machines": (GPUS[0].machine,)},
        "fact.family": {"facts": {"family": ("Blackwell",)}},
    }
    wrong = replace(ATTACHED, **changes[spoiled])
    agreement = under(world, policy_model.Policy(devices=wrong), f"attached-{spoiled}")
    room = world.room(agreement, gpus=GPUS)
    request, answer = world.ask(room, "bob")
    assert isinstance(answer, messages.DenialAnswer)
    made, recorded = again(agreement, room, request, answer)
    assert made.failed[0].name == f"platform.devices.{spoiled}"
    assert canonical.dumps(made.to_json()) == canonical.dumps(recorded)


def test_a_policy_that_is_changed_after_signing_is_another_contract(world):
    strict = under(world, ACCEPTED["strict"], "changed")
    loose = under(world, None, "changed")
    assert strict.contract.digest != loose.contract.digest
    pack = world.pack(world.room(strict))
    swapped = replace(pack, agreement=loose)
    assert "verdict.alice" in {one.name for one in inspect.inspect(swapped, anchors=world.anchors).failed}
