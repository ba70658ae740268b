"""Draws the house: packages as boxes in the layers of pyproject.toml, arrows for imports. Writes docs/pictures/house.svg.

A box is as wide as its package has thousands of lines (in whole ones: a small change moves nothing). An arrow says that a package imports another; arrows that a longer way implies are
left out (whatever imports `evidence` reaches `errors`). The same sources give the same bytes: tests/arch/test_house.py.
"""

from __future__ import annotations

import ast
import itertools
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ROOT / "src" / "strongroom"
PICTURE = ROOT / "docs" / "pictures" / "house.svg"
WIDTH, ROW, BOX, EDGE, GAP = 960, 84, 44, 20, 60
LEAST, PER_THOUSAND = 116, 34  # pixels
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE = """
    .paper { fill: #ffffff; }
    .box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5; }
    .name { fill: #1f2328; font-weight: 600; font-size: 15px; }
    .quiet { fill: #57606a; font-size: 12px; }
    .wire { fill: none; stroke: #57606a; stroke-width: 1.3; }
    .head { fill: #57606a; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; }
      .box { fill: #161b22; stroke: #8b949e; }
      .name { fill: #e6edf3; }
      .quiet { fill: #9ea7b3; }
      .wire { stroke: #8b949e; }
      .head { fill: #8b949e; }
    }
  """


def layers() -> list[list[str]]:
    """The packages of each layer, the highest first, as import-linter holds them; places kept for later are left out."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (found,) = [one for one in settings["contracts"] if one.get("containers") == ["strongroom"]]
    rows = [[name.strip(" ()") for name in layer.split("|")] for layer in found["layers"]]
    there = [
        [one for one in row if (PRODUCT / one).is_dir() or (PRODUCT / f"{one}.py").exists()] for row in rows
    ]
    return [row for row in there if row]


def graph(names: set[str]) -> tuple[dict[str, int], dict[str, set[str]]]:
    """(Lines of each package, what each imports)."""
    lines = dict.fromkeys(names, 0)
    imports: dict[str, set[str]] = {name: set() for name in names}
    for path in sorted(PRODUCT.rglob("*.py")):
        own = path.relative_to(PRODUCT).parts[0].removesuffix(".py")
        if own not in names:
            continue
        text = path.read_text()
        lines[own] += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                whole = [alias.name for alias in node.names]
            else:
                continue
            imports[own] |= {one.split(".")[1] for one in whole if one.startswith("strongroom.")} & names
    return lines, {name: found - {name} for name, found in imports.items()}


def reduced(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no longer way implies. The layers see to it that there is no circle."""
    below: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in below:
            below[name] = imports[name].union(*(reach(one) for one in sorted(imports[name])))
        return below[name]

    return sorted(
        (name, one)
        for name in imports
        for one in imports[name]
        if not any(one in reach(other) for other in imports[name] - {one})
    )


def draw() -> str:
    """The picture."""
    rows = layers()
    lines, imports = graph(set(itertools.chain(*rows)))
    boxes: dict[str, tuple[int, int, int]] = {}  # left, top, width
    for index, row in enumerate(rows):
        widths = [max(LEAST, thousands(lines[name]) * PER_THOUSAND) for name in row]
        # Rows of one box stand a little aside in turn, so that a long arrow has a way past them.
        left = (WIDTH - sum(widths) - GAP * (len(row) - 1)) // 2
        if len(row) == 1:
            left += (-190, 190)[index % 2]
        for name, width in zip(row, widths, strict=True):
            boxes[name] = (left, EDGE + index * ROW, width)
            left += width + GAP
    height = 2 * EDGE + (len(rows) - 1) * ROW + BOX
    arrows = reduced(imports)
    told = f"{len(boxes)} packages in {len(rows)} layers. " + ". ".join(
        f"{name} imports {', '.join(one for other, one in arrows if other == name)}"
        for name in boxes
        if any(other == name for other, _ in arrows)
    )
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        f'     aria-labelledby="title description" font-family="{FONT}">',
        '  <title id="title">The house: packages in layers, and what imports what</title>',
        f'  <desc id="description">{escape(told)}.</desc>',
        f"  <style>{STYLE}</style>",
        '  <defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">',
        '    <path class="head" d="M0 0 10 5 0 10z"/></marker></defs>',
        f'  <rect class="paper" width="{WIDTH}" height="{height}"/>',
        *(f"  {_arrow(boxes, arrows, one)}" for one in arrows),
        *(_box(name, place, lines[name]) for name, place in boxes.items()),
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def _arrow(
    boxes: dict[str, tuple[int, int, int]], arrows: list[tuple[str, str]], one: tuple[str, str]
) -> str:
    """From the lower edge of who imports to the upper edge of what is imported, each arrow with a place of its own there."""
    source, target = one
    leaving = sorted((boxes[name][0], name) for other, name in arrows if other == source)
    coming = sorted((boxes[other][0], other) for other, name in arrows if name == target)
    x1 = _spread(boxes[source], [name for _, name in leaving].index(target), len(leaving))
    x2 = _spread(boxes[target], [name for _, name in coming].index(source), len(coming))
    y1, y2 = boxes[source][1] + BOX, boxes[target][1] - 2
    bend = min(60, (y2 - y1) // 2)
    return f'<path class="wire" d="M{x1} {y1} C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" marker-end="url(#arrow)"/>'


def _spread(box: tuple[int, int, int], index: int, of: int) -> int:
    left, _, width = box
    return left + width * (index + 1) // (of + 1)


def _box(name: str, place: tuple[int, int, int], lines: int) -> str:
    left, top, width = place
    middle = left + width // 2
    return (
        f'  <rect class="box" x="{left}" y="{top}" width="{width}" height="{BOX}" rx="6"/>\n'
        f'  <text class="name" x="{middle}" y="{top + 19}" text-anchor="middle">{escape(name)}</text>\n'
        f'  <text class="quiet" x="{middle}" y="{top + 36}" text-anchor="middle">{_told(lines)}</text>'
    )


def thousands(lines: int) -> int:
    """Rounded."""
    return (lines + 500) // 1000


def _told(lines: int) -> str:
    return f"{thousands(lines)},000 lines" if thousands(lines) else f"{max(1, lines // 100) * 100} lines"


if __name__ == "__main__":
    PICTURE.write_text(draw())
