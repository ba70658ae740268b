"""Strangers' files get their right answers, and the runner notices when they do not."""

from __future__ import annotations

import pytest

from tests.strangers import expectations, runner
from tests.strangers.expectations import Expected

MEMBERS = {f"{path.parent.name}/{path.name}": path for path in runner.members(runner.folder())}


def test_the_folder_is_there():
    if not MEMBERS:
        pytest.skip("strangers' files are not beside the project (STRONGROOM_STRANGERS names their folder)")


@pytest.mark.parametrize("name", MEMBERS)
def test_the_stranger_gets_the_right_answer(name):
    result = runner.run(MEMBERS[name])
    assert result.state != "NO", result.faults or "it is right now: take it out of NOT_YET"


def test_a_name_stands_in_one_list_and_not_yet_names_members():
    names = [*expectations.WRONG, *expectations.RIGHT]
    assert len(names) == len(set(names))
    assert set(names) >= expectations.NOT_YET


def test_a_member_without_expectation_is_no(tmp_path):
    (tmp_path / "wrong" / "new").mkdir(parents=True)
    [path] = runner.members(tmp_path)
    assert runner.run(path).state == "NO"


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("echo 'local   will run'", "ok"),
        ("echo 'local   will run'; exit 1", "NO"),
        ("echo 'local   will NOT run'", "NO"),
        ("echo 'blocks  x'; echo 'local   will run'", "NO"),
        ("strongroom --help >/dev/null && python -c 'import strongroom' && echo 'local   will run'", "ok"),
    ],
)
def test_exit_code_and_words_are_compared(tmp_path, command, state):
    path = tmp_path / "right" / "layers-127"
    path.mkdir(parents=True)
    (path / "command.txt").write_text(command)
    assert runner.run(path).state == state


def test_a_member_of_not_yet_that_is_right_is_no():
    assert runner.Result(name="x", right="", got="", awaited=True).state == "NO"
    assert runner.Result(name="x", right="", got="", awaited=True, faults=("y",)).state == "not yet"


def test_faults_are_told():
    expected = Expected(right="", exit=0, says=("^a$",), never=("b",))
    assert expected.faults(0, "x\na\n") == []
    assert expected.faults(3, "b") == ["exit 3, expected 0", "does not say '^a$'", "says 'b'"]
