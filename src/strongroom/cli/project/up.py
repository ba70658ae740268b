"""`strongroom up`: a Compose file's services in rooms, kept up, on this machine and for one owner."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.printable import printable, say
from strongroom.cli.project.options import AsJson, compose_file

if TYPE_CHECKING:
    from strongroom.project.prepare import Prepared
    from strongroom.project.upkeep import LogMark, RoomRow

SIMULATED = (
    "SIMULATED: rooms of this machine, which no hardware vendor vouches for: its operator could look in"
)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("up")(up)


def up(
    compose: Annotated[
        Path | None,
        typer.Argument(
            help="The Compose file; compose.yaml or compose.yml here by default.", metavar="[FILE]"
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Leave once everything runs; without it Ctrl-C brings all down."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the services of a Compose file up in rooms: all that one owner needs is made in .strongroom/ beside it.

    Again, it changes what changed: a service with another image or other terms is started anew, and every other goes on.
    """
    from strongroom.cli import interruption
    from strongroom.cli.images import image_source
    from strongroom.cli.project import shown
    from strongroom.project import file, folder, prepare, upkeep
    from strongroom.project.plan import ChildState

    path = compose_file(compose)
    began = time.monotonic()
    project = file.load(path)
    if not as_json:
        shown.print_findings(project)
    mark = upkeep.mark_logs(folder.beside(path))
    with progress(began, quiet=as_json) as tell, interruption.orderly():
        prepared = prepare.prepare(
            path,
            project,
            around=prepare.Surroundings(cache=image_source.cache_folder(), now=datetime.now(UTC), say=tell),
        )
        upkeep.keep_up(prepared.folder, with_parent=not detach)
        tell("starting " + (", ".join(prepared.changed) or "nothing: all is as it was"))
        try:
            rows = upkeep.watch(prepared.folder, on_change=lambda row: tell(_step(row)))
            silent = upkeep.await_ports(
                rows,
                on_open=lambda name, address: tell(f"{name}: takes connections at {address}"),
                is_running=lambda name: upkeep.is_running(prepared.folder, name),
            )
            rows = upkeep.rows(prepared.folder)  # a program may have ended since
        except (KeyboardInterrupt, SystemExit):
            if not detach:
                tell("stopping")
                upkeep.down(prepared.folder)
            else:
                tell(
                    "interrupted; what was started goes on: `strongroom ps` shows it, `strongroom down` ends it"
                )
            raise
    _print(prepared, rows, seconds=time.monotonic() - began, as_json=as_json)
    for name, address in silent:
        print(
            f"note: {name}: nobody takes connections at {address} yet; `strongroom logs {name}` once it has ended",
            file=sys.stderr,
        )
    failed = [row for row in rows if row.state == ChildState.FAILED.value]
    for row in failed:
        name, why = row.planned.name, "" if row.child is None else printable(row.child.error)
        print(f"note: {name}: failed: {why}; `strongroom logs {name}` has what it said", file=sys.stderr)
    if not detach:
        _follow(prepared, mark, as_json=as_json)
    if failed:
        sys.exit(8)


def _step(row: RoomRow) -> str:
    phase = f" ({row.run.phase})" if row.run is not None and row.run.phase else ""
    why = f": {row.child.error}" if row.child is not None and row.child.error else ""
    return f"{row.planned.name}: {row.state}{phase}{why}"


def _print(prepared: Prepared, rows: tuple[RoomRow, ...], *, seconds: float, as_json: bool) -> None:
    contract = prepared.contract
    if as_json:
        print(
            json.dumps(
                {
                    "contract": {"id": contract.id, "version": contract.version, "digest": contract.digest},
                    "changed": list(prepared.changed),
                    "simulated": contract.simulated,
                    "party": str(prepared.folder.party),
                    "rooms": [row.to_json() for row in rows],
                }
            )
        )
        return
    print(
        f"contract   {contract.id} version {contract.version}{'' if prepared.drafted else ', as before'}: {contract.digest}"
    )
    for row in rows:
        say(f"{row.planned.name:<10} {row.state}{''.join(f', {address}' for address in row.addresses())}")
    if contract.simulated:
        print(SIMULATED)
    for line in _verifying(prepared, rows):
        say(f"verify     {line}")
    print(f"took       {seconds:.1f} s")


def _verifying(prepared: Prepared, rows: tuple[RoomRow, ...]) -> Iterator[str]:
    """The commands by which anybody verifies what runs, who has the contract and the party file."""
    contract, party = prepared.contract_file, prepared.folder.party
    yield f"strongroom contract show {contract}"
    for row in rows:
        terms = prepared.contract.room(row.planned.name)
        for port in terms.ports:
            place = row.planned.tunnels.get(port.name, "")
            if place and (port.open or not place.startswith("unix:")):
                at = f"unix:{prepared.folder.path}/{place[5:]}" if place.startswith("unix:") else place
                yield f"strongroom connect {terms.name}:{port.name} --contract {contract} --at {at} --trust {party} --verify"
        if row.planned.is_job and row.run is not None:
            yield f"strongroom proof export {row.run.folder} --out {terms.name}.proof; strongroom proof verify {terms.name}.proof --trust {party}"


def _follow(prepared: Prepared, mark: LogMark, *, as_json: bool) -> None:
    """Show logs from `mark` on until everything has ended, or somebody interrupts; then bring it down."""
    from strongroom.cli.project import logs
    from strongroom.project import upkeep

    folder = prepared.folder
    try:
        if not as_json:
            print("following the logs; Ctrl-C brings everything down", file=sys.stderr)
        with contextlib.suppress(BrokenPipeError):
            for line in upkeep.log_lines(
                folder, (), follow=True, after=mark, until=lambda: upkeep.all_ended(folder)
            ):
                logs.print_line(line, as_json=as_json)
    except KeyboardInterrupt:
        pass
    finally:
        upkeep.down(folder)


@contextlib.contextmanager
def progress(began: float, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that shows a step: with a spinner on a terminal, a line elsewhere."""

    def line(step: str) -> str:
        return f"{time.monotonic() - began:7.2f} s  {printable(step)}"

    if quiet:
        yield lambda _step: None
        return
    if not sys.stderr.isatty():
        yield lambda step: print(line(step), file=sys.stderr, flush=True)
        return
    from rich.console import Console
    from rich.status import Status

    with Status("", console=Console(stderr=True)) as status:

        def show(step: str) -> None:
            status.console.print(line(step), highlight=False, markup=False)
            status.update(f"{printable(step)} …".replace("[", "\\["))

        yield show
