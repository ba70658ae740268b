"""Probes in the judging modules: which of their blocks, raises and outcomes a test executes.

The modules are rewritten while they are imported, as pytest rewrites tests. A line tracer cannot say that a
condition was both false and true, and costs a third of the suite's time; a probe costs one call.

A probe's id is `module:scope:kind:number`: scope is the outermost function (`Class.method`), and numbers count
within it, so that an edit elsewhere in the file changes no id.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from collections import Counter
from dataclasses import dataclass

from tests import judging

Id = str
RECORDER = "__probe__"


@dataclass(frozen=True)
class Place:
    """Where a probe stands: for lists that a person reads, and to find a mutant's block."""

    module: str
    line: int
    end: int
    text: str


class Recorder:
    """What has been executed since it was last cleared: blocks and raises by id, outcomes by (id, outcome)."""

    def __init__(self) -> None:
        self.on = False
        self.hits: set[Id] = set()
        self.outcomes: set[tuple[Id, bool]] = set()

    def __call__(self, probe: Id) -> None:
        if self.on:
            self.hits.add(probe)

    def outcome(self, probe: Id, ok: bool) -> bool:
        if self.on:
            self.outcomes.add((probe, bool(ok)))
        return ok


class _Instrument(ast.NodeTransformer):
    """Puts a probe at the head of each block, after each compound statement, at each raise, round each `ok=`."""

    def __init__(self, module: str, lines: list[str], *, blocks: bool) -> None:
        self.module, self.lines, self.blocks = module, lines, blocks
        self.scope: list[str] = []
        self.inside = 0
        self.places: dict[Id, Place] = {}
        self.numbers: Counter[str] = Counter()

    def _new(self, kind: str, node: ast.AST, end: int) -> Id:
        prefix = f"{self.module}:{'.'.join(self.scope)}:{kind}"
        self.numbers[prefix] += 1
        probe = f"{prefix}:{self.numbers[prefix]}"
        self.places[probe] = Place(self.module, node.lineno, end, self.lines[node.lineno - 1].strip())
        return probe

    def _call(self, probe: Id, at: ast.AST) -> ast.Expr:
        call = ast.Call(ast.Name(RECORDER, ast.Load()), [ast.Constant(probe)], [])
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), at))

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        fresh = True
        for index, statement in enumerate(body):
            if fresh and self.blocks and self.inside:
                end = next(
                    (one.lineno - 1 for one in body[index + 1 :] if _compound(one)), body[-1].end_lineno
                )
                out.append(self._call(self._new("block", statement, max(end, statement.lineno)), statement))
            fresh = _compound(statement)
            if isinstance(statement, ast.Raise):
                out.append(self._call(self._new("raise", statement, statement.end_lineno), statement))
            out.append(self.visit(statement))
        return out

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and not isinstance(node, ast.Module | ast.ClassDef):
                setattr(node, field, self._block(block) if block else block)
                continue
            if isinstance(block, list):
                setattr(node, field, [self.visit(one) for one in block])
        for field, value in ast.iter_fields(node):
            if field in {"body", "orelse", "finalbody"} and isinstance(value, list):
                continue
            if isinstance(value, list):
                setattr(node, field, [self.visit(one) if isinstance(one, ast.AST) else one for one in value])
            elif isinstance(value, ast.AST):
                setattr(node, field, self.visit(value))
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        outermost = not self.inside
        if outermost:
            self.scope.append(node.name)
        self.inside += 1
        docstring = node.body[:1] if ast.get_docstring(node) is not None else []
        node.body = node.body[len(docstring) :] or [ast.copy_location(ast.Pass(), node)]
        self.generic_visit(node)
        node.body = docstring + node.body
        self.inside -= 1
        if outermost:
            self.scope.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815 - ast's names

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        if node.arg == "ok" and not isinstance(node.value, ast.Constant):
            probe = self._new("ok", node.value, node.value.end_lineno)
            function = ast.Attribute(ast.Name(RECORDER, ast.Load()), "outcome", ast.Load())
            call = ast.Call(function, [ast.Constant(probe), node.value], [])
            node.value = ast.fix_missing_locations(ast.copy_location(call, node.value))
        return node


def _compound(node: ast.stmt) -> bool:
    return isinstance(node, ast.If | ast.For | ast.While | ast.Try | ast.With | ast.Match | ast.AsyncFor)


def instrument(module: str, source: str, *, blocks: bool) -> tuple[ast.Module, dict[Id, Place]]:
    """The tree of `source` with probes, and where each stands. With `blocks`, more than raises and outcomes."""
    change = _Instrument(module, source.splitlines(), blocks=blocks)
    tree = change.visit(ast.parse(source))
    return tree, change.places


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a judging module with its probes; it neither reads nor writes a cached file."""

    def __init__(self, module: str, path: str, recorder: Recorder, *, blocks: bool) -> None:
        super().__init__(module, path)
        self.recorder, self.blocks = recorder, blocks

    def get_code(self, fullname: str) -> object:
        tree, _ = instrument(fullname, self.get_data(self.path).decode(), blocks=self.blocks)
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: object) -> None:
        vars(module)[RECORDER] = self.recorder
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, recorder: Recorder, *, blocks: bool) -> None:
        self.recorder, self.blocks = recorder, blocks

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in judging.MODULES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin:
            spec.loader = _Loader(fullname, spec.origin, self.recorder, blocks=self.blocks)
        return spec


def install(recorder: Recorder, *, blocks: bool) -> None:
    """From now on judging modules are imported with probes. None may have been imported before."""
    early = [module for module in judging.MODULES if module in sys.modules]
    if early:
        raise RuntimeError(f"imported before its probes could be set: {early}")
    sys.meta_path.insert(0, _Finder(recorder, blocks=blocks))
