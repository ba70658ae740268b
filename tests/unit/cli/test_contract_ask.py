"""`contract check --ask` where a broker does not answer as itself: why, and what to do about that and nothing else."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from strongroom.appraisal import terms
from strongroom.cli import main
from strongroom.errors import Refused, Unavailable
from strongroom.model.contracts import agreement as agreement_model
from strongroom.node import foreseen
from strongroom_testing import packs


@pytest.mark.parametrize(
    ("cause", "code", "expected", "never"),
    [
        (
            Refused(
                "https://h: its key is not the pinned one", code="wrong-broker", hint="get its party file"
            ),
            3,
            ("error [wrong-broker]: it would not run now: the broker of alice", "hint: get its party file"),
            "broker serve",
        ),
        (
            Unavailable("https://h: refused", code="broker-unreachable", hint="is it running?"),
            4,
            (
                "error [broker-unreachable]: nobody can say",
                "alice starts it with `strongroom broker serve`",
            ),
            "is it running?",
        ),
        (
            Unavailable("https://h: cut off", code="broker-answer"),
            4,
            ("error [broker-answer]: nobody can say", "hint: try again"),
            "broker serve",
        ),
    ],
)
def test_why_a_broker_said_nothing_is_told_in_its_own_words(
    tmp_path, monkeypatch, capsys, cause, code, expected, never
):
    with packs.world(tmp_path) as world:
        (tmp_path / "contract.json").write_bytes(world.agreement.encode())

    def ask(*_):
        raise cause

    monkeypatch.setattr(foreseen, "ask", ask)
    monkeypatch.setattr(terms, "check_terms", lambda *_, **__: ())  # the sample's dates are not today's
    monkeypatch.setattr(
        sys, "argv", ["strongroom", "contract", "check", str(tmp_path / "contract.json"), "--ask"]
    )
    with pytest.raises(SystemExit) as left:
        main.main()
    said = capsys.readouterr().err
    assert left.value.code == code, said
    assert all(text in said for text in expected), said
    assert never not in said


def asked(world, folder, monkeypatch, capsys, *words, signed=True):
    agreement = world.agreement if signed else agreement_model.draft(world.agreement.contract)
    (folder / "contract.json").write_bytes(agreement.encode())
    (folder / "alice.party.json").write_bytes(world.agreement.contract.party("alice").encode())
    sent = []

    def ask(address, *_):
        sent.append(address.url)
        raise Unavailable("refused", code="broker-unreachable")

    monkeypatch.setattr(foreseen, "ask", ask)
    monkeypatch.setattr(terms, "check_terms", lambda *_, **__: ())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["strongroom", "contract", "check", "contract.json", *words])
    with pytest.raises(SystemExit) as left:
        main.main()
    return left.value.code, sent, capsys.readouterr().err


def test_to_whom_the_contract_goes_is_said_before_and_by_whose_word(tmp_path, monkeypatch, capsys):
    with packs.world(tmp_path) as world:
        url = world.agreement.contract.party("alice").broker.url
        code, sent, said = asked(world, tmp_path, monkeypatch, capsys, "--ask")
        assert (code, set(sent)) == (4, {url})
        assert said.startswith(f"asking alice's broker at {url} (address by alice's signature)")


def test_nothing_is_sent_to_an_address_that_only_whoever_drafted_the_contract_wrote(
    tmp_path, monkeypatch, capsys
):
    with packs.world(tmp_path) as world:
        url = world.agreement.contract.party("alice").broker.url
        code, sent, said = asked(world, tmp_path, monkeypatch, capsys, "--ask", signed=False)
        assert (code, sent) == (3, [])
        assert "error [address-not-vouched]" in said
        assert "--trust alice.party.json" in said
        code, sent, said = asked(
            world, tmp_path, monkeypatch, capsys, "--ask", "--trust", "alice.party.json", signed=False
        )
        assert (code, sent) == (4, [url])
        assert "(address by the party file that you gave)" in said


def test_a_party_file_says_where_its_broker_is_now_and_with_another_key_stops_the_question(
    tmp_path, monkeypatch, capsys
):
    with packs.world(tmp_path) as world:
        alice = world.agreement.contract.party("alice")
        moved = replace(alice, broker=replace(alice.broker, url="https://elsewhere.example:1"))
        (tmp_path / "held.json").write_bytes(moved.encode())
        code, sent, _ = asked(world, tmp_path, monkeypatch, capsys, "--ask", "--trust", "held.json")
        assert (code, sent[0]) == (4, "https://elsewhere.example:1")
        other = replace(alice, broker=replace(alice.broker, pin="sha256:" + "0" * 64))
        (tmp_path / "held.json").write_bytes(other.encode())
        code, sent, said = asked(world, tmp_path, monkeypatch, capsys, "--ask", "--trust", "held.json")
        assert (code, sent) == (3, [])
        assert "error [other-entry]: the contract's entry for alice is not" in said
        code, sent, said = asked(world, tmp_path, monkeypatch, capsys, "--trust", "held.json")
        assert (code, sent) == (2, [])
        assert "--trust: goes with --ask" in said
