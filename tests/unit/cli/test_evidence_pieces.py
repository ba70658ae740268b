"""Files with several pieces of evidence: all are shown with their places, none is judged for the others."""

from __future__ import annotations

import json
import sys

import pytest

from strongroom.appraisal import standing
from strongroom.cli import main
from strongroom.model.claims import Claims
from strongroom_testing.evidence_folder import BINDING, NOW, REPORT_DATA
from strongroom_testing.vendors.fake_intel import FakeIntel
from tests.unit.evidence.raw_pieces import QUOTE, QUOTES, REPORT

TWO = {
    "gateway_attestation": {"intel_quote": QUOTE.hex()},
    "model_attestations": [{"model": "m", "intel_quote": QUOTES["tdx", 5].hex()}],
}
CLAIMS = {
    "tee": "tdx",
    "root": "r",
    "machine": "m",
    "contract_digest": None,
    "registers": {},
    "debug": False,
    "memory_guard": False,
    "facts": {},
    "not_checked": (),
}
PLACES = (".gateway_attestation.intel_quote", ".model_attestations[0].intel_quote")


@pytest.fixture
def strongroom(monkeypatch, capsys, tmp_path):
    (tmp_path / "two.json").write_text(json.dumps(TWO))
    (tmp_path / "one.bin").write_bytes(REPORT)
    platform = {"tee": "tdx", "roots": ["pinned"], "machines": ["any"], "references": [{"mr_td": "00" * 48}]}
    policy = {"format": "strongroom-policy/1", "name": "p", "platforms": [platform]}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["strongroom", "evidence", *words])
        try:
            main.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_show_names_all_places_first_and_then_shows_all(strongroom):
    code, out, _ = strongroom("show", "two.json")
    assert code == 0
    head = out.splitlines()[:8]
    for place in PLACES:
        assert any(place in line for line in head)
    assert out.count("\nkind ") == 2
    assert out.count("verified  no") == 2


def test_show_tells_programs_of_all(strongroom):
    code, out, _ = strongroom("show", "two.json", "--json")
    told = json.loads(out)
    assert code == 0
    assert list(told) == ["pieces"]
    assert [one["place"] for one in told["pieces"]] == list(PLACES)
    _, out, _ = strongroom("show", "one.bin", "--json")
    assert json.loads(out)["tee"] == "snp"


def test_one_is_shown_by_its_place(strongroom):
    code, out, _ = strongroom("show", "two.json", "--at-place", PLACES[1])
    assert code == 0
    assert "TDX quote, version 5" in out
    assert out.count("\nkind ") == 1
    code, _, err = strongroom("show", "two.json", "--at-place", ".elsewhere")
    assert code == 2
    assert "no piece at '.elsewhere'" in err
    assert PLACES[0] in err


@pytest.mark.parametrize(
    "verb",
    [
        ("verify", "two.json", "--policy", "policy.json", "--report-data", "00" * 64),
        ("diff", "two.json", "one.bin"),
    ],
)
def test_no_verb_takes_the_first_for_the_whole(strongroom, verb):
    code, out, err = strongroom(*verb)
    assert code == 2
    assert not out
    assert "several" in err
    for place in PLACES:
        assert place in err


def test_verify_judges_the_piece_that_was_named(strongroom):
    code, out, _ = strongroom(
        "verify", "two.json", "--policy", "policy.json", "--report-data", "00" * 64, "--at-place", PLACES[1]
    )
    assert code == 3
    assert "DENIED" in out


def test_what_is_known_of_evidence_is_said_in_one_of_four_words(strongroom, tmp_path):
    """Accepted or denied is what a policy says; whose signature stands behind evidence is another matter."""
    intel = FakeIntel(now=NOW)
    quote = intel.evidence(BINDING).parts["quote"]
    (tmp_path / "quote.bin").write_bytes(quote)
    (tmp_path / "given.json").write_bytes(intel.endorsements().encode())
    platform = {
        "tee": "tdx",
        "roots": [intel.root_digest],
        "machines": ["any"],
        "references": [{"mr_td": "00" * 48}],
    }
    policy = {"format": "strongroom-policy/1", "name": "p", "platforms": [{**platform, "simulated": True}]}
    (tmp_path / "fake.json").write_text(json.dumps(policy))
    asked = ("--report-data", REPORT_DATA.hex(), "--at", f"{NOW:%Y-%m-%dT%H:%M:%SZ}")

    def known(*words):
        _, out, _ = strongroom("verify", "quote.bin", *asked, *words)
        _, told, _ = strongroom("verify", "quote.bin", *asked, *words, "--json")
        word = out.splitlines()[0].split("evidence  ")[1].split(":")[0]
        assert json.loads(told)["evidence"] == word
        return word

    assert known("--policy", "fake.json", "--endorsements", "given.json") == "simulated"
    assert known("--policy", "fake.json") == "cannot tell"
    assert known("--policy", "policy.json", "--endorsements", "given.json") == "refused"
    assert standing.word(Claims(**CLAIMS, simulated=False), vouched=True) == "verified"
    assert set(standing.WORDS) == {"verified", "refused", "cannot tell", "simulated"}


def test_every_device_in_a_file_of_devices_is_judged(strongroom, tmp_path):
    value = [{"a": REPORT.hex()}, {"a": QUOTE.hex()}]
    (tmp_path / "devices.json").write_text(json.dumps(value))
    code, out, _ = strongroom(
        "verify", "one.bin", "--policy", "policy.json", "--report-data", "00" * 64, "--device", "devices.json", "--json"
    )  # fmt: skip
    assert code == 3
    failed = [one for one in json.loads(out)["checks"] if not one["ok"]]
    assert any("devices" in one["name"] for one in failed), failed
