"""`strongroom try`: an image under a room's conditions, in the clear on this machine. Leaves with 8 when a run in a room would not end as "exited, 0"."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption, meter, options
from strongroom.cli.images import image_source
from strongroom.cli.images.registry_options import Registries, taking
from strongroom.cli.printable import printable
from strongroom.errors import Misuse, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.dryrun.run import DryRunResult
    from strongroom.seal.tree import Entry

EXIT_PROGRAM = 8
_MIB = 1 << 20
_SHOWN = 20
_HINT = "like --data flights/ or --data flights=some/folder"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("try")(try_image)


@taking
def try_image(
    image: Annotated[
        str,
        typer.Argument(
            help="What `convert` takes: an OCI layout, an archive, a root file system, HOST/NAME@sha256:…, a compose file."
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="After --: arguments in place of the image's own, as a contract's."),
    ] = None,
    data: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]DIR",
            help="A folder that the program finds as /data/NAME: DIR, or NAME=DIR. May be repeated.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    out: Annotated[
        Path | None, typer.Option(help="A new or empty folder for what would leave a room.")
    ] = None,
    env: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="A variable over the image's. May be repeated.")
    ] = [],  # noqa: B006
    memory_mib: Annotated[int, typer.Option(help="As a contract's memory_mib.", min=256)] = 512,
    wall_seconds: Annotated[int, typer.Option(help="As a contract's wall_seconds.", min=1)] = 600,
    max_output_mib: Annotated[int, typer.Option(help="What a contract would let leave.", min=1)] = 16,
    from_: image_source.From = None,
    digest: Annotated[str | None, typer.Option(metavar="sha256:…", help="Which of several images.")] = None,
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCHITECTURE[/VARIANT]", help="Which of an index's images.")
    ] = "linux/amd64",
    config: Annotated[
        Path | None, typer.Option(help="For a root file system: its OCI image configuration (JSON).")
    ] = None,
    registries: Registries = Registries(),  # noqa: B008 - frozen
    as_json: Annotated[bool, typer.Option("--json", help="Print how the run ended as JSON.")] = False,
) -> None:
    """Run an image as a room would, on this machine and in the clear: nothing is sealed, measured or proved. Needs root.

    The program's mounts, user, system calls, network, memory, time and environment are a room's. What it prints comes on standard error.
    """
    from strongroom.dryrun import machine, trial
    from strongroom.images import oci

    machine.require()
    with options.value_of("--platform"):
        wanted = oci.parse_platform(platform)
    sets = dict(_dataset(text) for text in data)
    if len(sets) != len(data):
        raise Misuse("--data: two folders of one name", hint="give one of them another name: --data NAME=DIR")
    trial.check_empty(out)
    print(
        "in the clear: nothing of this run is sealed, measured or proved, and this machine sees all of it",
        file=sys.stderr,
    )
    terms = trial.TrialTerms(
        datasets=sets,
        arguments=tuple(arguments) if arguments else None,
        environment=dict(_variable(text) for text in env),
        memory_mib=memory_mib,
        wall_seconds=wall_seconds,
        max_output_mib=max_output_mib,
    )
    with interruption.orderly():
        tried = trial.try_image(
            image,
            terms=terms,
            out=out,
            log=sys.stderr.fileno(),
            cache=image_source.cache_folder(),
            digest=digest,
            platform=wanted,
            config=config,
            from_=from_,
            reach=registries.access,
            steps=meter.meter,
        )
    if as_json:
        foreseen = [each.to_json() for each in tried.findings]
        report = {**_report(tried.result, tried.entries), "foreseen": foreseen}
        print(json.dumps(report, indent=1, sort_keys=True))
    else:
        for line in _lines(tried.result, tried.entries, memory_mib, out):
            print(line)
        for each in tried.findings:
            print(f"foreseen {each.check}, {printable(each.where)}: {printable(each.what)}")
            print(f"         fix: {printable(each.fix)}")
    if tried.result.failed:
        sys.exit(EXIT_PROGRAM)


def _lines(
    result: DryRunResult, entries: tuple[Entry, ...], memory_mib: int, out: Path | None
) -> Iterator[str]:
    from strongroom.model.receipt import DETAILS
    from strongroom.seal.tree import EntryKind

    yield f"outcome  {result.outcome.value}, {result.exit_status}"
    for detail in result.details:
        yield f"         {DETAILS[detail]}"
    if result.reason:
        yield f"         {printable(result.reason)}"
    yield f"time     {result.milliseconds / 1000:.2f} s"
    held = "unknown" if result.memory is None else f"{result.memory / _MIB:.1f} MiB at most"
    unlimited = "" if result.limited else "; NOT limited here: this machine has no control group for memory"
    yield f"memory   {held}, of {memory_mib} MiB{unlimited}"
    if not result.leaves:
        yield "leaves   nothing: outputs leave a room only where the program ends by itself, and within the contract's limits"
        return
    left = [entry for entry in entries if entry.kind is not EntryKind.DIRECTORY]
    total = sum(entry.size for entry in left)
    yield f"leaves   {len(left)} file{'' if len(left) == 1 else 's'}, {meter.size(total)}, which a room would seal to those whom the contract names"
    for entry in left[:_SHOWN]:
        yield f"         {printable(entry.path.decode('utf-8', 'replace'))}  {meter.size(entry.size)}"
    if len(left) > _SHOWN:
        yield f"         and {len(left) - _SHOWN} more"
    yield f"written  {out}" if out is not None else "written  nowhere; --out DIR keeps them"


def _report(result: DryRunResult, entries: tuple[Entry, ...]) -> dict[str, object]:
    from strongroom.seal.tree import EntryKind

    return {
        "protected": False,
        "outcome": result.outcome.value,
        "exit_status": result.exit_status,
        "details": list(result.details),
        "reason": result.reason or None,
        "milliseconds": result.milliseconds,
        "memory_bytes": result.memory,
        "memory_limited": result.limited,
        "outputs_leave": result.leaves,
        "outputs": [
            {"path": entry.path.decode("utf-8", "replace"), "bytes": entry.size}
            for entry in entries
            if entry.kind is not EntryKind.DIRECTORY
        ],
    }


def _dataset(text: str) -> tuple[str, Path]:
    from strongroom.encoding import fields

    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        name, rest = Path(text).resolve().name, text
    if fields.NAME.fullmatch(name) is None:
        raise Misuse(
            f"--data {printable(text[:200])}: {printable(name[:64])!r} is no name of a dataset",
            hint=f"give it one: --data NAME=DIR, where NAME is of {fields.NAMES}",
        )
    if not Path(rest).exists():
        raise NotFound(
            f"--data {printable(text[:200])}: no such file or folder", code="no-such-file", hint=_HINT
        )
    return name, Path(rest)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Misuse(
            f"--env {printable(text[:200])}: expected NAME=VALUE", hint="for example --env MODE=fast"
        )
    return name, value
