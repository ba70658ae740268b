"""`contract sign`: nobody signs for somebody else's keys, nor without having been shown what."""

from __future__ import annotations

import builtins
import secrets
import sys
from dataclasses import replace

import pytest

from strongroom.cli import main
from strongroom.model import identity
from strongroom.model.contracts import agreement, contract
from tests import samples

MALLORY = identity.generate("mallory")
ALICE_FILE = samples.ALICE.party(samples.broker())


@pytest.fixture(scope="module")
def locked():
    return identity.lock(samples.ALICE, b"pass", random=secrets.token_bytes)


@pytest.fixture
def desk(tmp_path, monkeypatch, locked):
    """alice's folder: her identity, her party file as `broker init` completes it, bob's file."""
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "pass")
    (tmp_path / "alice.identity").write_bytes(locked)
    (tmp_path / "alice.party.json").write_bytes(ALICE_FILE.encode())
    (tmp_path / "bob.party.json").write_bytes(samples.BOB.party().encode())
    return tmp_path


@pytest.fixture
def sign(desk, monkeypatch, capsys):
    def call(agreed, *options, yes=True):
        file = desk / "c.json"
        file.write_bytes(agreed.encode())
        words = [
            "contract",
            "sign",
            file,
            "-i",
            desk / "alice.identity",
            *options,
            *(["--yes"] if yes else []),
        ]
        monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
        try:
            main.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        told = capsys.readouterr()
        return code, told.out, told.err, agreement.read(file.read_bytes()).signers()

    return call


def drafted(**changes):
    return agreement.draft(samples.a_contract(**changes))


def with_entry(**changes):
    """A contract whose entry for alice is her party file but for `changes`."""
    alice, bob = samples.a_contract().members
    return drafted(members=(replace(alice, party=replace(alice.party, **changes)), bob))


def test_what_is_signed_is_shown_compared_and_named(sign, desk):
    code, out, _, signers = sign(drafted(), "--trust", desk / "bob.party.json")
    assert (code, signers) == (0, ("alice",))
    one = samples.a_contract()
    assert (
        out.index("output   /out sealed to bob")
        < out.index(f"you sign {one.digest}")
        < out.index("signed sha256")
    )
    assert "compared with party files: alice, bob" in out
    assert "not compared (--trust FILE): nobody" in out


def test_what_was_not_compared_is_said(sign):
    _, out, _, _ = sign(drafted())
    assert "not compared (--trust FILE): bob" in out


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"recipient": MALLORY.party().recipient}, id="recipient"),
        pytest.param({"broker": None}, id="broker"),
        pytest.param({"broker": replace(samples.broker(), pin="sha256:" + "0" * 64)}, id="broker.pin"),
        pytest.param({"broker": replace(samples.broker(), ledger_key=b"m" * 32)}, id="broker.ledger_key"),
        pytest.param({"broker": replace(samples.broker(), authority="sha256:" + "0" * 64)}, id="broker.authority"),
    ],
)  # fmt: skip
def test_a_contract_with_another_key_in_ones_own_place_is_not_signed(sign, change, request):
    """bob drafts with alice's true signing key and an accomplice's recipient, or ledger, or authority."""
    code, _, err, signers = sign(with_entry(**change))
    assert (code, signers) == (3, ())
    assert "error [other-entry]" in err
    assert request.node.callspec.id in err


def test_ones_own_key_under_another_name_is_not_signed(sign):
    alice, bob = samples.a_contract().members
    renamed = drafted(
        members=(replace(alice, party=replace(alice.party, name="alicia")), bob),
        datasets=(replace(samples.a_contract().rooms[0].datasets[0], owner="alicia"),),
        approvals=contract.Approvals(parties=("alicia", "bob"), threshold=2),
    )
    code, _, err, signers = sign(renamed)
    assert (code, signers) == (3, ())
    assert "name is alicia, not alice" in err


def test_a_broker_may_have_moved(sign):
    moved = with_entry(broker=samples.broker("https://elsewhere.example:1"))
    assert sign(moved)[3] == ("alice",)


def test_somebody_elses_entry_that_is_not_the_file_one_trusts_is_not_signed(sign, desk):
    alice, bob = samples.a_contract().members
    for entry in (
        replace(bob.party, recipient=MALLORY.party().recipient),
        replace(bob.party, signing_key=MALLORY.signing.public),
        replace(bob.party, broker=samples.broker()),
    ):
        forged = drafted(members=(alice, replace(bob, party=entry)))
        code, _, err, signers = sign(forged, "--trust", desk / "bob.party.json")
        assert (code, signers) == (3, ())
        assert "the file of bob that you trust" in err


def test_a_trusted_file_of_nobody_in_the_contract_is_not_passed_over(sign, desk):
    (desk / "mallory.party.json").write_bytes(MALLORY.party().encode())
    code, _, err, signers = sign(drafted(), "--trust", desk / "mallory.party.json")
    assert (code, signers) == (2, ())
    assert "nobody in the contract" in err


def test_without_ones_own_party_file_nothing_is_signed(sign, desk):
    (desk / "alice.party.json").rename(desk / "elsewhere.json")
    code, _, err, signers = sign(drafted())
    assert (code, signers) == (5, ())
    assert "--party" in err
    assert sign(drafted(), "--party", desk / "elsewhere.json")[3] == ("alice",)
    code, _, err, signers = sign(drafted(), "--party", desk / "bob.party.json")
    assert (code, signers) == (2, ())
    assert "other-party-file" in err


def test_with_nobody_to_ask_nothing_is_signed(sign, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err, signers = sign(drafted(), yes=False)
    assert (code, signers) == (2, ())
    assert f"you sign {samples.a_contract().digest}" in out
    assert "--yes" in err


@pytest.mark.parametrize(("answer", "signers"), [("yes", ("alice",)), ("y", ()), ("", ()), ("no", ())])
def test_on_a_terminal_only_yes_signs(sign, monkeypatch, answer, signers):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", lambda _prompt: answer)
    code, _, _, signed = sign(drafted(), yes=False)
    assert signed == signers
    assert code == (0 if signers else 3)


def second(**changes):
    return drafted(
        **{"version": 2, "replaces": samples.a_contract().digest, **changes},
        limits=replace(samples.a_contract().limits, runs=77),
    )


def test_a_later_version_is_signed_with_its_differences_shown(sign, desk):
    (desk / "first.json").write_bytes(samples.signed(samples.a_contract(), samples.ALICE).encode())
    code, _, err, signers = sign(second())
    assert (code, signers) == (2, ())
    assert "give that version's file with --replaces" in err
    code, out, _, signers = sign(second(), "--replaces", desk / "first.json")
    assert (code, signers) == (0, ("alice",))
    assert "limits.runs\n  - 1\n  + 77\n" in out
    assert "you have not signed" not in out


def test_a_version_that_one_did_not_sign_is_called_that(sign, desk):
    (desk / "first.json").write_bytes(drafted().encode())
    assert "you have not signed version 1" in sign(second(), "--replaces", desk / "first.json")[1]


def test_differences_are_shown_to_no_other_version_than_the_one_replaced(sign, desk):
    other = drafted(limits=replace(samples.a_contract().limits, runs=76))
    (desk / "other.json").write_bytes(other.encode())
    code, _, err, signers = sign(second(), "--replaces", desk / "other.json")
    assert (code, signers) == (3, ())
    assert "replaces-another" in err
    (desk / "first.json").write_bytes(drafted().encode())
    for unfit in ({"version": 3}, {"id": "other"}, {"datasets": ()}):
        code, _, err, signers = sign(second(**unfit), "--replaces", desk / "first.json")
        assert (code, signers) == (3, ()), unfit
        assert "no-successor" in err
    assert sign(drafted(), "--replaces", desk / "first.json")[0] == 3
