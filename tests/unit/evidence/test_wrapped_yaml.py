"""Evidence in YAML: read where it can be read in one way alone."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.evidence.wrappings import yaml as wrapped_yaml
from strongroom.evidence.wrappings.recognise import recognise
from tests.effort import examples
from tests.unit.evidence.raw_pieces import QUOTE, TPM_QUOTE
from tests.unit.evidence.wrapped_pieces import VECTORS

YAML = """\
# comment
tdx_quote_base64: |-
  {quote}

hcl_report_base64: '{hcl}'
tpm_attestation:
  ak_certificate_pem: |-
    -----BEGIN CERTIFICATE-----
    AAAA
    -----END CERTIFICATE-----
  quote:
    signature: [
      {signature}
    ]
    message: {message}
    pcrs:
      - {pcr}
      - {pcr}
  event_log: []
  instance_info: null
"""


def yaml(**changes):
    made = {
        "quote": base64.urlsafe_b64encode(QUOTE).decode(),
        "hcl": base64.urlsafe_b64encode(b"HCLA" + bytes(2000)).decode(),
        "signature": ",\n      ".join(["170"] * 256),
        "message": list(TPM_QUOTE),
        "pcr": [7] * 32,
    }
    return YAML.format(**{**made, **changes}).encode()


def test_yaml_of_an_azure_vm():
    found = recognise(yaml())
    assert found.evidence.tee == "azure"
    assert found.layers == ("YAML",)
    assert found.evidence.parts == {
        "hcl-report": b"HCLA" + bytes(2000),
        "td-quote": QUOTE,
        "quote": TPM_QUOTE,
        "signature": b"\x00\x14\x00\x0b\x01\x00" + b"\xaa" * 256,
        "pcrs": bytes([7] * 64),
    }


@pytest.mark.skipif(not VECTORS.exists(), reason="recorded evidence is not here")
def test_recorded_yaml_and_scale_are_read():
    (printed,) = VECTORS.parent.glob("azure/*/original_*.yaml")
    found = recognise(printed.read_bytes()).evidence
    for part, file in (
        ("hcl-report", "hcl_report.bin"),
        ("td-quote", "td_quote.bin"),
        ("quote", "tpm_quote.msg"),
    ):
        assert found.parts[part] == (printed.parent / file).read_bytes()
    packed_one = VECTORS.parent / "gcp/dstack-tdx-vtpm-6faed284"
    found = recognise((packed_one / "attestation.bin").read_bytes(), place=".quote").evidence
    assert found.parts == {"quote": (packed_one / "td_quote.bin").read_bytes()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: x", {"a": 1, "b": "x"}),
        ('a:\n  b: ~\n  c: true\nd: "q\\n"', {"a": {"b": None, "c": True}, "d": "q\n"}),
        ("a:\n- 1\n- x y\nb: -5", {"a": [1, "x y"], "b": -5}),
        ("a: 'it''s'\nb: >-\n  one\n  two", {"a": "it's", "b": "one\ntwo"}),
        ("a: [1,\n 2,\n [3]]\nb:", {"a": [1, 2, [3]], "b": None}),
        ("- 1\n- 2", [1, 2]),
        ("a: v1.2 # why\nb: 007", {"a": "v1.2", "b": "007"}),
    ],
)
def test_yaml_is_read(text, value):
    assert wrapped_yaml.loads(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "a", "a: 1\na: 2", "a: &x 1", "a: *x", "a: !!str 1", "<<: *x", "a:\tb", "a: {b: 1}", "a: 1\n  b: 2", " a: 1\nb: 2",
     "a: [1", "a: [1}", "a: 'x", 'a: "x', "a: b: c", "---\na: 1", "a: @x", "? a", "a: [" + "[" * 100_000 + "]" * 100_001],
)  # fmt: skip
def test_rule_31_yaml_that_could_mean_two_things_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        wrapped_yaml.loads(text)


@given(st.text(alphabet="ab:- |>[]{}'\"\n#&*!12,", max_size=80))
@examples(300)
def test_rule_15_yaml_parses_or_is_refused(text):
    try:
        wrapped_yaml.loads(text)
    except ValueError:
        return
