"""Mutants of a source file: each is one small change of meaning, as bytes to put in place of others.

What a mutant may change: a condition, a comparison, an operand of and/or, a raise, a call made for its effect, a
number, True or False, an element of a table, what is returned. What it leaves alone: texts, annotations, imports,
and what is only told (hints, `expected`, `got`). A change of a number or of a table is drawn more seldom.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass

SPOKEN = {"hint", "expected", "got", "source", "words", "repr", "kw_only", "frozen", "slots", "code"}
SWAPPED = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
COUNTERPART = {"all": "any", "any": "all", "min": "max", "max": "min"}
# A number from here on is taken for a limit: 4096 or 4095 is the same promise, a thousand times as much is not.
LIMIT = 64
# How often a kind of mutant is drawn, against the others: else half of every sample would be tables and numbers.
WEIGHT = {"number": 0.2, "element": 0.4, "operand": 0.7, "ternary": 0.6}


@dataclass(frozen=True)
class Mutant:
    """`new` in place of `old` at bytes `start` to `end`. `nth` tells mutants of one scope apart that read alike."""

    module: str
    scope: str  # the outermost function, `Class.method`; empty for what is run at import
    kind: str
    line: int
    last_line: int
    start: int
    end: int
    old: str
    new: str
    nth: int = 0

    @property
    def key(self) -> str:
        """Stable while its own function and text are: edits elsewhere in the file do not change it."""
        text = "\0".join(
            (self.module, self.scope, self.kind, plain(self.old), plain(self.new), str(self.nth))
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def apply(self, source: bytes) -> bytes:
        """The mutated source."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def plain(text: str) -> str:
    """One line, spaces made single."""
    return " ".join(text.split())


class _Visitor(ast.NodeVisitor):
    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source.encode()
        self.offsets = [0]
        for line in self.source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.scope: list[str] = []
        self.inside = 0
        self.mutants: list[Mutant] = []

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.offsets[node.lineno - 1] + node.col_offset,
            self.offsets[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _add(self, node: ast.AST, kind: str, new: str) -> None:
        start, end = self._span(node)
        scope = ".".join(self.scope) if self.inside else ""
        old = self._text(node)
        self.mutants.append(
            Mutant(self.module, scope, kind, node.lineno, node.end_lineno, start, end, old, new)
        )

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(default)
        if not self.inside:
            self.scope.append(node.name)
        self.inside += 1
        for statement in node.body:
            self.visit(statement)
        self.inside -= 1
        if not self.inside:
            self.scope.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815 - ast's names

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.scope.pop()

    def visit_Import(self, node: ast.AST) -> None:
        """Left alone, like texts that only a person reads."""

    visit_ImportFrom = visit_JoinedStr = visit_Import  # noqa: N815 - ast's names

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not all(isinstance(target, ast.Name) and target.id in SPOKEN for target in node.targets):
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "raise", "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._add(node, "call", "pass")
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._add(node.test, "condition", f"(not ({self._text(node.test)}))")
        if isinstance(node.body[-1], ast.Raise | ast.Return | ast.Continue):
            self._add(node.test, "guard", f"(({self._text(node.test)}) and False)")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._add(node.test, "ternary", f"(not ({self._text(node.test)}))")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._add(condition, "filter", f"(not ({self._text(condition)}))")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for index, operator in enumerate(node.ops):
            start = self._span(node.left if index == 0 else node.comparators[index - 1])[1]
            end = self._span(node.comparators[index])[0]
            gap = self.source[start:end].decode()
            (left, _), (_, right) = self._span(node), self._span(node)
            sign = ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))[2:-2]
            if sign in gap:
                changed = gap.replace(sign, SWAPPED[type(operator)], 1)
                text = self.source[left:start].decode() + changed + self.source[end:right].decode()
                self._add(node, "comparison", f"({text})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        same, other = (" and ", " or ") if isinstance(node.op, ast.And) else (" or ", " and ")
        values = [f"({self._text(value)})" for value in node.values]
        self._add(node, "operator", f"({other.join(values)})")
        for index in range(len(values)):
            self._add(node, "operand", f"({same.join(values[:index] + values[index + 1 :])})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not isinstance(node.op, ast.USub):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, "truth", str(not node.value))
        elif isinstance(node.value, int):
            if node.value >= LIMIT:
                self._add(node, "number", str(node.value * 1000))
            else:
                self._add(node, "number", str(node.value + 1))
                if node.value > 0:
                    self._add(node, "number", str(node.value - 1))

    def visit_BinOp(self, node: ast.BinOp) -> None:
        operands = (node.left, node.right)
        plain_numbers = all(isinstance(one, ast.Constant) and isinstance(one.value, int) for one in operands)
        if plain_numbers and isinstance(node.op, ast.Mult | ast.LShift | ast.Pow):
            self._add(node, "number", f"({self._text(node)}) * 1000")  # a limit, in another spelling
        else:
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg in SPOKEN:
            return
        if node.arg == "ok" and not isinstance(node.value, ast.Constant):
            self._add(node.value, "outcome", "True")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is None:
            return
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
        if isinstance(value, ast.Compare | ast.BoolOp) or called in {"all", "any"}:
            self._add(value, "answer", "True")
        if called in {"tuple", "frozenset", "set", "list", "dict"} and value.args:
            self._add(value, "answer", f"{called}()")
        if isinstance(value, ast.Tuple | ast.List | ast.ListComp | ast.DictComp | ast.SetComp):
            empty = {ast.Tuple: "()", ast.DictComp: "{}", ast.SetComp: "set()"}.get(type(value), "[]")
            self._add(value, "answer", empty)
        self.visit(value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in COUNTERPART:
            self._add(node.func, "quantifier", COUNTERPART[node.func.id])
        self.generic_visit(node)

    def _table(self, node: ast.Tuple | ast.List | ast.Set, opened: str, closed: str) -> None:
        if len(node.elts) > 1 and isinstance(getattr(node, "ctx", None) or ast.Load(), ast.Load):
            for index in range(len(node.elts)):
                rest = [self._text(one) for one in node.elts[:index] + node.elts[index + 1 :]]
                comma = "," if len(rest) == 1 and opened == "(" else ""
                self._add(node, "element", opened + ", ".join(rest) + comma + closed)
        self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._table(node, "(", ")")

    def visit_List(self, node: ast.List) -> None:
        self._table(node, "[", "]")

    def visit_Set(self, node: ast.Set) -> None:
        self._table(node, "{", "}")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not isinstance(node.slice, ast.Tuple):
            self.visit(node.slice)


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mutant of one module, in the order of the source."""
    visitor = _Visitor(module, source)
    visitor.visit(ast.parse(source))
    out: list[Mutant] = []
    alike: dict[str, int] = {}
    for mutant in visitor.mutants:
        number = alike[mutant.key] = alike.get(mutant.key, -1) + 1
        out.append(mutant if not number else Mutant(**{**vars(mutant), "nth": number}))
    return out


def drawn(candidates: list[Mutant], seed: str) -> list[Mutant]:
    """In the order in which a sample takes them: seeded, weighted by kind, steady under edits elsewhere."""

    def rank(mutant: Mutant) -> float:
        digest = hashlib.sha256(f"{seed}:{mutant.key}".encode()).digest()
        uniform = (int.from_bytes(digest[:8], "big") + 1) / 2**64
        return -(uniform ** (1 / WEIGHT.get(mutant.kind, 1)))

    return sorted(candidates, key=rank)
