"""Contracts under which no room could ever run, by their words alone; and launches that no platform accepts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from strongroom.appraisal.appraise import check_launch
from strongroom.appraisal.fitness import check_fitness
from strongroom.appraisal.wording.sentences import explain
from strongroom.evidence import roots
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import room_terms
from strongroom.model.room.launch import Launch
from strongroom_testing.contracts import changed
from tests import samples

Role = contract_model.Role


def unfit(contract):
    told = [explain(one) for one in check_fitness(contract) if not one.ok]
    assert all(one.hint and one.source for one in told)
    return {one.name: one.got for one in told}


def test_a_sound_contract_is_fit():
    assert unfit(samples.a_contract()) == {}


def roles(alice, bob):
    one = samples.a_contract()
    return replace(
        one,
        members=tuple(
            replace(member, role=role) for member, role in zip(one.members, (alice, bob), strict=True)
        ),
    )


@pytest.mark.parametrize(
    ("contract", "name", "got"),
    [
        (
            replace(
                samples.a_contract(),
                members=tuple(
                    replace(one, party=replace(one.party, broker=None))
                    for one in samples.a_contract().members
                ),
            ),
            "contract.broker",
            "no broker",
        ),
        (
            samples.a_contract(rooms=(samples.a_room(name="db"), samples.a_room(name="web", datasets=()))),
            "contract.broker",
            "no broker",
        ),
        (
            replace(
                samples.a_contract(),
                platforms=tuple(replace(one, simulated=False) for one in samples.a_contract().platforms),
            ),
            "contract.simulated",
            "tpm: the roots are no vendor's, and software standing in is not accepted",
        ),
        (
            samples.a_contract(
                outputs=(room_terms.Output(path="/out", recipients=("bob",), max_bytes=1 << 40),)
            ),
            "contract.outputs",
            f"outputs of up to {1 << 40} bytes",
        ),
        (roles(Role.AUDITOR, Role.PROGRAM_OWNER), "contract.roles", "alice is called auditor and owns data"),
        (
            roles(Role.DATA_OWNER, Role.RECIPIENT),
            "contract.roles",
            "bob is called recipient and owns the image",
        ),
        (
            roles(Role.PROGRAM_OWNER, Role.DATA_OWNER),
            "contract.roles",
            "alice is called program-owner and owns data; bob is called data-owner and owns the image",
        ),
    ],
)
def test_what_can_never_run(contract, name, got):
    assert unfit(contract) == {name: got}


def test_the_owners_of_the_room_that_nobody_judges_are_named():
    rooms = (samples.a_room(name="db"), samples.a_room(name="web", datasets=()))
    (check,) = [check for check in check_fitness(samples.a_contract(rooms=rooms)) if not check.ok]
    assert (check.name, check.expected, check.got) == ("contract.broker", ["bob"], [])


def test_who_owns_both_is_called_either():
    one = samples.a_contract()
    both = changed(one, image=replace(one.rooms[0].image, owner="alice"))
    assert (
        unfit(replace(both, members=(both.members[0], replace(both.members[1], role=Role.RECIPIENT)))) == {}
    )
    assert unfit(both) == {"contract.roles": "bob is called program-owner and owns no disk"}


def test_a_vendors_root_is_enough_without_simulation():
    tee, found = next((tee, found) for tee, found in roots.HARDWARE.items() if found)
    platform = replace(samples.a_contract().platforms[0], tee=tee, simulated=False, roots=(min(found),))
    assert unfit(replace(samples.a_contract(), platforms=(platform,))) == {}


def launch(**changes):
    made = Launch(
        tee="tpm", simulated=True, memory_guard=True, root=samples.DIGEST, machine="m", registers=samples.REFERENCE
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, set()),
        ({"tee": "snp"}, {"platform.tee"}),
        ({"memory_guard": False}, {"platform.memory_guard"}),
        ({"root": "sha256:" + "ee" * 32}, {"platform.root"}),
        ({"machine": ""}, {"platform.machine"}),
        ({"registers": samples.REFERENCE | {"kernel": "sha256:" + "ee" * 32}}, {"platform.reference.kernel"}),
        ({"registers": samples.REFERENCE | {"more": "x"}}, {"platform.reference.more"}),
    ],
)
def test_a_launch_is_compared_as_a_rooms_claims_are(changes, failed):
    checks = check_launch(launch(**changes), samples.a_contract().platforms)
    assert {one.name for one in checks if not one.ok} == failed


def test_without_platforms_no_launch_is_good():
    assert [one.ok for one in check_launch(launch(), ())] == [False]
