"""The way in: `strongroom VERB …`. Only the verb that was asked for is imported."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

import strongroom
from strongroom.cli import examples, failures, usage

if TYPE_CHECKING:
    from collections.abc import Iterable

# Verb → the module below this folder that registers it, and the beginning of its help: `strongroom --help` imports none of
# them. One module per verb; in the order of that help.
VERBS = {
    "init": (
        "project.init",
        "Write a commented Compose file for an image: a service that listens, or a job that runs to its end.",
    ),
    "up": (
        "project.up",
        "Bring the services of a Compose file up in rooms: all that one owner needs is made in .strongroom/ beside it.",
    ),
    "join": (
        "project.join",
        "Make what a Compose file needs of you, as one of its parties: identity, sealed data, converted images, a broker with your keys.",
    ),
    "ps": (
        "project.ps",
        "List the services with their state, how often their rooms were started, and where they are reached.",
    ),
    "logs": (
        "project.logs",
        "Show what the services' rooms said: the node's lines, and once a run has ended what the program printed, which you may open.",
    ),
    "restart": (
        "project.restart",
        "End the rooms of services and start new ones, which prove themselves anew. Every other goes on.",
    ),
    "pause": (
        "project.pause",
        "Pause the rooms of a Compose file: they end within seconds, and get no key and no certificate until you resume.",
    ),
    "resume": (
        "project.resume",
        "Take a pause back: rooms get keys again. Those that it ended are started anew by restart.",
    ),
    "down": (
        "project.down",
        "End the rooms of a Compose file and its broker. Identity, keys, contracts, results and records stay in .strongroom/.",
    ),
    "seal": ("seal", "Seal files into an encrypted disk that only a room under your contract can open."),
    "inspect": (
        "inspect",
        "Show what a sealed disk claims to be. Nothing is checked; that is what verify is for.",
    ),
    "verify": (
        "evidence.verify",
        "Check that every byte of a sealed disk is what its manifest says, and name the first block that is not.",
    ),
    "open": ("open", "Open a sealed disk or a sealed result into a folder: whole, or not at all."),
    "scrape": (
        "rooms.scrape",
        "Read the memory of processes by /proc/PID/mem and process_vm_readv, and search it for canaries.",
    ),
    "run": ("rooms.run", "Run a contract's program in a room and keep what leaves it."),
    "connect": (
        "rooms.connect",
        "Verify a room by its evidence, and have a local port lead to its program: TLS 1.3 that ends in the room. Ctrl-C ends it.",
    ),
    "runs": ("rooms.runs", "List runs with their state, progress and outcome; also those that go on now."),
    "convert": (
        "images.convert",
        "Convert an unmodified container image into a sealed disk. Nothing of it is run, or written out as files.",
    ),
    "preflight": (
        "images.preflight",
        "Say whether an image would run in a room, what would break, and how to mend it. Nothing of it is run.",
    ),
    "try": (
        "images.dryrun",
        "Run an image as a room would, on this machine and in the clear: nothing is sealed, measured or proved. Needs root.",
    ),
    "doctor": (
        "doctor",
        "Say what this machine lacks for which verb, and what to type for it. Nothing is started or asked for.",
    ),
    "completion": ("completion", "Print a shell's completion of verbs, options, their words, and files."),
    "manual": (
        "manual",
        "Print the manual page, for man: every verb with the texts of its --help, exit codes, and the environment.",
    ),
    "identity": ("identity.commands", "Make and show identities."),
    "contract": ("contract.commands", "Write, sign and judge contracts."),
    "node": ("rooms.node", "Make and show a node: a machine that can run rooms."),
    "image": ("images.image", "Look at who signed container images."),
    "reference": (
        "evidence.reference",
        "Reference values of a base, with provenance and bill of materials, in one signed file.",
    ),
    "base": ("images.base", "Build and measure the base that every room boots."),
    "measure": (
        "evidence.measure",
        "Predict what a genuine platform will report for a base, from its files alone: `measure FOLDER …`.",
    ),
    "broker": ("broker.commands", "Keep keys, and release them to rooms that prove themselves."),
    "ledger": ("ledger.commands", "Read a ledger and hold it to its word."),
    "proof": ("ledger.proof", "Export and judge proof packs."),
    "evidence": ("evidence.commands", "Look into evidence, and judge it."),
    "result": ("evidence.result", "Ask for attestation results, and verify them."),
    "endorsements": (
        "evidence.endorsements",
        "Fetch and keep what vendors say of their hardware. Verifying itself never asks anybody.",
    ),
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

    for file in dict.fromkeys(VERBS[verb][0] for verb in verbs):
        importlib.import_module(f"strongroom.cli.{file}").register(app)
    examples.append(app)
    return app


def overview() -> typer.Typer:
    """The command line as its own `--help` shows it: each verb's name and what it is about, and nothing behind them."""
    app = application(())
    for verb, (_, about) in VERBS.items():
        app.command(verb, help=about)(_nothing)
    return app


def _nothing() -> None:
    """What `overview` has in the place of a verb; no word that names a verb leads there."""


def _version(asked: bool) -> None:
    if asked:
        print(f"strongroom {strongroom.__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and leave with its exit code."""
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    app = application([asked]) if asked in VERBS else overview()
    with failures.reported():
        if not os.environ.get("STRONGROOM_LOG"):
            usage.run(app)
        from strongroom import host_log
        from strongroom.wiring import host_log as setting

        setting.set_up(os.environ, sys.stderr)
        with host_log.timed(
            host_log.LogLevel.INFO,
            "verb",
            verb=asked if asked in VERBS else "none",
            version=strongroom.__version__,
        ):
            usage.run(app)


if __name__ == "__main__":
    main()
