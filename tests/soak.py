"""`make soak`: the slow tests by parts. A part is a file with slow tests, the random examples, or the mutants.

All parts together hold the promises of docs/claims.md's first table; a part by itself holds those that its file holds.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys

from tests import durations, promises

ROOT = promises.ROOT
EXAMPLES, MUTANTS = "examples", "mutants"
_PYTEST = (sys.executable, "-m", "pytest", "--timeout", "3600")
_ALL = (*_PYTEST, "-m", "soak", "--promises", "soak")  # files with slow tests
_COMMANDS = {  # what is no file of tests
    EXAMPLES: (*_PYTEST, "-m", "hypothesis and not soak", "--effort", "soak", "tests/unit", "tests/fuzz"),
    MUTANTS: (sys.executable, "-m", "tests.mutants"),
}


def is_slow(tree: ast.Module) -> bool:
    """Whether a module of tests marks any, or all, of them with `pytest.mark.soak`."""
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "pytest.mark.soak" for node in ast.walk(tree)
    )


def files() -> dict[str, str]:
    """The parts that are files: `tests/e2e/test_no_tee.py` is the part `no-tee`."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if "mark.soak" in source and is_slow(ast.parse(source)):
            found[path.stem.removeprefix("test_").replace("_", "-")] = str(path.relative_to(ROOT))
    return found


def commands(part: str | None) -> list[tuple[str, ...]]:
    """What runs a part; without one, everything. Raises KeyError where there is no such part."""
    if part is None:
        return [_ALL, *_COMMANDS.values()]
    if part in _COMMANDS:
        return [_COMMANDS[part]]
    return [(*_ALL, "--promises-of", files()[part], files()[part])]


def listing() -> str:
    """Each part, the minutes of the processor that it took when last measured, and what it is."""
    seconds = durations.read("soak")
    lines = []
    for part, what in {
        **files(),
        EXAMPLES: "ten times the random examples",
        MUTANTS: "python -m tests.mutants",
    }.items():
        took = seconds.get(what if part not in _COMMANDS else part)
        lines.append(f"{part:26}{'      ?' if took is None else f'{took / 60:7.1f}'} min  {what}")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make soak", description="The slow tests, by parts.")
    parser.add_argument("part", nargs="?", help="PART=…: one of those that --list shows; without it, all")
    parser.add_argument("--list", action="store_true", help="the parts, and what each took (ARGS=--list)")
    parser.add_argument("--measure", action="store_true", help="write what each took (ARGS=--measure)")
    given = parser.parse_args(words)
    if given.list:
        print(listing())
        return 0
    try:
        todo = commands(given.part)
    except KeyError:
        print(f"error: no part {given.part!r}; there are:\n{listing()}", file=sys.stderr)
        return 2
    worst = 0
    for command in todo:
        of_files = "soak" in command
        began = durations.processor()
        done = subprocess.run(
            [*command, *(["--measure"] if given.measure and of_files else [])], cwd=ROOT, check=False
        )
        if given.measure and not of_files and not done.returncode:
            durations.write(
                "soak",
                {part: durations.processor() - began for part, one in _COMMANDS.items() if one == command},
            )
        worst = worst or done.returncode
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
