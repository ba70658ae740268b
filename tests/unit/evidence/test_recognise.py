"""Evidence files of any kind: recognised for what they are, in every wrapping, and anything else refused in words."""

from __future__ import annotations

import base64
import gzip
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence import verify
from strongroom.evidence.describe.show import describe
from strongroom.evidence.wrappings import recognise as recognising
from strongroom.evidence.wrappings import trees
from strongroom.evidence.wrappings.recognise import pieces, recognise
from strongroom.model.binding import Preset
from strongroom.model.endorsements import NONE
from strongroom.model.evidence import Evidence
from strongroom_testing.evidence_folder import BINDING, NOW
from strongroom_testing.vendors.fake_aws import FakeAws
from tests.effort import examples
from tests.unit.evidence.raw_pieces import (
    CCA,
    INTEL,
    NITRO,
    PCRS,
    QUOTE,
    QUOTES,
    REPORT,
    SPDM,
    TPM_QUOTE,
    number,
    run,
)

HCL = b"HCLA" + bytes(2000)


@pytest.mark.parametrize(("tee", "version"), QUOTES)
def test_intel_quotes_are_recognised(tee, version):
    found = recognise(QUOTES[tee, version])
    assert found.evidence == Evidence(tee=tee, parts={"quote": QUOTES[tee, version]})
    assert found.kind == f"{tee.upper()} quote, version {version}"


@pytest.mark.parametrize(("tee", "version"), QUOTES)
def test_rule_16_a_quote_is_taken_out_of_a_drivers_buffer_and_nothing_else_is_cut_off(tee, version):
    """Zeros after the quote's own length are room in a buffer, and told; the verifier itself refuses them."""
    quote = QUOTES[tee, version]
    for room in (1, 70, 3065):
        found = recognise(quote + bytes(room))
        assert found.evidence.parts == {"quote": quote}
        assert found.layers == (f"a buffer with {room} zero bytes left after it",)
        padded = Evidence(tee=tee, parts={"quote": quote + bytes(room)})
        with pytest.raises(Malformed, match="bytes of signature data announced"):
            verify.verify(padded, NONE, binding=BINDING, roots=frozenset({INTEL.root_digest}), now=NOW)
    for more in (b"\nextra bytes", bytes(70) + b"x", b"x" + bytes(70)):
        assert recognise(quote + more).evidence.parts == {"quote": quote + more}
    assert recognise(quote[:-1]).evidence.parts == {"quote": quote[:-1]}


@pytest.mark.parametrize(
    ("data", "tee", "part"),
    [
        (REPORT, "snp", "report"),
        (HCL, "azure", "hcl-report"),
        (SPDM, "nvgpu", "report"),
        (TPM_QUOTE, "tpm", "quote"),
        (CCA, "cca", "token"),
        (NITRO, "nitro", "document"),
    ],
)
def test_other_evidence_is_recognised(data, tee, part):
    for text in (data, data.hex().encode(), base64.b64encode(data)):
        assert recognise(text).evidence == Evidence(tee=tee, parts={part: data})


def test_a_whole_document_of_a_fake_is_recognised():
    evidence = FakeAws(now=NOW).evidence(
        Preset(values={"user_data": b"x", "nonce": b"n" * 32, "public_key": b"k"})
    )
    assert recognise(evidence.parts["document"]).evidence == evidence
    assert recognise(evidence.encode()).evidence == evidence


def test_the_answer_of_the_guests_driver_holds_a_report():
    answer = struct.pack("<II", 0, len(REPORT)) + bytes(24) + REPORT
    for data in (answer, answer + bytes(2784)):
        assert recognise(data).evidence.parts == {"report": REPORT}
    for bad in (struct.pack("<II", 22, len(REPORT)) + answer[8:], answer + b"x", answer[:-1]):
        with pytest.raises(Malformed, match="of no kind that is known here"):
            recognise(bad)


@pytest.mark.parametrize(
    ("data", "layers"),
    [
        (b"0x" + QUOTE.hex().encode(), ("hexadecimal",)),
        (QUOTE.hex().upper().encode() + b"\n", ("hexadecimal",)),
        (
            b"\n".join(QUOTE.hex().encode()[at : at + 60] for at in range(0, 2 * len(QUOTE), 60)),
            ("hexadecimal",),
        ),
        (base64.encodebytes(QUOTE), ("base64",)),
        (base64.urlsafe_b64encode(QUOTE).rstrip(b"="), ("base64",)),
        (base64.b64encode(base64.b64encode(QUOTE)), ("base64", "base64")),
        (base64.b64encode(gzip.compress(QUOTE)), ("base64", "gzip")),
        (pem.encode(QUOTE, b"QUOTE"), ("PEM",)),
        (json.dumps({"a": {"b": [QUOTE.hex()]}}).encode(), ("JSON, .a.b[0]", "hexadecimal")),
        (json.dumps({"quote": list(QUOTE)}).encode(), ("JSON, .quote",)),
        (
            json.dumps({"e": json.dumps({"q": base64.b64encode(QUOTE).decode()})}).encode(),
            ("JSON, .e", "JSON, .q", "base64"),
        ),
    ],
)
def test_wrappings_are_taken_off_and_told(data, layers):
    found = recognise(data)
    assert found.evidence.parts == {"quote": QUOTE}
    assert found.layers == layers


SEVERAL = {
    "two quotes": {
        "gateway": {"intel_quote": QUOTE.hex()},
        "models": [{"intel_quote": QUOTES["tdx", 5].hex()}],
    },
    "two kinds": {"tpm": TPM_QUOTE.hex(), "td": QUOTE.hex()},
    "beside a whole attestation": {
        "quote": {"signature": "aa" * 256, "message": TPM_QUOTE.hex(), "pcrs": []},
        "report": HCL.hex(),
        "td_quote": QUOTE.hex(),
        "more": [{"deep": base64.b64encode(REPORT).decode()}],
    },
    "far down a list": {"a": ["x"] * 300 + [QUOTE.hex()], "b": REPORT.hex()},
    "a text in a text": {"a": json.dumps({"b": QUOTE.hex()}), "c": REPORT.hex()},
    "two attestations of ours": [
        json.loads(Evidence(tee="snp", parts={"report": REPORT}).encode()),
        json.loads(Evidence(tee="tdx", parts={"quote": QUOTE}).encode()),
    ],
}


@pytest.mark.parametrize("value", SEVERAL.values(), ids=SEVERAL)
def test_several_pieces_are_named_with_their_places_and_none_is_taken(value):
    data = json.dumps(value).encode()
    found = pieces(data)
    assert len(found) == 2
    with pytest.raises(Malformed) as caught:
        recognise(data)
    assert caught.value.code == "several"
    for one in found:
        assert f"{one.place} ({one.kind})" in caught.value.message
        assert recognise(data, place=one.place) == one
    assert found[0].evidence != found[1].evidence
    with pytest.raises(Malformed, match="no piece at"):
        recognise(data, place=".elsewhere")


def test_places_are_unlike_whatever_fields_are_called():
    value = {"a.b": QUOTE.hex(), "a": {"b": REPORT.hex(), "": TPM_QUOTE.hex()}, 'c"]': [HCL.hex()]}
    assert [one.place for one in pieces(json.dumps(value).encode())] == [
        '["a.b"]',
        ".a.b",
        '.a[""]',
        '["c\\"]"][0]',
    ]


def test_the_same_evidence_twice_and_a_report_within_another_are_one_piece():
    twice = {"hex": QUOTE.hex(), "base64": base64.b64encode(QUOTE).decode()}
    assert recognise(json.dumps(twice).encode()).evidence.parts == {"quote": QUOTE}
    within = {"hcl": (HCL[:32] + REPORT + HCL[32 + len(REPORT) :]).hex(), "snp": REPORT.hex()}
    assert recognise(json.dumps(within).encode()).evidence.tee == "azure"


def test_pieces_are_bounded():
    quotes = [
        (QUOTE[:40] + index.to_bytes(2, "big") + QUOTE[42:900]).hex()
        for index in range(recognising.MAX_PIECES)
    ]
    assert len(pieces(json.dumps(quotes).encode())) == recognising.MAX_PIECES
    with pytest.raises(Malformed, match="more than 256 pieces"):
        pieces(json.dumps([*quotes, REPORT.hex()]).encode())
    bomb = base64.b64encode(gzip.compress(b"A" * (recognising.MAX_FILE - 1))).decode()
    with pytest.raises(Malformed, match="bytes within its wrappings"):
        pieces(json.dumps([f"{bomb}{' ' * index}" for index in range(20)]).encode())


def test_go_tpm_tools_protocol_buffers_and_their_json():
    entries = b"".join(run(2, number(1, index) + run(2, value)) for index, value in PCRS.items())
    sha1 = run(2, run(1, TPM_QUOTE) + run(2, b"sha1") + run(3, number(1, 4)))
    sha256 = run(2, run(1, TPM_QUOTE) + run(2, b"signature") + run(3, number(1, 11) + entries))
    data = (
        run(1, b"\0\x23" + bytes(60)) + sha1 + sha256 + run(3, b"log") + run(6, b"leaf") + run(7, b"issuer")
    )
    found = recognise(data)
    parts = {
        "quote": TPM_QUOTE,
        "signature": b"signature",
        "ak-certificate": b"leaf",
        "issuers": b"issuer",
        "pcrs": b"".join(PCRS.values()),
        "event-log": b"log",
    }
    assert found.evidence == Evidence(tee="gcp", parts=parts)

    def text(value):
        return base64.b64encode(value).decode()

    value = {
        "akPub": "AAA=",
        "quotes": [
            {"quote": text(TPM_QUOTE), "rawSig": "AAAA", "pcrs": {"hash": "SHA1", "pcrs": {}}},
            {
                "quote": text(TPM_QUOTE),
                "rawSig": text(b"signature"),
                "pcrs": {"hash": "SHA256", "pcrs": {str(index): text(one) for index, one in PCRS.items()}},
            },
        ],
        "eventLog": text(b"log"),
        "akCert": text(b"leaf"),
        "intermediateCerts": [text(b"issuer")],
    }
    assert recognise(json.dumps(value).encode()).evidence == found.evidence
    for cut in range(len(data)):
        assert trees.protocol_buffer(data[:cut]) is None or cut > data.index(b"leaf")


def test_azure_evidence_of_trustee_in_each_of_its_forms():
    pcrs = [value.hex() for value in PCRS.values()]
    new = {
        "version": 2,
        "tpm_quote": {"signature": "aa" * 256, "message": TPM_QUOTE.hex(), "pcrs": pcrs},
        "hcl_report": base64.urlsafe_b64encode(HCL).decode().rstrip("="),
        "td_quote": base64.b64encode(QUOTE).decode(),
    }
    old = {
        "quote": {
            "signature": [0xAA] * 256,
            "message": list(TPM_QUOTE),
            "pcrs": [list(one) for one in PCRS.values()],
        },
        "report": list(HCL),
        "td_quote": list(QUOTE),
    }
    parts = {
        "hcl-report": HCL,
        "td-quote": QUOTE,
        "quote": TPM_QUOTE,
        "signature": b"\x00\x14\x00\x0b\x01\x00" + b"\xaa" * 256,
        "pcrs": b"".join(PCRS.values()),
    }
    for value in (new, old, {"platform": "az-tdx", "evidence": new}):
        assert recognise(json.dumps(value).encode()).evidence == Evidence(tee="azure", parts=parts)


def test_certificates_beside_the_evidence_become_endorsements():
    value = {
        "tpm_quote": {"signature": "aa" * 256, "message": TPM_QUOTE.hex(), "pcrs": []},
        "hcl_report": HCL.hex(),
        "vcek": base64.b64encode(b"certificate").decode(),
    }
    assert recognise(json.dumps(value).encode()).endorsements == {"vek": b"certificate"}
    value["vcek"] = pem.encode(b"certificate", b"CERTIFICATE").decode()
    assert recognise(json.dumps(value).encode()).endorsements == {"vek": b"certificate"}


def test_azures_own_request_and_nvidias_devices():
    both = len(TPM_QUOTE).to_bytes(2, "big") + TPM_QUOTE + b"signature"

    def text(value):
        return base64.b64encode(value).decode()

    value = {
        "evidence": {
            "tpmQuote": text(both),
            "hclReport": text(HCL),
            "pcrs": {str(index): text(one) for index, one in PCRS.items()},
        },
        "nonce": "x",
    }
    found = recognise(json.dumps(value).encode()).evidence
    assert found.tee == "azure"
    assert found.parts["quote"] == TPM_QUOTE
    assert found.parts["signature"] == b"signature"
    chain = pem.encode(b"leaf", b"CERTIFICATE") + pem.encode(b"root", b"CERTIFICATE")
    device = {"arch": "HOPPER", "evidence": text(SPDM), "certificate": text(chain)}
    found = recognise(json.dumps(device).encode()).evidence
    assert found == Evidence(tee="nvgpu", parts={"report": SPDM, "certificates": b"leafroot"})


def test_nvidias_devices_in_every_list_keep_their_certificates():
    def text(value):
        return base64.b64encode(value).decode()

    chain = pem.encode(b"leaf", b"CERTIFICATE") + b"\n# identity\n" + pem.encode(b"root", b"CERTIFICATE")
    device = {"arch": "HOPPER", "uuid": "unknown", "evidence": text(SPDM), "certificate": text(chain)}
    other = {**device, "evidence": text(SPDM[:5] + b"\1" + SPDM[6:])}
    ascii_hex = {"evidence": text(SPDM.hex().encode()), "certificate": text(chain), "gpu_nonce": "x"}
    old = {"attestationReportHexStr": SPDM.hex(), "certChainBase64Encoded": text(chain)}
    evidence = Evidence(tee="nvgpu", parts={"report": SPDM, "certificates": b"leafroot"})
    for value in (
        device,
        [device],
        {"device_evidence_list": [device]},
        {"nonce": "x", "evidence_list": [device], "arch": "HOPPER"},
        {"nvidia_payload": json.dumps({"evidence_list": [device]})},
        ascii_hex,
        {"evidence": [old]},
        {"gpu": {"certificate": chain.decode(), "evidence": text(SPDM)}},
    ):
        assert recognise(json.dumps(value).encode()).evidence == evidence
    gateway = {"intel_quote": QUOTE.hex(), "nvidia_payload": json.dumps({"evidence_list": [device, other]})}
    assert [one.place for one in pieces(json.dumps(gateway).encode())] == [
        ".intel_quote",
        ".nvidia_payload.evidence_list[0]",
        ".nvidia_payload.evidence_list[1]",
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "of no kind that is known here"),
        (b"{}", "of no kind that is known here"),
        (b"[]", "of no kind that is known here"),
        (b"null", "of no kind that is known here"),
        (b"hello", "of no kind that is known here"),
        (b"ab" * 100, "of no kind that is known here"),
        (json.dumps({"quote": "x" * 100}).encode(), "of no kind that is known here"),
        (QUOTE[:20], "of no kind that is known here"),
        (REPORT + b"\0", "of no kind that is known here"),
        (REPORT[:-1], "of no kind that is known here"),
        (b"\x06\0\0\0" + REPORT[4:], "of no kind that is known here"),
        (struct.pack("<H", 6) + QUOTE[2:], "of no kind that is known here"),
        (b'{"tee": "snp", "parts": {}}', "0 parts, expected 1 to 32"),
        (b'{"tee": "snp", "tee": "tdx", "parts": {"quote": ""}}', "duplicate key 'tee'"),
        (pem.encode(b"x" * 100, b"CERTIFICATE"), "of no kind that is known here"),
    ],
)
def test_anything_else_is_refused_in_words(data, why):
    with pytest.raises(Malformed, match=why):
        recognise(data)


def test_rule_15_sizes_and_depths_are_bounded():
    with pytest.raises(Malformed, match="at most"):
        recognise(bytes(recognising.MAX_FILE + 1))
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    with pytest.raises(Malformed, match="of no kind that is known here"):
        recognise(bomb)
    deep = QUOTE
    for _ in range(recognising.MAX_LAYERS + 1):
        deep = gzip.compress(deep)
    with pytest.raises(Malformed, match="of no kind that is known here"):
        recognise(deep)
    nested = '{"a":' * 100_000 + "1" + "}" * 100_000
    with pytest.raises(Malformed, match="of no kind that is known here"):
        recognise(nested.encode())


def test_a_piece_is_found_however_deep_it_lies():
    nested = json.dumps({"a": QUOTE.hex()})
    for _ in range(20):
        nested = '{"a":' + nested + "}"
    assert recognise(nested.encode()).place == ".a" * 21


def test_json_of_others_may_have_fractions_large_numbers_and_a_mark():
    value = {"time": 1.5, "policy": 1 << 63, "quote": QUOTE.hex()}
    for data in (
        json.dumps(value).encode(),
        json.dumps(value).encode("utf-8-sig"),
        json.dumps(value).encode("utf-16"),
    ):
        assert recognise(data).evidence.parts == {"quote": QUOTE}
    with pytest.raises(Malformed, match="duplicate key 'a'"):
        recognise(b'{"a": 1, "a": 2}')


@examples(300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda data: b"\x0a" + data),
        st.recursive(
            st.none() | st.integers(-9, 300) | st.text(max_size=8) | st.just(TPM_QUOTE.hex()),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(
                        ["quotes", "akCert", "tpm_quote", "hcl_report", "pcrs", "evidence", "certificate"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_rule_15_whatever_it_is_it_is_recognised_or_refused_in_words(data):
    try:
        found = recognise(data)
    except Malformed:
        return
    assert all(one.value for one in describe(found.evidence))
