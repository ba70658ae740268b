"""Attestation results by files: written by whoever judged, and affirmed for nobody else than they are for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from strongroom.crypto import sign
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.model.party import BrokerAddress
from strongroom.parties import evidence, result
from strongroom.parties.evidence import PolicyFiles
from strongroom_testing import evidence_folder
from strongroom_testing.evidence_folder import BINDING, NOW, REPORT_DATA
from tests import samples

JUDGE, STRANGER = samples.ALICE, samples.BOB


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Accepted evidence as if a vendor's key stood behind it: of simulated evidence no result affirms its hardware."""
    folder = tmp_path_factory.mktemp("evidence")
    evidence_folder.write(folder)
    accepted = evidence.judge_evidence(
        folder / "quote.bin",
        policy=PolicyFiles(path=folder / "policy.json"),
        binding=BINDING,
        now=NOW,
        endorsements=folder / "tdx.endorsements.json",
    )
    assert accepted.verdict.accepted
    claims = replace(accepted.verdict.claims, simulated=False)
    return replace(accepted, verdict=replace(accepted.verdict, claims=claims)), accepted


def verify(path, judged, **changes):
    asked = {
        "verifier": JUDGE.party(),
        "audience": "database",
        "policy": judged.verdict.policy,
        "nonce": REPORT_DATA,
        "now": NOW,
        **changes,
    }
    return result.verify_result(path, **asked)


@pytest.mark.parametrize("name", ["r.jwt", "r.cwt", "r"])
def test_what_was_written_is_affirmed_for_its_audience_and_question(judged, tmp_path, name):
    genuine, _ = judged
    out = tmp_path / name
    result.write_result(genuine, audience="database", signer=JUDGE, out=out)
    affirmed = verify(out, genuine)
    assert (affirmed.issuer, affirmed.audience, affirmed.nonce) == ("alice", "database", REPORT_DATA)
    assert affirmed.evidence_digest == genuine.evidence.digest
    assert affirmed.expires == NOW + result.LIFETIME
    assert out.read_bytes().isascii() == (result.form(out) == "jwt") == (name != "r.cwt")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"verifier": STRANGER.party()}, "token-signature"),
        ({"audience": "somebody"}, "token-audience"),
        ({"policy": samples.DIGEST}, "token-policy"),
        ({"nonce": bytes(64)}, "token-nonce"),
        ({"now": NOW + result.LIFETIME}, "token-time"),
        ({"now": NOW - timedelta(minutes=10)}, "token-time"),
    ],
)
def test_it_is_refused_from_another_for_another_and_at_another_time(judged, tmp_path, change, code):
    genuine, _ = judged
    result.write_result(genuine, audience="database", signer=JUDGE, out=tmp_path / "r.jwt")
    with pytest.raises(Refused) as caught:
        verify(tmp_path / "r.jwt", genuine, **change)
    assert (caught.value.code, caught.value.file) == (code, tmp_path / "r.jwt")


def test_a_broker_signs_for_its_party_and_nobody_elses(judged, tmp_path):
    genuine, _ = judged
    ledger = sign.generate()
    address = BrokerAddress(
        url="https://127.0.0.1:8443",
        pin=samples.DIGEST,
        ledger_key=ledger.public.raw,
        authority=samples.DIGEST,
    )
    by_broker = replace(JUDGE, signing=ledger)
    result.write_result(genuine, audience="database", signer=by_broker, out=tmp_path / "r.jwt")
    assert verify(tmp_path / "r.jwt", genuine, verifier=JUDGE.party(address)).issuer == "alice"
    for other, why in ((JUDGE.party(), "not signed by"), (STRANGER.party(address), "issuer")):
        with pytest.raises(Refused, match=why):
            verify(tmp_path / "r.jwt", genuine, verifier=other)


def test_simulated_and_denied_evidence_is_written_and_affirmed_to_nobody(judged, tmp_path):
    _, simulated = judged
    denied = replace(simulated, verdict=replace(simulated.verdict, checks=()))
    for name, judgement in (("simulated", simulated), ("denied", denied)):
        result.write_result(judgement, audience="database", signer=JUDGE, out=tmp_path / name)
        with pytest.raises(Refused, match="contraindicated"):
            verify(tmp_path / name, judgement)


def test_a_question_of_no_length_and_a_file_that_is_there_are_refused(judged, tmp_path):
    genuine, _ = judged
    for nonce in (b"", b"1234567", bytes(65)):
        with pytest.raises(Malformed, match="expected 8 to 64"):
            result.write_result(
                replace(genuine, nonce=nonce), audience="database", signer=JUDGE, out=tmp_path / "r.jwt"
            )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r.jwt").write_text("mine")
    with pytest.raises(Misuse) as caught:
        result.write_result(genuine, audience="database", signer=JUDGE, out=tmp_path / "r.jwt")
    assert (caught.value.code, (tmp_path / "r.jwt").read_text()) == ("exists", "mine")


def test_junk_is_malformed_and_named(judged, tmp_path):
    for data in (b"", b"junk", b"\xff" * 100, b"e30.e30.e30"):
        (tmp_path / "r.jwt").write_bytes(data)
        with pytest.raises((Malformed, Refused)) as caught:
            verify(tmp_path / "r.jwt", judged[0])
        assert caught.value.file == tmp_path / "r.jwt"
