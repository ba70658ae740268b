"""Tests name what refuses: a bad input under a bare `raises` passes for whatever reason comes first."""

from __future__ import annotations

import ast
from pathlib import Path

from strongroom import errors
from tests import judging
from tests.mutants import mutate, review

ROOT = Path(__file__).parents[2]
KINDS = {
    name
    for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, errors.StrongroomError)
}


def bare(path: Path) -> list[int]:
    """Lines of `pytest.raises(KIND)` without `match=`, whose error nobody looks at either.

    Sweeps are left out by rule: of a fuzz test (`@given`) and of a loop over a range, as that of every byte of a
    document, the kind of the refusal is all that can be told beforehand.
    """
    out = []
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and not any(
            "given" in ast.unparse(decorator) for decorator in function.decorator_list
        ):
            out += _bare_in(function.body, ast.unparse(function))
    return sorted(set(out))


def _bare_in(body: list[ast.stmt], function: str) -> list[int]:
    out = []
    for node in body:
        if isinstance(node, ast.For) and (
            "range(" in ast.unparse(node.iter) or "enumerate(" in ast.unparse(node.iter)
        ):
            continue
        if isinstance(node, ast.With):
            out += [node.lineno for item in node.items if _is_bare(item, function)]
        for field in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef):
                out += _bare_in(getattr(node, field, []), function)
    return out


def _is_bare(item: ast.withitem, function: str) -> bool:
    call = item.context_expr
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "pytest.raises" or not call.args:
        return False
    named = {node.id for node in ast.walk(call.args[0]) if isinstance(node, ast.Name)}
    named |= {node.attr for node in ast.walk(call.args[0]) if isinstance(node, ast.Attribute)}
    if not named & KINDS or any(keyword.arg == "match" for keyword in call.keywords):
        return False
    name = item.optional_vars
    return not (isinstance(name, ast.Name) and f"{name.id}.value" in function)


def test_every_bad_input_names_what_refuses_it():
    """Mend one by `match="words of the message"`, or by a look at the code: `as refused`, `refused.value.code`."""
    found = {str(path.relative_to(ROOT)): bare(path) for path in (ROOT / "tests/unit").rglob("test_*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}, (
        "a bare pytest.raises at these lines: say by which words the input is refused"
    )


def test_the_judging_modules_are_there():
    assert [module for module in judging.MODULES if not judging.path(module).exists()] == []


def test_reviewed_mutants_are_those_of_todays_sources():
    """An entry whose code has changed is looked at again."""
    modules = {entry["module"] for entry in review.entries()}
    today = [
        mutant
        for module in modules
        for mutant in mutate.mutants(f"strongroom.{module}", judging.path(f"strongroom.{module}").read_text())
    ]
    stale = [entry for entry in review.entries() if not any(review.matches(entry, one) for one in today)]
    assert stale == []
    for entry in review.entries():
        assert entry["verdict"] in {"equivalent", "survives"}
        assert len(entry["why"]) > 15
