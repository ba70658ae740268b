"""Evidence that was made for something else than what is asked for is refused, whichever part of its binding differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.crypto import hpke, sign, tls
from strongroom.model import messages
from strongroom_testing import brokers
from strongroom_testing.vendors import fake_tpm


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def other_keys(binding, **changes):
    return replace(binding, keys=replace(binding.keys, **changes))


OTHERS = {
    "nonce": lambda bound: replace(bound, nonce=bytes(32)),
    "contract": lambda bound: replace(bound, contract_digest=fake_tpm.digest("another contract")),
    "signing key": lambda bound: other_keys(bound, signing=sign.generate().public.raw),
    "tls key": lambda bound: other_keys(bound, tls=tls.generate().spki),
    "kem key": lambda bound: other_keys(bound, kem=hpke.generate().public),
    "role": lambda bound: replace(bound, role="operator"),
    "audience": lambda bound: replace(bound, audience=fake_tpm.digest("another broker")),
}


@pytest.mark.parametrize("field", [None, *OTHERS])
def test_rule_19_evidence_for_another_binding_is_refused(world, field):
    agreement = world.agreement()
    room = world.room(agreement)
    request = room.ask(world.challenge(agreement).nonce)
    bound = room.binding(request.nonce)
    evidence = room.tpm.evidence(bound if field is None else OTHERS[field](bound))
    answer = world.release(replace(request, evidence=evidence).encode())
    if field is None:
        assert isinstance(answer, messages.ReleaseAnswer)
        return
    assert isinstance(answer, messages.DenialAnswer)
    assert [check["name"] for check in answer.verdict["checks"] if not check["ok"]] == ["evidence.binding"]
    assert world.store.runs_by_room() == []


@pytest.mark.parametrize("key", ["signing", "tls", "kem"])
def test_rule_19_a_key_that_the_evidence_is_not_bound_to_gets_nothing(world, key):
    """The thief has a genuine room's evidence, and asks with a key of his own in one place."""
    agreement = world.agreement()
    room = world.room(agreement)
    request = room.ask(world.challenge(agreement).nonce)
    own = {"signing": sign.generate().public.raw, "tls": tls.generate().spki, "kem": hpke.generate().public}
    stolen = replace(request, keys=replace(request.keys, **{key: own[key]}))
    answer = world.release(stolen.encode())
    assert isinstance(answer, messages.DenialAnswer)
    assert "evidence.binding" in {check["name"] for check in answer.verdict["checks"] if not check["ok"]}
