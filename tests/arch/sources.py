"""The product's sources as syntax trees, read once."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"


@dataclass(frozen=True)
class Source:
    """One file: its dotted module name, its top-level package within the product, its tree."""

    path: Path
    module: str
    package: str
    tree: ast.Module

    @cached_property
    def name(self) -> str:
        return str(self.path.relative_to(SRC))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of the tree, at whatever depth: walked once."""
        return tuple(ast.walk(self.tree))


@cache
def product() -> tuple[Source, ...]:
    """Every file of `strongroom` (its fakes are not of the product)."""
    out = []
    for path in sorted((SRC / "strongroom").rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        package = parts[1] if len(parts) > 1 else ""
        out.append(Source(path, module, package, ast.parse(path.read_text(), str(path))))
    assert len(out) > 40, "the sources were not found"
    return tuple(out)


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of everything that is imported anywhere in `tree`, at whatever depth."""
    out: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out.add(node.module)
            out.update(f"{node.module}.{alias.name}" for alias in node.names)
    return out


def calls(tree: ast.AST) -> list[tuple[str, int]]:
    """Dotted names of what is called, with lines: `Claims`, `claims.Claims`, `datetime.now`…"""
    out = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            out.append((name, node.lineno))
    return out


def dotted(node: ast.expr) -> str:
    """`a.b.c` for such an expression, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""
