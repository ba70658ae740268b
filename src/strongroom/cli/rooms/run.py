"""`strongroom run`: one room under one contract. Started by the operator, who holds no key.

Leaves with 0 only if the room handed out a receipt that says "exited, 0"; with 8 when there is a
receipt of another outcome; with the usual codes (cli/failures.py) when there is none. Whatever a room would be refused for and
is known before is refused before one boots (node/foreseen.py). Every end says what happened, what it cost and what to type next.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import interruption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.model.contracts.contract import Contract
    from strongroom.node.backends import Backend
    from strongroom.node.foreseen import Foreseen
    from strongroom.node.qemu.machine import Drive
    from strongroom.node.room import Order, Room, RoomResult
    from strongroom.node.run_folder import UnwrittenFiles
    from strongroom.node.run_status import RunStatus

EXIT_PROGRAM = 8


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run")(run)


def run(
    contract: Annotated[Path, typer.Argument(help="The signed contract.")],
    base: Annotated[Path, typer.Option(help="The base's folder.")],
    disk: Annotated[list[Path], typer.Option(help="A sealed disk that the contract names.")],
    out: Annotated[Path, typer.Option(help="Folder for the receipt, the evidence and the outputs.")],
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
        bool, typer.Option("--no-memory-guard", help="Run without it; the evidence says so.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
) -> None:
    """Run a contract's program in a room and keep what leaves it."""
    begun = _process_start()
    from datetime import UTC, datetime

    from strongroom.cli.contract import files
    from strongroom.cli.rooms import run_ends, run_folder
    from strongroom.node import backends, foreseen, launch_record, room, runs
    from strongroom.node.run_status import RunStatus
    from strongroom.node.vtpm import state

    agreement = files.load_agreement(contract)
    chosen = _backend(backend, agreement.contract, node=node, firmware=firmware)
    drives, manifests = _disks(agreement.contract, disk, manifest)
    order = room.Order(
        node=None if node is None else state.load(node),
        base=backends.base_folder(base, chosen),
        agreement=agreement,
        drives=drives,
        manifests=manifests,
        earlier=files.load_earlier(earlier),
        out=out,
        guarded=not no_memory_guard,
        clock=clock,
        serial=debug_serial,
        firmware=firmware or launch_record.FIRMWARE,
    )
    with interruption.orderly(), run_folder.taken(out), contextlib.ExitStack() as display:
        status = RunStatus(
            out,
            agreement.contract,
            now=lambda: datetime.now(UTC),
            elapsed=lambda: round((time.monotonic() - begun) * 1000),
        )
        show = _as_lines(status)

        def begin() -> None:
            nonlocal show
            status.booting()
            # Only now, while the guest boots: a terminal's decoration costs the run nothing.
            if sys.stderr.isatty() and not as_json:
                show = display.enter_context(_live(status))

        def take_phase(name: str, moment: int) -> None:
            status.phase(name, moment)
            if not as_json:
                show(name)

        def take_held(held: UnwrittenFiles, seconds: float) -> None:
            status.held(held.names, held.size, seconds)
            show("\n".join(run_ends.tell_held(out, held, seconds)))

        known = foreseen.Foreseen()
        try:
            one = _room(chosen, order, firmware)
            if not start_anyway:
                known = foreseen.foresee(one.order)
                status.notes += known.notes
            one.on_started, one.on_phase, one.on_note = begin, take_phase, status.note
            one.on_held = take_held
            result = one.run()
        except BaseException as failure:
            display.close()
            for line in _failed(status, out, agreement.contract, failure, known):
                if not as_json:
                    print(line, file=sys.stderr)
            raise
        with contextlib.suppress(OSError):  # the result is there; a full disk takes nothing from it
            status.done(result.receipt, result.files)
    good = runs.good(result.receipt.outcome.value, result.receipt.exit_status)
    if as_json:
        print(json.dumps(status.document))
    else:
        _print_summary(status, result, out, agreement.contract, known, good=good)
    if not good:
        sys.exit(EXIT_PROGRAM)


def _backend(name: str | None, contract: Contract, *, node: Path | None, firmware: Path | None) -> Backend:
    """The back end that is meant, which this machine must be able to run."""
    from strongroom.errors import Misuse
    from strongroom.node import backends, doctor

    chosen = backends.choose(name, contract)
    if chosen is not backends.LOCAL:
        given = frozenset() if firmware is None else frozenset({"firmware"})
        backends.require(chosen, doctor.Host(), given=given)
    elif node is None:
        raise Misuse(
            "--node: a local room needs the folder of a node",
            hint="give --node FOLDER; `strongroom node init FOLDER` makes one",
        )
    return chosen


def _disks(
    contract: Contract, disk: list[Path], manifest: list[Path]
) -> tuple[tuple[Drive, ...], dict[str, bytes]]:
    """The contract's disks among those given, and their manifests."""
    from strongroom.errors import Misuse
    from strongroom.node import disks

    if manifest and len(manifest) != len(disk):
        raise Misuse(
            f"--manifest: {len(manifest)} given for {len(disk)} disks",
            hint="give one for each --disk, in the same order, or none where each lies beside its disk",
        )
    beside: list[Path | None] = [*manifest] or [None] * len(disk)
    return disks.match(contract, [disks.load(*one) for one in zip(disk, beside, strict=True)])


def _failed(
    status: RunStatus, out: Path, contract: Contract, failure: BaseException, known: Foreseen
) -> tuple[str, ...]:
    """Write down how it ended. The lines for people."""
    from strongroom.cli import failures
    from strongroom.cli.rooms import run_ends

    end = run_ends.read(out, contract, failure)
    interrupted = isinstance(failure, KeyboardInterrupt | SystemExit)
    status.failed(
        None if interrupted else failures.describe(failure),
        run=end.run,
        cost={party: one.value for party, one in end.costs.items()},
    )
    lines = run_ends.tell(
        end, phase=status.reached, interrupted=interrupted, contract=contract, before=known.runs
    )
    return tuple(lines)


def _room(backend: Backend, order: Order, firmware: Path | None) -> Room:
    """The room of that back end, not yet started."""
    from dataclasses import replace

    from strongroom.node import doctor, room

    host, contract = doctor.Host(), order.agreement.contract.digest
    if backend.name == "tpm":
        return room.Room(order=order)
    if backend.name == "nitro":
        from strongroom.node.nitro.room import NitroRoom

        return NitroRoom(order=order)
    from strongroom.node.qemu import tee
    from strongroom.node.tee_room import TeeRoom

    usual = host.firmware(doctor.SNP_FIRMWARE if backend.tee == "snp" else doctor.TDX_FIRMWARE)
    order = replace(order, firmware=firmware or usual or order.firmware)
    if backend.tee == "snp":
        cbit, reduced = host.encryption_bit()
        return TeeRoom(order=order, tee=tee.Snp(contract=contract, cbit=cbit, reduced=reduced))
    quoting = host.quoting()
    return TeeRoom(
        order=order,
        tee=tee.Tdx(contract=contract) if quoting is None else tee.Tdx(contract=contract, quoting=quoting),
    )


def _print_summary(
    status: RunStatus, result: RoomResult, out: Path, contract: Contract, known: Foreseen, *, good: bool
) -> None:
    from strongroom.cli.printable import say
    from strongroom.cli.rooms import run_ends
    from strongroom.model.room import run_files
    from strongroom.node import runs

    receipt = result.receipt
    print(f"run        {receipt.run}")
    print(f"outcome    {receipt.outcome.value}, status {receipt.exit_status}")
    if receipt.details:
        print(f"           {receipt.explanation}")
    if not good:
        for line in runs.reading_the_log(out):
            say(f"log        {line}")
    for index, output in enumerate(receipt.outputs):
        say(f"output     {out}/{run_files.output(index)}: {output.path}, {output.sealed_bytes} bytes, sealed")
    print(f"receipt    {out}/{run_files.RECEIPT}")
    first = status.document.get("first_instruction_milliseconds")
    if isinstance(first, int):
        print(f"started    the program's first instruction after {first / 1000:.2f} s")
    print(f"took       {status.elapsed() / 1000:.2f} s in all")
    for line in run_ends.tell_done(
        out, good=good, outputs=bool(receipt.outputs), contract=contract, before=known.runs
    ):
        say(line)
    for line in status.notes:
        print(f"note       {line}", file=sys.stderr)


def _as_lines(status: RunStatus) -> Callable[[str], None]:
    return lambda name: print(_line(status, name), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _live(status: RunStatus) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.status import Status

    with Status("the room boots", console=Console(stderr=True)) as live:

        def show(name: str) -> None:
            live.console.print(_line(status, name), highlight=False, markup=False)
            live.update(f"{name} …")

        yield show


def _line(status: RunStatus, name: str) -> str:
    return f"{status.elapsed() / 1000:7.2f} s  {name}"


def _process_start() -> float:
    """When this process began, on the monotonic clock: the interpreter's own start counts too."""
    with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123 - one read of a kernel file
        ticks = int(stat.read().rpartition(b")")[2].split()[19])
    began = ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - began)
