"""`strongroom try`: an image under a room's conditions, in the clear on this machine. Leaves with 8 when a run in a room would not end as "exited, 0"."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption, meter, options
from strongroom.cli.images import image_source
from strongroom.cli.images.registry_options import Registries, taking
from strongroom.cli.printable import printable
from strongroom.errors import Misuse, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.dryrun.run import DryRunResult, Trial
    from strongroom.images.convert import LocatedImage
    from strongroom.images.oci import ImagePlatform
    from strongroom.images.preflight.findings import Finding
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
    as_json: Annotated[bool, typer.Option("--json", help="Print how it ended as JSON.")] = False,
) -> None:
    """Run an image as a room would, on this machine and in the clear: nothing is sealed, measured or proved. Needs root.

    Its mounts, user, system calls, network, memory, time and environment are a room's. What it prints comes on standard error.
    """
    from strongroom.dryrun import machine
    from strongroom.fetch import images as finding
    from strongroom.images import oci

    machine.require()
    with options.value_of("--platform"):
        wanted = oci.parse_platform(platform)
    sets = dict(_dataset(text) for text in data)
    if len(sets) != len(data):
        raise Misuse("--data: two of one name", hint="give one another name: --data NAME=DIR")
    _complain_unless_empty(out)
    print(
        "in the clear: nothing of this run is sealed, measured or proved, and this machine sees all of it",
        file=sys.stderr,
    )
    with (
        interruption.orderly(),
        finding.layouts(image_source.cache_folder()) as into,
        contextlib.ExitStack() as opened,
    ):
        found = finding.find_image(
            image,
            from_=from_,
            digest=digest,
            platform=wanted,
            reach=registries.access,
            into=into,
            strict=True,
            steps=meter.meter,
        )
        results = opened.enter_context(tempfile.TemporaryFile())
        trial = _trial(
            found,
            wanted,
            config,
            sets,
            tuple(arguments) if arguments else None,
            dict(_variable(text) for text in env),
            opened,
            memory=memory_mib * _MIB,
            wall_seconds=wall_seconds,
            out_bytes=max_output_mib * _MIB,
            results=results.fileno(),
        )
        seen = partial(_foreseen, found, wanted, config, trial)
        _finish(trial, out, seen, as_json=as_json)


def _trial(
    found: LocatedImage,
    platform: ImagePlatform,
    config: Path | None,
    sets: dict[str, Path],
    arguments: tuple[str, ...] | None,
    environment: dict[str, str],
    opened: contextlib.ExitStack,
    *,
    memory: int,
    wall_seconds: int,
    out_bytes: int,
    results: int,
) -> Trial:
    from strongroom.dryrun import disks
    from strongroom.dryrun.run import Trial
    from strongroom.fetch import images as finding

    image = found.needed()
    settings = image_source.settings(config)
    scratch = image_source.cache_folder() / "try"
    wanted = disks.Wanted(
        path=image, digest=found.digest, platform=platform, config=settings, sealed=found.sealed
    )
    with found.named():
        made = disks.image(
            wanted, cache=finding.converted(image_source.cache_folder()), scratch=scratch, steps=meter.meter
        )
    opened.callback(os.close, made.fd)
    datasets = {}
    for name, path in sets.items():
        with meter.meter(f"reading {name}") as progress:
            datasets[name] = disks.dataset([path], scratch=scratch, progress=progress)
        opened.callback(os.close, datasets[name])
    ran = found.run(made.config)
    return Trial(
        image=made.fd,
        settings=made.settings,
        datasets=datasets,
        arguments=ran.command if arguments is None else arguments,
        environment={**ran.environment, **environment},
        memory=memory,
        wall_seconds=wall_seconds,
        out_bytes=out_bytes,
        log=sys.stderr.fileno(),
        results=results,
    )


def _foreseen(
    found: LocatedImage, platform: ImagePlatform, config: Path | None, trial: Trial
) -> tuple[Finding, ...]:
    """What `preflight` says against this image and command: why it failed, where that could be seen before."""
    from strongroom.images.preflight import examine
    from strongroom.images.preflight.findings import Severity

    settings = image_source.settings(config)
    report = examine.examine(
        examine.ImageLocation(
            path=found.needed(), digest=found.digest, architecture=platform, config=settings
        ),
        scratch=image_source.cache_folder() / "try",
        platforms=("local",),
        memory_mib=trial.memory // _MIB,
        changes=lambda ours: replace(
            found.run(ours), command=trial.arguments, environment={**ours.environment, **trial.environment}
        ),
    )
    return tuple(
        one
        for one, _ in report.findings
        if one.severity is Severity.BLOCKS or (one.check == "user" and one.severity is Severity.WARNS)
    )


def _finish(
    trial: Trial, out: Path | None, foreseen: Callable[[], tuple[Finding, ...]], *, as_json: bool
) -> None:
    from strongroom.dryrun import run
    from strongroom.images import results
    from strongroom.seal import extract

    sys.stdout.flush()
    sys.stderr.flush()
    result = run.run(trial)
    entries: tuple[Entry, ...] = ()
    if result.leaves:
        entries = results.tree(trial.results, os.fstat(trial.results).st_size, what="outputs")
        if out is not None:
            with extract.staged(out) as stage, meter.meter("writing the outputs") as progress:
                extract.write(entries, stage, foreign_links=False, progress=progress)
    findings = foreseen() if result.failed else ()
    if as_json:
        report = {**_report(result, entries), "foreseen": [one.to_json() for one in findings]}
        print(json.dumps(report, indent=1, sort_keys=True))
    else:
        for line in _told(result, entries, trial, out):
            print(line)
        for one in findings:
            print(f"foreseen {one.check}, {printable(one.where)}: {printable(one.what)}")
            print(f"         fix: {printable(one.fix)}")
    if result.failed:
        sys.exit(EXIT_PROGRAM)


def _told(result: DryRunResult, entries: tuple[Entry, ...], trial: Trial, out: Path | None) -> Iterator[str]:
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
    yield f"memory   {held}, of {trial.memory // _MIB} MiB{unlimited}"
    if not result.leaves:
        yield "leaves   nothing: outputs leave a room only where the program ends by itself, and within the contract's limits"
        return
    left = [one for one in entries if one.kind is not EntryKind.DIRECTORY]
    total = sum(one.size for one in left)
    yield f"leaves   {len(left)} file{'' if len(left) == 1 else 's'}, {meter.size(total)}, which a room would seal to those whom the contract names"
    for one in left[:_SHOWN]:
        yield f"         {printable(one.path.decode('utf-8', 'replace'))}  {meter.size(one.size)}"
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
            {"path": one.path.decode("utf-8", "replace"), "bytes": one.size}
            for one in entries
            if one.kind is not EntryKind.DIRECTORY
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


def _complain_unless_empty(out: Path | None) -> None:
    """Before the run: a result that has no place would be lost."""
    if out is not None and os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise Misuse(
            f"--out {out}: exists and is not an empty folder",
            code="exists",
            hint="remove it, or name another",
        )
