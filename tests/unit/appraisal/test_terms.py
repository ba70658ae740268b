"""The contract's own terms: who signed, when, how often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from strongroom.appraisal.terms import check_terms
from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import dsse
from strongroom.model import identity
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom_testing import contracts
from strongroom_testing.contracts import changed

SCENE = contracts.scene()
NOW = SCENE.now
DORA = identity.generate("dora")


def failed(agreement, *, now=NOW, runs_used=0) -> set[str]:
    checks = check_terms(agreement, now=now, runs_used=runs_used)
    assert all(explain(check).hint for check in checks if not check.ok)
    return {check.name for check in checks if not check.ok}


def test_a_signed_contract_in_time_with_runs_left_holds():
    checks = check_terms(SCENE.agreement(), now=NOW, runs_used=1)
    assert [check.name for check in checks] == [
        "contract.approvals",
        "contract.approvals.alice",
        "contract.approvals.bob",
        "contract.validity",
        "contract.runs",
    ]
    assert all(check.ok for check in checks)


def test_nobody_signed():
    names = {"contract.approvals", "contract.approvals.alice", "contract.approvals.bob"}
    assert failed(SCENE.agreement(signers=())) == names


def test_one_is_missing_and_is_named():
    agreement = SCENE.agreement(signers=("alice",))
    assert failed(agreement) == {"contract.approvals", "contract.approvals.bob"}
    first = check_terms(agreement, now=NOW, runs_used=0)[0]
    assert first.got == ["alice"]
    assert "bob" in explain(first).hint
    assert "alice" in explain(first).got


def on_hardware(contract):
    return replace(contract, platforms=tuple(replace(one, simulated=False) for one in contract.platforms))


def test_rule_36_an_owner_cannot_be_outvoted():
    carol = identity.generate("carol")

    def lower(contract):
        third = replace(contract.members[0], party=carol.party())
        approvals = replace(contract.approvals, parties=("alice", "bob", "carol"), threshold=2)
        return on_hardware(replace(contract, members=(*contract.members, third), approvals=approvals))

    agreement = agreement_model.add_signature(SCENE.agreement(lower, signers=("bob",)), carol.signing)
    assert failed(agreement) == {"contract.approvals.alice"}
    assert failed(agreement_model.add_signature(agreement, SCENE.alice.signing)) == set()


def test_rule_36_one_signature_counts_once():
    signed = SCENE.agreement(signers=("alice",))
    doubled = replace(signed.envelope, signatures=signed.envelope.signatures * 2)
    agreement = agreement_model.Agreement(envelope=doubled, contract=signed.contract)
    assert "contract.approvals" in failed(agreement)


def test_rule_38_a_signature_is_over_exact_bytes():
    signed = SCENE.agreement()
    more = SCENE.contract(lambda one: replace(one, limits=replace(one.limits, runs=1000)))
    envelope = replace(signed.envelope, payload=more.raw)
    swapped = agreement_model.Agreement(envelope=envelope, contract=more)
    assert "contract.approvals" in failed(swapped)
    # Old envelope, new contract beside it: the signatures hold, but over other bytes than are judged.
    beside = agreement_model.Agreement(envelope=signed.envelope, contract=more)
    assert "contract.approvals" in failed(beside)


def test_signatures_are_asked_again_when_anything_differs():
    signed = SCENE.agreement()
    assert failed(signed) == set()
    spoiled = bytearray(signed.envelope.signatures[0].sig)
    spoiled[0] ^= 1
    first = dsse.DsseSignature(keyid=signed.envelope.signatures[0].keyid, sig=bytes(spoiled))
    envelope = replace(signed.envelope, signatures=(first, *signed.envelope.signatures[1:]))
    agreement = agreement_model.Agreement(envelope=envelope, contract=signed.contract)
    assert failed(agreement) == {"contract.approvals", "contract.approvals.alice"}
    assert failed(signed) == set()


def test_validity_has_exact_ends():
    agreement = SCENE.agreement()
    limits = agreement.contract.limits
    second = timedelta(seconds=1)
    assert failed(agreement, now=limits.not_before) == set()
    assert failed(agreement, now=limits.not_before - second) == {"contract.validity"}
    assert failed(agreement, now=limits.not_after - second) == set()
    assert failed(agreement, now=limits.not_after) == {"contract.validity"}


def test_runs_are_counted():
    agreement = SCENE.agreement()
    assert failed(agreement, runs_used=1) == set()
    assert failed(agreement, runs_used=2) == {"contract.runs"}
    assert failed(agreement, runs_used=10**12) == {"contract.runs"}
    assert failed(agreement, runs_used=-1) == {"contract.runs"}


def test_large_contracts_are_judged_alike():
    def grow(contract):
        arguments = tuple("x" * 60_000 for _ in range(2))
        return changed(contract, image=replace(contract.rooms[0].image, arguments=arguments))

    assert len(SCENE.contract(grow).raw) > 100_000
    assert failed(SCENE.agreement(grow)) == set()
    assert failed(SCENE.agreement(grow, signers=("alice",))) == {
        "contract.approvals",
        "contract.approvals.bob",
    }


def with_dora(contract):
    """dora receives the output; she neither owns a disk nor approves, and the threshold asks for alice alone."""
    dora = replace(contract.members[0], party=DORA.party(), role=contract_model.Role.RECIPIENT)
    return changed(
        contract,
        members=(*contract.members, dora),
        outputs=(replace(contract.rooms[0].outputs[0], recipients=("dora",)),),
        approvals=contract_model.Approvals(parties=("alice", "bob"), threshold=1),
    )


def test_rule_33_a_simulated_platform_needs_the_signature_of_every_party():
    agreement = SCENE.agreement(with_dora)
    assert failed(agreement) == {"contract.approvals.dora"}
    assert not agreement.approved()
    assert agreement.missing() == ("dora",)
    whole = agreement_model.add_signature(agreement, DORA.signing)
    assert failed(whole) == set()
    assert whole.approved()
    assert whole.missing() == ()


def test_rule_33_one_simulated_platform_among_others_needs_every_signature_too():
    def mixed(contract):
        real = replace(contract.platforms[0], tee="snp", simulated=False)
        return replace(with_dora(contract), platforms=(real, *contract.platforms))

    assert failed(SCENE.agreement(mixed)) == {"contract.approvals.dora"}


def test_on_hardware_a_recipient_need_not_sign():
    agreement = SCENE.agreement(lambda one: on_hardware(with_dora(one)))
    assert failed(agreement) == set()
    assert agreement.approved()


def test_as_many_parties_as_a_contract_may_have_can_all_sign():
    others = [identity.generate(f"party-{at}") for at in range(contract_model.MAX_PARTIES - 2)]

    def crowd(contract):
        more = tuple(
            replace(contract.members[0], party=one.party(), role=contract_model.Role.AUDITOR)
            for one in others
        )
        return replace(
            contract,
            members=(*contract.members, *more),
            approvals=contract_model.Approvals(
                parties=("alice", "bob", *(one.name for one in others)), threshold=contract_model.MAX_PARTIES
            ),
        )

    agreement = SCENE.agreement(crowd)
    for one in others:
        assert not agreement.approved()
        agreement = agreement_model.add_signature(agreement, one.signing)
    read = agreement_model.read(agreement.encode())
    assert len(read.signers()) == contract_model.MAX_PARTIES
    assert read.approved()
    assert failed(read) == set()
