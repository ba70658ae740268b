"""`python -m tests.pages`: which blocks of commands the tests run, and why they do not run the others."""

from __future__ import annotations

from tests.pages import reading


def main() -> None:
    blocks = [block for page in reading.pages() for block in reading.blocks(page)]
    for block in blocks:
        if block.kind == "console":
            print(f"run      {block.where}: {len(reading.typed(block))} command(s)")
        elif block.kind == "python" and reading.PYTHON_RUNS in block.page.read_text():
            print(f"run      {block.where}: a program in Python")
    for block in blocks:
        if block.kind == "sh":
            print(f"not run  {block.where}: {block.why_not_run}")


if __name__ == "__main__":
    main()
