"""What a script would start: which step is sure, which is not, and which is none."""

from __future__ import annotations

import pytest

from strongroom.images.preflight.shell import Shell, Step, steps

SURE, PERHAPS, NOT = True, False, None

# A script, whether it comes by `gosu`, and, where not the usual, who runs it.
SCRIPTS = [
    ("gosu a", SURE, {}),
    ("exec gosu a", SURE, {}),
    ("PATH=/x gosu a", SURE, {}),
    ("# gosu a", NOT, {}),
    ("echo 'gosu a' # exec gosu a", NOT, {}),
    ('echo "a\\"; gosu a"', NOT, {}),
    ("x='a'\"; gosu a\"", NOT, {}),
    ("cat <<EOF\ngosu a\nEOF", NOT, {}),
    ("cat <<-'EOF' >&2\n\tgosu a\n\tEOF\ngosu b", SURE, {}),
    ("cat <<< gosu\nexit 0", NOT, {}),
    ("echo a \\\n gosu a", NOT, {}),
    ("exec true\ngosu a", NOT, {}),
    ("exit 1; gosu a", NOT, {}),
    ("(exec true); gosu a", SURE, {}),
    ("exec 3>&1 2>/x; gosu a", SURE, {}),
    ("unknown && gosu a", PERHAPS, {}),
    ("unknown || gosu a", PERHAPS, {}),
    ("true && gosu a", SURE, {}),
    ("true || gosu a", NOT, {}),
    ("false || gosu a", SURE, {}),
    ("false && gosu a", NOT, {}),
    ("false && true || gosu a", SURE, {}),
    ("true &&\n gosu a", SURE, {}),
    ("false && { gosu a; gosu b; }", NOT, {}),
    ("{ false; } && gosu a", PERHAPS, {}),
    ("! true || gosu a", SURE, {}),
    ("if unknown; then gosu a; fi", PERHAPS, {}),
    ("if unknown; then true; else gosu a; fi", PERHAPS, {}),
    ("if true; then gosu a; fi", SURE, {}),
    ("if true; then :; elif unknown; then gosu a; else gosu b; fi", NOT, {}),
    ("if false; then gosu x; elif true; then :; fi", NOT, {}),
    ("if false; then :; elif true; then gosu a; fi", SURE, {}),
    ("if unknown; then exit 1; fi; gosu a", SURE, {}),
    ("while unknown; do gosu a; done", PERHAPS, {}),
    ("until false; do gosu a; done; true", PERHAPS, {}),
    ("while false; do gosu a; done", PERHAPS, {}),
    ("for x in a b; do gosu $x; done", PERHAPS, {}),
    ("case $1 in\n(a|gosu) true;;\nesac", NOT, {}),
    ("case $1 in a) gosu a;; *) true; esac\n", PERHAPS, {}),
    ("case $1 in a) true;; esac; gosu a", SURE, {}),
    ("f() { gosu a; }", PERHAPS, {}),
    ("function f { gosu a; }", PERHAPS, {}),
    ('f() {\n if [ "$1" = serve ]; then gosu a; fi; }\nf "$@"', SURE, {}),
    ('f() { if [ "$1" = serve ]; then gosu a; fi; }; f x', PERHAPS, {}),
    ("list=(gosu a)\nexit 0", NOT, {}),
    ('list=(x "$@"); gosu a', SURE, {}),
    # Who it is.
    ('[ "$(id -u)" = 0 ] && gosu a', SURE, {}),
    ('[ "$(id -u)" = 0 ] && gosu a', NOT, {"uid": 5}),
    ("[ `id -u` -eq 0 ] && gosu a", SURE, {}),
    ("[ $(id -u) -ne 0 ] || gosu a", SURE, {}),
    ("[[ $EUID == 0 ]] && gosu a", SURE, {}),
    ("[[ $UID != 0 ]] && gosu a", NOT, {}),
    ("user=$(id -u); if test $user = 0; then gosu a; fi", SURE, {}),
    ("[ $(id -un) = root ] && gosu a", PERHAPS, {}),
    ('[ "$1" = serve -a "$(id -u)" = 0 ] && gosu a', SURE, {}),
    ('[ "$1" = other -o "$(id -u)" = 0 ] && gosu a', SURE, {}),
    ('[[ "$1" == ser* && ! -z "$1" ]] && gosu a', SURE, {}),
    ('[[ "$1" == ser* || unknown ]] && gosu a', SURE, {}),
    ("[ -e /x ] && gosu a", PERHAPS, {}),
    # Arguments.
    ('[ "${1:0:1}" = - ] && set -- serve "$@"\n[ "$1" = serve ] && gosu a', SURE, {"arguments": ("--x",)}),
    ('[ "${1#-}" != "$1" ] && set -- serve "$@"\n[ "$1" = serve ] && gosu a', NOT, {"arguments": ("sh",)}),
    ('[ "${1%.conf}" != "$1" ] && gosu a', SURE, {"arguments": ("a.conf",)}),
    ('unknown && set -- other\n[ "$1" = serve ] && gosu a', PERHAPS, {}),
    ('shift; [ "$1" = serve ] && gosu a', PERHAPS, {}),
    ("[ $# -eq 0 ] && gosu a", NOT, {}),
    ('set -- gosu a; exec "$@"', SURE, {}),
    # Variables.
    ('[ -n "$WHOM" ] && gosu a', NOT, {}),
    ('[ -n "$WHOM" ] && gosu a', SURE, {"variables": {"WHOM": "a"}}),
    ('WHOM=${WHOM:-a}; [ -n "$WHOM" ] && gosu a', SURE, {}),
    ('export WHOM="b"; [ "$WHOM" = a ] && gosu a', NOT, {}),
    ('unknown && WHOM=a; [ "$WHOM" ] && gosu a', PERHAPS, {}),
    ('read WHOM; [ "$WHOM" ] && gosu a', PERHAPS, {}),
    ('[ "$HOSTNAME" ] && gosu a', PERHAPS, {}),
    ('[ "${FUNCNAME[0]}" = x ] && gosu a', PERHAPS, {}),
]  # fmt: skip


def of(text: str, **more: object) -> list[Step]:
    given = {"uid": 0, "arguments": ("serve",), "variables": {}, **more}
    return steps(text, Shell(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "wanted", "more"), SCRIPTS, ids=[one[0] for one in SCRIPTS])
def test_a_step_is_sure_not_sure_or_none(text, wanted, more):
    found = [step.sure for step in of(text, **more) if step.words[0] == "gosu"]
    assert (found[0] if found else None) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gosu a", True),
        ("exec gosu a", True),
        ("set -e\ngosu a", True),
        ("set -Eeuo pipefail\ngosu a", True),
        ("set -o errexit\ngosu a", True),
        ("#!/bin/sh -e\ngosu a", True),
        ("set -e\ngosu a || true", False),
        ("set -e\nif gosu a; then :; fi; true", False),
        ("set -e\n! gosu a\ntrue", False),
        ("unknown && set -e\ngosu a\ntrue", False),
        ("false && set -e\ngosu a\ntrue", False),
        ("gosu a\ntrue", False),
        ("gosu a\nexit 0", False),
        ("if true; then gosu a; fi", True),
    ],
)
def test_a_step_ends_the_script_where_its_failure_does(text, wanted):
    [found] = [step.ends for step in of(text) if step.words[0] == "gosu"]
    assert found is wanted


def test_words_are_what_they_come_to_and_empty_where_that_is_unknown():
    [step] = of(
        """exec gosu "a b"'c'\\d "$@" $1 ${2} $(date) "$X" $X""", arguments=("1", "2"), variables={"X": "x"}
    )
    assert step.words == ("gosu", "a bcd", "1", "2", "1", "2", "", "x", "x")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 70_000,
        "if " * 30_000,
        "$(" * 30_000,
        '"' * 70_001,
        "'" * 70_001,
        "`" * 70_001,
        "${" * 30_000,
        "cat <<A " * 9_000,
        "x=aaaaaaaa;" + "x=$x$x;" * 9_000,
        "[ " + "! " * 30_000 + " ]",
        "[ a " + "-o a " * 12_000 + " ]",
        "[[ a && " * 9_000,
        "f() { " * 9_000,
        'f "$@"; ' * 8_000 + "f() { :; };" * 100,
        "a" * 70_000,
        "case x in " * 7_000,
        "\\",
        "<",
        "x=(",
        ") } fi done esac then do else elif ;; && ||",
    ],
)
def test_rule_59_a_script_made_to_be_read_for_ever_is_read(text):
    assert len(of(text)) < 1 << 16
