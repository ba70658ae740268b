"""`contract check --ask` where a broker does not answer as itself: why, and what to do about that and nothing else."""

from __future__ import annotations

import sys

import pytest

from strongroom.appraisal import terms
from strongroom.cli import main
from strongroom.errors import Refused, Unavailable
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
                "error [broker-unreachable]: it cannot be told",
                "alice starts it with `strongroom broker serve`",
            ),
            "is it running?",
        ),
        (
            Unavailable("https://h: cut off", code="broker-answer"),
            4,
            ("error [broker-answer]: it cannot be told", "hint: try again"),
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
