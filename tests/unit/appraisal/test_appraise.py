"""Claims against a contract: each check refuses alone, and nothing missing ever counts as a yes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.appraisal.appraise import appraise, deny
from strongroom.appraisal.wording.sentences import explain
from strongroom.evidence import verify
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.verdict import Accepted, Check, Denied
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm

SCENE = contracts.scene()
NOW = SCENE.now
CONTRACT = SCENE.contract()
HOUR = timedelta(hours=1)
GATES = (Check(name="nonce", expected="fresh", got="fresh", ok=True),)
PLATFORM = contracts.platform(SCENE.tpm)
DAMAGED = fake_tpm.digest("damaged")


def binding(contract=CONTRACT) -> Binding:
    keys = RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216)
    return Binding(
        nonce=b"n" * 32,
        contract_digest=contract.digest,
        keys=keys,
        role="main",
        audience=fake_tpm.digest("a"),
    )


def claims_for(contract=CONTRACT):
    bound = binding(contract)
    roots = frozenset({SCENE.tpm.root})
    return verify.verify(SCENE.tpm.evidence(bound), NONE, binding=bound, roots=roots, now=NOW)


CLAIMS = claims_for()


def judge(claims=CLAIMS, contract=CONTRACT, *, gates=GATES, now=NOW, lifetime=HOUR, bound=None):
    return appraise(
        claims, contract, binding=bound or binding(contract), gates=gates, now=now, lifetime=lifetime
    )


def failed(verdict) -> list[str]:
    if isinstance(verdict, Accepted):
        assert all(check.ok for check in verdict.checks)
        return []
    assert verdict.failed
    assert all(told.hint and told.expected and told.got for told in map(explain, verdict.failed))
    return [check.name for check in verdict.failed]


def with_platforms(*platforms):
    """A contract with these platforms (unparsed: also ones that parsing would refuse), and its claims."""
    contract = replace(CONTRACT, platforms=tuple(platforms))
    return contract, replace(CLAIMS, contract_digest=contract.digest)


def test_what_the_parties_signed_for_is_accepted():
    verdict = judge()
    assert isinstance(verdict, Accepted)
    assert verdict.binding == binding()
    assert verdict.claims == CLAIMS
    assert verdict.checks[0] == GATES[0]
    assert verdict.decided == NOW
    assert verdict.expires == NOW + HOUR
    assert {check.name for check in verdict.checks} >= {
        "platform.tee",
        "platform.simulated",
        "platform.debug",
        "platform.memory_guard",
        "platform.root",
        "platform.machine",
        "platform.contract",
        *(f"platform.reference.{name}" for name in fake_tpm.RECORD.reference()),
    }


def test_a_verdict_ends_with_the_contract_at_the_latest():
    verdict = judge(lifetime=timedelta(days=9))
    assert isinstance(verdict, Accepted)
    assert verdict.expires == CONTRACT.limits.not_after
    assert failed(judge(lifetime=timedelta(0))) == ["verdict.lifetime"]
    assert failed(judge(lifetime=-HOUR)) == ["verdict.lifetime"]
    assert failed(judge(now=CONTRACT.limits.not_after)) == ["verdict.lifetime"]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"tee": "snp"}, ["platform.tee"]),
        ({"debug": True}, ["platform.debug"]),
        ({"memory_guard": False}, ["platform.memory_guard"]),
        ({"root": DAMAGED}, ["platform.root"]),
        ({"contract_digest": DAMAGED}, ["platform.contract"]),
        ({"contract_digest": None}, ["platform.contract"]),
        ({"machine": ""}, ["platform.machine"]),
        *(
            ({"registers": {**CLAIMS.registers, name: DAMAGED}}, [f"platform.reference.{name}"])
            for name in CLAIMS.registers
        ),
    ],
    ids=str,
)
def test_each_claim_is_compared(change, names):
    assert failed(judge(replace(CLAIMS, **change))) == names


def test_only_a_platform_that_says_so_accepts_simulation():
    contract, claims = with_platforms(replace(PLATFORM, simulated=False))
    assert failed(judge(claims, contract)) == ["platform.simulated"]
    assert failed(judge(replace(claims, simulated=False), contract)) == []
    assert failed(judge(replace(CLAIMS, simulated=False))) == [], "hardware is better than asked for"


def test_the_memory_guard_may_be_left_open_by_the_contract():
    contract, claims = with_platforms(replace(PLATFORM, memory_guard=False))
    for on in (True, False):
        assert failed(judge(replace(claims, memory_guard=on), contract)) == []


def test_rule_21_another_genuine_machine_is_refused_when_machines_are_listed():
    contract, claims = with_platforms(replace(PLATFORM, machines=(SCENE.tpm.machine,)))
    assert failed(judge(claims, contract)) == []
    other = replace(claims, machine=fake_tpm.FakeTpm(now=NOW, authority=SCENE.tpm.authority).machine)
    assert failed(judge(other, contract)) == ["platform.machine"]
    contract, claims = with_platforms(replace(PLATFORM, machines=(SCENE.tpm.machine, "any")))
    assert failed(judge(replace(other, contract_digest=contract.digest), contract)) == []


def test_rule_34_empty_lists_accept_nothing():
    for name, check in (("roots", "platform.root"), ("machines", "platform.machine")):
        contract, claims = with_platforms(replace(PLATFORM, **{name: ()}))
        assert failed(judge(claims, contract)) == [check]
    contract, claims = with_platforms(replace(PLATFORM, references=()))
    assert failed(judge(claims, contract)) == ["platform.tee"]
    contract, claims = with_platforms()
    assert failed(judge(claims, contract)) == ["platform.tee"]
    contract, claims = with_platforms(replace(PLATFORM, references=({},)))
    names = [f"platform.reference.{name}" for name in claims.registers]
    assert failed(judge(claims, contract)) == names


def test_rule_35_a_register_without_a_reference_value_is_a_no():
    for name in CLAIMS.registers:
        partial = {key: value for key, value in CLAIMS.registers.items() if key != name}
        contract, claims = with_platforms(replace(PLATFORM, references=(partial,)))
        assert failed(judge(claims, contract)) == [f"platform.reference.{name}"]
        assert failed(judge(replace(CLAIMS, registers=partial))) == [f"platform.reference.{name}"]
    assert len(failed(judge(replace(CLAIMS, registers={})))) == len(CLAIMS.registers)


def test_rule_34_a_misspelt_register_is_a_no():
    misspelt = {**CLAIMS.registers, "kernal": CLAIMS.registers["kernel"]}
    contract, claims = with_platforms(replace(PLATFORM, references=(misspelt,)))
    assert failed(judge(claims, contract)) == ["platform.reference.kernal"]


def test_values_are_compared_exactly():
    for change in (str.upper, lambda text: text + " ", lambda text: text[:-1], lambda text: ""):
        registers = {**CLAIMS.registers, "kernel": change(CLAIMS.registers["kernel"])}
        verdict = judge(replace(CLAIMS, registers=registers))
        assert isinstance(verdict, Denied)


def test_any_platform_that_fits_accepts_and_the_nearest_explains():
    far = replace(PLATFORM, tee="snp", simulated=False)
    wrong = replace(
        PLATFORM, references=({**CLAIMS.registers, "kernel": DAMAGED, "initrd": DAMAGED},), roots=(DAMAGED,)
    )
    near = replace(PLATFORM, references=({**CLAIMS.registers, "initrd": DAMAGED},))
    for order in itertools.permutations((far, wrong, near)):
        contract, claims = with_platforms(*order)
        assert failed(judge(claims, contract)) == ["platform.reference.initrd"]
    for order in itertools.permutations((far, wrong, near, PLATFORM)):
        contract, claims = with_platforms(*order)
        assert failed(judge(claims, contract)) == []


def test_two_halves_of_two_references_do_not_make_one():
    first = {**CLAIMS.registers, "kernel": DAMAGED}
    second = {**CLAIMS.registers, "initrd": DAMAGED}
    contract, claims = with_platforms(replace(PLATFORM, references=(first, second)))
    assert len(failed(judge(claims, contract))) == 1


def test_another_tee_never_explains_better_than_the_own_one():
    own = replace(PLATFORM, references=(dict.fromkeys(CLAIMS.registers, DAMAGED),), roots=(DAMAGED,))
    contract, claims = with_platforms(replace(PLATFORM, tee="snp"), own)
    assert "platform.tee" not in failed(judge(claims, contract))


def test_a_failed_gate_denies_and_is_told_first():
    bad = Check(name="nonce", expected="fresh", got="used", ok=False)
    verdict = judge(gates=(bad,))
    assert failed(verdict) == ["nonce"]
    assert verdict.checks[0] == bad


def test_no_gate_at_all_is_a_denial():
    assert failed(judge(gates=())) == ["verdict.gates"]


def test_evidence_bound_to_another_contract_is_a_denial():
    other = replace(binding(), contract_digest=DAMAGED)
    assert failed(judge(bound=other)) == ["binding.contract"]


def test_a_denial_without_a_reason_gets_one():
    for gates in ((), GATES):
        verdict = deny(CONTRACT.digest, gates=gates, now=NOW)
        assert [check.name for check in verdict.failed] == ["verdict.gates"]
    bad = Check(name="nonce", expected="fresh", got="used", ok=False)
    verdict = deny(CONTRACT.digest, gates=(*GATES, bad), claims=CLAIMS, now=NOW)
    assert verdict.failed == (bad,)
    assert verdict.claims == CLAIMS


def test_verdicts_of_hostile_contracts_stay_small():
    references = tuple({**{f"r{index}-{'x' * 300}": "v" * 400 for index in range(2000)}} for _ in range(2))
    contract, claims = with_platforms(replace(PLATFORM, references=references))
    verdict = judge(claims, contract)
    assert isinstance(verdict, Denied)
    assert len(str(verdict.to_json())) < 50_000
    contract, claims = with_platforms(
        replace(PLATFORM, machines=tuple(f"{index:04}" + "m" * 196 for index in range(1024)))
    )
    assert len(str(judge(claims, contract).to_json())) < 50_000


# Monotony: whatever is added to a requirement, and whatever is spoilt in claims, never turns a denial
# into an acceptance. Adding an alternative (a platform, a reference, a root, a machine) may, and is meant to.

STRICTER = {
    "memory guard demanded": lambda one: replace(one, memory_guard=True),
    "hardware demanded": lambda one: replace(one, simulated=False),
    "one more register": lambda one: replace(
        one, references=tuple({**each, "pcr_14": DAMAGED} for each in one.references)
    ),
    "fewer references": lambda one: replace(one, references=one.references[1:]),
    "fewer roots": lambda one: replace(one, roots=one.roots[1:]),
    "a machine list": lambda one: replace(one, machines=(SCENE.tpm.machine,)),
    "fewer machines": lambda one: replace(one, machines=one.machines[1:]),
}
CLAIM_SETS = [
    CLAIMS,
    *(
        replace(CLAIMS, simulated=simulated, memory_guard=guard, machine=machine, registers=registers)
        for simulated in (True, False)
        for guard in (True, False)
        for machine in (SCENE.tpm.machine, DAMAGED)
        for registers in (CLAIMS.registers, {**CLAIMS.registers, "initrd": DAMAGED}, {})
    ),
]
OTHER = {**CLAIMS.registers, "initrd": DAMAGED}
BASES = [
    PLATFORM,
    replace(
        PLATFORM, memory_guard=False, references=(CLAIMS.registers, OTHER), roots=(SCENE.tpm.root, DAMAGED)
    ),
    replace(PLATFORM, simulated=False, machines=(DAMAGED, SCENE.tpm.machine), memory_guard=False),
]


@pytest.mark.parametrize("rule", list(STRICTER))
def test_a_stricter_platform_never_accepts_more(rule):
    turned_down = 0
    for base, claims in itertools.product(BASES, CLAIM_SETS):
        before, after = with_platforms(base)[0], with_platforms(STRICTER[rule](base))[0]
        was = judge(replace(claims, contract_digest=before.digest), before)
        now = judge(replace(claims, contract_digest=after.digest), after)
        assert not (isinstance(was, Denied) and isinstance(now, Accepted))
        turned_down += isinstance(was, Accepted) and isinstance(now, Denied)
    assert turned_down, "the rule must be able to refuse something that was accepted"


@pytest.mark.parametrize("spoil", ["debug", "root", "contract_digest", "tee", "registers"])
def test_worse_claims_are_never_accepted_more(spoil):
    worse = {"debug": True, "root": "none", "contract_digest": None, "tee": "none", "registers": {}}[spoil]
    for base, claims in itertools.product(BASES, CLAIM_SETS):
        contract = with_platforms(base)[0]
        own = replace(claims, contract_digest=contract.digest)
        assert isinstance(judge(replace(own, **{spoil: worse}), contract), Denied)


def test_another_failed_gate_never_helps():
    bad = Check(name="more", expected="x", got="y", ok=False)
    for base, claims in itertools.product(BASES, CLAIM_SETS):
        contract = with_platforms(base)[0]
        own = replace(claims, contract_digest=contract.digest)
        assert isinstance(judge(own, contract, gates=(*GATES, bad)), Denied)
