"""The `tpm` verifier against a TPM in memory: what it accepts, and that each fault is refused by its check."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import roots, tpm, verify
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_tpm
from strongroom_testing.vendors.fake_tpm import REFUSED_BY, Fault
from tests.unit.evidence.tpm_evidence import BINDING, GOOD, NOW, RSA, TPM


def verified(evidence, *, binding=BINDING, roots=frozenset({TPM.root}), now=NOW, endorsements=NONE):
    return verify.verify(evidence, endorsements, binding=binding, roots=roots, now=now)


def refusal(evidence, **arguments) -> str:
    """The name of the check that refuses, `format` for what does not parse."""
    try:
        verified(evidence, **arguments)
    except EvidenceRefused as cause:
        return cause.check if all((cause.expected, cause.got, cause.hint)) else "unexplained"
    except Malformed:
        return "format"
    return "accepted"


def with_part(name: str, data: bytes) -> Evidence:
    return Evidence(tee="tpm", parts={**GOOD.parts, name: data})


def test_good_evidence_gives_typed_claims():
    claims = verified(GOOD)
    assert claims.tee == "tpm"
    assert claims.simulated
    assert claims.root == TPM.root
    assert claims.machine == TPM.machine
    assert claims.contract_digest == BINDING.contract_digest
    assert claims.registers == fake_tpm.RECORD.reference()
    assert claims.memory_guard
    assert not claims.debug
    assert claims.facts["ak_subject"] == "CN=Fake AK,OU=SIMULATED"
    assert claims.facts["reset_count"] == 3
    assert claims.facts["clock_safe"] is True
    assert (
        claims.facts["pcr_12"]
        == hashlib.sha256(bytes(32) + bytes.fromhex(BINDING.contract_digest[7:])).hexdigest()
    )
    assert any("hardware" in text for text in claims.not_checked)


def test_an_rsa_attestation_key_serves_too():
    evidence = RSA.evidence(BINDING)
    assert verified(evidence, roots=frozenset({RSA.root})).facts["ak_key"] == "rsa"
    spoiled = bytearray(evidence.parts["signature"])
    spoiled[-1] ^= 1
    bad = Evidence(tee="tpm", parts={**evidence.parts, "signature": bytes(spoiled)})
    assert refusal(bad, roots=frozenset({RSA.root})) == "signature"
    short = evidence.parts["signature"][:4] + b"\x00\x10" + bytes(16)
    bad = Evidence(tee="tpm", parts={**evidence.parts, "signature": short})
    assert refusal(bad, roots=frozenset({RSA.root})) == "signature"


def test_a_signature_of_the_other_algorithm_is_refused():
    mixed = Evidence(tee="tpm", parts={**GOOD.parts, "signature": RSA.evidence(BINDING).parts["signature"]})
    assert refusal(mixed) == "signature"
    theirs = RSA.evidence(BINDING)
    mixed = Evidence(tee="tpm", parts={**theirs.parts, "signature": GOOD.parts["signature"]})
    assert refusal(mixed, roots=frozenset({RSA.root})) == "signature"


@pytest.mark.parametrize("fault", list(Fault))
def test_each_fault_is_refused_by_its_check(fault):
    assert refusal(TPM.evidence(BINDING, fault=fault)) == REFUSED_BY[fault]


def test_the_table_of_faults_is_whole():
    assert set(REFUSED_BY) == set(Fault)


def test_a_path_over_an_intermediate_is_followed():
    authority = fake_tpm.Authority(NOW, depth=2)
    machine = fake_tpm.FakeTpm(now=NOW, authority=authority)
    evidence = machine.evidence(BINDING)
    assert verified(evidence, roots=frozenset({machine.root})).root == machine.root
    backwards = b"".join(reversed(authority.certificates))
    wrong = Evidence(tee="tpm", parts={**evidence.parts, "issuers": backwards})
    assert refusal(wrong, roots=frozenset({machine.root})) == "chain.root"
    # An intermediate that the contract names as root is a root; the path then ends there.
    middle = "sha256:" + hashlib.sha256(authority.certificates[0]).hexdigest()
    cut = Evidence(tee="tpm", parts={**evidence.parts, "issuers": authority.certificates[0]})
    assert verified(cut, roots=frozenset({middle})).root == middle
    assert refusal(cut, roots=frozenset({machine.root})) == "chain.root"


def test_validity_is_asked_each_time_though_paths_are_kept():
    assert refusal(GOOD) == "accepted"
    assert refusal(GOOD, now=NOW + timedelta(days=31)) == "chain.validity"
    assert refusal(GOOD, now=NOW - timedelta(days=2)) == "chain.validity"
    assert refusal(GOOD) == "accepted"


def test_roots_are_asked_each_time_though_paths_are_kept():
    assert refusal(GOOD) == "accepted"
    assert refusal(GOOD, roots=frozenset({RSA.root})) == "chain.root"
    assert refusal(GOOD, roots=frozenset({RSA.root, TPM.root})) == "accepted"


def test_endorsements_that_nobody_reads_are_refused():
    assert refusal(GOOD, endorsements=Endorsements(parts={"crl": b"x"})) == "parts"


@pytest.mark.parametrize("name", sorted(tpm.PARTS))
def test_rule_15_each_part_has_a_limit(name):
    assert refusal(with_part(name, GOOD.parts[name] + bytes(tpm.PARTS[name]))) == "format"
    assert refusal(with_part(name, b"")) != "accepted"


@pytest.mark.parametrize("name", sorted(tpm.PARTS))
def test_rule_16_trailing_bytes_are_refused(name):
    for extra in (b"\0", b"\n", b" "):
        assert refusal(with_part(name, GOOD.parts[name] + extra)) != "accepted"


@pytest.mark.parametrize("name", sorted(tpm.PARTS))
def test_every_truncation_is_refused(name):
    good = GOOD.parts[name]
    assert all(refusal(with_part(name, good[:size])) != "accepted" for size in range(len(good)))


def test_rule_16_ecdsa_r_and_s_are_in_range():
    order = fake_tpm.P256_ORDER
    good = GOOD.parts["signature"]
    r, s = int.from_bytes(good[6:38], "big"), int.from_bytes(good[40:72], "big")
    for bad_r, bad_s in ((0, s), (r, 0), (order, s), (r, order), ((1 << 256) - 1, s), (0, 0)):
        one = good[:6] + bad_r.to_bytes(32, "big") + good[38:40] + bad_s.to_bytes(32, "big")
        assert refusal(with_part("signature", one)) == "signature"


def test_rule_17_there_is_no_verification_without_a_binding_or_roots():
    with pytest.raises(TypeError):
        verify.verify(GOOD, NONE, roots=frozenset({TPM.root}), now=NOW)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        verify.verify(GOOD, NONE, binding=BINDING, now=NOW)  # type: ignore[call-arg]
    assert refusal(GOOD, roots=frozenset()) == "root"
    with pytest.raises(EvidenceRefused, match=r"chain.root:"):
        tpm.verify(GOOD, NONE, binding=BINDING, roots=frozenset(), now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": bytes(32)},
        {"contract_digest": fake_tpm.digest("another contract")},
        {"role": "node"},
        {"audience": fake_tpm.digest("another broker")},
        {"keys": replace(BINDING.keys, signing=b"x" * 32)},
        {"keys": replace(BINDING.keys, tls=b"x" * 91)},
        {"keys": replace(BINDING.keys, kem=b"x" * 1216)},
    ],
    ids="-".join,
)
def test_rule_19_evidence_counts_for_one_binding_only(change):
    assert refusal(GOOD, binding=replace(BINDING, **change)) == "binding"


def test_rule_19_bytes_moved_between_fields_are_another_binding():
    keys = replace(BINDING.keys, signing=b"s" * 31, tls=b"s" + b"t" * 91)
    assert refusal(GOOD, binding=replace(BINDING, keys=keys)) == "binding"


def test_rule_25_parts_of_two_machines_do_not_mix():
    authority = fake_tpm.Authority(NOW)
    first, second = (fake_tpm.FakeTpm(now=NOW, authority=authority) for _ in range(2))
    mine, theirs = first.evidence(BINDING), second.evidence(BINDING)
    root = frozenset({authority.root})
    assert refusal(mine, roots=root) == refusal(theirs, roots=root) == "accepted"
    for name in ("quote", "signature", "ak-certificate"):
        mixed = Evidence(tee="tpm", parts={**mine.parts, name: theirs.parts[name]})
        assert refusal(mixed, roots=root) == "signature"


def test_rule_33_unknown_kinds_of_evidence_are_refused():
    for tee in ("sample", "mock", "TPM", "tpm2", "sev"):
        assert refusal(Evidence(tee=tee, parts=GOOD.parts)) == "tee"


def test_rule_33_whatever_is_not_a_pinned_vendor_is_simulated(monkeypatch):
    assert verified(GOOD).simulated
    tpm._launched.cache_clear()  # what is kept was judged with the pins as they are
    monkeypatch.setitem(roots.HARDWARE, "snp", frozenset({TPM.root}))
    assert verified(GOOD).simulated, "a root of another TEE's vendor does not make a TPM hardware"
    tpm._launched.cache_clear()
    monkeypatch.setitem(roots.HARDWARE, "tpm", frozenset({TPM.root}))
    assert not verified(GOOD).simulated
    tpm._launched.cache_clear()


def test_verification_changes_none_of_its_arguments():
    before = dict(GOOD.parts)
    verified(GOOD)
    assert GOOD.parts == before


def test_the_launch_record_is_parsed_strictly():
    record = fake_tpm.RECORD
    unknown = record.encode().replace(b'"machine"', b'"machina"')
    for bad in (unknown, b"{}", b"null", record.encode() + b" ", b" " + record.encode()):
        # Measured as it is: only its form is wrong.
        class Odd:
            @staticmethod
            def encode(bad=bad):
                return bad

        assert refusal(TPM.evidence(BINDING, record=Odd())) == "format"


def test_pcr_10_may_be_untouched_or_hold_either_template():
    values = {index: bytes([index]) * 32 for index in range(10)}
    plain, with_signature = tpm._boot_aggregates(values)
    assert plain != with_signature
    assert len(plain) == len(with_signature) == 32


def test_rule_05_an_empty_set_of_roots_verifies_nothing():
    for tee in verify.VERIFIERS:
        verifier = importlib.import_module(f"strongroom.evidence.{tee}").verify
        with pytest.raises(EvidenceRefused, match=r"evidence check (parts|chain.root):"):
            verifier(GOOD, NONE, binding=BINDING, roots=frozenset(), now=NOW)


def test_rule_06_a_root_that_came_with_the_evidence_is_not_trusted_for_that():
    # The path is whole and sound in itself; nobody but the contract says which root counts.
    assert refusal(TPM.evidence(BINDING, fault=Fault.OTHER_ROOT)) == "chain.root"
    assert refusal(RSA.evidence(BINDING)) == "chain.root"


def test_rule_12_quote_key_nonce_digest_and_values_hang_together():
    other = TPM.evidence(replace(BINDING, nonce=b"o" * 32))
    for names, check in (
        (("quote",), "signature"),
        (("quote", "signature"), "binding"),
        (("ak-certificate",), "accepted"),  # the same AK: nothing is changed
    ):
        parts = {**GOOD.parts, **{name: other.parts[name] for name in names}}
        assert refusal(Evidence(tee="tpm", parts=parts)) == check
    order = [GOOD.parts["pcrs"][place * 32 : place * 32 + 32] for place in range(13)]
    order[1], order[2] = order[2], order[1]
    assert refusal(with_part("pcrs", b"".join(order))) == "pcr-values"


def test_rule_13_claims_say_what_the_keys_issuer_vouches_for():
    assert any("endorsement key" in text for text in verified(GOOD).not_checked)
