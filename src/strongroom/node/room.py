"""One room from start to end: TPM, launch measurement, QEMU, relay; and nothing left afterwards.

What a room needs on the host lives in memory files and socket pairs, which vanish with the
processes: there is no temporary folder to forget. Any number of rooms run side by side.
The node is not trusted by anybody: the brokers judge what the room's TPM signs, the room verifies
every disk block, and what this file checks it checks for the operator's own sake.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.errors import Misuse, Refused, Unavailable
from strongroom.model import receipt as receipt_model
from strongroom.model import signatures
from strongroom.model.room import channel, run_files
from strongroom.node import children, launch_record, relay, run_folder, run_status
from strongroom.node.background import Later
from strongroom.node.network.inward import Listeners, RoomNetwork
from strongroom.node.network.options import NO_NETWORK
from strongroom.node.qemu import accelerator
from strongroom.node.qemu import machine as qemu
from strongroom.node.vtpm import hcrtm, swtpm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import PartyName, RoomName
    from strongroom.node.network.options import NetworkOptions
    from strongroom.node.vtpm.state import VtpmNode

    Watched = dict[int, Callable[[], None]]

BOOT_SECONDS = 180.0  # emulation on a loaded machine; the usual start takes five
AFTERWARDS_SECONDS = 300.0  # attesting, sealing the outputs, the receipts
BROKER_SECONDS = 80.0  # more for each broker that dawdles (the agent's RECEIPT_SECONDS)
SERIAL_BASE = "base"
_OPEN_FILES = 8192
TOGETHER_SECONDS = 1.0
# Of a result in memory: how long it is kept, how often its folder is tried, and how often that is said.
HELD_SECONDS, AGAIN_SECONDS, TELL_SECONDS = 3600.0, 5.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to run: a room of the agreement's contract. `drives` and `manifests` (signed, as bytes) go by the serials of `model.room.channel`.

    earlier: envelopes of the contract's earlier versions, lowest first. network: see `run.run_contract`.
    node: None for rooms that the processor's own TEE speaks for. out: the run's folder, which exists and is empty. clock and serial: see `qemu.Machine`.
    """

    node: VtpmNode | None
    base: Path
    agreement: Agreement
    room: RoomName
    drives: tuple[qemu.Drive, ...]
    manifests: dict[str, bytes]
    out: Path
    earlier: tuple[bytes, ...] = ()
    guarded: bool = True
    clock: str = "utc"
    serial: Path | None = None
    firmware: Path = launch_record.FIRMWARE
    network: NetworkOptions = NO_NETWORK

    @property
    def terms(self) -> RoomTerms:
        """What the contract says of the room."""
        return self.agreement.contract.room(self.room)


@dataclass(frozen=True, kw_only=True)
class RoomResult:
    """How a run ended: the room's receipt (its own signature held), and the names of all files."""

    receipt: receipt_model.Receipt
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A room that has been started. link: the host's end of its channel. watched: see `relay.Relay`.

    record: the launch record, waited for; issuers: what the room hands to verifiers beside its key's certificate. Both
    are empty where the hardware says it all.
    """

    link: socket.socket
    watched: Watched
    record: Callable[[], bytes] = bytes
    issuers: bytes = b""


@dataclass(kw_only=True)
class Room:
    """One run of an order, in a local room. `tee_room` starts other rooms.

    on_listening(places): called before that, with where ports are reached on this machine (`inward.Listeners.shown`).
    on_started: called once QEMU runs, while the guest boots. on_phase(name, guest's milliseconds) and
    on_note(line) tell how it goes. on_held(what, seconds left): files are in memory alone, since the run's folder takes no
    more. Called as soon as one is, again every `TELL_SECONDS` once the room has ended, and with nothing when all of it is in the
    folder. Each is tried again until `HELD_SECONDS` have passed; with 0 seconds left, it is lost.
    """

    order: Order
    on_listening: Callable[[Mapping[str, Mapping[str, str]]], None] = lambda _places: None
    on_started: Callable[[], None] = lambda: None
    on_phase: Callable[[str, int], None] = lambda _name, _moment: None
    on_note: Callable[[str], None] = lambda _line: None
    on_held: Callable[[run_folder.UnwrittenFiles, float], None] = lambda _held, _left: None
    pause: Callable[[float], None] = time.sleep
    qemu: children.Child | None = field(default=None, init=False)
    swtpm: children.Child | None = field(default=None, init=False)
    phase: str = field(default="starting", init=False)
    _relay: relay.Relay | None = field(default=None, init=False)
    _serves: bool = field(default=False, init=False)

    def stop(self) -> bool:
        """Ask a service's room to end; whether it can be asked: its program has started. May be called by a signal's handler."""
        if self.order.terms.service is None or self._relay is None or not self._serves:
            return False
        self._relay.stop()
        return True

    def run(self) -> RoomResult:
        """Run the room to its end. Whatever happens, no process and no temporary file is left.

        Raises `PolicyDenied` or `Refused` when the room gave up and said why; `Unavailable` with code
        `room-died`, `room-silent`, `room-overran`, `tpm-failed`, `run-folder`; `NotFound` for a
        missing program or part of the base.
        """
        order = self.order
        with contextlib.ExitStack() as stack:
            listeners = Listeners(order.network)
            stack.callback(listeners.close)
            if listeners.places:
                self.on_listening(listeners.shown())
            _allow_sockets()
            launched = self._launch(stack)
            self.on_started()
            files = run_folder.Inbox(
                order.out,
                order.agreement.contract,
                order.room,
                on_held=lambda held: self.on_held(held, HELD_SECONDS),
            )
            stack.callback(files.close)
            record = launched.record()
            self._write_down(files, record)
            start = channel.Start(
                agreement=order.agreement.envelope.encode(),
                room=order.room,
                launch_record=record,
                issuers=launched.issuers,
                manifests=order.manifests,
                earlier=order.earlier,
            )
            wire = relay.Relay(
                launched.link,
                brokers=_brokers(order),
                start=start.encode(),
                inbox=files,
                on_phase=self._take_phase,
                on_note=self.on_note,
                watched=launched.watched,
                network=RoomNetwork(terms=order.terms, options=order.network, listeners=listeners),
            )
            stack.callback(wire.close)
            self._relay = wire
            stack.callback(lambda: setattr(self, "_relay", None))
            wait = order.agreement.contract.receipts.wait_seconds
            dawdling = BROKER_SECONDS * len(order.agreement.contract.key_owners(order.room))
            silence = order.terms.wall_seconds + wait + AFTERWARDS_SECONDS + dawdling
            try:
                life = (
                    0.0
                    if order.terms.service is None
                    else _seconds_until(order.agreement.contract.limits.not_after)
                )
                wire.serve(
                    relay.Patience(
                        hello=BOOT_SECONDS,
                        silence=silence,
                        total=BOOT_SECONDS + silence + life,
                        stopping=silence,
                    )
                )
                self._settle(files)
            except BaseException:
                if files.held.names:
                    self.on_held(files.settle(), 0.0)
                raise
        return self._result(files.received)

    def _settle(self, files: run_folder.Inbox) -> None:
        """Have everything in the run's folder: the room is gone, and what is in memory alone would be lost."""
        waited = bool(files.held.names)
        for turn in range(int(HELD_SECONDS / AGAIN_SECONDS)):
            left = files.settle()
            if not left.names:
                if waited:
                    self.on_held(left, 0.0)
                return
            if turn % int(TELL_SECONDS / AGAIN_SECONDS) == 0:
                self.on_held(left, HELD_SECONDS - turn * AGAIN_SECONDS)
            self.pause(AGAIN_SECONDS)
        if (left := files.settle()).names:
            raise Unavailable(
                f"{self.order.out}: for {HELD_SECONDS / 60:.0f} minutes there was no room for {', '.join(left.names)}",
                code="run-folder",
                hint=f"that is lost; another run needs a folder with {left.size / (1 << 20):.1f} MiB free for it (--out)",
            )

    def _launch(self, stack: contextlib.ExitStack) -> Launched:
        """swtpm, QEMU, and the measurer between them."""
        order = self.order
        parts = stack.enter_context(launch_record.opened(order.base, firmware=order.firmware))
        record = Later(lambda: parts.record(memory_guard=order.guarded).encode())
        stack.callback(record.wait)
        if order.node is None:
            raise Misuse("a local room needs a node", hint="give --node; `strongroom node init` makes one")
        state = os.memfd_create("tpm-state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        os.write(state, order.node.tpm_state())
        to_swtpm, swtpm_control = socket.socketpair()
        to_qemu, qemu_control = socket.socketpair()
        link, qemu_link = socket.socketpair()
        stack.callback(link.close)
        measurer = hcrtm.LaunchMeasurer(to_qemu, to_swtpm, record.result)
        stack.callback(measurer.stop)
        serial = None
        if order.serial is not None:
            serial = os.open(order.serial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, serial)
        machine = qemu.Machine(
            accelerator=accelerator.choose(guarded=order.guarded),
            memory_mib=order.terms.memory_mib,
            processors=order.terms.processors,
            firmware=parts.firmware,
            kernel=parts.kernel,
            initrd=parts.initrd,
            cmdline=parts.cmdline,
            tpm=qemu_control.fileno(),
            channel=qemu_link.fileno(),
            drives=(qemu.Drive(serial=SERIAL_BASE, path=parts.disk.absolute()), *order.drives),
            clock=order.clock,
            serial=serial,
        )
        with swtpm_control, qemu_control, qemu_link:
            control = swtpm_control.fileno()
            line = swtpm.arguments(state, control)

            def start_swtpm() -> children.Child:
                return children.start(line, descriptors=(state, control), guarded=order.guarded)

            # Without the guard a child lives no longer than the thread that started it: this one.
            later = Later(start_swtpm) if order.guarded else None
            if later is None:
                self.swtpm = start_swtpm()
                stack.callback(self.swtpm.stop)
            try:
                self.qemu = children.start(
                    qemu.arguments(machine), descriptors=machine.descriptors, guarded=order.guarded
                )
                stack.callback(self.qemu.stop)
            finally:
                if later is not None:
                    self.swtpm = later.result()
                    stack.callback(self.swtpm.stop)
        measurer.start()
        watched = self._watched(measurer)
        return Launched(link=link, watched=watched, record=record.result, issuers=order.node.issuers)

    def _write_down(self, files: run_folder.Inbox, record: bytes) -> None:
        files.put(run_files.AGREEMENT, self.order.agreement.encode())
        if record:
            files.put(run_files.LAUNCH_RECORD, record)
        folder = self.order.out / run_files.MANIFESTS
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        for serial, data in self.order.manifests.items():
            files.put(run_files.manifest(serial), data)

    def _watched(self, measurer: hcrtm.LaunchMeasurer) -> Watched:
        tpm, machine = self.swtpm, self.qemu
        if tpm is None or machine is None:
            raise Unavailable(
                "the room did not start",
                code="room-died",
                hint="`strongroom node doctor` tells what it needs here",
            )
        watched = self._qemu_watched(lambda: measurer.failure)

        def tpm_ended() -> None:
            # A TPM goes when its machine does, and may be seen first: then the machine's end is the reason.
            if machine.wait(TOGETHER_SECONDS) is not None:
                watched[machine.fd]()
            raise Unavailable(
                f"the room's TPM ended ({_ended(tpm.wait(1.0))}) in phase {self.phase!r}",
                code="room-died",
                hint="swtpm was ended by somebody, or its state is damaged",
            )

        return {**watched, tpm.fd: tpm_ended}

    def _qemu_watched(self, failure: Callable[[], Exception | None] = lambda: None) -> Watched:
        """Raises `failure` when there is one, once QEMU has ended, else how it ended."""
        room = self.qemu
        if room is None:
            raise Unavailable(
                "the room did not start",
                code="room-died",
                hint="`strongroom node doctor` tells what it needs here",
            )

        def room_ended() -> None:
            if (cause := failure()) is not None:
                raise cause
            code = room.wait(1.0)
            complaint = room.complaint()
            raise Unavailable(
                f"the room ended by itself ({_ended(code)}) in phase {self.phase!r}"
                + (f": {complaint}" if complaint else ""),
                code="room-died",
                hint="when this happens during the boot, the base is damaged or not of this version"
                if self.phase == "starting"
                else "somebody ended its process, or the machine ran out of memory",
            )

        return {room.fd: room_ended}

    def _take_phase(self, name: str, moment: int) -> None:
        self.phase = name
        self._serves = self._serves or name == run_status.FIRST_INSTRUCTION
        self.on_phase(name, moment)

    def _result(self, received: list[str]) -> RoomResult:
        if run_files.RECEIPT not in received:
            raise Refused(
                "the room says that it is done but handed out no receipt",
                code="no-receipt",
                hint="nothing proves what happened: the base may have been changed",
            )
        data = (self.order.out / run_files.RECEIPT).read_bytes()
        envelope, receipt = receipt_model.parse_envelope(data)
        agreed = self.order.agreement.contract.digest
        if receipt.contract_digest != agreed:
            raise _wrong_receipt(f"it is about the contract {receipt.contract_digest}, not {agreed}")
        if not signatures.signed_by(envelope, sign.VerifyingKey(receipt.signing_key)):
            raise _wrong_receipt("no signature of it verifies by the key that it names")
        return RoomResult(receipt=receipt, files=tuple(received))


def _allow_sockets() -> None:
    """Let this process have a socket for each stream of a room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _seconds_until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _brokers(order: Order) -> dict[PartyName, tuple[str, int]]:
    """Where the brokers are, of those parties whose keys the room needs."""
    addresses, contract = {}, order.agreement.contract
    for name in contract.key_owners(order.room):
        broker = contract.party(name).broker
        if broker is not None:
            addresses[name] = (broker.host, broker.port)
    return addresses


def _wrong_receipt(why: str) -> Refused:
    return Refused(
        f"the room's receipt does not count: {why}",
        code="wrong-receipt",
        hint="nothing proves what happened: the base may have been changed; `strongroom base verify` tells",
    )


def _ended(code: int | None) -> str:
    if code is None:
        return "it is still ending"
    return f"exit status {code}" if code >= 0 else f"killed by signal {-code}"
