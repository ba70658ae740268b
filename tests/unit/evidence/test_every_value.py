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
    azure_evidence,
    cca_evidence,
    dcap_evidence,
    gcp_evidence,
    nitro_evidence,
    nvgpu_evidence,
    snp_evidence,
    tpm_evidence,
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
        evidence=dcap_evidence.GOOD[tee, version],
        endorsements=dcap_evidence.ENDORSED[tee],
        bound=dcap_evidence.BOUND,
        roots=dcap_evidence.ROOTS,
        now=dcap_evidence.NOW,
    )


def amd(name, version):
    chip = snp_evidence.CHIPS[name]
    return Case(
        evidence=chip.evidence(snp_evidence.BOUND, guest=Guest(version=version)),
        endorsements=chip.endorsements(),
        bound=snp_evidence.BOUND,
        roots=frozenset({chip.root}),
        now=snp_evidence.NOW,
    )


def azure(kind):
    return Case(
        evidence=azure_evidence.GOOD[kind],
        endorsements=azure_evidence.ENDORSED[kind],
        bound=azure_evidence.BOUND,
        roots=frozenset({azure_evidence.VMS[kind].root}),
        now=azure_evidence.NOW,
        unsigned={"hcl-report": azure_evidence.UNSIGNED[kind]},
    )


def google(kind):
    # Without a log, whose labels of events nobody measures: gcp_evidence holds that they forge no fact.
    machine = FakeGoogle(now=gcp_evidence.NOW, **gcp_evidence.KINDS[kind])
    return Case(
        evidence=machine.evidence(gcp_evidence.BOUND, logged=False),
        bound=gcp_evidence.BOUND,
        roots=frozenset({machine.root}),
        now=gcp_evidence.NOW,
    )


GPU = nvgpu_evidence.GPU.evidence(nvgpu_evidence.BOUND)
CASES = {
    **{f"{tee}-v{version}": intel(tee, version) for tee, version in dcap_evidence.KINDS},
    **{
        f"snp-{name}-v{version}": amd(name, version)
        for name, version in (("milan", 2), ("milan", 3), ("genoa", 5), ("turin", 5), ("vlek", 3))
    },
    "nitro": Case(
        evidence=nitro_evidence.AWS.evidence(nitro_evidence.BOUND),
        bound=nitro_evidence.BOUND,
        roots=nitro_evidence.ROOTS,
        now=nitro_evidence.NOW,
    ),
    "tpm": Case(
        evidence=tpm_evidence.GOOD,
        bound=tpm_evidence.BINDING,
        roots=frozenset({tpm_evidence.TPM.root}),
        now=tpm_evidence.NOW,
    ),
    "tpm-rsa": Case(
        evidence=tpm_evidence.RSA.evidence(tpm_evidence.BINDING),
        bound=tpm_evidence.BINDING,
        roots=frozenset({tpm_evidence.RSA.root}),
        now=tpm_evidence.NOW,
    ),
    **{f"azure-{kind}": azure(kind) for kind in azure_evidence.KINDS},
    **{f"gcp-{kind}": google(kind) for kind in ("p256", "p384", "rsassa", "rsapss")},
    "cca": Case(
        evidence=cca_evidence.PLATFORM.evidence(cca_evidence.BOUND),
        endorsements=cca_evidence.PLATFORM.endorsements(),
        bound=cca_evidence.BOUND,
        roots=cca_evidence.ROOTS,
        now=cca_evidence.NOW,
    ),
    "nvgpu": Case(
        evidence=GPU,
        endorsements=nvgpu_evidence.GPU.endorsements(GPU),
        bound=nvgpu_evidence.BOUND,
        roots=nvgpu_evidence.ROOTS,
        now=nvgpu_evidence.NOW,
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
