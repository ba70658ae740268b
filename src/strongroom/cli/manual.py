"""`strongroom manual`: the manual page, from the texts of `--help`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

ENVIRONMENT = {
    "STRONGROOM_PASSPHRASE": "A passphrase where --passphrase-fd gives none: for trying out and for tests, since a user's other "
    "programs can read it.",
    "STRONGROOM_NEW_PASSPHRASE": "The new passphrase, where it is changed and --new-passphrase-fd gives none.",
    "STRONGROOM_TOKEN_PIN": "The PIN of the token that holds an authority's root key, where --pin-fd gives none.",
    "STRONGROOM_LOG": "debug, info or warning tells on standard error what is done and how long it took; ,json or ,text after it says in which form.",
    "STRONGROOM_DEBUG": "1 shows where a defect was met.",
    "XDG_CACHE_HOME": "Where bases, converted images and what vendors publish are kept, below strongroom/; ~/.cache without it.",
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("manual")(manual)


def manual() -> None:
    """Print the manual page, for man: every verb with the texts of its --help, exit codes, and the environment."""
    import strongroom
    from strongroom.cli import failures, main
    from strongroom.cli.grammar import roff, tree

    verbs = tree.verbs(main.application())
    text = roff.page(
        verbs, version=strongroom.__version__, statuses=failures.MEANING, environment=ENVIRONMENT
    )
    print(text, end="")
