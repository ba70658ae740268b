"""NVIDIA devices: sound evidence verifies, each fault is refused by its check, no byte can be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import nvgpu
from strongroom.evidence.formats import nvgpu_dice, nvgpu_spdm
from strongroom.model.binding import Preset
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import fake_nvidia
from tests.unit.evidence.nitro_evidence import BOUND
from tests.unit.evidence.nvgpu_evidence import FWID, GPU, NOW, verified


def refusal(*args, **kwargs) -> str:
    try:
        verified(*args, **kwargs)
    except EvidenceRefused as cause:
        return cause.check if cause.expected and cause.hint else "explains nothing"
    except Malformed:
        return "format"
    return "accepted"


def test_sound_evidence_verifies_and_says_all():
    claims = verified(GPU.evidence(BOUND))
    assert claims.tee == "nvgpu"
    assert claims.root == GPU.root
    assert claims.machine == GPU.machine
    assert claims.simulated
    assert claims.contract_digest is None
    assert list(claims.registers) == [f"m{index}" for index in range(1, 65)]
    assert claims.registers["m3"] == fake_nvidia.measured("measurement 3").hex()
    told = {
        "family": "Hopper",
        "model": "GH100",
        "driver_version": "570.86.10",
        "vbios_version": "96.00.5E.00.01",
        "chip_sku": "882",
        "project": "1010",
        "project_sku_mod": "",
        "nvdec0": "disabled",
        "protected_pcie": "enabled",
        "fwid": fake_nvidia.FWID.hex(),
        "certified_fwid": fake_nvidia.FWID.hex(),
        "nonce": BOUND.value("nonce").hex(),
    }
    assert {name: claims.facts[name] for name in told} == told


@pytest.mark.parametrize(
    ("model", "family", "header", "blocks"),
    [
        ("GH100", "Hopper", False, 64),
        ("LS_10", "NVSwitch", False, 31),
        ("GB100", "Blackwell", True, 64),
        ("GB20X", "Blackwell", True, 64),
    ],
)
def test_every_model_that_is_known(model, family, header, blocks):
    device = fake_nvidia.FakeGpu(now=NOW, model=model)
    claims = verified(device.evidence(BOUND, header=header, blocks=blocks), roots=frozenset({device.root}))
    assert (claims.facts["model"], claims.facts["family"]) == (model, family)
    assert len(claims.registers) == blocks


@pytest.mark.parametrize("debug", [False, True])
def test_rule_14_blackwells_flag_for_debug_is_told(debug):
    device = fake_nvidia.FakeGpu(now=NOW, model="GB100", debug=debug)
    claims = verified(device.evidence(BOUND, header=True), roots=frozenset({device.root}))
    assert claims.debug is debug
    assert claims.facts["certified_flags"] == ("90" if debug else "80")


def test_blackwells_firmware_is_compared_too():
    device = fake_nvidia.FakeGpu(now=NOW, model="GB100")
    evidence = device.evidence(BOUND, fault=fake_nvidia.Fault.OTHER_FWID)
    assert refusal(evidence, roots=frozenset({device.root})) == "fwid"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "1 bytes wanted at offset 0, 0 left"),
        (b"\x30\x00\x00", "1 trailing bytes"),
        (b"\x30\x03\x02\x01\x01", "1 bytes wanted at offset 3, 0 left"),
        (b"\x30\x03\x04\x01\x01", "expected the fields of DiceTcbInfo in ascending order, got tag"),
        (
            b"\x30\x06\x88\x01\x01\x87\x01\x00",
            "expected the fields of DiceTcbInfo in ascending order, got tag",
        ),
        (
            b"\x30\x06\x83\x01\x01\x83\x01\x01",
            "expected the fields of DiceTcbInfo in ascending order, got tag",
        ),
        (b"\x30\x04\x87\x02\x08\x80", "expected flags as a BIT STRING, got"),
        (b"\x30\x02\xa6\x00", "1 bytes wanted at offset 0, 0 left"),
        (b"\x30\x41\xa6\x3f" + FWID[:-1], "65 bytes wanted at offset 2, 64 left"),
        (
            b"\x30\x41\xa6\x3f" + FWID.replace(b"\x02\x02\x04\x30", b"\x02\x01\x04\x30"),
            "expected a SHA-384 digest",
        ),
    ],
)
def test_a_dice_extension_that_is_none_is_malformed(value, why):
    assert nvgpu_dice.parse(b"\x30\x41\xa6\x3f" + FWID).fwid == fake_nvidia.FWID
    with pytest.raises(Malformed, match=why):
        nvgpu_dice.parse(value)


@pytest.mark.parametrize("fault", fake_nvidia.Fault)
def test_each_fault_is_refused_by_its_check(fault):
    assert refusal(GPU.evidence(BOUND, fault=fault)) == fake_nvidia.REFUSED_BY[fault]


@pytest.mark.parametrize("fault", [fake_nvidia.Fault.OPAQUE_TWICE, fake_nvidia.Fault.OPAQUE_CUT])
def test_opaque_data_with_a_header_are_as_strict(fault):
    assert refusal(GPU.evidence(BOUND, header=True, fault=fault)) == "format"


def test_what_was_not_compared_is_said_and_is_nobodys_pass():
    claims = verified(GPU.evidence(BOUND))
    assert claims.facts["rim"] == claims.facts["ocsp"] == claims.facts["debug_mode"] == "not compared"
    assert claims.not_checked == (*nvgpu.NOT_CHECKED, nvgpu.NOT_ASKED)
    assert claims.status == ""


@pytest.mark.parametrize("delegated", [True, False])
@pytest.mark.parametrize("model", ["GH100", "GB100", "LS_10"])
def test_rule_04_the_issuers_word_on_every_certificate_is_taken(model, delegated):
    device = fake_nvidia.FakeGpu(now=NOW, model=model)
    evidence = device.evidence(BOUND)
    said = device.endorsements(evidence, delegated=delegated)
    assert sorted(said.parts) == ["ocsp-1", "ocsp-2", "ocsp-3"]
    claims = verified(evidence, endorsements=said, roots=frozenset({device.root}))
    assert claims.facts["ocsp"] == "good"
    assert claims.facts["rim"] == "not compared"
    assert claims.not_checked == nvgpu.NOT_CHECKED


@pytest.mark.parametrize("doubt", fake_nvidia.Doubt)
def test_rule_04_whatever_an_issuer_does_not_vouch_for_is_refused(doubt):
    evidence = GPU.evidence(BOUND)
    wanted = "format" if doubt in {"without-end", "not-answered"} else "chain.revocation"
    assert refusal(evidence, endorsements=GPU.endorsements(evidence, doubt=doubt)) == wanted


def test_rule_03_an_answer_counts_until_its_end_and_no_longer():
    evidence = GPU.evidence(BOUND)
    said = GPU.endorsements(evidence)
    late = NOW + timedelta(hours=23)
    assert verified(evidence, endorsements=said, now=late - timedelta(seconds=1)).facts["ocsp"] == "good"
    assert refusal(evidence, endorsements=said, now=late) == "chain.revocation"


def test_rule_16_no_byte_of_an_answer_can_be_changed():
    evidence = GPU.evidence(BOUND, blocks=2)
    said = GPU.endorsements(evidence)
    answer = said.parts["ocsp-1"]
    for place in range(len(answer)):
        flipped = bytearray(answer)
        flipped[place] ^= 1 << (place % 8)
        changed = Endorsements(parts={**said.parts, "ocsp-1": bytes(flipped)})
        assert refusal(evidence, endorsements=changed) != "accepted", f"byte {place}"
    assert (
        refusal(evidence, endorsements=Endorsements(parts={**said.parts, "ocsp-1": answer + b"\0"}))
        == "format"
    )


def test_a_report_of_an_older_driver_names_no_firmware():
    opaque = {number: value for number, value in fake_nvidia.OPAQUE.items() if number != 20}
    claims = verified(GPU.evidence(BOUND, opaque=opaque))
    assert claims.facts["fwid_reported"] is False
    assert claims.facts["certified_fwid"] == fake_nvidia.FWID.hex()


def test_a_field_that_is_not_known_is_shown_as_it_is():
    opaque = {200: b"\xfe\xed", 3: b"570\x1b[0m\0", 6: b"96.10.55.00.01", 11: b"\x00", 15: b"\xff\0"}
    facts = verified(GPU.evidence(BOUND, opaque=opaque)).facts
    assert facts["opaque_200"] == "feed"
    assert facts["driver_version"] == opaque[3].hex()
    assert facts["vbios_version"] == "96.10.55.00.01"
    assert facts["nvdec0"] == "00"
    assert facts["chip_sku"] == "ff00"


@pytest.mark.parametrize("name", ["GR100", "GX999", "T4", "BF3-DPU"])
def test_a_name_is_no_gate_and_an_unknown_one_is_told(name):
    device = fake_nvidia.FakeGpu(now=NOW, model=name)
    claims = verified(device.evidence(BOUND), roots=frozenset({device.root}))
    assert (claims.facts["model"], claims.facts["family"]) == (name, "unknown")
    assert nvgpu.UNKNOWN_NAME in claims.not_checked
    assert nvgpu.UNKNOWN_NAME not in verified(GPU.evidence(BOUND)).not_checked
    # Whatever it is called: nothing that another root certified.
    stranger = fake_nvidia.FakeGpu(now=NOW, model=name)
    assert refusal(stranger.evidence(BOUND), roots=frozenset({device.root})) == "chain.root"


def test_rule_05_a_certificate_without_the_name_of_a_chip_is_refused():
    for name in ("0", "", "x", "gh100", "G" * 33):
        device = fake_nvidia.FakeGpu(now=NOW, model="GH100")
        device._model = name
        assert refusal(device.evidence(BOUND), roots=frozenset({device.root})) == "chain.model"


def test_rule_17_without_an_expectation_nothing_is_verified():
    assert refusal(GPU.evidence(BOUND), binding=Preset(values={"report_data": bytes(64)})) == "binding"


def test_rule_19_another_binding_is_refused():
    for other in (replace(BOUND, nonce=b"m" * 32), replace(BOUND, keys=replace(BOUND.keys, tls=b"x" * 91))):
        assert refusal(GPU.evidence(BOUND), binding=other) == "binding"


def test_times_and_endorsements():
    assert refusal(GPU.evidence(BOUND), now=NOW - timedelta(days=2)) == "chain.validity"
    assert refusal(GPU.evidence(BOUND), endorsements=Endorsements(parts={"rim": b"x"})) == "parts"


def test_rule_15_sizes_and_counts_are_bounded():
    good = GPU.evidence(BOUND)
    for size in (0, 36, 200, nvgpu_spdm.MAX_REPORT + 1):
        assert refusal(Evidence(tee="nvgpu", parts={**good.parts, "report": bytes(size)})) == "format"
    many = b"".join(number.to_bytes(2, "little") + b"\0\0" for number in range(nvgpu_spdm.MAX_FIELDS + 1))
    with pytest.raises(Malformed, match="more than 128 fields"):
        nvgpu_spdm.parse_opaque(many)
    assert len(nvgpu_spdm.parse_opaque(many[:-4])) == nvgpu_spdm.MAX_FIELDS
