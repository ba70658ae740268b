"""The program `strongroom`, as installed: `main`, or one sentence where the packages of the command line are missing."""

from __future__ import annotations

from strongroom.cli import failures


def main() -> None:
    """Run the command line and leave with its exit code."""
    with failures.reported():
        from strongroom.cli import main as command_line  # typer is an extra

        command_line.main()
