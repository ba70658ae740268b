"""One good case of each TEE's generations: no other value of any byte of evidence or endorsements is accepted.

By `make soak`, of each byte its eight single bits and four more values: half an hour. STRONGROOM_EVERY_VALUE=1 tries all
255, twelve hours of them; STRONGROOM_SAMPLE=N tries N changes of each part instead. Each time the same ones. What nothing
signs is listed, each place with the reason.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import verify
from strongroom.model.endorsements import NONE, Endorsements
from strongroom_testing.vendors.fake_amd import Guest
from strongroom_testing.vendors.fake_google import FakeGoogle
from tests.unit.evidence import (
    test_azure,
    test_cca,
    test_dcap,
    test_gcp,
    test_nitro,
    test_nvgpu,
    test_snp,
    test_tpm_verify,
)

if TYPE_CHECKING:
    from strongroom.model.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Case:
    """Good evidence. unsigned: by part, the places that nothing signs and nothing is read from."""

    evidence: Evidence
    bound: object
    roots: frozenset[str]
    now: object
    endorsements: Endorsements = NONE
    unsigned: dict[str, set[int]] = field(default_factory=dict)


def intel(tee, version):
    return Case(
        evidence=test_dcap.GOOD[tee, version],
        endorsements=test_dcap.ENDORSED[tee],
        bound=test_dcap.BOUND,
        roots=test_dcap.ROOTS,
        now=test_dcap.NOW,
    )


def amd(name, version):
    chip = test_snp.CHIPS[name]
    return Case(
        evidence=chip.evidence(test_snp.BOUND, guest=Guest(version=version)),
        endorsements=chip.endorsements(),
        bound=test_snp.BOUND,
        roots=frozenset({chip.root}),
        now=test_snp.NOW,
    )


def azure(kind):
    return Case(
        evidence=test_azure.GOOD[kind],
        endorsements=test_azure.ENDORSED[kind],
        bound=test_azure.BOUND,
        roots=frozenset({test_azure.VMS[kind].root}),
        now=test_azure.NOW,
        unsigned={"hcl-report": test_azure.UNSIGNED[kind]},
    )


def google(kind):
    # Without a log, whose labels of events nobody measures: test_gcp holds that they forge no fact.
    machine = FakeGoogle(now=test_gcp.NOW, **test_gcp.KINDS[kind])
    return Case(
        evidence=machine.evidence(test_gcp.BOUND, logged=False),
        bound=test_gcp.BOUND,
        roots=frozenset({machine.root}),
        now=test_gcp.NOW,
    )


GPU = test_nvgpu.GPU.evidence(test_nvgpu.BOUND)
CASES = {
    **{f"{tee}-v{version}": intel(tee, version) for tee, version in test_dcap.KINDS},
    **{
        f"snp-{name}-v{version}": amd(name, version)
        for name, version in (("milan", 2), ("milan", 3), ("genoa", 5), ("turin", 5), ("vlek", 3))
    },
    "nitro": Case(
        evidence=test_nitro.AWS.evidence(test_nitro.BOUND),
        bound=test_nitro.BOUND,
        roots=test_nitro.ROOTS,
        now=test_nitro.NOW,
    ),
    "tpm": Case(
        evidence=test_tpm_verify.GOOD,
        bound=test_tpm_verify.BINDING,
        roots=frozenset({test_tpm_verify.TPM.root}),
        now=test_tpm_verify.NOW,
    ),
    "tpm-rsa": Case(
        evidence=test_tpm_verify.RSA.evidence(test_tpm_verify.BINDING),
        bound=test_tpm_verify.BINDING,
        roots=frozenset({test_tpm_verify.RSA.root}),
        now=test_tpm_verify.NOW,
    ),
    **{f"azure-{kind}": azure(kind) for kind in test_azure.KINDS},
    **{f"gcp-{kind}": google(kind) for kind in ("p256", "p384", "rsassa", "rsapss")},
    "cca": Case(
        evidence=test_cca.PLATFORM.evidence(test_cca.BOUND),
        endorsements=test_cca.PLATFORM.endorsements(),
        bound=test_cca.BOUND,
        roots=test_cca.ROOTS,
        now=test_cca.NOW,
    ),
    "nvgpu": Case(
        evidence=GPU,
        endorsements=test_nvgpu.GPU.endorsements(GPU),
        bound=test_nvgpu.BOUND,
        roots=test_nvgpu.ROOTS,
        now=test_nvgpu.NOW,
    ),
}
PARTS = [
    (name, where, part)
    for name, case in CASES.items()
    for where, parts in (("evidence", case.evidence.parts), ("endorsements", case.endorsements.parts))
    for part in parts
]


def accepted(case: Case, where: str, part: str, data: bytes) -> bool:
    given = getattr(case, where)
    changed = replace(case, **{where: replace(given, parts={**given.parts, part: data})})
    try:
        verify.verify(
            changed.evidence, changed.endorsements, binding=case.bound, roots=case.roots, now=case.now
        )
    except (EvidenceRefused, Malformed):
        return False
    return True


def changes(data: bytes, seed: str):
    """(place, value): every other value of every byte, the usual ones of every byte, or a sample."""
    chance = random.Random(seed)  # noqa: S311 - the same ones each time
    sample = int(os.environ.get("STRONGROOM_SAMPLE", "0"))
    if sample:
        yield from ((chance.randrange(len(data)), chance.randrange(256)) for _ in range(sample))
        return
    for place, byte in enumerate(data):
        if "STRONGROOM_EVERY_VALUE" in os.environ:
            yield from ((place, value) for value in range(256))
        else:
            yield from ((place, byte ^ 1 << bit) for bit in range(8))
            yield from ((place, chance.randrange(256)) for _ in range(4))


@pytest.mark.parametrize("name", CASES)
def test_the_cases_are_good(name):
    case = CASES[name]
    part = next(iter(case.evidence.parts))
    assert accepted(case, "evidence", part, case.evidence.parts[part])


@pytest.mark.soak
@pytest.mark.parametrize(("name", "where", "part"), PARTS)
def test_rule_16_no_other_value_of_any_byte_is_accepted(name, where, part):
    case = CASES[name]
    good = getattr(case, where).parts[part]
    unsigned = case.unsigned.get(part, set())
    found = [
        (place, value)
        for place, value in changes(good, f"{name} {where} {part}")
        if value != good[place]
        and place not in unsigned
        and accepted(case, where, part, good[:place] + bytes((value,)) + good[place + 1 :])
    ]
    assert found == []
