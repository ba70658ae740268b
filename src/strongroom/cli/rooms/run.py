"""`strongroom run`: one room under one contract. Started by the operator, who holds no key.

Leaves with 0 only if the room handed out a receipt that says "exited, 0"; with 8 when there is a
receipt of another outcome; with the usual codes (cli/failures.py) when there is none. Whatever a room would be refused for and
is known before is refused before any room boots (node/foreseen.py). Every end says what happened, what it cost and what to type next.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from strongroom.model.contracts.contract import Contract
    from strongroom.node.run import FailedRun, FinishedRun
    from strongroom.node.run_folder import UnwrittenFiles

EXIT_PROGRAM = 8


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run")(run)


def run(
    contract: Annotated[Path, typer.Argument(help="The signed contract.")],
    base: Annotated[Path, typer.Option(help="The base's folder.")],
    disk: Annotated[list[Path], typer.Option(help="A sealed disk that the contract names.")],
    out: Annotated[Path, typer.Option(help="Folder for the receipt, the evidence and the outputs.")],
    room: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of the contract's rooms, where it has several."),
    ] = None,
    node: Annotated[Path | None, typer.Option(help="The node's folder; local rooms need one.")] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="tpm|qemu-snp|qemu-tdx|nitro",
            help="tpm (local, SIMULATED), qemu-snp, qemu-tdx or nitro. By default tpm, where the contract accepts that.",
        ),
    ] = None,
    firmware: Annotated[
        Path | None,
        typer.Option(help="The OVMF build for --backend qemu-snp or qemu-tdx, if not a usual one."),
    ] = None,
    manifest: Annotated[
        list[Path], typer.Option(help="Its manifest, in the order of --disk; else the one beside the disk.")
    ] = [],  # noqa: B006 - typer copies it
    earlier: Annotated[
        list[Path],
        typer.Option(
            help="The signed file of an earlier version of the contract, which a broker may not know."
        ),
    ] = [],  # noqa: B006
    no_memory_guard: Annotated[
        bool, typer.Option("--no-memory-guard", help="Run without the memory guard; the evidence says so.")
    ] = False,
    start_anyway: Annotated[
        bool,
        typer.Option(
            "--start-anyway",
            help="Do not ask first what the room would be refused for. For tests of rooms and brokers, which refuse it themselves.",
        ),
    ] = False,
    clock: Annotated[
        str,
        typer.Option(
            metavar="utc|YYYY-MM-DDTHH:MM:SS",
            help="What the room's own clock starts at: utc, or YYYY-MM-DDTHH:MM:SS.",
        ),
    ] = "utc",
    debug_serial: Annotated[
        Path | None, typer.Option(help="Record the serial port; only a debugging base writes to it.")
    ] = None,
    publish: Annotated[
        list[str],
        typer.Option(
            metavar="PORT=ADDRESS",
            help="Where an open port of the room is reached: NAME=8080, NAME=HOST:PORT or NAME=unix:PATH.",
        ),
    ] = [],  # noqa: B006
    tunnel: Annotated[
        list[str],
        typer.Option(
            metavar="PORT=ADDRESS", help="Where tunnels to a port of the room are reached, in the same form."
        ),
    ] = [],  # noqa: B006
    peer: Annotated[
        list[str],
        typer.Option(
            metavar="ROOM:PORT=ADDRESS",
            help="Where the tunnels of another room are reached, in the same form.",
        ),
    ] = [],  # noqa: B006
    egress_to_private: Annotated[
        bool,
        typer.Option(
            "--egress-to-private",
            help="Let the contract's hosts outside have private addresses, or be on this machine.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Run a contract's program in a room and keep what leaves it."""
    from strongroom.cli import failures
    from strongroom.cli.rooms import run_ends
    from strongroom.model.identifiers import RoomName
    from strongroom.node import run as running
    from strongroom.node.network import addresses
    from strongroom.node.network.options import NetworkOptions
    from strongroom.parties import papers

    agreement = papers.load_agreement(contract)
    run_clock = running.since_process_start()
    stops: list[Callable[[], bool]] = []

    def ask_to_stop() -> bool:
        """A service ends by itself once it is asked, with its receipt; whatever else runs is interrupted."""
        return any(stop() for stop in stops)

    with interruption.orderly(ask_to_stop), contextlib.ExitStack() as display:
        # Shows a phase's name, and the milliseconds since the run began.
        show: Callable[[str, int], None] = _as_lines

        def begin() -> None:
            nonlocal show
            # Only now, while the guest boots: a terminal's decoration costs the run nothing.
            if sys.stderr.isatty() and not as_json:
                show = display.enter_context(_progress())

        def take_phase(name: str, milliseconds: int) -> None:
            if not as_json:
                show(name, milliseconds)

        def take_held(held: UnwrittenFiles, seconds: float) -> None:
            show("\n".join(run_ends.tell_held(out, held, seconds)), run_clock.elapsed())

        def take_failure(failed: FailedRun) -> None:
            display.close()  # nothing may be drawn over the lines that follow
            for line in run_ends.tell(
                failed.end,
                phase=failed.phase,
                interrupted=failed.interrupted,
                contract=agreement.contract,
                before=failed.runs_before,
            ):
                if not as_json:
                    print(line, file=sys.stderr)

        finished = running.run_contract(
            agreement,
            base=base,
            sealed_disks=disk,
            out=out,
            room_name=None if room is None else RoomName(room),
            node=node,
            backend=backend,
            firmware=firmware,
            manifests=manifest,
            earlier=papers.load_earlier(earlier),
            memory_guard=not no_memory_guard,
            foresee=not start_anyway,
            room_clock=clock,
            serial=debug_serial,
            network=NetworkOptions(
                published=addresses.read_all(publish, "--publish"),
                tunnels=addresses.read_all(tunnel, "--tunnel"),
                peers=addresses.read_all(peer, "--peer"),
                egress_to_private=egress_to_private,
            ),
            clock=run_clock,
            described=failures.describe,
            watch=running.Watch(
                on_listening=functools.partial(_tell_places, quiet=as_json),
                on_started=begin,
                on_stoppable=stops.append,
                on_phase=take_phase,
                on_held=take_held,
                on_failed=take_failure,
            ),
        )
    if as_json:
        print(json.dumps(finished.status))
    else:
        _print_summary(finished, out, agreement.contract)
    if not finished.good:
        sys.exit(EXIT_PROGRAM)


def _print_summary(finished: FinishedRun, out: Path, contract: Contract) -> None:
    from strongroom.cli.printable import printable, say
    from strongroom.cli.rooms import run_ends
    from strongroom.model.room import run_files
    from strongroom.node import runs

    receipt = finished.receipt
    print(f"run        {receipt.run_id}")
    if len(contract.rooms) > 1:
        print(f"room       {receipt.room}")
    print(f"outcome    {receipt.outcome.value}, status {receipt.exit_status}")
    if receipt.details:
        print(f"           {receipt.explanation}")
    if not finished.good:
        for line in runs.reading_the_log(out):
            say(f"log        {line}")
    for index, output in enumerate(receipt.outputs):
        say(f"output     {out}/{run_files.output(index)}: {output.path}, {output.sealed_bytes} bytes, sealed")
    for count in receipt.egress:
        print(
            f"egress     {count.host}:{count.port}: at most {count.connections} connections, "
            f"{count.sent} bytes out, {count.received} bytes in"
        )
    print(f"receipt    {out}/{run_files.RECEIPT}")
    first = finished.status.get("first_instruction_milliseconds")
    if isinstance(first, int):
        print(f"started    the program's first instruction after {first / 1000:.2f} s")
    print(f"took       {finished.milliseconds / 1000:.2f} s in all")
    for line in run_ends.tell_done(
        out,
        good=finished.good,
        outputs=bool(receipt.outputs),
        contract=contract,
        room=finished.receipt.room,
        before=finished.runs_before,
    ):
        say(line)
    for line in finished.notes:
        print(f"note       {printable(line)}", file=sys.stderr)


def _tell_places(places: Mapping[str, Mapping[str, str]], *, quiet: bool) -> None:
    for kind, names in places.items():
        for name, address in names.items():
            if not quiet:
                print(f"{kind:10} {name} at {address}", file=sys.stderr, flush=True)


def _as_lines(name: str, milliseconds: int) -> None:
    print(_line(name, milliseconds), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    from rich.console import Console
    from rich.status import Status

    with Status("the room boots", console=Console(stderr=True)) as status:

        def show(name: str, milliseconds: int) -> None:
            status.console.print(_line(name, milliseconds), highlight=False, markup=False)
            status.update(f"{name} …")

        yield show


def _line(name: str, milliseconds: int) -> str:
    return f"{milliseconds / 1000:7.2f} s  {name}"
