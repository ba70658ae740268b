"""The way in: `strongroom VERB …`. Only the verb that was asked for is imported."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

import strongroom
from strongroom.cli import examples, failures

if TYPE_CHECKING:
    from collections.abc import Iterable

# Verb → the module below this folder that registers it. One module per verb.
VERBS = {
    "identity": "identity.commands",
    "seal": "seal",
    "inspect": "inspect",
    "verify": "evidence.verify",
    "open": "open",
    "contract": "contract.commands",
    "node": "rooms.node",
    "scrape": "rooms.scrape",
    "run": "rooms.run",
    "runs": "rooms.runs",
    "convert": "images.convert",
    "image": "images.image",
    "reference": "evidence.reference",
    "preflight": "images.preflight",
    "try": "images.dryrun",
    "base": "images.base",
    "measure": "evidence.measure",
    "broker": "broker.commands",
    "ledger": "ledger.commands",
    "proof": "ledger.proof",
    "evidence": "evidence.commands",
    "result": "evidence.result",
    "endorsements": "evidence.endorsements",
    "doctor": "doctor",
    "completion": "completion",
    "manual": "manual",
}


def application(verbs: Iterable[str] = tuple(VERBS)) -> typer.Typer:
    """The command line with these verbs: all of them, unless only some are wanted."""
    app = typer.Typer(
        name="strongroom",
        help="Run one party's program over another party's data where nobody can look in.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool,
            typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version),
        ] = False,
    ) -> None:
        pass

    for file in dict.fromkeys(VERBS[verb] for verb in verbs):
        importlib.import_module(f"strongroom.cli.{file}").register(app)
    examples.append(app)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"strongroom {strongroom.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and leave with its exit code."""
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    app = application([asked] if asked in VERBS else VERBS)
    with failures.reported():
        app()


if __name__ == "__main__":
    main()
