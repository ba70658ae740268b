"""A room's life, from the first message to the receipt. The order of acts is the security argument.

 1 say hello; take the node's start message, believing nothing
 2 extend the contract's digest into the hardware, before there is any key: from here on this
   room can prove this contract alone
 3 check signatures, manifests and the room's memory against the contract
 4 mix the hardware's random bytes into the kernel's, fork what ends tunnels where the contract has any, then make the room's keys
 5 attest to every broker that the contract names; each releases the keys of its own party's disks, and sets or confirms
   the room's clock (`life.clock`)
 6 open the disks: dm-verity enforces what was signed, dm-crypt decrypts
 7 wait for the peers that the contract says so of, and run the program in its container, as its image's user, until it ends or its time does; a service attests again meanwhile (`life.service`)
 8 ask dm-verity whether every block was genuine and the kernel whether every read went well; if not, nothing leaves
 9 seal the outputs and logs, into the room's own memory, for those whom the contract names; ask the kernel once more
10 sign the receipt, post it to every broker, and hold each ledger's proof that it is recorded
11 hand the sealed outputs and logs to the node: record before release
12 say done, and power off (`__main__`)

A run begins when the first broker's keys are in the room. From there on, whatever a program, a disk or a broker
does, the room signs a receipt and posts it to the brokers that released: what nobody foresaw has an outcome
of its own. What goes wrong before the program starts is also said to the node, in one message without secrets;
once it has started, nothing but closed sets of words leaves. Not checked here: whether this room is what it
should be. That is for the brokers, who see its evidence.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from strongroom.agent import attest, finish, init, owners, program
from strongroom.agent.certificates import workload_api
from strongroom.agent.certificates.in_room import RoomCertificates
from strongroom.agent.container import ContainerLaunch
from strongroom.agent.disks import open as disks
from strongroom.agent.disks.devicemapper import DeviceMapper
from strongroom.agent.life import begin
from strongroom.agent.life.clock import RoomClock
from strongroom.agent.network import places, relay, tunnels, waiting
from strongroom.errors import PolicyDenied, Refused, StrongroomError
from strongroom.model import manifest as manifest_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts.certificate_terms import Interface
from strongroom.model.receipt import Outcome
from strongroom.model.room import agreed, run_files
from strongroom.model.room import channel as wire
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from strongroom.agent.certificates.workload_api import WorkloadApi
    from strongroom.agent.channel import Channel
    from strongroom.agent.disks.reads import ReadWatch
    from strongroom.agent.launcher import Warden
    from strongroom.agent.life.clock import SystemClock
    from strongroom.agent.network.tunnels import Tunnels
    from strongroom.model.identifiers import ContractDigest

START_SECONDS = 60.0
ROOM_SECONDS = 900.0
CLOSING_SECONDS = 300.0
_LOG_SHARE = 8
_OUT_SLACK = 1 << 20


class Hardware(attest.Attester, Protocol):
    """What a TEE offers to the agent (`agent/devices`): evidence, and before it what evidence is bound to."""

    def bind_contract(self, contract_digest: ContractDigest) -> None:
        """Bind the contract's digest, once and irrevocably. Raises `Refused`."""
        ...

    def entropy(self) -> bytes:
        """Random bytes of its own."""
        ...


def run(
    channel: Channel,
    hardware: Hardware,
    guard: Warden,
    reads: ReadWatch,
    system: SystemClock,
    find: Callable[[str], str] = disks.find,
) -> None:
    """Acts 1 to 11. system: the wall clock, which brokers set. reads: whether a read has failed, of the base too. find: the block device of a disk by its serial.

    Raises `StrongroomError`; whatever is raised, the caller reports and powers off.
    """
    channel.send_control("hello")  # 1
    phase(channel, "booted")
    start = wire.parse_start(channel.receive_control(START_SECONDS))
    agreement = agreement_model.read(start.agreement)
    hardware.bind_contract(agreement.contract.digest)  # 2
    phase(channel, "contract-bound")
    terms = agreed.check(agreement, start)  # 3
    contract, own = terms.contract, terms.room
    init.complain_if_small(own.memory_mib)
    init.watch(own.wall_seconds + ROOM_SECONDS)
    init.add_entropy(hardware.entropy())  # 4
    progress = _Progress(tunnels=tunnels.spawn() if own.ports or own.peers else None)
    if own.certificate is not None and Interface.WORKLOAD_API in own.certificate.interfaces:
        progress.workload = workload_api.spawn()
    keys = attest.make_keys() if own.certificate is None else attest.make_keys(own.certificate.key)
    reads.complain()
    released: list[attest.Released] = []
    clock = RoomClock(system)
    try:
        for party in contract.key_owners(own.name):  # 5
            released.append(
                attest.attest(channel, hardware, start, contract, own, keys, party, terms.keys_from(party))
            )
            channel.send_file(run_files.release(party), released[-1].record())
            clock.take(begin.reading(released[-1]), monotonic=time.monotonic())
            phase(channel, f"attested:{party}")
        if progress.tunnels is not None:
            progress.tunnels.begin(channel.carrier, start, contract.digest, keys, released)
        if own.service is not None:
            progress.life = begin.LivingRoom(
                channel=channel,
                attester=hardware,
                start=start,
                terms=terms,
                keys=keys,
                clock=clock,
                latest={release.party: release for release in released},
                on_renewed=lambda party: phase(channel, f"{wire.RENEWED}:{party}"),
                on_failure=lambda: phase(channel, wire.RENEWAL_WAITS),
                on_all=progress.renewed,
                began=time.monotonic(),
            )
        ended = _use(channel, terms, released, keys, guard, reads, find, progress)  # 6, 7, 8
    except BaseException as cause:
        if not released:
            raise
        now = time.monotonic()
        if reads.failed():  # whatever else was raised came of that, or matters less
            ended = _corrupted("read-failed", progress.started or now)
        elif not progress.started:
            with contextlib.suppress(Exception):  # why it did not start matters more to the node
                _conclude(channel, terms, released, keys, reads, _not_started(terms, released, cause), 1)
            raise
        else:
            ended = program.Ended(
                outcome=Outcome.AGENT_FAILED, exit_status=0, details=(), started=progress.started, ended=now
            )
            ended = finish.agent_failed(ended, cause)
    with contextlib.suppress(StrongroomError):  # a node that does not listen is no reason to sign nothing
        phase(channel, "program-ended")
    _conclude(channel, terms, released, keys, reads, ended, progress.sequence)  # 9, 10, 11


@dataclass
class _Progress:
    """When the program started, by the monotonic clock; 0 when it has not. tunnels: what ends them, for a room that has any; workload: what serves the
    Workload API. life: of a service. deliver: new certificates to the program, once it runs.
    """

    started: float = 0.0
    tunnels: Tunnels | None = None
    workload: WorkloadApi | None = None
    certificates: RoomCertificates | None = None
    life: begin.LivingRoom | None = None
    deliver: Callable[[Sequence[attest.Released]], None] | None = None

    def renewed(self, released: Sequence[attest.Released]) -> None:
        """Every broker has renewed."""
        if self.tunnels is not None:
            self.tunnels.renew(released)
        if self.deliver is not None:
            self.deliver(released)

    @property
    def sequence(self) -> int:
        """The number of the last receipt."""
        return 1 if self.life is None else self.life.sequence + 1


def _not_started(terms: agreed.Terms, released: list[attest.Released], cause: BaseException) -> program.Ended:
    now = time.monotonic()
    if len(released) < len(terms.contract.key_owners(terms.room.name)):
        detail = "keys-refused"
    elif isinstance(cause, Refused) and cause.code == disks.UNSUPPORTED:
        detail = disks.UNSUPPORTED
    else:
        detail = "room-not-ready"
    return program.Ended(
        outcome=Outcome.NOT_STARTED, exit_status=0, details=(detail,), started=now, ended=now
    )


def _conclude(
    channel: Channel,
    terms: agreed.Terms,
    released: list[attest.Released],
    keys: attest.Keys,
    reads: ReadWatch,
    ended: program.Ended,
    sequence: int,
) -> None:
    """Seal, sign, record, and only then release. Each act has its time, however much others have used up."""
    contract, parties = terms.contract, tuple(release.party for release in released)
    whole = parties == contract.key_owners(terms.room.name)
    wait = contract.receipts.wait_seconds if whole else 0  # for a run that began at some brokers nobody waits
    init.watch(CLOSING_SECONDS)
    sealed = finish.seal(  # 9
        contract, terms.room, ended, f"{init.ROOM}/out", memory=init.sealing_memory, random=os.urandom
    )
    if reads.failed() and ended.outcome is not Outcome.DATA_CORRUPTED:  # while it sealed
        sealed.close()
        sealed = finish.SealedRun(ended=_corrupted("read-failed", ended.started))
    try:
        # Brokers are asked one after the other: none that dawdles takes the time of those behind it.
        init.watch(CLOSING_SECONDS + wait + len(parties) * attest.RECEIPT_SECONDS)
        receipt = finish.make_receipt(terms, sealed.ended, sealed.records, released[0], sequence=sequence)
        envelope = finish.sign_receipt(receipt, keys)  # 10
        phase(channel, "outputs-sealed")
        channel.send_file(run_files.RECEIPT, envelope)
        finish.post_receipt(
            channel,
            contract,
            envelope,
            parties=parties,
            wait_seconds=wait,
            on_failure=lambda party: phase(channel, f"receipt-waits:{party}"),
        )
        phase(channel, "receipt-posted")
        init.watch(ROOM_SECONDS)
        finish.send(channel, sealed)  # 11
        phase(channel, "outputs-sent")
    finally:
        sealed.close()


def _use(
    channel: Channel,
    terms: agreed.Terms,
    released: list[attest.Released],
    keys: attest.Keys,
    guard: Warden,
    reads: ReadWatch,
    find: Callable[[str], str],
    progress: _Progress,
) -> program.Ended:
    """Open the disks, run, and look at the disks again. A corrupted disk is an outcome, not a failure."""
    began = time.monotonic()
    mapper = DeviceMapper()
    opened: list[disks.OpenDisk] = []
    try:
        _open(mapper, terms, released, opened, find)
        phase(channel, "disks-open")
        ended = _run(channel, terms, released, keys, guard, reads, progress)
    except Refused as cause:
        if cause.code != "data-corrupted":
            raise
        serial = terms.disks()[len(opened)][0]  # the one that did not open
        return _corrupted(f"{serial}-corrupted", began)
    for disk in opened:
        try:
            disks.complain_if_corrupted(mapper, disk)
        except Refused:
            return _corrupted(f"{disk.serial}-corrupted", ended.started)
    if reads.failed():
        return _corrupted("read-failed", ended.started)
    return ended


def _corrupted(detail: str, started: float) -> program.Ended:
    """The end of a run whose disks are not what they should be. Nothing is said of what the program did."""
    return program.Ended(
        outcome=Outcome.DATA_CORRUPTED,
        exit_status=0,
        details=(detail,),
        started=started,
        ended=time.monotonic(),
    )


def _open(
    mapper: DeviceMapper,
    terms: agreed.Terms,
    released: list[attest.Released],
    opened: list[disks.OpenDisk],
    find: Callable[[str], str],
) -> None:
    disk_keys = {name: key for release in released for name, key in release.disk_keys.items()}
    for serial, _, manifest in terms.disks():
        key = None if manifest.cipher == manifest_model.NO_CIPHER else disk_keys[manifest.digest]
        device = find(serial)
        opened.append(disks.open_disk(mapper, serial, manifest, key, f"{init.ROOM}/{serial}", device))
    for release in released:
        release.disk_keys.clear()  # the kernel has them now


def _run(
    channel: Channel,
    terms: agreed.Terms,
    released: list[attest.Released],
    keys: attest.Keys,
    guard: Warden,
    reads: ReadWatch,
    progress: _Progress,
) -> program.Ended:
    own, tunnelled = terms.room, progress.tunnels
    available = init.available_memory()
    kept = 0 if own.logs is None else min(own.logs.max_bytes, available // _LOG_SHARE)
    # What the program prints grows in the agent, by an eighth more than there is of it: it is no memory of the program's.
    memory = init.program_memory(available - kept - kept // 8, own.memory_mib << 20)
    launch = make_launch(terms, available, init.make_cgroup(memory))
    prepare_out(terms, f"{init.ROOM}/out", available)
    os.makedirs(launch.scratch, 0o700, exist_ok=True)
    if own.certificate is not None:
        progress.certificates = RoomCertificates(
            terms, own.certificate, progress.workload, run_id=keys.public.run_id
        )
        progress.certificates.write(released, keys.tls)
        launch = progress.certificates.launch(launch)

    def on_start() -> None:
        if not progress.started:  # a program that is started again has its phase no second time
            progress.started = time.monotonic()
            phase(channel, "program-started")

    if tunnelled is not None:
        waiting.await_peers(
            channel.carrier,
            tunnelled,
            places.outward(terms.contract, own),
            on_wait=lambda peer: phase(channel, f"waiting-for:{peer.room}"),
        )
    service = None
    if own.service is not None and progress.life is not None:
        progress.life.began = time.monotonic()
        service = progress.life.begin(own.service, watchdog=lambda: init.watch(ROOM_SECONDS))
        launch = replace(launch, restart=own.service.restart.value)

    init.allow_sockets()
    network = relay.ProgramNetwork(
        channel.carrier,
        ports=own.ports,
        ways=places.outward(terms.contract, own),
        peer_end=None if tunnelled is None else tunnelled.peer_end,
        tunnel_end=None if tunnelled is None else tunnelled.tunnel_end,
    )
    if tunnelled is not None:
        tunnelled.lead_to(own.ports, network.to_program)

    def on_running(running: program.RunningProgram) -> None:
        progress.deliver = partial(
            _deliver, channel, progress, running=running, connect=network.program_socket
        )

    return program.run(
        guard,
        replace(launch, listeners=network.listeners),
        waiter=channel.carrier,
        network=network,
        reads=reads,
        limit=own.wall_seconds if service is None else service,
        log_bytes=kept,
        on_start=on_start,
        on_running=on_running,
    )


def _deliver(
    channel: Channel,
    progress: _Progress,
    released: Sequence[attest.Released],
    *,
    running: program.RunningProgram,
    connect: Callable[[], socket.socket],
) -> None:
    """What was certified anew, to the program; how far it came is a phase."""
    if progress.certificates is None or progress.life is None:
        return
    word = progress.certificates.deliver(
        released,
        progress.life.keys.tls,
        running=running,
        waiter=channel.carrier,
        connect=connect,
        must_hurry=channel.must_hurry,
    )
    phase(channel, word)


def make_launch(terms: agreed.Terms, available: int, cgroup: str) -> ContainerLaunch:
    """How the program is run: the image's own settings, and what the contract says over them."""
    settings, own = terms.settings, terms.room
    command = settings.command if own.image.arguments is None else own.image.arguments
    return ContainerLaunch(
        arguments=(*settings.entrypoint, *command),
        environment={**settings.environment, **own.image.environment},
        working_directory=settings.working_directory,
        uid=settings.uid,
        gid=settings.gid,
        groups=settings.groups,
        image=f"{init.ROOM}/{wire.SERIAL_IMAGE}",
        datasets={
            dataset.name: f"{init.ROOM}/{wire.data_serial(index)}"
            for index, dataset in enumerate(own.datasets)
        },
        out=f"{init.ROOM}/out",
        tls="",
        scratch=f"{init.ROOM}/scratch",
        root_bytes=available // 4,
        tmp_bytes=available // 2,
        cgroup=cgroup,
    )


def prepare_out(terms: agreed.Terms, folder: str, available: int) -> None:
    """The output folders, in memory: as large as the contract allows, but never more than a third of the memory.

    The outputs' sealed form waits beside them, and may be padded to twice their size.
    """
    settings = terms.settings
    size = sum(output.max_bytes for output in terms.room.outputs) + _OUT_SLACK
    init.mount_memory(folder, min(size, available // 3), "0755")
    for output in terms.room.outputs:
        path = folder + output.path.removeprefix("/out")
        os.makedirs(path, 0o755, exist_ok=True)
        os.chown(path, owners.kernel_id(settings.uid), owners.kernel_id(settings.gid))


def phase(channel: Channel, name: str) -> None:
    """Tell the node how far the room is."""
    channel.send_control("phase", name=name, milliseconds=init.uptime_milliseconds())


def report(channel: Channel, cause: BaseException) -> None:
    """Tell the node why the room ends early. Of what nobody foresaw it tells the kind and place alone."""
    if isinstance(cause, StrongroomError):
        code, message, hint = cause.code, cause.message, cause.hint
    else:
        message = f"the agent failed: {finish.place_of(cause)}"
        code, hint = "defect", "please report it"
    checks = cause.verdict if isinstance(cause, PolicyDenied) and isinstance(cause.verdict, tuple) else ()
    shown = [check.to_message() for check in checks if isinstance(check, Check)]
    # A broker's words are as long as it likes; the node takes no longer ones.
    message, hint = message[: wire.MAX_TEXT], hint[: wire.MAX_TEXT]
    channel.send_control("failed", code=code, message=message, hint=hint, checks=shown)
