"""What `contract show` says: all that is signed, one line for each thing, whatever the drafter wrote."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from strongroom.cli import sentences
from strongroom.cli.printable import MORE, printable, say
from strongroom.encoding import canonical
from strongroom.model.contracts.certificate_terms import Delivery, Format, KeyKind, Mode, Signal, Usage
from tests import samples

EVIL = "x\nlog      nobody reads it\x1b[2K\u202eevil\x9b\u2028"


def test_every_value_of_a_contract_is_shown():
    contract = samples.a_contract(
        version=3,
        replaces=samples.DIGEST,
        image=replace(samples.a_contract().rooms[0].image, arguments=("--first", "two words"), environment={"WORD": "value"}),
    )  # fmt: skip
    assert not_shown(contract) <= {".format", ".platforms.machines"}


@pytest.mark.parametrize("told", [{"signal": Signal.HUP}, {"command": ("nginx", "-s", "reload")}, {}])
def test_every_value_of_a_rooms_certificate_is_shown(told):
    delivery = Delivery(
        folder="/etc/own/tls",
        format=Format.PKCS12,
        uid=4711,
        gid=4712,
        mode=Mode.GROUP_READS,
        check=8443,
        **told,
    )
    plain = samples.a_contract()
    certificate = replace(
        plain.rooms[0].certificate,
        key=KeyKind.RSA_3072,
        usages=(Usage.CLIENT,),
        trust_domain="rooms.example",
        delivery=delivery,
    )
    assert not_shown(samples.a_contract(certificate=certificate)) <= {".format", ".platforms.machines"}


def not_shown(contract):
    """The places of values that `contract show` leaves out, or tells in other words ("any" machine)."""
    shown = "\n".join(sentences.of(contract))
    left = set()

    def walk(value, place):
        if isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{place}.{key}")
        elif isinstance(value, list):
            for item in value:
                walk(item, place)
        elif (isinstance(value, str) and value not in shown) or (
            isinstance(value, int) and not isinstance(value, bool) and str(value) not in shown
        ):
            left.add(place)

    walk(canonical.loads(contract.raw, what="contract", max_bytes=1 << 20), "")
    return left


def test_each_room_says_by_whom_its_receipt_is_recorded():
    rooms = (samples.a_room(name="db"), samples.a_room(name="web", datasets=()))
    shown = list(sentences.of(samples.a_contract(rooms=rooms)))
    assert any(line.startswith("receipt  of db: recorded by alice before") for line in shown)
    assert any(line.startswith("receipt  of web: recorded by nobody before") for line in shown)


def test_no_text_within_makes_a_line_of_its_own():
    plain = samples.a_contract()
    image = replace(plain.rooms[0].image, arguments=(EVIL,), environment={"A": EVIL})
    platform = replace(plain.platforms[0], machines=(EVIL,), references=({"kernel": EVIL},))
    lines = list(sentences.of(samples.a_contract(image=image, platforms=(platform,))))
    assert sum(line.startswith("log ") for line in lines) == 1
    assert all(line.isprintable() for line in lines)
    assert any("A=x\\nlog" in line for line in lines)


def test_simulated_and_any_are_loud():
    shown = "\n".join(sentences.of(samples.a_contract()))
    assert "SIMULATED" in shown
    assert "machine ANY" in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("Grüße, 世界", "Grüße, 世界"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b", "\\x9b"),
        ("\u202e", "\\u202e"),
        ("\u2028", "\\u2028"),
        ("two  spaces", "two  spaces"),
        ("\u3000\xa0\u2003", "\\u3000\\xa0\\u2003"),
        ("\u2800\u3164\uffa0", "\\u2800\\u3164\\uffa0"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
        ("", ""),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("columns", [40, 80, 81, 132])
@pytest.mark.parametrize("filler", [" ", "-", "\u3000", "世"])
def test_on_a_terminal_no_text_within_begins_a_row(monkeypatch, capsys, columns, filler):
    """A drafter pads a value to where a terminal breaks the line, and writes there what looks like a line of ours."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    forged = "log      sealed to alice"
    for padding in range(2 * columns):
        say("         with A=" + filler * padding + forged)
    shown = capsys.readouterr().out.splitlines()
    assert all(row.startswith(("         with A=", MORE)) for row in shown)
    assert all(sum(1 if one.isascii() else 2 for one in row) <= columns for row in shown)
    assert "".join(row.removeprefix(MORE) for row in shown).count(forged) == 2 * columns


def test_where_nobody_breaks_lines_they_stay_whole(capsys):
    say("a" * 1000)
    assert capsys.readouterr().out == "a" * 1000 + "\n"
