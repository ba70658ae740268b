"""YAML of one meaning (rule 31): what PyYAML and we read alike is a value; all else is none, and the reading goes on."""

from __future__ import annotations

import pytest
import yaml

from strongroom.errors import Malformed
from strongroom.images.compose import strict_yaml

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
    document = strict_yaml.read(PLAIN.encode(), what="f")
    assert (document.value, document.flaws) == (yaml.safe_load(PLAIN), ())
    assert document.lines[("nested", 0, "c", "d")] == 7


@pytest.mark.parametrize(
    "word",
    ["yes", "No", "on", "OFF", "y", "N", "True", "FALSE", "Null", "012", "0o14", "0x1F", "0b11", "1_000", "22:22",
     "1:30:00", "1e3", "1.", ".5", "+1", ".inf", "-.INF", ".nan", "2024-01-01", "2024-01-01 10:00:00", "=", "-0", "1.5e3"],
)  # fmt: skip
def test_rule_31_words_that_parsers_read_differently_are_no_values(word):
    document = strict_yaml.read(f"a: {word}\nb: 1".encode(), what="f")
    assert document.value == {"a": strict_yaml.UNCLEAR, "b": 1}
    (flaw,) = document.flaws
    assert (flaw.path, flaw.line) == (("a",), 1)
    assert "quotes" in flaw.fix
    assert strict_yaml.read(f"a: '{word}'".encode(), what="f").value == {"a": word}


U = strict_yaml.UNCLEAR


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        ("a: 1\na: 2", {"a": U}, ["2 'a' a second time, first in line 1"]),
        ("a: 1\n'a': 2\nb: on", {"a": U, "b": U}, ["2 'a' a second time, first in line 1", "3 'on' means different"]),
        ("a: &x 1", {"a": 1}, ["1 an anchor (&x)"]),
        ("a: &x [1]\nb: *x", {"a": [1], "b": U}, ["1 an anchor (&x)", "2 an alias (*x)"]),
        ("&x a: 1", {"<<": U}, ["1 a key that is no plain text"]),
        ("a: {<<: {b: yes}, c: d}", {"a": {"<<": U, "c": "d"}}, ["1 a merge key (<<)", "1 'yes' means different"]),
        ("a:\n  <<: [*x, *y]\n  <<: *z", {"a": {"<<": U}}, ["2 a merge key (<<)", "3 a merge key (<<)"]),
        ("'<<': {b: 1}", {"<<": U}, ["1 a merge key (<<)"]),
        ("a: !!str 1", {"a": U}, ["1 the tag tag:yaml.org,2002:str"]),
        ("a: !reset [b]", {"a": U}, ["1 the tag !reset of Compose's"]),
        ("a: !ruby/object {}", {"a": U}, ["1 the tag !ruby/object"]),
        ("a: !!python/object/apply:os.system ['true']", {"a": U}, ["1 the tag tag:yaml.org,2002:python/object"]),
        ("1: a", {"<<": U}, ["1 the key '1' is no text"]),
        ("true: on", {"<<": U}, ["1 the key 'true' is no text", "1 'on' means different"]),
        ("on: a", {"<<": U}, ["1 the key 'on' is no text"]),
        ("? [on]\n: b\nc: d", {"<<": U, "c": "d"}, ["1 a key that is no plain text", "1 'on' means different"]),
        ("%YAML 1.1\n---\na: 1", {"a": 1}, ["1 a %YAML or %TAG directive"]),
    ],
)  # fmt: skip
def test_rule_31_what_has_two_meanings_is_said_with_its_line_and_is_no_value(text, value, said):
    document = strict_yaml.read(text.encode(), what="f")
    assert document.value == value
    told = [f"{flaw.line} {flaw.what}" for flaw in document.flaws]
    assert len(told) == len(said)
    assert all(one.startswith(start) for one, start in zip(told, said, strict=True)), told


def test_what_is_unclear_is_left_out_of_what_is_known():
    value = strict_yaml.read(b"a: [1, on, {b: yes, c: d}]", what="f").value
    assert not strict_yaml.clear(value)
    assert strict_yaml.known(value) == {"a": [1, {"c": "d"}]}
    assert strict_yaml.clear(strict_yaml.known(value))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\n---\nb: 2", "bad-yaml"),
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
        strict_yaml.read(text.encode(), what="f")
    assert refused.value.code == code


def test_a_bomb_of_aliases_never_unfolds():
    bomb = "a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    document = strict_yaml.read(bomb.encode(), what="f")
    assert document.value == {"a": ["x", "x"]} | {key: [U, U] for key in "bcdefghijk"}


def test_not_utf_8():
    with pytest.raises(Malformed, match="not UTF-8"):
        strict_yaml.read(b"a: \xff", what="f")
