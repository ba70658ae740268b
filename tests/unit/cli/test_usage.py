"""What cannot be read on the command line is one sentence with a hint, as every other failure is."""

from __future__ import annotations

import json
import sys

import pytest

from strongroom.cli import main


def typed(monkeypatch, capsys, line):
    monkeypatch.setattr(sys, "argv", ["strongroom", *line.split()])
    with pytest.raises(SystemExit) as left:
        main.main()
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            "contract new x --days 31.12.2026",
            "strongroom contract new: --days: expected a whole number from 1 to 36500, got '31.12.2026'",
            "`strongroom contract new --help` shows what it takes",
        ),
        ("contract new x --days 0", "expected a whole number from 1 to 36500, got 0", "contract new --help`"),
        ("contract new x --days 1e2", "a whole number from 1 to 36500, got '1e2'", "contract new --help`"),
        (
            "try x --memory-mib 3",
            "--memory-mib: expected a whole number of at least 256, got 3",
            "try --help`",
        ),
        ("try x --passphrase 3", "no such option: --passphrase", "`strongroom try --help`"),
        ("seal", "strongroom seal: missing argument", "`strongroom seal --help`"),
        ("seal a -i b", "missing option '--name'", "`strongroom seal --help`"),
        ("contract nosuch", "strongroom contract: no such verb 'nosuch'", "contract --help` shows its verbs"),
        ("nosuch", "strongroom: no such verb 'nosuch'", "`strongroom --help` shows its verbs"),
    ],
)
def test_it_says_what_is_wanted_and_where_to_look(monkeypatch, capsys, line, message, hint):
    code, out, err = typed(monkeypatch, capsys, line)
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith("error [misuse]: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second


def test_for_programs_it_is_an_object(monkeypatch, capsys):
    code, _, err = typed(monkeypatch, capsys, "contract check --nope --json")
    error = json.loads(err)["error"]
    assert code == 2
    assert error["code"] == "misuse"
    assert "--help" in error["hint"]


def test_a_group_without_a_verb_shows_its_help(monkeypatch, capsys):
    code, out, err = typed(monkeypatch, capsys, "contract")
    assert code == 2
    assert "Write, sign and judge contracts." in out + err


def test_what_is_done_leaves_with_nothing_to_say(monkeypatch, capsys):
    code, _, err = typed(monkeypatch, capsys, "--version")
    assert (code, err) == (0, "")
