"""Evidence as Rust's sev, dstack, go-tpm-tools and tpm2_quote write it: put together bit for bit, or refused."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import Malformed
from strongroom.evidence.describe.show import describe
from strongroom.evidence.wrappings import msgpack, snp
from strongroom.evidence.wrappings import scale as wrapped_scale
from strongroom.evidence.wrappings import text as wrapped_text
from strongroom.evidence.wrappings.recognise import pieces, recognise
from tests.effort import examples
from tests.unit.evidence.raw_pieces import CCA, NITRO, QUOTE, TPM_QUOTE
from tests.unit.evidence.wrapped_pieces import VECTORS, made, number


def old_form(report):
    """As sev wrote it until its version 5: its C struct, field by field."""

    def tcb(at):
        raw = report[at : at + 8]
        return {
            "bootloader": raw[0],
            "tee": raw[1],
            "_reserved": list(raw[2:6]),
            "snp": raw[6],
            "microcode": raw[7],
        }

    return {
        "version": number(report, 0, 4),
        "guest_svn": number(report, 4, 4),
        "policy": number(report, 8, 8),
        "family_id": list(report[0x10:0x20]),
        "image_id": list(report[0x20:0x30]),
        "vmpl": number(report, 0x30, 4),
        "sig_algo": number(report, 0x34, 4),
        "current_tcb": tcb(0x38),
        "plat_info": number(report, 0x40, 8),
        "_author_key_en": number(report, 0x48, 4),
        "_reserved_0": number(report, 0x4C, 4),
        "report_data": list(report[0x50:0x90]),
        "measurement": list(report[0x90:0xC0]),
        "host_data": list(report[0xC0:0xE0]),
        "id_key_digest": list(report[0xE0:0x110]),
        "author_key_digest": list(report[0x110:0x140]),
        "report_id": list(report[0x140:0x160]),
        "report_id_ma": list(report[0x160:0x180]),
        "reported_tcb": tcb(0x180),
        "_reserved_1": list(report[0x188:0x1A0]),
        "chip_id": list(report[0x1A0:0x1E0]),
        "committed_tcb": tcb(0x1E0),
        "current_build": report[0x1E8],
        "current_minor": report[0x1E9],
        "current_major": report[0x1EA],
        "_reserved_2": report[0x1EB],
        "committed_build": report[0x1EC],
        "committed_minor": report[0x1ED],
        "committed_major": report[0x1EE],
        "_reserved_3": report[0x1EF],
        "launch_tcb": tcb(0x1F0),
        "_reserved_4": list(report[0x1F8:0x2A0]),
        "signature": {
            "r": list(report[0x2A0:0x2E8]),
            "s": list(report[0x2E8:0x330]),
            "_reserved": list(report[0x330:]),
        },
    }


def new_form(report, *, turin):
    """As sev writes it since: no reserved fields, versions and TCBs as objects, an FMC for Turin."""

    def tcb(at):
        raw = report[at : at + 8]
        if turin:
            return {"fmc": raw[0], "bootloader": raw[1], "tee": raw[2], "snp": raw[3], "microcode": raw[7]}
        return {"fmc": None, "bootloader": raw[0], "tee": raw[1], "snp": raw[6], "microcode": raw[7]}

    def version(at):
        return {"major": report[at + 2], "minor": report[at + 1], "build": report[at]}

    made = {
        name: value
        for name, value in old_form(report).items()
        if not name.startswith(("_", "current_", "committed_"))
    }
    told = number(report, 0, 4)
    return made | {
        "current_tcb": tcb(0x38),
        "key_info": number(report, 0x48, 4),
        "reported_tcb": tcb(0x180),
        "cpuid_fam_id": report[0x188] if told >= 3 else None,
        "cpuid_mod_id": report[0x189] if told >= 3 else None,
        "cpuid_step": report[0x18A] if told >= 3 else None,
        "committed_tcb": tcb(0x1E0),
        "current": version(0x1E8),
        "committed": version(0x1EC),
        "launch_tcb": tcb(0x1F0),
        "launch_mit_vector": number(report, 0x1F8, 8) if told >= 5 else None,
        "current_mit_vector": number(report, 0x200, 8) if told >= 5 else None,
        "signature": {"r": made["signature"]["r"], "s": made["signature"]["s"]},
    }


def told(value):
    return recognise(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("line", "version"), [("Milan", 2), ("Milan", 3), ("Genoa", 3), ("Genoa", 5), ("Turin", 5)]
)
def test_a_report_told_field_by_field_is_put_together_again(line, version):
    report = made(line, version)
    for form in (old_form(report), new_form(report, turin=line == "Turin")):
        for value in (
            form,
            {"attestation_report": form, "cert_chain": None},
            {"tee": "snp", "evidence": {"attestation_report": form}},
        ):
            found = told(value)
            assert found.evidence.tee == "snp"
            assert found.evidence.parts == {"report": report}
            assert found.kind == "SNP report, written field by field"
    hexed = {
        name: bytes(one).hex() if isinstance(one, list) else one
        for name, one in new_form(report, turin=line == "Turin").items()
    }
    assert told(hexed).evidence.parts == {"report": report}


@pytest.mark.skipif(not VECTORS.exists(), reason="recorded evidence is not here")
def test_recorded_reports_of_every_line_and_version_survive_both_forms():
    seen = set()
    for case in sorted(VECTORS.iterdir()):
        for file in case.glob("*.bin"):
            report = file.read_bytes()
            if len(report) != snp.SIZE or not 2 <= number(report, 0, 4) <= 5:
                continue
            turin = report[0x188] >= 0x1A
            assert told(old_form(report)).evidence.parts["report"] == report, case.name
            again = told(new_form(report, turin=turin)).evidence.parts["report"]
            assert again == report, case.name
            seen.add((number(report, 0, 4), turin))
    assert {(2, False), (3, False), (5, False), (5, True)} <= seen


def test_the_certificate_that_came_with_it_becomes_an_endorsement():
    report = made()
    chain = [{"cert_type": "ASK", "data": [1]}, {"cert_type": "VCEK", "data": list(b"certificate")}]
    assert told({"attestation_report": old_form(report), "cert_chain": chain}).endorsements == {
        "vek": b"certificate"
    }
    whole = [{"cert_type": "ARK", "data": [2]}, *chain, {"cert_type": {"OTHER": "x"}, "data": [3]}]
    assert told({"attestation_report": old_form(report), "cert_chain": whole}).endorsements == {
        "vek": b"certificate",
        "issuers": b"\x01\x02",
    }
    two = [*chain, {"cert_type": "VLEK", "data": [2]}]
    assert told({"attestation_report": old_form(report), "cert_chain": two}).endorsements == {}


@pytest.mark.parametrize("form", ["old", "new"])
def test_what_cannot_be_put_together_bit_for_bit_is_refused_and_says_why(form):
    report = made("Genoa", 5)
    whole = old_form(report) if form == "old" else new_form(report, turin=False)

    def refused(value):
        with pytest.raises(Malformed) as caught:
            told(value)
        assert caught.value.code == "not-whole", caught.value.message
        assert "bits" in caught.value.hint

    needed = {"guest_svn", "measurement", "report_data", "reported_tcb", "signature"}
    for name in whole:
        if name not in needed:
            refused({key: one for key, one in whole.items() if key != name})
    refused({**whole, "more": 1})
    refused({**whole, "guest_svn": 1 << 32})
    refused({**whole, "guest_svn": True})
    refused({**whole, "policy": "0x30000"})
    refused({**whole, "measurement": whole["measurement"][:-1]})
    refused({**whole, "report_data": None})
    refused({**whole, "chip_id": [300] * 64})
    refused({**whole, "current_tcb": 7})
    refused({**whole, "reported_tcb": {**whole["reported_tcb"], "fmc": 1, "more": 0}})
    refused({**whole, "signature": {"r": whole["signature"]["r"]}})
    refused({**whole, "signature": {**whole["signature"], "t": []}})
    if form == "new":
        refused({**whole, "version": 3})  # mitigation vectors have no place in it
        refused({**whole, "launch_mit_vector": None})
        refused({**whole, "cpuid_fam_id": None})


def packed(value):
    """MessagePack as rmp_serde writes it: maps with names, byte lists as arrays of integers."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes((value,))
        if 0 <= value < 256:
            return b"\xcc" + bytes((value,))
        return (
            b"\xcf" + value.to_bytes(8, "big")
            if value >= 0
            else b"\xd3" + value.to_bytes(8, "big", signed=True)
        )
    if isinstance(value, str):
        data = value.encode()
        head = bytes((0xA0 | len(data),)) if len(data) < 32 else b"\xdb" + struct.pack(">I", len(data))
        return head + data
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        head = bytes((0x90 | len(value),)) if len(value) < 16 else b"\xdd" + struct.pack(">I", len(value))
        return head + b"".join(packed(one) for one in value)
    head = bytes((0x80 | len(value),)) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
    return head + b"".join(packed(key) + packed(one) for key, one in value.items())


STACK = {"kind": "dstack", "data": {"report_data": list(bytes(64)), "runtime_events": [], "config": "{}"}}


def dstack(kind, **data):
    return {"version": 1, "platform": {"kind": kind, "data": data}, "stack": STACK}


def test_dstacks_attestations_in_messagepack_and_json():
    report = made()
    cases = [
        (
            dstack("tdx", quote=list(QUOTE), event_log=[{"imr": 0, "event_type": 1, "digest": [1] * 48}]),
            "tdx",
            QUOTE,
        ),
        (dstack("nitro-enclave", nsm_quote=list(NITRO)), "nitro", NITRO),
        (dstack("sev-snp", report=list(report), cert_chain=[], mr_config="{}"), "snp", report),
        (dstack("sev-snp", report=list(report), cert_chain=[[1, 2]], mr_config="{}"), "snp", report),
        (dstack("tdx", quote=QUOTE, event_log=[]), "tdx", QUOTE),
    ]
    for value, tee, data in cases:
        found = recognise(packed(value))
        assert (found.evidence.tee, list(found.evidence.parts.values())) == (tee, [data])
        assert found.layers[0].startswith("MessagePack, .platform.data")
        assert recognise(packed(value).hex().encode()).evidence == found.evidence
    assert told(cases[0][0]).evidence.parts == {"quote": QUOTE}
    google = dstack("gcp-tdx", quote=list(QUOTE), event_log=[], tpm_quote={"message": list(TPM_QUOTE)})
    assert [one.place for one in pieces(packed(google))] == [
        ".platform.data.quote",
        ".platform.data.tpm_quote.message",
    ]


def test_dstacks_reports_keep_their_certificates():
    report = made()
    chain = [b"chip" * 20, b"signer" * 20, b"root" * 20]
    for kept, told_of in (
        (chain, {"vek": chain[0], "issuers": chain[1] + chain[2]}),
        (chain[:1], {"vek": chain[0]}),
    ):
        value = dstack("sev-snp", report=list(report), cert_chain=[list(one) for one in kept], mr_config="{}")
        vector = bytes((len(kept) << 2,)) + b"".join(compact(len(one)) + one for one in kept)
        scale = b"\0\3" + compact(len(report)) + report + vector + b"\x08{}" + bytes(70)
        for data in (packed(value), json.dumps(value).encode(), scale):
            found = recognise(data)
            assert found.evidence.parts == {"report": report}
            assert found.endorsements == told_of


def table(*kinds):
    """The driver's table of certificates, in either order of a GUID's bytes."""
    guids = {"vcek": "63da758de6644564adc5f4b93be8accd", "ask": "4ab7b379bbac4fe4a02f05aef327c782",
             "ark": "c0b406a4a803495297433fb6014cd0ae", "VCEK": "8d75da6364e66445adc5f4b93be8accd"}  # fmt: skip
    at, head, rest = 24 * (len(kinds) + 1), b"", b""
    for kind in kinds:
        one = f"the {kind.lower()} certificate".encode()
        head += struct.pack("<16sII", bytes.fromhex(guids[kind]), at + len(rest), len(one))
        rest += one
    return head + bytes(24) + rest


TABLE = {"vek": b"the vcek certificate", "issuers": b"the ask certificatethe ark certificate"}


def test_certificates_beside_a_report_are_kept_however_they_came():
    report = made()

    def text(data):
        return base64.b64encode(data).decode()

    names = {"vcek": text(b"the vcek certificate"), "ask": text(b"the ask certificate"), "ark": text(b"the ark certificate")}  # fmt: skip
    whole = table("vcek", "ask", "ark")
    for value in (
        {"attestation_report": text(report), "cert_chain": names},
        {"platform": "snp", "evidence": {"attestation_report": report.hex(), "cert_chain": names}},
        {"provider": "sev_guest\n", "outblob": text(report), "auxblob": text(whole)},
        {"sevSnpAttestation": {"report": text(report), "auxBlob": text(whole)}},
        {"report": list(report), "cert_chain": [list(one.encode()) for one in
            ("the vcek certificate", "the ask certificate", "the ark certificate")]},
    ):  # fmt: skip
        found = told(value)
        assert found.evidence.parts == {"report": report}
        assert found.endorsements == TABLE
    assert told({"attestation_report": text(report), "cert_chain": None}).endorsements == {}
    for one in (whole, table("VCEK", "ask", "ark")):
        found = recognise(report + one)
        assert found.evidence.parts == {"report": report}
        assert found.endorsements == TABLE
        assert recognise((report + one).hex().encode()).endorsements == TABLE
    assert told({"outblob": text(QUOTE), "auxblob": ""}).evidence.parts == {"quote": QUOTE}
    cut = recognise(report + whole[:-3])
    assert cut.endorsements == {"vek": TABLE["vek"]}


def compact(size):
    if size < 1 << 6:
        return bytes((size << 2,))
    return (size << 2 | 1).to_bytes(2, "little") if size < 1 << 14 else (size << 2 | 2).to_bytes(4, "little")


def test_dstacks_first_binary_form():
    rest = b"\0" + bytes(64) + b"\x08{}"
    for size in (len(QUOTE), (1 << 14) + 100):
        found = recognise(b"\0\0" + compact(size) + QUOTE.ljust(size, b"\0") + rest)
        assert found.evidence.parts == {"quote": QUOTE}
        assert found.layers[0] == "dstack, SCALE, .quote"
    report = made()
    for kind, data in ((0, QUOTE), (1, QUOTE), (2, NITRO), (3, report), (4, NITRO)):
        found = recognise(bytes((0, kind)) + compact(len(data)) + data + rest)
        assert list(found.evidence.parts.values()) == [data]
    both = b"\0\1" + compact(len(QUOTE)) + QUOTE + b"\0" + compact(len(TPM_QUOTE)) + TPM_QUOTE + rest
    assert [one.place for one in pieces(both)] == [".quote", ".tpm_quote[0]"]
    for bad in (
        b"\1\0" + compact(len(QUOTE)) + QUOTE + rest,
        b"\0\3" + compact(len(QUOTE)) + QUOTE + rest,
        b"\0\5" + compact(len(QUOTE)) + QUOTE + rest,
        b"\0\3" + compact(len(report)) + report[:-1],
        b"\0\0" + compact(len(QUOTE) + 1) + QUOTE,
        b"\0\0" + (len(QUOTE) << 2 | 2).to_bytes(4, "little") + QUOTE,  # not the compact form of that number
        b"\0\0" + b"\x03\0\0\0\0" + QUOTE,
        b"\0\0\x04",
    ):
        with pytest.raises(Malformed, match="of no kind that is known here"):
            recognise(bad)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xca\0\0\0\0",
        b"\x81\x01\x02",
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xa2a",
        b"\xdd\xff\xff\xff\xff",
        b"\x01\x01",
        b"\x91" * 40,
        b"\xa1\xff",
    ],
)
def test_messagepack_that_is_none_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        msgpack.loads(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
@examples(100)
def test_messagepack_is_read_as_it_was_written(value):
    assert msgpack.loads(packed(value)) == value


@given(st.binary(max_size=200))
@examples(200)
def test_rule_15_messagepack_and_text_parse_or_are_refused(data):
    for parse in (msgpack.loads, lambda raw: wrapped_text.message(raw.decode("latin-1"))):
        try:
            parse(data)
        except ValueError:
            continue


# Printed by tpm2_quote of tpm2-tools 5.4, for swtpm.
PRINTED = """\
quoted: ff54434780180022000b76ae73637d62ba281e23c016bda658b195b026bfadd1c410320f17ed73bd7f2d0003abcdef00000000000009fe000000010000000001201910230016363600000001000b0303040000202ea9ab9198d1638007400cd2c3bef1cc745b864b76011a0e1bc52180ac6452d4
signature:
  alg: ecdsa
  sig: 30440220682d3f7ee1cbd6ae60c797534479a540f262bf3289f283686f84cc66c2e04a12022004066f48f505aa7d414ec5c2f5b291f20229b67bd6de76c2c6d32b9c59c3fbf3
pcrs:
  sha256:
    0 : 0x0000000000000000000000000000000000000000000000000000000000000000
    1 : 0x0000000000000000000000000000000000000000000000000000000000000000
    10: 0x0000000000000000000000000000000000000000000000000000000000000000
calcDigest: 2ea9ab9198d1638007400cd2c3bef1cc745b864b76011a0e1bc52180ac6452d4
"""


def test_what_tpm2_quote_prints_is_a_quote_and_nothing_more():
    found = recognise(PRINTED.encode())
    assert found.layers == ("what tpm2_quote prints",)
    assert list(found.evidence.parts) == ["quote"]
    shown = {one.name: one.value for one in describe(found.evidence)}
    assert shown["extra data"] == "abcdef"
    assert shown["PCRs"] == "0 1 10"
    for spoilt in (
        PRINTED.replace("quoted: ff", "quoted: fe"),
        PRINTED.replace("quoted: f", "quoted: "),
    ):
        with pytest.raises(Malformed, match="of no kind that is known here"):
            recognise(spoilt.encode())


def test_a_quote_in_a_buffer_within_other_evidence_is_taken_out_of_it():
    """As drivers fill buffers of 8000 bytes, and Azure's old attester sent them."""
    assert recognise(b"\0\1\1" + compact(8000) + QUOTE.ljust(8000, b"\0") + b"rest").evidence.parts == {
        "quote": QUOTE
    }
    assert recognise(b"\0\1" + compact(len(QUOTE)) + QUOTE + b"rest").evidence.parts == {"quote": QUOTE}
    value = {
        "tpm_quote": {"signature": "aa" * 256, "message": TPM_QUOTE.hex(), "pcrs": []},
        "hcl_report": (b"HCLA" + bytes(2000)).hex(),
        "td_quote": (QUOTE + bytes(70)).hex(),
    }
    assert told(value).evidence.parts["td-quote"] == QUOTE
    assert told({**value, "td_quote": (QUOTE + b"x").hex()}).evidence.parts["td-quote"] == QUOTE + b"x"


def test_trustees_tdx_evidence_brings_its_event_log():
    def text(data):
        return base64.b64encode(data).decode()

    found = told({"cc_eventlog": text(b"log" * 20), "quote": text(QUOTE), "aa_eventlog": None})
    assert found.evidence.parts == {"quote": QUOTE, "ccel": b"log" * 20}
    assert told({"cc_eventlog": None, "quote": text(QUOTE)}).evidence.parts == {"quote": QUOTE}
    assert told({"cc_eventlog": text(b"log" * 20), "quote": "AAAA", "more": text(QUOTE)}).evidence.parts == {
        "quote": QUOTE
    }


def test_cca_and_sgx_of_trustee_are_found_where_they_stand():
    assert told({"token": list(CCA)}).evidence.tee == "cca"
    assert told({"token": base64.b64encode(CCA).decode()}).evidence.tee == "cca"


def test_the_report_itself_beside_fields_that_are_not_whole_will_do():
    report = made()
    broken = {name: one for name, one in old_form(report).items() if name != "policy"}
    assert told({"parsed": broken, "raw": report.hex()}).evidence.parts == {"report": report}
    with pytest.raises(Malformed, match="policy is missing"):
        told({"parsed": broken, "tpm": TPM_QUOTE.hex()})


@given(st.binary(max_size=400))
@examples(200)
def test_rule_15_dstacks_forms_are_recognised_or_refused(data):
    for raw in (data, b"\x83" + data, b"\0\0" + data, b"\x81\xa8platform" + data):
        try:
            recognise(raw)
        except Malformed:
            continue
    found = wrapped_scale.read(data)
    assert found is None or isinstance(found, dict)
