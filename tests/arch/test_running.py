"""How the tests are run: parts of `make soak`, what `make test FAST=1` leaves out, and which files come first."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import PurePath

import pytest

from tests import durations, effort, promises, soak
from tests.arch import sources

ROOT = promises.ROOT
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_a_part_of_soak_is_each_file_with_slow_tests_and_all_of_them_hold_the_table():
    parts = soak.files()
    assert {"tests/e2e/test_no_tee.py", "tests/unit/evidence/test_every_value.py"} <= set(parts.values())
    slow = [path for path in TESTS if path.name.startswith("test_") and soak.is_slow(parsed(path))]
    assert len(slow) == len(parts), "two files of slow tests have one name"
    held = {row.test.partition("::")[0] for row in promises.read("soak", promises.CLAIMS.read_text())}
    assert held <= set(parts.values())
    assert not {soak.EXAMPLES, soak.MUTANTS} & set(parts)


def test_soak_runs_everything_or_one_part_with_its_promises():
    whole = [" ".join(one) for one in soak.commands(None)]
    assert [one for one in whole if one.endswith("-m soak --promises soak")]
    assert any(one.endswith("-m tests.mutants") for one in whole)
    (one,) = soak.commands("no-tee")
    assert one[-4:] == ("soak", "--promises-of", "tests/e2e/test_no_tee.py", "tests/e2e/test_no_tee.py")
    assert soak.commands(soak.MUTANTS) == [(sys.executable, "-m", "tests.mutants")]


def test_soak_lists_its_parts_and_names_them_where_one_is_unknown(capsys):
    assert soak.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [*soak.files(), soak.EXAMPLES, soak.MUTANTS]
    assert soak.main(["of-the-moon"]) == 2
    assert "no part 'of-the-moon'" in capsys.readouterr().err


def test_durations_are_of_files_and_parts_that_there_are():
    rows = durations.rows()
    gone = [
        what for _, what in rows if what not in {soak.EXAMPLES, soak.MUTANTS} and not (ROOT / what).is_file()
    ]
    assert gone == []
    assert {run for run, _ in rows} <= set(durations.RUNS)


def test_what_was_measured_takes_the_place_of_what_was_known(tmp_path, monkeypatch):
    table = tmp_path / "durations.txt"
    table.write_text("# x\ntest 20 a\ntest 10 b\nsoak 7 a\n")
    monkeypatch.setattr(durations, "TABLE", table)
    durations.write("test", {"a": 1.0, "c": 30.0})
    assert durations.rows() == {("test", "c"): 30, ("test", "b"): 10, ("soak", "a"): 7}
    assert [durations.run_of(one) for one in ("not soak", "soak", "room")] == ["test", "soak", ""]


class Item:
    def __init__(self, nodeid, *marks):
        self.nodeid, self.marks = nodeid, marks

    def get_closest_marker(self, name):
        return name if name in self.marks else None


def test_fast_leaves_out_rooms_and_the_longest_file_comes_first():
    items = [
        Item("tests/unit/a.py::b[x]"),
        Item("tests/unit/c.py::d", "room"),
        Item("tests/e2e/e.py::f"),
        Item("tests/unit/a.py::a"),
    ]
    assert [effort.is_long(one) for one in items] == [False, True, True, False]
    folders = ("tests/e2e", "tests/unit", "tests", "tests/e2e/deeper", ".")
    assert [effort.holds_long(PurePath(one)) for one in folders] == [True, False, False, False, False]
    ordered = effort.long_first(items, {"tests/unit/a.py": 3.0, "tests/unit/c.py": 40.0})
    assert [one.nodeid[-1] for one in ordered] == [
        "d",
        "f",
        "]",
        "a",
    ]  # what nobody measured is as long as a room


SUITE = """
import pytest
from tests import effort
@pytest.mark.slow("starts programs")
def test_slow(): pass
@pytest.mark.parametrize("at", effort.some(range(24)))
def test_places(at): pass
"""


@pytest.mark.parametrize(("given", "ran"), [("fast", "3 passed, 1 skipped"), ("test", "25 passed")])
def test_a_fast_run_skips_what_is_slow_says_why_and_has_some_of_the_places(tmp_path, given, ran):
    path = tmp_path / "test_it.py"
    path.write_text(SUITE)
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-c",
        ROOT / "pyproject.toml",
        "--effort",
        given,
        path,
    )
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran in done.stdout, done.stdout + done.stderr
    assert ("not with --effort fast: starts programs" in done.stdout) == (given == "fast")


@pytest.mark.parametrize(("given", "number"), [("fast", 60), ("test", 300), ("soak", 3000)])
def test_the_number_of_examples_is_the_runs(given, number):
    """In a process of its own: this one has its number."""
    program = f"from tests import effort; effort.set_to({given!r}); print(effort.examples(300).max_examples)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(number)]


def test_every_number_of_examples_is_scaled():
    """A test that gives Hypothesis' settings by itself has as many examples in every run, and perhaps a deadline."""
    calls = [
        (path.relative_to(ROOT), node.lineno)
        for path in TESTS
        if path != ROOT / "tests/effort.py" and path.parent.name != "mutants"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and sources.dotted(node.func) in {"settings", "hypothesis.settings"}
    ]
    assert calls == []


@cache
def parsed(path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(tree: ast.Module):
    """Every module that is imported anywhere in a file, and every name that may be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{one.name}" for one in node.names)


def of_tests(tree: ast.Module, tests: set[str]) -> list[str]:
    return [name for name in imported(tree) if tests & set(name.split("."))]


def test_nothing_imports_a_module_of_tests():
    """What two of them need stands beside them in a module that is none, in a conftest, or in strongroom_testing."""
    tests = {path.stem for path in TESTS if path.name.startswith("test_")}
    assert len(tests) > 200
    files = [*TESTS, *(ROOT / "src").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    found = {str(path.relative_to(ROOT)): of_tests(parsed(path), tests) for path in files}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.unit.a import test_b as scene",
        "from .test_b import c",
        "def f():\n    import tests.test_b",
        "from . import test_b",
    ],
)
def test_an_import_of_a_module_of_tests_is_found(line):
    assert of_tests(ast.parse(line), {"test_b"})
