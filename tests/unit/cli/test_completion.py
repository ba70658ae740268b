"""What shells complete: typed into real ones, and held to the parser for every verb and option."""

from __future__ import annotations

import shutil

import pytest

from strongroom.cli import completion
from tests import verbs
from tests.pages import command_lines
from tests.unit.cli import shells

# Keys, with a tabulator for what the shell completes → the words that the program is given.
TYPED = {
    "contr\tsi\t": ["contract", "sign"],
    "contract sign con\t--rep\tnex\t": ["contract", "sign", "contract.json", "--replaces", "next.json"],
    "preflight --plat\tni\t": ["preflight", "--platform", "nitro"],
    "compl\tzs\t": ["completion", "zsh"],
    "seal fli\t --na\tflights": ["seal", "flights", "--name", "flights"],
    "inspect a\\ f\t": ["inspect", "a file"],
    "evidence verify contr\t--js\t": ["evidence", "verify", "contract.json", "--json"],
}
BASH_AND_ZSH = {
    "contract new x --party data-owner=al\t": [
        "contract",
        "new",
        "x",
        "--party",
        "data-owner=alice.party.json",
    ],
    "preflight --platform=ni\t": ["preflight", "--platform=nitro"],
}


def script(shell):
    done = verbs.run("completion", shell)
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("name", completion.SHELLS)
def test_a_shell_completes_verbs_options_their_words_and_files(tmp_path, name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    for file in ("contract.json", "next.json", "alice.party.json", "a file"):
        (tmp_path / file).touch()
    (tmp_path / "flights").mkdir()
    (tmp_path / "completion").write_text(script(name))
    wanted = TYPED | (BASH_AND_ZSH if name != "fish" else {})
    with shells.shell(name, tmp_path / "completion") as typed:
        told = {keys: [word.rstrip("/") for word in typed.words(keys)] for keys in wanted}
    assert told == wanted  # zsh takes a folder's slash away again where a blank follows


@pytest.mark.parametrize("name", completion.SHELLS)
def test_every_verb_and_option_is_in_the_script(name):
    told = script(name)
    for path, command in command_lines.verbs():
        assert " ".join(path[1:]) in told
        for one in command.params:
            if one.param_type_name == "option":
                assert [
                    opt for opt in one.opts if (opt if name != "fish" else opt.lstrip("-")) not in told
                ] == []


def test_a_shell_that_is_not_known_is_refused():
    done = verbs.run("completion", "csh")
    assert done.returncode == 2
    assert "is none of bash, zsh, fish" in done.stderr
