"""Documents promise only what a test holds (docs/claims.md), and a whole run proves it (`pytest --promises`)."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests import promises
from tests.promises import Keeper, Promise

if TYPE_CHECKING:
    from pathlib import Path

ROOT = promises.ROOT
ROWS = {table: promises.read(table, promises.CLAIMS.read_text()) for table in promises.TABLES}
ALL = [promise for rows in ROWS.values() for promise in rows]


@pytest.mark.parametrize("promise", ALL, ids=[promise.sentence[:60] for promise in ALL])
def test_every_promise_names_a_test_that_exists(promise):
    path, _, name = promise.test.partition("::")
    assert promise.sentence
    assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(), re.MULTILINE), promise.test


@cache
def body_of(path):
    return ast.parse((ROOT / path).read_text()).body


@pytest.mark.parametrize(("table", "promise"), [(table, row) for table in ROWS for row in ROWS[table]])
def test_every_promise_is_in_the_table_of_what_runs_its_test(table, promise):
    """`soak` anywhere among a test's marks, or its module's, and `make test` does not run all of its cases."""
    path, _, name = promise.test.partition("::")
    body = body_of(path)
    marks = [
        ast.unparse(one.value)
        for one in body
        if isinstance(one, ast.Assign) and ast.unparse(one.targets) == "pytestmark"
    ]
    marks += [
        ast.unparse(mark)
        for one in body
        if isinstance(one, ast.FunctionDef) and one.name == name
        for mark in one.decorator_list
    ]
    slow = any(re.search(r"\bmark\.soak\b", mark) for mark in marks)
    assert slow == (table == "soak"), promise.test


def test_every_row_of_the_page_is_in_one_of_the_tables():
    assert promises.CLAIMS.read_text().count("::") == len(ALL)
    assert len({promise.sentence for promise in ALL}) == len(ALL)


def test_there_are_promises():
    assert len(ROWS["test"]) >= 95
    assert len(ROWS["soak"]) >= 1


def test_make_proves_both_tables():
    recipes = (ROOT / "Makefile").read_text()
    assert re.search(
        r"^test: setup check .*\n\t@\$\(VENV\)/pytest -n 3 --dist loadfile --no-loadscope-reorder "
        r"\$\(if \$\(FAST\),--effort fast,--promises test\)\n",
        recipes,
        re.MULTILINE,
    )
    assert re.search(
        r"^soak: setup .*\n\t@\$\(VENV\)/python -m tests\.soak \$\(PART\) \$\(ARGS\)\n", recipes, re.MULTILINE
    )


SUITE = """
import pytest
from tests.promises import Keeper, Promise

NAMES = ("passes", "cases", "fails", "skips", "a_case_skips", "cannot_start", "cannot_end", "is_expected_to_fail",
         "is_deselected", "a_case_is_deselected", "is_gone", "skips_in_a_fixture")

def pytest_configure(config):
    config.addinivalue_line("markers", "soak: slow")
    rows = [Promise(sentence=name.replace("_", " "), test=f"test_it.py::test_{name}") for name in NAMES]
    config.pluginmanager.register(Keeper(rows))
"""
TESTS = """
import pytest

@pytest.fixture
def broken(): raise OSError

@pytest.fixture
def breaks():
    yield
    raise OSError

@pytest.fixture
def skips(): pytest.skip("no such machine")

def test_passes(): pass
def test_passes_and_is_no_promise(): pass
def test_fails(): assert False
def test_skips(): pytest.skip("needs root")
def test_cannot_start(broken): pass
def test_cannot_end(breaks): pass
def test_skips_in_a_fixture(skips): pass

@pytest.mark.parametrize("case", ["[a", "b]"])
def test_cases(case): pass

@pytest.mark.parametrize("case", [1, 2])
def test_a_case_skips(case):
    if case == 2: pytest.skip("not that one")

@pytest.mark.xfail
def test_is_expected_to_fail(): assert False

@pytest.mark.soak
def test_is_deselected(): pass

@pytest.mark.parametrize("case", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_case_is_deselected(case): pass
"""


def run(folder: Path, *arguments: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "-q",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)  # fmt: skip


def test_a_promise_is_held_by_a_test_that_ran_and_passed_in_every_case_and_by_nothing_else(tmp_path):
    done = run(tmp_path, "-m", "not soak")
    lines = done.stdout.splitlines()
    block = lines[next(at for at, line in enumerate(lines) if "promises of docs/claims.md" in line) :]
    assert block[1] == "2 promises held, 10 not:"
    broken = {
        line.removeprefix("not held: "): why.strip()
        for line, why in itertools.pairwise(block)
        if line.startswith("not held: ")
    }
    assert broken == {
        "fails": "test_it.py::test_fails failed",
        "skips": "test_it.py::test_skips was skipped: needs root",
        "a case skips": "test_it.py::test_a_case_skips[2] was skipped: not that one",
        "cannot start": "test_it.py::test_cannot_start failed",
        "cannot end": "test_it.py::test_cannot_end failed",
        "is expected to fail": "test_it.py::test_is_expected_to_fail was skipped: expected to fail",
        "is deselected": "test_it.py::test_is_deselected was deselected",
        "a case is deselected": "test_it.py::test_a_case_is_deselected[2] was deselected",
        "is gone": "test_it.py::test_is_gone was not collected",
        "skips in a fixture": "test_it.py::test_skips_in_a_fixture was skipped: no such machine",
    }
    assert done.returncode == 1
    # pytest's own line is the last, and counts promises that are not held as failures: 1 of a test, 10 of promises.
    assert re.fullmatch(r"11 failed, .* in [0-9.]+s", lines[-1])


@pytest.mark.parametrize("arguments", [(), ("-k", "skips")])
def test_a_run_whose_tests_all_pass_fails_by_the_promises_that_it_left_out(tmp_path, arguments):
    done = run(tmp_path, *arguments, tests="def test_passes(): pass\ndef test_cases(): pass\n")
    assert done.returncode == 1
    assert "test_it.py::test_fails was not collected" in done.stdout


def test_a_run_that_ends_early_holds_what_it_reached(tmp_path):
    done = run(tmp_path, "-x", tests="def test_passes(): pass\ndef test_skips(): assert False\ndef test_fails(): pass\n")  # fmt: skip
    assert "1 promises held, 11 not:" in done.stdout
    assert "test_it.py::test_fails did not run" in done.stdout


def test_where_workers_run_the_tests_their_reports_count():
    """As pytest-xdist hands them to the process that started the workers, which collects nothing itself."""
    rows = [Promise(sentence=name, test=f"a.py::test_{name}") for name in ("held", "left")]
    keeper = Keeper(rows)
    keeper.pytest_xdist_node_collection_finished(node=None, ids=["a.py::test_held[1]", "a.py::test_left"])
    for when in ("setup", "call", "teardown"):
        report = pytest.TestReport("a.py::test_held[1]", ("a.py", 1, ""), {}, "passed", None, when)
        keeper.pytest_runtest_logreport(report)
    assert [keeper.why_not(row) for row in rows] == ["", "a.py::test_left did not run"]


def test_decisions_are_numbered_without_a_gap_and_say_what_they_cost():
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [path.name[:4] for path in found] == [f"{at:04}" for at in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text()
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        assert "**Negative consequences.**" in text, path.name


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
