"""`--help` of every verb: an example that the parser takes, and the values that each option takes."""

from __future__ import annotations

import itertools
import re

import pytest

from strongroom.bases import profile
from strongroom.bases.measure import snp, tdx
from strongroom.cli import examples
from strongroom.model.contracts.contract import Role
from strongroom.node import backends
from tests.pages import command_lines, reading

VERBS = dict(command_lines.verbs())
NAMES = [" ".join(path[1:]) for path in VERBS]
# Options that take one word out of a closed set, each with the set.
CHOICES = {
    ("run", "--backend"): backends.BACKENDS,
    ("node doctor", "--backend"): backends.BACKENDS,
    ("base build", "--for"): profile.PROFILES,
    ("preflight", "--platform"): profile.PROFILES,
    ("reference show", "--for"): profile.PROFILES,
    ("measure predict", "--for"): profile.PROFILES,
    ("measure predict", "--vmm"): tuple(snp.Vmm),
    ("measure predict", "--page-order"): tuple(tdx.PageOrder),
    ("measure predict", "--evidence"): ("gcp", "azure"),
    ("contract new", "--party"): tuple(Role),
}
LONGEST = 130  # characters of an example's line: more is broken over two


def options(name):
    return [one for one in VERBS["strongroom", *name.split()].params if one.param_type_name == "option"]


def help_of(name, columns=100):
    return command_lines.help_of(tuple(name.split()), columns=columns)


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_has_an_example_that_the_parser_takes(name):
    assert name in examples.EXAMPLES, "src/strongroom/cli/examples.py: what does one type?"
    for line in examples.EXAMPLES[name]:
        (words,) = command_lines.ours(line)
        shown = name.replace("measure predict", "measure").split()
        assert words[: len(shown)] == shown
        assert not command_lines.fault(words), line
        assert max(len(one) for one in line.splitlines()) <= LONGEST, line


def test_every_example_is_of_a_verb():
    assert examples.EXAMPLES.keys() - set(NAMES) == set()


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_example_as_it_is_typed(name):
    printed = "\n".join(line.strip() for line in help_of(name, columns=80).splitlines())
    for one in examples.EXAMPLES[name]:
        assert "\n".join(line.strip() for line in one.splitlines()) in printed


@pytest.mark.parametrize("name", NAMES)
def test_every_option_says_what_it_takes(name):
    silent = [one.opts[0] for one in options(name) if not one.help]
    assert silent == []
    assert [one.opts for one in options(name) if one.secondary_opts] == [], "a switch has one name"
    shapeless = [
        one.opts[0]
        for one in VERBS["strongroom", *name.split()].params
        if one.type.name == "text"
        and (one.metavar or "TEXT").upper() == "TEXT"
        and one.opts[0].startswith("-")
    ]
    assert shapeless == [], 'give it metavar="…": the form of what it takes, or its words with | between'


@pytest.mark.parametrize("name", NAMES)
def test_defaults_show(name):
    printed = " ".join(help_of(name).split())
    for one in options(name):
        plain = one.default if not callable(one.default) else None
        if isinstance(plain, bool) or not plain or not isinstance(plain, int | str):
            continue
        assert f"default: {plain}" in printed, one.opts


@pytest.mark.parametrize(("name", "option"), CHOICES)
def test_closed_sets_are_named(name, option):
    (found,) = [one for one in options(name) if option in one.opts]
    told = f"{found.metavar} {found.help}"
    assert [str(one) for one in CHOICES[name, option] if not re.search(rf"\b{re.escape(one)}\b", told)] == []


def test_the_page_of_contracts_has_every_option_of_contract_new_and_no_other():
    lines = (reading.DOCS / "contracts.md").read_text().splitlines()
    first = lines.index("| option | says | without it |")
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    told = {one for row in rows for one in re.findall(r"`(--[a-z-]+)", row.split("|")[1])}
    assert told == {one.opts[0] for one in options("contract new")} - {"--out", "--help"}
