"""The manual page: the texts of --help, which roff takes as they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from strongroom.cli import failures, manual
from tests.arch import sources
from tests.pages import command_lines


def page(**environment):
    line = [sys.executable, "-m", "strongroom.cli.main", "manual"]
    done = subprocess.run(line, capture_output=True, check=True, env={**os.environ, **environment})
    return done.stdout


@pytest.fixture(scope="module")
def made():
    return page(COLUMNS="40", LC_ALL="C", PYTHONHASHSEED="1")


def test_the_page_is_the_same_wherever_it_is_made(made):
    assert page(COLUMNS="200", LC_ALL="C.UTF-8", TZ="Asia/Tokyo", PYTHONHASHSEED="2") == made
    assert made.isascii()


@pytest.mark.parametrize(
    "command",
    [["groff", "-ww", "-man", "-Tutf8", "-z"], ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"], ["mandoc", "-T", "lint", "-W", "warning"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_readers_of_manual_pages_warn_of_nothing(made, tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "strongroom.1").write_bytes(made)
    done = subprocess.run([*command, tmp_path / "strongroom.1"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert command[0] != "mandoc" or not [
        line for line in done.stdout.splitlines() if "missing date" not in line
    ]


def test_every_verb_option_text_and_example_is_on_the_page(made):
    """As a reader sees it: what roff escapes is taken back."""
    text = re.sub(r"\\\[u([0-9A-F]+)\]", lambda found: chr(int(found[1], 16)), made.decode())
    text = re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-").replace("\\(dq", '"').replace("\\e", "\\")
    lines = " ".join(text.split())
    for path, command in command_lines.verbs():
        assert f'.SS "{" ".join(path)} [OPTIONS]' in text
        assert " ".join(command.help.split("\n\n")[0].split()) in lines
        for one in command.params:
            assert " ".join((one.help or "").split()) in lines
            assert [opt for opt in one.opts if opt.startswith("-") and opt not in text] == []
        for line in (command.epilog or "").splitlines():
            assert line.strip("\b ") in text


def test_every_exit_code_and_variable_of_ours_is_on_the_page(made):
    read = {
        name
        for source in sources.product()
        for name in re.findall(r"\bSTRONGROOM_[A-Z_]+\b", source.path.read_text())
        if "agent" not in source.path.parts
    }
    assert read - {name for name in manual.ENVIRONMENT if name.startswith("STRONGROOM_")} == set()
    assert {code for _, code in failures.EXIT} <= failures.MEANING.keys()
    assert all(f".B {code}\n" in made.decode() for code in failures.MEANING)


def test_what_roff_would_take_for_its_own_is_text():
    from strongroom.cli.grammar import roff

    assert roff._text(".SH a\\fB-b") == "\\&.SH a\\efB\\-b"
    assert roff._text("'\"…") == "\\&'\\(dq\\[u2026]"
