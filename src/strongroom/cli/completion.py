"""`strongroom completion SHELL`: the script by which a shell completes this command line."""

from __future__ import annotations

from typing import Annotated

import typer

from strongroom.errors import Misuse

SHELLS = ("bash", "zsh", "fish")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("completion")(completion)


def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to write it for.")],
) -> None:
    """Print a shell's completion of verbs, options, their words, and files.

    The script is made from the parser that reads what is typed, and runs nothing when it completes.
    """
    from strongroom.cli import main
    from strongroom.cli.grammar import bash, fish, tree, zsh

    scripts = dict(zip(SHELLS, (bash.script, zsh.script, fish.script), strict=True))
    if shell not in scripts:
        raise Misuse(
            f"completion: {shell[:40]!r} is none of {', '.join(SHELLS)}",
            code="no-shell",
            hint="for example `strongroom completion bash`",
        )
    print(scripts[shell](tree.verbs(main.application())), end="")
