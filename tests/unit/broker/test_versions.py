"""The version chain: nothing is skipped, nobody's contract withdraws another's, and what is brought along is checked."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from strongroom.appraisal.wording.sentences import explain
from strongroom.broker import versions
from strongroom.broker.admit_contract import admit
from strongroom.crypto import sign
from strongroom.errors import Conflict, Malformed
from strongroom.model import identity, messages
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting
from strongroom.model.verdict import Check
from strongroom_testing import brokers
from strongroom_testing.contracts import changed
from strongroom_testing.vendors import fake_tpm

MALLORY = identity.generate("mallory")


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made


def failed(answer):
    assert isinstance(answer, messages.DenialAnswer), "released, where a denial was due"
    return [check["name"] for check in answer.verdict["checks"] if not check["ok"]]


def told(answer, name):
    found = next(check for check in answer.verdict["checks"] if check["name"] == name)
    return explain(Check(**found))


def ask(world, agreement, *earlier):
    room = world.room(agreement)
    asked = room.ask(world.challenge(agreement).nonce)
    return world.release(replace(asked, earlier=tuple(one.encode() for one in earlier)).encode())


def released(world, agreement, *earlier):
    assert isinstance(ask(world, agreement, *earlier), messages.ReleaseAnswer)


def following(world, before, *, change=lambda one: one, signers=("alice", "bob"), **changes):
    """The version after `before`."""

    def draw(one):
        one = replace(one, version=before.contract.version + 1, replaces=before.contract.digest)
        return change(replace(one, **changes))

    return world.agreement(draw, signers=signers)


@pytest.fixture
def chain(world):
    """Versions 1 to 4, each signed and each replacing the one before."""
    links = [world.agreement()]
    for _ in range(3):
        links.append(following(world, links[-1]))
    return links


def test_rule_42_a_version_that_replaces_something_else_withdraws_nothing(world, chain):
    released(world, chain[0])
    released(world, chain[1])
    skipping = world.agreement(lambda one: replace(one, version=3, replaces=fake_tpm.digest("unrelated")))
    assert failed(ask(world, skipping))[0] == "contract.replaces"
    far = world.agreement(lambda one: replace(one, version=1_000_000, replaces=chain[1].contract.digest))
    assert failed(ask(world, far))[0] == "contract.version"
    with pytest.raises(Conflict, match=r"contract\.replaces"):
        asyncio.run(admit(world.broker, skipping.encode()))
    with pytest.raises(Conflict, match=r"contract\.version"):
        asyncio.run(admit(world.broker, far.encode()))
    released(world, chain[1])


def test_rule_42_a_version_cannot_be_skipped(world, chain):
    released(world, chain[0])
    answer = ask(world, chain[2])
    assert failed(answer)[0] == "contract.version"
    assert "--earlier" in told(answer, "contract.version").hint
    assert "version 2" in told(answer, "contract.version").hint
    assert "2 to 3" in told(ask(world, chain[3]), "contract.version").hint
    released(world, chain[0])


def test_rule_42_with_the_signed_chain_between_it_is_released_and_withdraws_all(world, chain):
    released(world, chain[0])
    released(world, chain[3], chain[1], chain[2])
    assert [row[1:] for row in world.store.versions()] == [(4, chain[3].contract.digest)]
    for one in chain[:3]:
        assert failed(ask(world, one))[0] == "contract.version"
    released(world, chain[3])


def test_a_broker_that_knows_nothing_begins_at_version_1(world, chain):
    """A new broker has not seen the past either: it takes no later version without it."""
    assert failed(ask(world, chain[1]))[0] == "contract.version"
    released(world, chain[2], chain[0], chain[1])
    assert failed(ask(world, chain[0]))[0] == "contract.version"


def test_what_is_known_already_may_be_brought_again(world, chain):
    released(world, chain[0])
    released(world, chain[1])
    released(world, chain[2], chain[0], chain[1])
    released(world, chain[2], chain[0], chain[1])


def test_a_chain_with_a_hole_is_none(world, chain):
    released(world, chain[0])
    assert "contract.version" in failed(ask(world, chain[3], chain[2]))
    assert "contract.version" in failed(ask(world, chain[3], chain[1]))


def test_a_link_that_its_party_did_not_sign_is_none(world):
    first = world.agreement()
    released(world, first)
    unsigned = following(world, first, signers=("bob",))
    third = following(world, unsigned)
    assert failed(ask(world, third, unsigned))[0] == "contract.earlier"
    released(world, first)


def test_a_link_of_another_contract_or_of_other_owners_is_none(world):
    first = world.agreement()
    released(world, first)
    for change in (
        lambda one: replace(one, id="other"),
        lambda one: changed(one, image=replace(one.rooms[0].image, owner="alice")),
    ):
        link = following(world, first, change=change)
        assert failed(ask(world, following(world, link), link))[0] == "contract.earlier"


def test_two_second_versions_do_not_both_count(world):
    first = world.agreement()
    released(world, first)
    one = following(world, first)
    other = following(world, first, change=lambda two: changed(two, wall_seconds=7))
    released(world, following(world, other), one, other)
    assert failed(ask(world, following(world, one), one))[0] == "contract.version"
    assert failed(ask(world, one))[0] == "contract.version"


def test_the_same_id_of_other_disk_owners_withdraws_nothing(world):
    """alice signs a contract of mallory's with the id of hers with bob: bob's contract stands."""
    genuine = world.agreement()
    released(world, genuine)

    def usurp(one):
        member = contract_model.Member(party=MALLORY.party(), role=contract_model.Role.PROGRAM_OWNER)
        return changed(
            one,
            members=(one.members[0], member),
            image=replace(one.rooms[0].image, owner="mallory"),
            outputs=(replace(one.rooms[0].outputs[0], recipients=("mallory",)),),
            approvals=contract_model.Approvals(parties=("alice", "mallory"), threshold=1),
        )

    def draw(one, version, replaces):
        raw = drafting.encode(usurp(replace(one, version=version, replaces=replaces)))
        made = agreement_model.draft(contract_model.parse(raw))
        for signer in (world.scene.alice, MALLORY):
            made = agreement_model.add_signature(made, signer.signing)
        return made

    theirs = draw(world.agreement().contract, 1, None)
    released(world, theirs)
    second = draw(world.agreement().contract, 2, theirs.contract.digest)
    asyncio.run(admit(world.broker, second.encode()))
    released(world, genuine)
    assert sorted(row[:2] for row in world.store.versions()) == [("flights", 1), ("flights", 2)]
    taking_over = draw(world.agreement().contract, 2, genuine.contract.digest)
    with pytest.raises(Conflict, match=r"contract\.version"):
        asyncio.run(admit(world.broker, taking_over.encode()))
    released(world, genuine)


def test_admitting_needs_the_chain_as_well(world, chain):
    with pytest.raises(Conflict, match=r"contract\.version"):
        asyncio.run(admit(world.broker, chain[3].encode()))
    earlier = [one.encode() for one in chain[:3]]
    asyncio.run(admit(world.broker, chain[3].encode(), earlier))
    assert [row[1] for row in world.store.versions()] == [4]
    unsigned = following(world, chain[3], signers=("bob",))
    last = following(world, unsigned).encode()
    with pytest.raises(Conflict, match=r"contract\.earlier"):
        asyncio.run(admit(world.broker, last, [unsigned.encode()]))


def test_rule_59_what_is_brought_along_is_bounded(world, chain):
    request = world.room(chain[0]).ask(world.challenge(chain[0]).nonce)
    many = replace(request, earlier=(b"x",) * (agreement_model.MAX_EARLIER + 1))
    large = replace(request, earlier=(b"x" * (agreement_model.MAX_EARLIER_BYTES // 2 + 1),) * 2)
    for one in (many, large):
        with pytest.raises(Malformed, match="earlier"):
            world.release(one.encode())
    world.release(request.encode())


def test_rule_59_the_first_that_is_not_signed_ends_the_reading(world, chain, monkeypatch):
    verified = []
    verify = sign.VerifyingKey.verify

    def counting(self, signature, message):
        verified.append(self)
        return verify(self, signature, message)

    forged = replace(
        chain[0].envelope, signatures=(replace(chain[0].envelope.signatures[0], sig=bytes(64)),)
    ).encode()
    monkeypatch.setattr(sign.VerifyingKey, "verify", counting)
    brought = versions.read(chain[3].contract, [forged] * 16, world.settings.party)
    assert not brought.checks[0].ok
    assert brought.links == ()
    assert len(verified) == 1


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff" * 40])
def test_junk_that_is_brought_along_is_a_no_with_a_reason(world, chain, junk):
    room = world.room(chain[0])
    asked = room.ask(world.challenge(chain[0]).nonce)
    answer = world.release(replace(asked, earlier=(junk,)).encode())
    assert failed(answer)[0] == "contract.earlier"
    assert told(answer, "contract.earlier").got == "file 1: malformed"
