"""Pages as tests read them: fenced blocks with how each is to be run, inline code, links.

A block's fence says what it is:

- ```` ```console ````: run, in order, in one folder for each page (tests/e2e/test_pages.py). Lines that begin with `$ ` are
  commands (`> ` goes on with the one before); the other lines are what it prints, in order, `…` for anything. A command that
  ends with `# exit N` leaves with N; one that ends with `&` goes on until it says that it is ready.
- ```` ```sh ````: not run. `<!-- not run: WHY -->` stands above it. Each command of ours in it is parsed by the real parser.
- ```` ```python ````: its imports are imported; on a page that says so (`PYTHON_RUNS`) each is a program, run in its place among the console blocks.
- `json`, `toml`, `yaml`, `dockerfile`, `text`: no commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KINDS = {"console", "sh", "python", "json", "toml", "yaml", "dockerfile", "text"}
PYTHON_RUNS = "<!-- its Python is run -->"
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_FENCE = re.compile(r" *```(.*)")
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where its first line stands, what its fence says, and the line above it."""

    page: Path
    line: int
    kind: str
    text: str
    above: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def why_not_run(self) -> str:
        found = NOT_RUN.fullmatch(self.above.strip())
        return found[1] if found else ""


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command of a console block, how it leaves, and the lines that it prints."""

    where: str
    command: str
    status: int
    prints: tuple[str, ...]


@cache
def pages() -> tuple[Path, ...]:
    """Every page that a reader meets; decisions among them."""
    return (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    out: list[Block] = []
    lines = page.read_text().splitlines()
    start, kind = None, ""
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            continue
        if start is None:
            start, kind = number, fence[1].strip()
        else:
            above = lines[start - 1] if start else ""
            text = "\n".join(lines[start + 1 : number])
            out.append(Block(page=page, line=start + 2, kind=kind, text=text, above=above))
            start = None
    assert start is None, f"{page}:{(start or 0) + 1}: a fence without its end"
    return tuple(out)


def typed(block: Block) -> list[Typed]:
    """The commands of a console block."""
    out: list[Typed] = []
    for number, line in enumerate(block.text.splitlines()):
        where = f"{block.page.relative_to(ROOT)}:{block.line + number}"
        if line.startswith("$ "):
            said = re.search(r"\s+# exit (\d+)$", line)
            command = line[2 : said.start()] if said else line[2:]
            out.append(Typed(where=where, command=command, status=int(said[1]) if said else 0, prints=()))
            continue
        assert out, f"{where}: prints something before any command"
        last = out[-1]
        if line.startswith("> "):
            assert not last.prints, f"{where}: goes on with a command that has printed"
            out[-1] = Typed(
                where=last.where, command=f"{last.command}\n{line[2:]}", status=last.status, prints=()
            )
        elif line.strip():
            out[-1] = Typed(
                where=last.where,
                command=last.command,
                status=last.status,
                prints=(*last.prints, line.strip()),
            )
    return out


def played(page: Path) -> list[Typed]:
    """All that is run of a page, in its order: commands, and its Python where it says so, each block as a program of its own."""
    out: list[Typed] = []
    python = PYTHON_RUNS in page.read_text()
    for block in blocks(page):
        if block.kind == "console":
            out += typed(block)
        elif block.kind == "python" and python:
            program = f"python -W error - <<'END_OF_BLOCK'\n{block.text}\nEND_OF_BLOCK"
            out.append(Typed(where=block.where, command=program, status=0, prints=()))
    return out


def outside(page: Path) -> list[tuple[int, str]]:
    """The lines that are in no block, with their numbers; blocks leave empty lines."""
    inside, out = False, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.fullmatch(line) is not None
        inside ^= fence
        out.append((number, "" if inside or fence else line))
    return out


def inline(page: Path) -> list[tuple[str, str]]:
    """Each `…` in prose, with its place."""
    text = "\n".join(line for _, line in outside(page))
    return [
        (f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", " ".join(found[1].split()))
        for found in _INLINE.finditer(text)
    ]


def links(page: Path) -> list[tuple[str, str]]:
    """Where each link of a page leads, with its place."""
    return [
        (f"{page.relative_to(ROOT)}:{number}", target)
        for number, line in outside(page)
        for target in _LINK.findall(re.sub(r"`[^`]*`", "", line))
    ]


def headings(page: Path) -> set[str]:
    """The names by which headings are linked to, as forges make them."""
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for _, line in outside(page)
        if line.startswith("#")
    }
