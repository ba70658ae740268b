"""The verifier against a real TPM 2.0 (swtpm): provisioned by the node, measured into, quoted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import tpm, verify
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm
from tests import effort
from tests.unit.evidence import swtpm
from tests.unit.evidence.tpm_evidence import BINDING

NOW = contracts.NOW
pytestmark = swtpm.needs_swtpm


@pytest.fixture(scope="module")
def machine() -> swtpm.Machine:
    return swtpm.Machine(NOW)


@pytest.fixture(scope="module")
def evidence(machine) -> Evidence:
    return machine.evidence(BINDING)


def accepted(machine, evidence, binding=BINDING) -> bool:
    try:
        verify.verify(evidence, NONE, binding=binding, roots=frozenset({machine.root}), now=NOW)
    except (EvidenceRefused, Malformed):
        return False
    return True


def test_evidence_of_a_real_tpm_verifies(machine, evidence):
    claims = verify.verify(evidence, NONE, binding=BINDING, roots=frozenset({machine.root}), now=NOW)
    assert claims.registers == fake_tpm.RECORD.reference()
    assert claims.simulated
    assert "SIMULATED" in str(claims.facts["root_subject"])


def test_the_fake_makes_what_the_real_one_makes(machine, evidence):
    faked = fake_tpm.FakeTpm(now=NOW).evidence(BINDING)
    assert faked.parts.keys() == evidence.parts.keys()
    for name in ("pcrs", "event-log", "launch-record"):
        assert faked.parts[name] == evidence.parts[name]
    assert len(faked.parts["quote"]) == len(evidence.parts["quote"])
    assert faked.parts["signature"][:6] == evidence.parts["signature"][:6]


@pytest.mark.parametrize("name", sorted(tpm.PARTS))
def test_every_single_byte_flip_of_real_evidence_is_refused(machine, evidence, name):
    good = evidence.parts[name]
    assert accepted(machine, evidence)
    for place in effort.some(range(len(good))):
        for mask in (1, 16, 128, 255):
            flipped = good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :]
            parts = {**evidence.parts, name: flipped}
            assert not accepted(machine, Evidence(tee="tpm", parts=parts)), (place, mask)


def test_rule_18_old_evidence_is_refused_for_a_new_nonce(machine, evidence):
    assert not accepted(machine, evidence, binding=replace(BINDING, nonce=b"n" * 32))


def test_a_room_started_otherwise_says_so_and_cannot_say_else(machine):
    record = replace(fake_tpm.RECORD, initrd=fake_tpm.digest("another initrd"), memory_guard=False)
    other = machine.evidence(BINDING, record=record)
    claims = verify.verify(other, NONE, binding=BINDING, roots=frozenset({machine.root}), now=NOW)
    assert claims.registers["initrd"] == record.initrd
    assert not claims.memory_guard
    lie = Evidence(tee="tpm", parts={**other.parts, "launch-record": fake_tpm.RECORD.encode()})
    assert not accepted(machine, lie)


def test_evidence_of_another_nodes_tpm_is_refused(machine):
    other = swtpm.Machine(NOW)
    assert not accepted(machine, other.evidence(BINDING))
