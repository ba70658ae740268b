"""YAML of one meaning (rule 31): what PyYAML and we read alike is read, everything else is refused."""

from __future__ import annotations

import pytest
import yaml

from strongroom.convert import strict_yaml
from strongroom.errors import Malformed

PLAIN = """\
# a comment
name: web
"quoted key": 'it''s'
list: [1, -2, 1.5, true, null, ~, "yes", '012']
nested:
  - a: b
    c: {d: e, f: []}
  - |
    several
    lines
  - >-
    folded
    text
empty:
"""


def test_reads_what_another_parser_reads():
    assert strict_yaml.loads(PLAIN.encode(), what="f") == yaml.safe_load(PLAIN)


@pytest.mark.parametrize(
    "word",
    ["yes", "No", "on", "OFF", "y", "N", "True", "FALSE", "Null", "012", "0o14", "0x1F", "0b11", "1_000", "22:22",
     "1:30:00", "1e3", "1.", ".5", "+1", ".inf", "-.INF", ".nan", "2024-01-01", "2024-01-01 10:00:00", "=", "-0", "1.5e3"],
)  # fmt: skip
def test_rule_31_words_that_parsers_read_differently_are_refused(word):
    with pytest.raises(Malformed) as refused:
        strict_yaml.loads(f"a: {word}".encode(), what="f")
    assert refused.value.code == "ambiguous-yaml"
    assert "quotes" in refused.value.hint
    assert strict_yaml.loads(f"a: '{word}'".encode(), what="f") == {"a": word}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2", "duplicate-key"),
        ("a: 1\n'a': 2", "duplicate-key"),
        ("a: &x 1", "ambiguous-yaml"),
        ("a: &x [1]\nb: *x", "ambiguous-yaml"),
        ("&x a: 1", "ambiguous-yaml"),
        ("a: {<<: {b: 1}}", "ambiguous-yaml"),
        ("'<<': {b: 1}", "ambiguous-yaml"),
        ("a: !!str 1", "ambiguous-yaml"),
        ("a: !ruby/object {}", "ambiguous-yaml"),
        ("a: !!python/object/apply:os.system ['true']", "ambiguous-yaml"),
        ("1: a", "ambiguous-yaml"),
        ("true: a", "ambiguous-yaml"),
        ("? [a]\n: b", "ambiguous-yaml"),
        ("a: 1\n---\nb: 2", "bad-yaml"),
        ("%YAML 1.1\n---\na: 1", "bad-yaml"),
        ("\ufeffa: 1", "bad-yaml"),
        ("a: b\rc: d", "bad-yaml"),
        ("a: [1", "bad-yaml"),
        ("a: \tb\n\t- c", "bad-yaml"),
        ("", "empty"),
        ("# nothing", "empty"),
        ("[" * 40 + "]" * 40, "too-large"),
        ("a: [" + "1, " * 60_000 + "1]", "too-large"),
        ("a: '" + "x" * 70_000 + "'", "too-large"),
        ("a: " + "x" * (1 << 20), "too-large"),
    ],
)
def test_rule_31_what_has_two_meanings_or_no_end_is_refused(text, code):
    with pytest.raises(Malformed) as refused:
        strict_yaml.loads(text.encode(), what="f")
    assert refused.value.code == code


def test_a_bomb_of_aliases_never_unfolds():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    with pytest.raises(Malformed, match="an anchor or alias"):
        strict_yaml.loads(bomb.encode(), what="f")


def test_not_utf_8():
    with pytest.raises(Malformed, match="not UTF-8"):
        strict_yaml.loads(b"a: \xff", what="f")
