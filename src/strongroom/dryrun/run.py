"""An image under a room's conditions, in the clear on this machine: nothing is sealed, measured or proved.

As in a room, by the agent's own code (`agent/container`, `agent/program`, `agent/finish`): the read-only image below an overlay,
/data, /out, /tmp, /dev and /proc, the user namespace, no capability, the system call filter, no network, the
memory and wall limits, the environment, which outputs would leave and why not. Other than in a room: the kernel, the processors and
what /proc says of memory are this machine's, and whoever is root on it sees everything.

It all happens in a child process with a mount namespace of its own, which ends when the caller does: whatever happens, nothing stays
mounted, and no process of the program lives on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from strongroom.agent import container, finish, init, kernel, launcher, outputs, owners, program, tar
from strongroom.agent.disks import reads
from strongroom.dryrun import machine
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, StrongroomError, Unavailable
from strongroom.model.contracts.contract import OutputSizes
from strongroom.model.receipt import DETAILS, Outcome
from strongroom.streams.poll import Poll

if TYPE_CHECKING:
    from strongroom.agent.container import ContainerLaunch
    from strongroom.dryrun.machine import Group
    from strongroom.model.manifest import ImageSettings

_PR_SET_PDEATHSIG = 1
_MAX_REPORT = 1 << 16
_REASON_BYTES = 4096
_OUT_SLACK = 1 << 20
_READ = 1 << 16
_LAST_WORDS_SECONDS = 5.0
_WHOLE = kernel.MS_REC | kernel.MS_PRIVATE


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is run: descriptors of EROFS files, and the limits that a contract would set.

    arguments: in place of the image's own, as a contract's. environment: over the image's. log, results: descriptors, for what
    the program prints and for the tar of what would leave.
    """

    image: int
    settings: ImageSettings
    datasets: dict[str, int]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    memory: int
    wall_seconds: float
    out_bytes: int
    log: int
    results: int


@dataclass(frozen=True, kw_only=True)
class DryRunResult:
    """How a dry run ended, as a receipt would say. `memory` is the most that the program held, where the machine counts it.

    leaves: whether outputs would leave a room. limited: whether this machine kept the program to its memory.
    """

    outcome: Outcome
    exit_status: int
    details: tuple[str, ...]
    reason: str
    milliseconds: int
    memory: int | None
    leaves: bool
    limited: bool

    @property
    def failed(self) -> bool:
        """Whether a run in a room would not end as "exited, 0"."""
        return (self.outcome, self.exit_status) != (Outcome.EXITED, 0)


def run(trial: Trial) -> DryRunResult:
    """Run `trial` to its end. Raises `Unavailable` where this machine cannot; an interrupt ends the program first."""
    machine.require()
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-try-") as base,
        machine.group(trial.memory) as group,
    ):
        report, channel = os.pipe()
        stage = os.fork()
        if stage == 0:
            os.close(report)
            _stage(trial, base, group, channel)
        os.close(channel)
        try:
            data = b"".join(iter(lambda: os.read(report, _READ), b""))
        finally:
            os.close(report)
            with contextlib.suppress(ProcessLookupError):
                os.kill(stage, signal.SIGTERM)  # of no effect where it has ended
            os.waitpid(stage, 0)
        return _parse(data, limited=bool(group.places), memory=group.peak())


def _parse(data: bytes, *, limited: bool, memory: int | None) -> DryRunResult:
    if not data:
        raise Unavailable("the dry run ended without a word", code="dry-run", hint="look at the kernel's log")
    top = fields.Fields(canonical.loads(data, what="dry run", max_bytes=_MAX_REPORT), "dry run")
    if "failed" in top.names():
        raise Unavailable(
            f"making a room's conditions on this machine: {top.text('failed', max_length=1000)}",
            code="dry-run",
            hint="it takes Linux 5.19 or later with erofs, overlayfs, loop devices and user namespaces",
        )
    outcome = top.text("outcome", max_length=32)
    details = tuple(str(detail) for detail in top.items("details", max_items=100))
    if outcome not in set(Outcome) or not DETAILS.keys() >= set(details):
        raise Malformed("dry run: an outcome that is none of a receipt's", hint="please report it")
    result = DryRunResult(
        outcome=Outcome(outcome),
        exit_status=top.integer("exit_status", low=0, high=255),
        details=details,
        reason=" ".join(top.texts("reason", max_items=1)),
        milliseconds=top.integer("milliseconds", low=0, high=1 << 40),
        memory=memory,
        leaves=top.boolean("leaves"),
        limited=limited,
    )
    top.done()
    return result


def _stage(trial: Trial, base: str, group: Group, channel: int) -> NoReturn:
    """The child: says in one document what came of it, and ends."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, _interrupted)
        signal.signal(signal.SIGINT, _interrupted)
        kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.write(channel, canonical.dumps(_perform(trial, base, group)))
        status = 0
    except KeyboardInterrupt:
        status = 130
    except StrongroomError as cause:
        os.write(channel, canonical.dumps({"failed": cause.message[:1000]}))
    except OSError as cause:
        os.write(
            channel, canonical.dumps({"failed": f"{cause.strerror} {cause.filename or ''}".strip()[:1000]})
        )
    finally:
        os._exit(status)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # once is enough: a second signal must not interrupt the end
    raise KeyboardInterrupt


def _perform(trial: Trial, base: str, group: Group) -> dict[str, object]:
    launch = _mounted(trial, base, group)
    guard = launcher.spawn()
    # In a room this descriptor tells of failed reads. Here it tells of signals: without it, a signal that comes just before
    # the agent's code begins to wait, or that the thread below gets, would be noticed only when the wait is over.
    notified, alarm = os.pipe()
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(alarm)
    group.admit(guard.pid)
    shown = threading.Thread(target=_copy, args=(guard.output, trial.log), daemon=True)
    shown.start()
    ended = program.run(
        replace(guard, output=_nothing()),
        launch,
        waiter=Poll(),
        reads=reads.ReadWatch(notified),
        limit=trial.wall_seconds,
        log_bytes=_REASON_BYTES,
        on_start=lambda: None,
    )
    shown.join(_LAST_WORDS_SECONDS)
    ended, listings = finish.leaving(
        ended,
        [(launch.out, trial.out_bytes)],
        sizes=OutputSizes.EXACT,
        log_bytes=0,
        memory=lambda: trial.memory,
    )
    for listing in listings:
        with os.fdopen(os.dup(trial.results), "wb") as target:
            target.writelines(outputs.tar_and_padding(listing, bytes(tar.SALT_BYTES), 0))
    reason = ended.log.decode("utf-8", "replace").removeprefix("[strongroom: ").removesuffix("]\n")[:1000]
    return {
        "outcome": ended.outcome.value,
        "exit_status": ended.exit_status,
        "details": sorted(set(ended.details)),
        "reason": [reason] if reason else [],
        "milliseconds": int((ended.ended - ended.started) * 1000),
        "leaves": bool(listings),
    }


def _mounted(trial: Trial, base: str, group: Group) -> ContainerLaunch:
    """Everything mounted below `base`, in a mount namespace that only this process and its children see."""
    os.umask(0o022)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "", _WHOLE)
    kernel.mount("tmpfs", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=0700")
    places = {name: f"{base}/data-{index}" for index, name in enumerate(trial.datasets)}
    for place in (f"{base}/image", f"{base}/scratch", *places.values()):
        Path(place).mkdir(mode=0o755)
    machine.mount(trial.image, f"{base}/image")
    for name, disk in trial.datasets.items():
        machine.mount(disk, places[name])
    out = f"{base}/out"
    settings = trial.settings
    init.mount_memory(out, min(trial.out_bytes + _OUT_SLACK, trial.memory // 3), "0755")
    os.chown(out, owners.kernel_id(settings.uid), owners.kernel_id(settings.gid))
    return container.ContainerLaunch(
        arguments=(*settings.entrypoint, *trial.arguments),
        environment={**settings.environment, **trial.environment},
        working_directory=settings.working_directory,
        uid=settings.uid,
        gid=settings.gid,
        groups=settings.groups,
        image=f"{base}/image",
        datasets=places,
        out=out,
        tls="",
        scratch=f"{base}/scratch",
        root_bytes=trial.memory // 4,
        tmp_bytes=trial.memory // 2,
        cgroup=group.folder,
    )


def _nothing() -> int:
    """A pipe's end at which nothing comes: the program's words go to the terminal, not through the agent's code."""
    end, other = os.pipe()
    os.close(other)
    return end


def _copy(source: int, target: int) -> None:
    """Everything that the program prints, as it comes. A terminal that is gone holds nothing up."""
    while data := os.read(source, _READ):
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(target, data) :]
