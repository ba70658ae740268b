"""The policy language: each rule refuses alone, a missing claim is a no, and more rules never accept more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.appraisal import profiles
from strongroom.appraisal.appraise import check_platforms
from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import record
from strongroom.model.claims import Claims
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import policy as policy_model
from strongroom.model.contracts.policy import Devices, Policy
from tests.effort import examples
from tests.unit.appraisal.snp_claims import CONTRACT, ROOT, SNP

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)

TDX = Claims(
    tee="tdx",
    simulated=False,
    root=ROOT,
    machine="sha256:" + "22" * 32,
    contract_digest=CONTRACT,
    registers={"mr_td": "bb" * 48, "rtmr0": "00" * 48, "mr_config_id": "ab" * 32 + "00" * 16},
    debug=False,
    memory_guard=False,
    facts={
        "fmspc": "00806f050000",
        "td_attributes.sept_ve_disable": True,
        "td_attributes.migratable": False,
        "td_attributes.perfmon": False,
        "td_report": "1.5",
    },
    not_checked=(),
    tcb={"tdx_module.svn": 6, "qe.svn": 8},
    status="UpToDate",
)
MEASURED = {f"m{index}": f"{index:02x}" * 48 for index in range(1, 65)}
GPU = replace(
    SNP,
    tee="nvgpu",
    machine="gpu-1",
    contract_digest=None,
    registers=MEASURED,
    facts={"model": "GH100"},
    tcb={},
)


def platform(claims=SNP, policy=None, **changes):
    names = [name for name, value in claims.registers.items() if not value.startswith("ab" * 32)]
    made = contract_model.Platform(
        tee=claims.tee,
        simulated=False,
        memory_guard=False,
        roots=(ROOT,),
        machines=(claims.machine,),
        references=({name: claims.registers[name] for name in names},),
        policy=policy,
    )
    return replace(made, **changes)


def checks(claims=SNP, policy=None, *, now=NOW, contract=CONTRACT, **changes):
    return check_platforms(claims, (platform(claims, policy, **changes),), contract_digest=contract, now=now)


def failed(claims=SNP, policy=None, *, now=NOW, contract=CONTRACT, **changes):
    """The names of the checks that fail; each says what it expected, what it got, and what to do."""
    made = checks(claims, policy, now=now, contract=contract, **changes)
    for check in made:
        told = explain(check)
        assert told.expected, check
        assert told.got, check
        assert bool(told.hint) != check.ok, check
        assert told.source, check
    return [check.name for check in made if not check.ok]


def with_facts(claims=SNP, **facts):
    return replace(
        claims, facts={**claims.facts, **{key.replace("__", "."): value for key, value in facts.items()}}
    )


def without(claims, fact):
    return replace(claims, facts={key: value for key, value in claims.facts.items() if key != fact})


def parse(value):
    return policy_model.read(fields.Fields(value, "policy"))


def test_the_strict_default_accepts_what_is_sound():
    assert failed() == []
    assert failed(TDX) == []
    assert failed(policy=policy_model.DEFAULT) == []


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        (replace(SNP, debug=True), "platform.debug"),
        (replace(SNP, simulated=True), "platform.simulated"),
        (with_facts(vmpl=1), "platform.vmpl"),
        (with_facts(vmpl=False), "platform.vmpl"),
        (with_facts(policy__migrate_ma=True), "platform.default.policy.migrate_ma"),
        (without(SNP, "policy.migrate_ma"), "platform.default.policy.migrate_ma"),
        (
            with_facts(TDX, td_attributes__sept_ve_disable=False),
            "platform.default.td_attributes.sept_ve_disable",
        ),
        (with_facts(TDX, td_attributes__sept_ve_disable=1), "platform.default.td_attributes.sept_ve_disable"),
        (with_facts(TDX, td_attributes__migratable=True), "platform.default.td_attributes.migratable"),
        (replace(TDX, status="OutOfDate"), "platform.status"),
        (replace(TDX, status=""), "platform.status"),
        (replace(TDX, advisories=("INTEL-SA-00001",)), "platform.advisory.INTEL-SA-00001"),
        (replace(SNP, tee="new"), "platform.revocation"),
        (replace(SNP, devices=(GPU,)), "platform.devices"),
        (with_facts(rim="not compared"), "platform.compared"),
    ],
)
def test_rule_34_the_strict_default_refuses(claims, name):
    assert name in failed(claims)


@pytest.mark.parametrize("which", ["committed", "launch", "reported"])
def test_rule_07_each_tcb_component_is_compared_by_itself(which):
    good = {f"{which}.snp": SNP.tcb[f"{which}.snp"]}
    assert failed(policy=Policy(tcb=good)) == []
    more = {f"{which}.snp": SNP.tcb[f"{which}.snp"] + 1, "committed.microcode": 1}
    assert failed(policy=Policy(tcb=more)) == [f"platform.tcb.{which}.snp"]
    # A high value of one component makes up for nothing.
    high = replace(SNP, tcb={**SNP.tcb, "committed.microcode": 255})
    assert failed(high, Policy(tcb=more)) == [f"platform.tcb.{which}.snp"]


def test_rule_35_a_rule_over_a_missing_claim_denies():
    assert failed(policy=Policy(tcb={"committed.fmc": 0})) == ["platform.tcb.committed.fmc"]
    assert failed(policy=Policy(facts={"nothing": (False,)})) == ["platform.fact.nothing"]
    assert failed(policy=Policy(max_age_seconds=60)) == ["platform.age"]
    assert failed(TDX, Policy(vmpl=0)) == ["platform.vmpl"]
    assert failed(policy=Policy(status={"UpToDate": None})) == ["platform.status"]
    assert failed(policy=Policy(registers={"rtmr9": ("aa",)})) == ["platform.reference.rtmr9"]
    assert failed(without(SNP, "product"), Policy(products_denied=("Milan",))) == ["platform.product"]
    assert failed(policy=Policy(any_value=("measurement",)), references=({"other": "x"},)) == [
        "platform.reference.other"
    ]


def test_facts_are_compared_with_their_type_and_listed_values_each_count():
    assert failed(policy=Policy(facts={"policy.smt": (True,)})) == []
    assert failed(policy=Policy(facts={"policy.smt": (1,)})) == ["platform.fact.policy.smt"]
    assert failed(policy=Policy(facts={"vmpl": (False,)})) == ["platform.fact.vmpl"]
    assert failed(policy=Policy(facts={"product": ("Turin", "Genoa")})) == []
    assert failed(policy=Policy(facts={"product": ()})) == ["platform.fact.product"]
    assert failed(with_facts(rim="x"), Policy(facts={"rim": ("not compared",)})) == ["platform.fact.rim"]
    unasked = with_facts(rim="not compared")
    assert failed(unasked, Policy(facts={"rim": ("not compared",)})) == [
        "platform.fact.rim",
        "platform.compared",
    ]


def test_statuses_and_advisories_are_accepted_until_their_end():
    old = replace(TDX, status="SWHardeningNeeded", advisories=("INTEL-SA-00615",))
    allowed = Policy(
        status={"UpToDate": None, "SWHardeningNeeded": LATER}, advisories={"INTEL-SA-00615": LATER}
    )
    assert failed(old, allowed) == []
    assert failed(old, allowed, now=LATER - timedelta(seconds=1)) == []
    assert failed(old, allowed, now=LATER) == ["platform.status", "platform.advisory.INTEL-SA-00615"]
    assert failed(TDX, allowed) == []
    assert failed(TDX, Policy(status={})) == ["platform.status"]
    assert failed(TDX, Policy(status={"OutOfDate": None})) == ["platform.status"]


def test_listed_register_values_stand_beside_references():
    more = replace(TDX, registers={**TDX.registers, "rtmr3": "cc" * 48})
    bare = ({"mr_td": "bb" * 48, "rtmr0": "00" * 48},)
    assert failed(more, references=bare) == ["platform.reference.rtmr3"]
    assert failed(more, Policy(registers={"rtmr3": ("dd", "cc" * 48)}), references=bare) == []
    assert failed(more, Policy(registers={"rtmr3": ()}), references=bare) == ["platform.reference.rtmr3"]
    assert failed(more, Policy(any_value=("rtmr3",)), references=bare) == []
    # Where reference and list name the same register, both must hold.
    assert failed(more, Policy(registers={"mr_td": ("dd",)}), references=bare) == [
        "platform.reference.mr_td",
        "platform.reference.rtmr3",
    ]


def test_a_register_that_holds_the_contract_needs_no_reference_and_no_other_does():
    assert failed(TDX) == []
    assert "platform.reference.mr_config_id" in failed(replace(TDX, contract_digest="sha256:" + "cd" * 32))
    odd = {**TDX.registers, "mr_config_id": "ab" * 32 + "00" * 15 + "01"}
    assert "platform.reference.mr_config_id" in failed(replace(TDX, registers=odd))


def test_azure_is_judged_by_the_bits_of_the_hardware_beneath():
    over_snp = replace(with_facts(SNP, hardware="snp"), tee="azure")
    over_tdx = replace(with_facts(TDX, hardware="tdx"), tee="azure")
    assert failed(over_snp) == []
    assert failed(over_tdx) == []
    assert failed(with_facts(over_snp, policy__migrate_ma=True)) == ["platform.default.policy.migrate_ma"]
    assert failed(replace(over_tdx, status="")) == ["platform.status"]
    assert failed(without(over_snp, "platform.ecc_en"), Policy(profile="strict")) == [
        "platform.default.platform.ecc_en"
    ]
    # When it is not told which, both are demanded.
    assert "platform.status" in failed(without(over_snp, "hardware"))


def test_ages_are_of_evidence_that_states_its_time():
    made = int(NOW.timestamp() * 1000)
    nitro = replace(SNP, tee="nitro", facts={"timestamp_ms": made, "product": "x"})
    assert failed(nitro) == []
    assert failed(nitro, now=NOW + timedelta(seconds=300)) == []
    assert failed(nitro, now=NOW + timedelta(seconds=301)) == ["platform.age"]
    assert failed(nitro, Policy(max_age_seconds=400), now=NOW + timedelta(seconds=301)) == []
    assert failed(nitro, now=NOW - timedelta(minutes=6)) == ["platform.age"]
    for odd in ("yesterday", True, -1, 1 << 60):
        assert failed(with_facts(nitro, timestamp_ms=odd)) == ["platform.age"]


def test_revocation_can_be_demanded_of_those_that_have_none():
    nitro = replace(SNP, tee="nitro", facts={})
    assert failed(nitro) == []
    assert failed(nitro, Policy(revocation="checked")) == ["platform.revocation"]
    assert failed(policy=Policy(revocation="checked")) == []
    assert "platform.revocation" in failed(replace(SNP, tee="nvgpu"))


WANTED = Devices(
    count=2, roots=(ROOT,), machines=("any",), facts={"model": ("GH100",)}, references=(MEASURED,)
)


def test_rule_14_devices_are_counted_and_one_bad_one_fails_all():
    two = replace(SNP, devices=(GPU, replace(GPU, machine="gpu-2")))
    assert failed(two, Policy(devices=WANTED)) == []
    assert failed(replace(SNP, devices=(GPU,)), Policy(devices=WANTED)) == ["platform.devices"]
    assert failed(SNP, Policy(devices=WANTED)) == ["platform.devices"]
    for bad, name in (
        (replace(GPU, debug=True), "debug"),
        (replace(GPU, simulated=True), "simulated"),
        (replace(GPU, root="sha256:" + "99" * 32), "root"),
        (replace(GPU, machine=""), "machine"),
        (replace(GPU, facts={}), "fact.model"),
        (replace(GPU, facts={**GPU.facts, "ocsp": "not compared"}), "compared"),
        (replace(GPU, registers={**MEASURED, "m7": "00" * 48}), "reference"),
        (replace(GPU, registers={**MEASURED, "m65": "00" * 48}), "reference"),
        (replace(GPU, registers={name: MEASURED[name] for name in list(MEASURED)[:-1]}), "reference"),
        (replace(GPU, registers={}), "reference"),
    ):
        made = checks(replace(SNP, devices=(GPU, bad)), Policy(devices=WANTED))
        (only,) = [one for one in made if not one.ok]
        assert only.name == f"platform.devices.{name}"
        told = explain(only)
        assert told.got.startswith("1 of 2: device 1: ")
        assert told.hint
    nobody = replace(WANTED, roots=(), machines=())
    assert failed(two, Policy(devices=nobody)) == ["platform.devices.root", "platform.devices.machine"]


def test_a_devices_registers_are_compared_wholly_and_told_in_one_check():
    other = {**MEASURED, "m9": "ff" * 48}
    differing = replace(GPU, machine="gpu-2", registers=other)
    two = replace(SNP, devices=(GPU, differing))
    told = [one for one in checks(two, Policy(devices=WANTED)) if not one.ok]
    assert [one.name for one in told] == ["platform.devices.reference"]
    assert "1 of 64 registers differ, m9 first" in explain(told[0]).got
    # Alternatives, as of two models: each device is as one of them says, wholly.
    both = replace(WANTED, references=(MEASURED, other))
    assert failed(two, Policy(devices=both)) == []
    mixed = replace(GPU, registers={**other, "m1": "ee" * 48})
    assert failed(replace(SNP, devices=(GPU, mixed)), Policy(devices=both)) == ["platform.devices.reference"]
    # Lists instead, or beside; where both name a register, both must hold.
    listed = replace(WANTED, references=(), registers={name: (value,) for name, value in MEASURED.items()})
    assert failed(replace(SNP, devices=(GPU, GPU)), Policy(devices=listed)) == []
    narrower = replace(both, registers={"m9": (MEASURED["m9"],)})
    assert failed(two, Policy(devices=narrower)) == ["platform.devices.reference"]


def test_what_devices_were_compared_with_is_told():
    lists = {name: (value,) for name, value in list(MEASURED.items())[:5]}
    claims = replace(SNP, devices=(GPU, GPU))
    for references, registers, expected in (
        ((), {}, None),
        ((MEASURED,), {}, {"references": 1, "lists": 0}),
        ((), lists, {"references": 0, "lists": 5}),
        ((MEASURED, MEASURED), lists, {"references": 2, "lists": 5}),
    ):
        made = checks(claims, Policy(devices=replace(WANTED, references=references, registers=registers)))
        (told,) = [one for one in made if one.name == "platform.devices.reference"]
        assert told.expected == expected
        assert told.ok is (len(references) > 0)  # five registers of 64 are not all of them


@pytest.mark.parametrize("failing", range(6))
def test_of_devices_that_fail_the_first_three_are_named(failing):
    devices = tuple(
        replace(GPU, machine=f"gpu-{index}", debug=index > 0 and index <= failing) for index in range(6)
    )
    made = checks(replace(SNP, devices=devices), Policy(devices=replace(WANTED, count=6)))
    (told,) = [one for one in made if one.name == "platform.devices.debug"]
    named = {str(index): "debug-on" for index in range(1, min(failing, 3) + 1)}
    assert told.got == {"of": 6, "failed": failing} | ({"first": named} if failing else {})
    assert told.ok is (failing == 0)


def test_rule_35_a_device_that_was_not_compared_is_no_pass():
    plain = replace(GPU, facts={**GPU.facts, "rim": "not compared", "debug_mode": "not compared"})
    two = replace(SNP, devices=(plain, plain))
    assert failed(two, Policy(devices=WANTED)) == []
    for bare in (replace(WANTED, references=()), replace(WANTED, references=(), registers={"m1": ()})):
        assert failed(two, Policy(devices=bare)) == [
            "platform.devices.reference",
            "platform.devices.compared",
        ]
    nameless = replace(plain, tee="other")
    assert failed(replace(two, devices=(nameless,) * 2), Policy(devices=WANTED)) == [
        "platform.devices.compared"
    ]


def test_rule_15_a_verdict_over_the_most_devices_fits_a_record():
    most = {f"m{index}": "ab" * 64 for index in range(1, 256)}
    long = {f"opaque_{index}": "f" * 400 for index in range(100)}
    many = tuple(replace(GPU, machine=f"{index:064x}", registers=most, facts=long) for index in range(64))
    wanted = replace(
        WANTED,
        count=64,
        references=(dict.fromkeys(most, "cd" * 64),),
        facts={f"fact-{index}": ("x" * 400,) for index in range(4)},
        roots=("sha256:" + "77" * 32,),
    )
    claims = replace(SNP, devices=many)
    made = checks(claims, Policy(devices=wanted))
    assert sum(not one.ok for one in made) >= 5
    verdict = {"claims": claims.to_record(), "checks": [one.to_json() for one in made]}
    assert len(canonical.dumps(verdict)) < record.MAX_BYTES * 2 // 3
    # Who each device is stands there; the rest of its claims is in the evidence, which a record pins.
    changed = replace(claims, devices=(*many[:-1], replace(many[-1], machine="another")))
    assert claims.to_record() != changed.to_record()
    assert claims.to_json()["devices"][0]["registers"] == most


def test_strict_is_up_to_date_without_any_allowance():
    strict = Policy(profile="strict")
    assert failed(policy=strict) == []
    assert failed(TDX, strict) == []
    generous = replace(
        strict,
        status={"UpToDate": None, "OutOfDate": None},
        advisories={"INTEL-SA-00615": LATER},
        waived=("policy.migrate_ma",),
        any_value=("measurement",),
        vmpl=1,
    )
    assert "platform.status" in failed(replace(TDX, status="OutOfDate"), generous)
    assert "platform.advisory.INTEL-SA-00615" in failed(
        replace(TDX, advisories=("INTEL-SA-00615",)), generous
    )
    assert "platform.default.policy.migrate_ma" in failed(with_facts(policy__migrate_ma=True), generous)
    assert "platform.profile.allowances" in failed(policy=generous)
    assert "platform.vmpl" in failed(with_facts(vmpl=1), generous)
    for fact in ("platform.alias_check_complete", "platform.ecc_en"):
        assert failed(with_facts(**{fact: False}), strict) == [f"platform.default.{fact}"]
        assert failed(without(SNP, fact), strict) == [f"platform.default.{fact}"]
        assert failed(without(SNP, fact)) == []


def test_rule_57_physical_attackers_are_met_with_named_machines_and_unbroken_lines():
    wary = Policy(profile="physical-attacker")
    assert failed(policy=wary) == []
    assert failed(policy=wary, machines=("any",)) == ["platform.profile.machines"]
    assert failed(policy=wary, machines=("c0ffee", "any")) == ["platform.profile.machines"]
    shared = replace(SNP, machine="provider:aws")
    assert failed(shared, wary) == ["platform.profile.machines"]
    assert failed(with_facts(product="Milan"), wary) == ["platform.profile.product"]
    assert failed(without(SNP, "product"), wary) == ["platform.profile.product"]
    assert failed(TDX, wary) == []
    assert failed(with_facts(TDX, fmspc="00606a000000"), wary) == ["platform.profile.product"]


def test_rule_57_product_lines_can_be_denied_by_name():
    assert failed(policy=Policy(products_denied=("Milan",))) == []
    assert failed(policy=Policy(products_denied=("Milan", "Genoa"))) == ["platform.product"]
    assert failed(TDX, Policy(products_denied=("Sapphire Rapids",))) == ["platform.product"]
    assert failed(TDX, Policy(products_denied=("fmspc:00806f050000",))) == ["platform.product"]
    unknown = with_facts(TDX, fmspc="ffffff000000")
    assert profiles.product_lines(unknown) == ("fmspc:ffffff000000",)


def test_every_broken_line_says_what_broke_it():
    assert all(why for why in profiles.BROKEN.values())
    assert "Milan" in profiles.BROKEN


def test_the_object_form_is_read_as_it_was_written():
    whole = Policy(
        profile="strict",
        tcb={"committed.snp": 1},
        facts={"a": (True,), "b": ("x", 2), "c": ()},
        registers={"rtmr3": ("aa", "bb"), "rtmr2": ()},
        products_denied=("Milan",),
        revocation="checked",
        devices=Devices(
            count=8,
            roots=(ROOT,),
            machines=("any",),
            facts={"model": ("GH100",)},
            references=(MEASURED, {"m1": "aa"}),
            registers={"m65": ("aa", "bb")},
        ),
        status={"UpToDate": None, "OutOfDate": LATER},
        advisories={"INTEL-SA-00615": LATER},
        vmpl=0,
        max_age_seconds=60,
        waived=("policy.migrate_ma",),
        any_value=("rtmr1",),
    )
    for policy in (whole, Policy(), Policy(status={})):
        data = canonical.dumps(policy.to_json())
        assert parse(canonical.loads(data, what="policy", max_bytes=1 << 16)) == policy
    assert Policy().to_json() == {}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"tbc": {}}, "unknown key 'tbc'"),
        ({"profile": "lenient"}, "profile: expected one of strict, physical-attacker, got"),
        ({"profile": ""}, "profile: expected one of strict, physical-attacker, got an empty text"),
        ({"revocation": "skipped"}, "revocation: expected checked, got"),
        ({"debug": True}, "unknown key 'debug'"),
        ({"vmpl": 4}, "vmpl: expected an integer from 0 to 3"),
        ({"vmpl": True}, "vmpl: expected an integer from 0 to 3"),
        ({"vmpl": None}, "vmpl: expected an integer from 0 to 3"),
        ({"max_age_seconds": 0}, "max_age_seconds: expected an integer from 1 to"),
        ({"tcb": {"Committed": 1}}, "expected a name: at most 64 .*, got 'Committed'"),
        ({"tcb": {"committed.snp": -1}}, "snp: expected an integer from 0 to"),
        ({"tcb": {"committed.snp": "3"}}, "snp: expected an integer from 0 to"),
        ({"tcb": {f"c{index}": 1 for index in range(65)}}, "65 entries, at most 64 allowed"),
        (
            {"facts": {"a": None}},
            "a: expected text of at most 400 characters, an integer, true or false, got",
        ),
        ({"facts": {"a": {}}}, "a: expected text of at most 400 characters, an integer, true or false, got"),
        (
            {"facts": {"a": [[1]]}},
            "a: expected text of at most 400 characters, an integer, true or false, got",
        ),
        ({"facts": {"rim": "not compared"}}, "'not compared' says that nothing was checked"),
        ({"facts": {"rim": ["x", "not compared"]}}, "'not compared' says that nothing was checked"),
        (
            {"facts": {"a": "x" * 401}},
            "a: expected text of at most 400 characters, an integer, true or false, got",
        ),
        ({"facts": {"a": list(range(65))}}, "65 values, at most 64 allowed"),
        ({"status": ["UpToDate"]}, "status: expected an object"),
        ({"status": {"UpToDate": "tomorrow"}}, "UpToDate: expected a UTC time like .*, got 'tomorrow'"),
        ({"status": {"": None}}, "status: expected at most 64 names of 1 to 64 ASCII characters, got"),
        ({"advisories": {"INTEL-SA-1": None}}, "INTEL-SA-1: expected a UTC time like .*, got null"),
        ({"products_denied": []}, "empty; leave it out where no product line is denied"),
        ({"devices": 8}, "devices: expected an object"),
        ({"devices": {"count": 65, "roots": [], "machines": []}}, "count: expected an integer from 0 to 64"),
        (
            {"devices": {"count": 1, "roots": ["x"], "machines": []}},
            "roots\\[0\\]: expected sha256: and 64",
        ),
        ({"devices": {"count": 1, "roots": [], "machines": [], "rooots": []}}, "unknown key 'rooots'"),
        (
            {"devices": {"count": 1, "roots": [], "machines": [], "references": [{}]}},
            "an empty reference would accept anything",
        ),
        (
            {"devices": {"count": 1, "roots": [], "machines": [], "references": {}}},
            "references: expected a list of at most 64",
        ),
        (
            {
                "devices": {
                    "count": 1,
                    "roots": [],
                    "machines": [],
                    "references": [{f"m{index}": "aa" for index in range(256)}],
                }
            },
            "256 entries, at most 255 allowed",
        ),
        (
            {"devices": {"count": 1, "roots": [], "machines": [], "registers": {"m1": "aa"}}},
            "m1: expected a list of at most 64",
        ),
        ({"registers": {"r": "aa"}}, "r: expected a list of at most 64"),
        ({"any_value": ["a"] * 65}, "any_value: expected a list of at most 64"),
    ],
)
def test_rule_34_unknown_keys_and_odd_values_are_refused(value, why):
    with pytest.raises(Malformed, match=why):
        parse(value)


_NAMES = st.sampled_from(["committed.snp", "launch.snp", "missing"])
_FACTS = st.sampled_from(["vmpl", "policy.smt", "product", "missing"])
_VALUES = st.sampled_from([0, 1, True, False, "Genoa", "Milan"])
_RULES = st.one_of(
    st.builds(lambda tcb: {"tcb": tcb}, st.dictionaries(_NAMES, st.integers(0, 30))),
    st.builds(
        lambda facts: {"facts": {name: tuple(values) for name, values in facts.items()}},
        st.dictionaries(_FACTS, st.lists(_VALUES, max_size=3)),
    ),
    st.builds(
        lambda lines: {"products_denied": tuple(lines)},
        st.lists(st.sampled_from(["Milan", "Genoa", "Turin"]), max_size=2),
    ),
    st.sampled_from([{"profile": "strict"}, {"profile": "physical-attacker"}, {"revocation": "checked"}]),
)
_ALLOWANCES = st.fixed_dictionaries(
    {},
    optional={
        "vmpl": st.integers(0, 3),
        "waived": st.just(("policy.migrate_ma",)),
        "any_value": st.just(("measurement",)),
        "status": st.sampled_from([{}, {"UpToDate": None}]),
    },
)
_CLAIMS = st.builds(
    lambda vmpl, product, smt, tcb, tee, debug: replace(
        SNP,
        tee=tee,
        debug=debug,
        facts={**SNP.facts, "vmpl": vmpl, "product": product, "policy.smt": smt},
        tcb=tcb,
    ),
    st.integers(0, 1),
    st.sampled_from(["Genoa", "Milan"]),
    st.booleans(),
    st.dictionaries(_NAMES, st.integers(0, 30)),
    st.sampled_from(["snp", "snp", "snp", "nitro"]),
    st.sampled_from([False, False, False, True]),
)


@examples(400)
@given(_CLAIMS, _ALLOWANCES, st.lists(_RULES, max_size=4), _RULES)
def test_adding_a_rule_never_turns_a_denial_into_an_acceptance(claims, allowances, rules, further):
    def policy(parts):
        merged = dict(allowances)
        for part in parts:
            for key, value in part.items():
                if isinstance(value, dict):
                    # The same name twice: the stricter of both.
                    old = merged.get(key, {})
                    both = {**old, **value}
                    for name in old.keys() & value.keys():
                        same = [one for one in old[name] if one in value[name]] if key == "facts" else []
                        both[name] = tuple(same) if key == "facts" else max(old[name], value[name])
                    merged[key] = both
                elif isinstance(value, tuple):
                    merged[key] = (*merged.get(key, ()), *value)
                else:
                    merged.setdefault(key, value)
        return Policy(**merged)

    before = failed(claims, policy(rules))
    after = failed(claims, policy([*rules, further]))
    assert not (before and not after), (before, further)
