"""Each fault of a simulated TEE is denied by the check that is documented for it: by judgement, and by the real broker."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from strongroom.appraisal.wording.sentences import explain
from strongroom.errors import Refused
from strongroom.model import messages
from strongroom.model.verdict import Accepted, Denied
from strongroom_testing import brokers, contracts, simulated
from strongroom_testing.simulated import DENIED_BY, Fault

NOW = contracts.NOW
PAGE = Path(__file__).resolve().parents[3] / "docs/testing.md"


def agreement(machine):
    """A contract for that machine that outlasts a clock that jumps."""
    scene = brokers.owner()[0]
    return scene.agreement(
        lambda one: replace(
            one,
            platforms=(machine.platform,),
            limits=replace(one.limits, not_after=one.limits.not_after + timedelta(days=3650)),
        )
    )


@pytest.mark.parametrize("gpu", [False, True], ids=["plain", "gpu"])
@pytest.mark.parametrize("tee", simulated.TEES)
def test_a_sound_machine_is_accepted(tee, gpu):
    machine = simulated.machine(tee, now=NOW, gpu=gpu)
    verdict = simulated.verdict(machine, agreement(machine))
    assert isinstance(verdict, Accepted), [check for check in verdict.checks if not check.ok]
    assert verdict.claims.simulated


@pytest.mark.parametrize(("tee", "fault"), DENIED_BY, ids=str)
def test_each_fault_is_denied_by_the_check_that_is_named(tee, fault):
    machine = simulated.machine(tee, now=NOW, fault=fault)
    verdict = simulated.verdict(machine, agreement(machine))
    assert isinstance(verdict, Denied)
    assert DENIED_BY[tee, fault] in {check.name for check in verdict.failed}
    assert all(told.hint and told.source for told in map(explain, verdict.failed))


class Room(brokers.Room):
    """A room on a simulated machine, for the real broker."""

    def __init__(self, machine, agreement, audience):
        super().__init__(tpm=None, agreement=agreement, audience=audience)
        self.launched = machine.launch(agreement.contract.digest)

    def ask(self, nonce, *, csr=None):
        evidence = self.launched.evidence(self.binding(nonce))
        return messages.ReleaseRequest(
            nonce=nonce,
            contract_digest=self.agreement.contract.digest,
            agreement=self.agreement.encode(),
            evidence=evidence,
            keys=self.keys,
            role="main",
            csr=csr,
            endorsements=self.launched.brought(evidence),
        )


def released(tmp_path, machine, *, bind=True):
    """What the real broker, with its clock at the machine's, answers."""
    with brokers.world(tmp_path) as world:
        # The contract is made at the scene's time; the broker's clock is the machine's.
        signed = world.agreement(
            lambda one: replace(
                one,
                platforms=(machine.platform,),
                limits=replace(one.limits, not_after=one.limits.not_after + timedelta(days=3650)),
            )
        )
        world.clock.now = machine.now
        asking = replace(world, broker=replace(world.broker, endorser=machine))
        room = Room(machine, signed, world.broker.audience)
        if bind:
            room.launched.hardware.bind_contract(signed.contract.digest)
        nonce = world.challenge(signed).nonce
        return asking.release(room.ask(nonce).encode())


@pytest.mark.parametrize("tee", simulated.TEES)
def test_the_broker_releases_to_a_sound_machine(tmp_path, tee):
    answer = released(tmp_path, simulated.machine(tee, now=NOW, gpu=True))
    assert isinstance(answer, messages.ReleaseAnswer), [c for c in answer.verdict["checks"] if not c["ok"]]


def test_every_fault_is_denied_for_every_tee_that_can_have_it():
    everywhere = {(tee, fault) for tee in simulated.TEES for fault in Fault}
    # Nitro has no levels of privilege and no TCB that a contract could compare; a trust domain has one level.
    absent = {("tdx", Fault.WRONG_VMPL), ("nitro", Fault.WRONG_VMPL), ("nitro", Fault.OLD_TCB)}
    assert everywhere - set(DENIED_BY) == absent


@pytest.mark.parametrize(("tee", "fault"), DENIED_BY, ids=str)
def test_the_broker_denies_each_fault_by_that_check_and_records_it(tmp_path, tee, fault):
    answer = released(tmp_path, simulated.machine(tee, now=NOW, fault=fault))
    assert isinstance(answer, messages.DenialAnswer)
    assert answer.ledger is not None
    assert DENIED_BY[tee, fault] in {check["name"] for check in answer.verdict["checks"] if not check["ok"]}


@pytest.mark.parametrize("tee", simulated.TEES)
def test_a_broker_denies_a_room_that_bound_nothing(tmp_path, tee):
    machine = simulated.machine(tee, now=NOW)
    other = replace(machine, _vendor=Unlaunched(machine))
    answer = released(tmp_path, other, bind=False)
    assert isinstance(answer, messages.DenialAnswer)
    assert "platform.contract" in {check["name"] for check in answer.verdict["checks"] if not check["ok"]}
    why = {"snp": "HOSTDATA is 0{64}", "tdx": "MRCONFIGID is 0{96}", "nitro": "PCR 16 was already extended"}
    with pytest.raises(Refused, match=f"binding the contract: {why[tee]}"):
        simulated.verdict(replace(machine, _vendor=Launching(machine)), agreement(machine))


class Unlaunched:
    """The machine's vendor, whose host fills in nothing."""

    def __init__(self, machine):
        self._inner = machine._vendor

    def kernel(self, contract):
        return self._inner.kernel(bytes(32))

    def endorsements(self):
        return self._inner.endorsements()


class Launching(Unlaunched):
    """The same, and whatever the agent is to extend is extended already."""

    def kernel(self, contract):
        kernel = super().kernel(contract)
        for device in kernel.devices.values():
            if hasattr(device, "pcrs"):
                device.pcrs[16] = b"\1" * 48
        return kernel


def test_a_fault_that_a_tee_cannot_have_is_no_machine():
    for tee, fault in (("tdx", Fault.WRONG_VMPL), ("nitro", Fault.OLD_TCB), ("vax", None)):
        with pytest.raises(KeyError):
            simulated.machine(tee, fault=fault)


def test_no_contract_that_wants_hardware_accepts_a_simulated_machine():
    machine = simulated.machine("snp", now=NOW)
    real = replace(machine, platform=replace(machine.platform, simulated=False))
    failed = simulated.verdict(real, agreement(real)).failed
    assert [check.name for check in failed] == ["platform.simulated"]


def test_the_page_tells_every_fault_and_its_example_runs():
    text = PAGE.read_text()
    for (tee, fault), check in DENIED_BY.items():
        assert re.search(rf"^\| `{fault}` .*{tee}.*`{re.escape(check)}`", text, re.MULTILINE), (tee, fault)
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})  # noqa: S102 - the page's own words
