"""Every code that somebody can meet, read out of the sources: errors, findings, outcomes, checks."""

from __future__ import annotations

import ast
import re
from functools import cache

from strongroom.appraisal.wording import table
from strongroom.model import receipt
from tests.arch import sources

CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
# Codes with a part that is known only at run time, and what it can be.
FILLED = {
    "no-*": {"no-qemu", "no-swtpm"},
    "token-*": {"token-audience", "token-nonce", "token-policy"},
    "convert-*": set(),  # of a finding: `convert-` before the code with which `convert` refuses
}
FINDINGS = {"blocks", "warns", "fine", "_blocked", "_warned", "_fine"}


def _texts(node: ast.AST) -> set[str]:
    """Every text in an expression that can be a code; parts that are filled in later are `*`."""
    if isinstance(node, ast.JoinedStr):
        return {"".join(one.value if isinstance(one, ast.Constant) else "*" for one in node.values)}  # type: ignore[misc]
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) and CODE.fullmatch(node.value) else set()
    if isinstance(node, ast.IfExp):
        return _texts(node.body) | _texts(node.orelse)  # what is asked is no code
    if isinstance(node, ast.Call | ast.Subscript):
        return set()
    return {text for child in ast.iter_child_nodes(node) for text in _texts(child)}


def _assigned(tree: ast.Module, name: str) -> set[str]:
    """What a variable of that name may hold, anywhere in a file: by assignment, as a default, out of a table."""
    out: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                out |= _texts(value)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                out |= _texts(value)
            case ast.Assign(targets=[ast.Tuple(elts=elements)], value=value):
                if name in [one.id for one in elements if isinstance(one, ast.Name)]:
                    out |= _unpacked(tree, elements, value, name)
            case ast.For(target=ast.Tuple(elts=elements), iter=rows):
                if name in [one.id for one in elements if isinstance(one, ast.Name)]:
                    out |= _unpacked(tree, elements, rows, name)
            case ast.arguments(args=args, kwonlyargs=named, defaults=defaults, kw_defaults=named_defaults):
                for arg, default in [
                    *zip(args[len(args) - len(defaults) :], defaults, strict=True),
                    *zip(named, named_defaults, strict=True),
                ]:
                    if arg.arg == name and default is not None:
                        out |= _texts(default)
            case _:
                pass
    return out


def _unpacked(tree: ast.Module, elements: list[ast.expr], value: ast.expr, name: str) -> set[str]:
    place = [getattr(one, "id", "") for one in elements].index(name)
    if isinstance(value, ast.IfExp):
        return _unpacked(tree, elements, value.body, name) | _unpacked(tree, elements, value.orelse, name)
    if isinstance(value, ast.Tuple):
        rows = [row for row in value.elts if isinstance(row, ast.Tuple)] or [value]
        return {text for row in rows for text in _texts(row.elts[place])}
    # Out of a table of the file: the texts at that place of its rows.
    return {
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple) and len(node.elts) == len(elements)
        for text in _texts(node.elts[place])
    }


@cache
def of_errors() -> dict[str, str]:
    """Each code of an error, with a place where it is raised."""
    out: dict[str, str] = {}
    for source in sources.product():
        for node in ast.walk(source.tree):
            found: set[str] = set()
            if isinstance(node, ast.Call):
                for one in node.keywords:
                    if one.arg in ("code", "default_code"):
                        found |= _texts(one.value)
                        if isinstance(one.value, ast.Name):
                            found |= _assigned(source.tree, one.value.id)
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "default_code":
                found |= _texts(node.value)
            for code in found:
                for known in FILLED.get(code, {code}):
                    out.setdefault(known, f"{source.name}:{getattr(node, 'lineno', 0)}")
    return out


@cache
def of_findings() -> set[str]:
    """Names of what `preflight` finds."""
    out: set[str] = set()
    for source in sources.product():
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Call)
                and sources.dotted(node.func).rpartition(".")[2] in FINDINGS
                and node.args
            ):
                out |= _texts(node.args[0]) | (
                    _assigned(source.tree, node.args[0].id) if isinstance(node.args[0], ast.Name) else set()
                )
    return {one for one in out if one not in FILLED}


def of_outcomes() -> set[str]:
    """How a run ends, and why."""
    details = {re.sub(r"^data-[0-9]+-", "data-N-", one) for one in receipt.DETAILS}
    return {one.value for one in receipt.Outcome} | details


def of_checks() -> set[str]:
    """Names of checks of a verdict; one that ends with a dot is a family."""
    return set(table.TABLE)
