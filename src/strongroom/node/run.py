"""A run: one room under one contract, on this machine, in a folder of its own. Started by the operator, who holds no key.

Whatever a room would be refused for and is known before is refused before one boots (`foreseen`). The folder has one run at a time, no result is
written over, and no failed attempt is in the way. How the run goes is in the folder's status (`run_status`), and reported to a `Watch`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom import host_log
from strongroom.errors import Conflict, Malformed, Misuse
from strongroom.model.receipt import Outcome
from strongroom.model.room import run_files
from strongroom.node import (
    backends,
    disks,
    doctor,
    foreseen,
    launch_record,
    room,
    run_cost,
    run_status,
    runs,
)
from strongroom.node.network.options import NO_NETWORK
from strongroom.node.run_status import RunStatus, State
from strongroom.node.vtpm import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import PartyName, RoomName
    from strongroom.model.receipt import Receipt
    from strongroom.node.backends import Backend
    from strongroom.node.network.options import NetworkOptions
    from strongroom.node.qemu.machine import Drive
    from strongroom.node.room import Order, Room
    from strongroom.node.run_cost import End
    from strongroom.node.run_folder import UnwrittenFiles

_FAILED = (State.FAILED, State.INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """How a run without a receipt ended. phase: how far the room was, empty where none was started. runs_before: by party, where its broker said."""

    end: End
    phase: str
    interrupted: bool
    runs_before: Mapping[PartyName, int]


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """How a run with a receipt ended, whose own signature holds. good: whether the program left with 0, or by SIGTERM when it was asked to stop.

    status: what is in the folder's status.json. notes: what nobody could say before. milliseconds: in all.
    """

    receipt: Receipt
    files: tuple[str, ...]
    good: bool
    status: Mapping[str, object]
    notes: tuple[str, ...]
    runs_before: Mapping[PartyName, int]
    milliseconds: int


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is called as a run goes. on_listening(places): ports are listened for, by `port` or `tunnel` and by name. on_started: the machine runs. on_phase(name, milliseconds since the run began): what the room says.

    on_stoppable(stop): what asks a service's room to end (`room.Room.stop`). on_held(what, seconds left): files are in memory alone (see `room.Room`). on_failed: before the failure is raised.
    """

    on_listening: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda _places: None
    on_started: Callable[[], None] = lambda: None
    on_stoppable: Callable[[Callable[[], bool]], None] = lambda _stop: None
    on_phase: Callable[[str, int], None] = lambda _name, _milliseconds: None
    on_held: Callable[[UnwrittenFiles, float], None] = lambda _held, _seconds: None
    on_failed: Callable[[FailedRun], None] = lambda _failed: None


def describe(failure: BaseException) -> dict[str, object]:
    """A failure as the folder's status has it: code, message and hint."""
    return {
        "code": getattr(failure, "code", "error"),
        "message": getattr(failure, "message", str(failure)),
        "hint": getattr(failure, "hint", ""),
        "checks": [],
    }


@dataclass(frozen=True, kw_only=True)
class RunClock:
    """now: UTC. elapsed: milliseconds since the run began."""

    now: Callable[[], datetime]
    elapsed: Callable[[], int]


def since_process_start() -> RunClock:
    """The clock of this machine, for a run that began with this process: the interpreter's own start counts too."""
    with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123 - one read of a kernel file
        ticks = int(stat.read().rpartition(b")")[2].split()[19])
    began = ticks / os.sysconf("SC_CLK_TCK")
    return since(time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - began))


def since(begun: float) -> RunClock:
    """The clock of this machine. begun: when the run began, by `time.monotonic`."""
    return RunClock(now=lambda: datetime.now(UTC), elapsed=lambda: round((time.monotonic() - begun) * 1000))


def run_contract(  # noqa: PLR0913 - by name, and most of them with a default
    agreement: Agreement,
    *,
    base: Path,
    sealed_disks: Sequence[Path],
    out: Path,
    room_name: RoomName | None = None,
    node: Path | None = None,
    backend: str | None = None,
    firmware: Path | None = None,
    manifests: Sequence[Path] = (),
    earlier: tuple[bytes, ...] = (),
    memory_guard: bool = True,
    foresee: bool = True,
    room_clock: str = "utc",
    serial: Path | None = None,
    network: NetworkOptions = NO_NETWORK,
    clock: RunClock | None = None,
    described: Callable[[BaseException], dict[str, object]] = describe,
    watch: Watch = Watch(),
) -> FinishedRun:
    """Run a contract's program in a room to its end, and keep what leaves it in the folder `out`, which is made.

    room_name: which of the contract's rooms; None where it has one alone. base: its folder. node: the node's folder, for local rooms. backend: one of `backends.BACKENDS`; None is for local rooms. manifests: in the
    order of `sealed_disks`, where they do not lie beside. earlier: envelopes of earlier versions, lowest first. foresee: False starts a room that brokers would
    refuse. network: where its ports are reached and where its peers are. Raises `Misuse`, `Refused`, `PolicyDenied`, `Unavailable`, `NotFound`, `Conflict`, `Malformed`; nothing of a room is left then.
    """
    clock = clock or since(time.monotonic())
    contract = agreement.contract
    chosen = _backend(backend, contract, node=node, firmware=firmware)
    terms = choose_room(contract, room_name)
    drives, signed = _disks(contract, terms, sealed_disks, manifests)
    order = room.Order(
        node=None if node is None else state.load(node),
        base=backends.base_folder(base, chosen),
        agreement=agreement,
        room=terms.name,
        drives=drives,
        manifests=signed,
        earlier=earlier,
        out=out,
        guarded=memory_guard,
        clock=room_clock,
        serial=serial,
        firmware=firmware or launch_record.FIRMWARE,
        network=network.fitted(terms),
    )
    with taken(out):
        attempt = _Attempt(
            order=order,
            watch=watch,
            status=RunStatus(out, contract, terms.name, now=clock.now, elapsed=clock.elapsed),
        )
        host_log.info("run", contract=contract.digest, backend=chosen.name, base=order.base, out=out)
        try:
            machine = _room(chosen, order, firmware)
            if foresee:
                attempt.foresee(machine.order)
            watch.on_stoppable(machine.stop)
            result = attempt.run(machine)
        except BaseException as failure:
            watch.on_failed(attempt.failed(failure, described))
            raise
        host_log.info("run ended", run=result.receipt.run_id, outcome=result.receipt.outcome.value)
        with contextlib.suppress(OSError):  # the result is there; a full disk takes nothing from it
            attempt.status.done(result.receipt, result.files)
        return FinishedRun(
            receipt=result.receipt,
            files=result.files,
            good=_is_good(result.receipt),
            status=attempt.status.document,
            notes=tuple(attempt.status.notes),
            runs_before=attempt.runs_before,
            milliseconds=clock.elapsed(),
        )


@dataclass(kw_only=True)
class _Attempt:
    """One run with its status. runs_before: what brokers said before."""

    order: Order
    watch: Watch
    status: RunStatus
    runs_before: dict[PartyName, int] = field(default_factory=dict)

    def foresee(self, order: Order) -> None:
        known = foreseen.foresee(order)
        self.status.notes += known.notes
        self.runs_before = known.runs

    def run(self, machine: Room) -> room.RoomResult:
        machine.on_listening = self._take_places
        machine.on_started, machine.on_phase = self._begin, self._take_phase
        machine.on_held, machine.on_note = self._take_held, self._take_note
        return machine.run()

    def failed(
        self, failure: BaseException, described: Callable[[BaseException], dict[str, object]]
    ) -> FailedRun:
        """Write down how it ended."""
        end = run_cost.read(self.order.out, self.order.agreement.contract, self.order.room, failure)
        interrupted = isinstance(failure, KeyboardInterrupt | SystemExit)
        self.status.failed(
            None if interrupted else described(failure),
            run_id=end.run_id,
            cost={party: cost.value for party, cost in end.costs.items()},
        )
        return FailedRun(
            end=end,
            phase=self.status.reached,
            interrupted=interrupted,
            runs_before=self.runs_before,
        )

    def _begin(self) -> None:
        self.status.booting()
        self.watch.on_started()

    def _take_places(self, places: Mapping[str, Mapping[str, str]]) -> None:
        self.status.listening(places)
        self.watch.on_listening(places)

    def _take_phase(self, name: str, moment: int) -> None:
        self.status.phase(name, moment)
        host_log.info("room", phase=name, milliseconds=self.status.elapsed())
        self.watch.on_phase(name, self.status.elapsed())

    def _take_note(self, line: str) -> None:
        self.status.note(line)
        host_log.warning("room", note=line)

    def _take_held(self, held: UnwrittenFiles, seconds: float) -> None:
        self.status.held(held.names, held.size, seconds)
        self.watch.on_held(held, seconds)


@contextlib.contextmanager
def taken(out: Path) -> Iterator[None]:
    """Have the folder for one run; it is made where it is not there.

    What a failed or interrupted run left is moved into `attempt-N` within it. Raises `Misuse` for a folder with a result in it, or with
    files of something else, `Conflict` while another run uses it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(run_status.held(out))
        except BlockingIOError:
            raise Conflict(
                f"--out {out}: another run uses this folder",
                code="folder-in-use",
                hint="wait for its end, or name another folder; `strongroom runs` shows how far it is",
            ) from None
        _clear(out)
        yield


def _clear(out: Path) -> None:
    """Move what a failed attempt left out of the way."""
    left = [path for path in out.iterdir() if not path.name.startswith(runs.ATTEMPT)]
    if not left:
        return
    ended = _state(out)
    if ended == State.DONE or (ended not in _FAILED and any(_is_result(path.name) for path in left)):
        raise Misuse(
            f"--out {out}: holds the result of a run, which is never written over",
            code="exists",
            hint="name another folder: every result has one of its own",
        )
    if ended is None:
        raise Misuse(
            f"--out {out}: is not empty, and what is in it is of no run",
            code="exists",
            hint="name an empty folder, or one that is not there yet",
        )
    number = 1
    while (aside := out / f"{runs.ATTEMPT}{number}").exists():
        number += 1
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)


def _is_result(name: str) -> bool:
    return name in (run_files.RECEIPT, run_files.LOG) or run_files.output_of(name) is not None


def _state(out: Path) -> State | None:
    """How the run ended that wrote its status here; one that goes on was killed, since this process has the lock."""
    try:
        return runs.read(out).state
    except (OSError, Malformed):
        return None


def choose_room(contract: Contract, name: RoomName | None) -> RoomTerms:
    """The room that is meant. Raises `Misuse`."""
    names = [room.name for room in contract.rooms]
    if name is None and len(names) == 1:
        return contract.rooms[0]
    if name not in names:
        raise Misuse(
            f"--room: expected one of {', '.join(names)}, got {name or 'none'}",
            code="which-room",
            hint=f"give --room {names[0]}: each room of the contract is run by a command of its own",
        )
    return contract.room(name)


def _is_good(receipt: Receipt) -> bool:
    """Whether the program did its work: it left with 0, or when it was asked to."""
    stopped = "stopped" in receipt.details
    asked = (receipt.outcome, receipt.exit_status) == (Outcome.KILLED, int(signal.SIGTERM))
    return runs.good(receipt.outcome.value, receipt.exit_status) or (stopped and asked)


def _backend(name: str | None, contract: Contract, *, node: Path | None, firmware: Path | None) -> Backend:
    """The back end that is meant, which this machine must be able to run."""
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
    contract: Contract, terms: RoomTerms, sealed_disks: Sequence[Path], manifests: Sequence[Path]
) -> tuple[tuple[Drive, ...], dict[str, bytes]]:
    """The room's disks among those given, and their manifests."""
    if manifests and len(manifests) != len(sealed_disks):
        raise Misuse(
            f"--manifest: {len(manifests)} given for {len(sealed_disks)} disks",
            hint="give one for each --disk, in the same order, or none where each lies beside its disk",
        )
    beside: list[Path | None] = [*manifests] or [None] * len(sealed_disks)
    pairs = zip(sealed_disks, beside, strict=True)
    return disks.match(contract, terms, [disks.load(disk, manifest) for disk, manifest in pairs])


def _room(backend: Backend, order: Order, firmware: Path | None) -> Room:
    """The room of that back end, not yet started."""
    host, contract = doctor.Host(), order.agreement.contract.digest
    if backend.name == "tpm":
        return room.Room(order=order)
    if order.terms.processors > 1:
        raise Misuse(
            f"room {order.room}: {order.terms.processors} processors, and {backend.name} rooms have one in this version",
            code="processors",
            hint="leave `processors` out of the contract's room: what is measured depends on it",
        )
    if backend.name == "nitro":
        from strongroom.node.nitro.room import NitroRoom  # noqa: PLC0415 - no local room needs it

        return NitroRoom(order=order)
    from strongroom.node.qemu import tee  # noqa: PLC0415 - as above
    from strongroom.node.tee_room import TeeRoom  # noqa: PLC0415 - as above

    usual = backends.usual_firmware(backend.profile, host)
    order = replace(order, firmware=firmware or usual or order.firmware)
    if backend.tee == "snp":
        cbit, reduced = host.encryption_bit()
        return TeeRoom(order=order, tee=tee.Snp(contract_digest=contract, cbit=cbit, reduced=reduced))
    quoting = host.quoting()
    return TeeRoom(
        order=order,
        tee=tee.Tdx(contract_digest=contract)
        if quoting is None
        else tee.Tdx(contract_digest=contract, quoting=quoting),
    )
