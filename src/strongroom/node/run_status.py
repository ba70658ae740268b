"""`status.json` in a run's folder: what the operator sees, while the room runs and after. Nothing of it proves anything.

It is replaced whole at each change of state, so that a reader never sees half of it. Whoever writes it holds the folder's lock
(`held`) for as long as the run goes on: a status whose run goes on, without that lock, is of a process that was killed.

::

    {"format": "strongroom-run/2", "contract": digest, "id": the contract's, "room": name, "state": one of `State`, "phase": the last phase,
     "times": {state: UTC}, "phases": [{"name", "milliseconds", "guest_milliseconds"}], "notes": [text],
     where ports are reached on this machine "listening": {"port" | "tunnel": {name: address}},
     "total_milliseconds", "first_instruction_milliseconds", of a service that has renewed "renewed": {"last": UTC, "count"} and "certificate": what came of its newest one, while the folder lacks room "held": {"files", "bytes", "until": UTC},
     at the end "run", and "outcome", "exit_status", "details", "files" or "error", "lost": [file], "cost": {party: "used", "unused" or "unknown"}}
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.model.identifiers import NO_RUN, RoomName, RunId
from strongroom.model.room import channel, run_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.receipt import Receipt

FORMAT = "strongroom-run/2"
MAX_BYTES = 1024 * 1024
MAX_NOTES, MAX_PHASES = 100, 500
FIRST_INSTRUCTION = "program-started"
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_BLOCK = 512  # of `st_blocks`, whatever the file system's own are
# What a file system without locks answers; EBADF: NFS, of a folder that is open for reading alone.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF))


class State(enum.StrEnum):
    """How far a run is, and how it ended."""

    STARTING = "starting"
    BOOTING = "booting"
    ATTESTING = "attesting"
    RELEASED = "released"  # a broker gave keys: from here on a run is spent
    RUNNING = "running"
    SEALING = "sealing"
    RECORDING = "recording"
    DONE = "done"  # there is a receipt, whatever it says
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KILLED = "killed"  # never written: its writer is gone


ENDED = frozenset((State.DONE, State.FAILED, State.INTERRUPTED, State.KILLED))
_STATES = {
    "booted": State.ATTESTING,
    "contract-bound": State.ATTESTING,
    "attested": State.RELEASED,
    FIRST_INSTRUCTION: State.RUNNING,
    "program-ended": State.SEALING,
    "outputs-sealed": State.RECORDING,
}


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Take the folder's lock, which says that a run goes on there. Raises `BlockingIOError` while somebody else has it.

    A file system without locks gives none: there a run that was killed looks alive, and two runs in one folder are not noticed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as cause:
            if cause.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(fd)


class RunStatus:
    """The status of one run, written as it changes. now: UTC. elapsed: milliseconds since the command was started."""

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        room: RoomName,
        *,
        now: Callable[[], datetime],
        elapsed: Callable[[], int],
    ) -> None:
        self._file = folder / run_files.STATUS
        self._now, self.elapsed = now, elapsed
        self._times: dict[str, str] = {}
        self._phases: list[dict[str, object]] = []
        self.notes: list[str] = []
        self.document: dict[str, Any] = {
            "format": FORMAT,
            "contract": contract.digest,
            "id": contract.id,
            "room": room,
        }
        self._enter(State.STARTING)

    def booting(self) -> None:
        """The machine runs."""
        self._enter(State.BOOTING)

    def listening(self, places: Mapping[str, Mapping[str, str]]) -> None:
        """Where its ports are reached on this machine."""
        self.document["listening"] = {kind: dict(names) for kind, names in places.items() if names}
        self._enter(None)

    def phase(self, name: str, moment: int) -> None:
        """The room says how far it is. moment: by its own clock, in milliseconds."""
        if name.partition(":")[0] == channel.RENEWED:
            count = self.document.get("renewed", {}).get("count", 0)
            self.document["renewed"] = {"last": fields.format_time(self._now()), "count": count + 1}
        elif name.startswith(channel.CERTIFICATE):
            self.document["certificate"] = name
        elif len(self._phases) < MAX_PHASES:
            at = self.elapsed()
            self._phases.append({"name": name, "milliseconds": at, "guest_milliseconds": moment})
            if name == FIRST_INSTRUCTION:
                self.document.setdefault("first_instruction_milliseconds", at)
        self.document["phase"] = name
        self._enter(_STATES.get(name.partition(":")[0]))

    def note(self, line: str) -> None:
        """Add a remark for people."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(line)

    def held(self, names: tuple[str, ...], size: int, seconds: float) -> None:
        """Note files that are in memory alone, and until when they are kept; with no files, all are in the folder."""
        self.document.pop("held", None)
        if names:
            until = fields.format_time(self._now() + timedelta(seconds=round(seconds)))
            self.document["held"] = {"files": list(names), "bytes": size, "until": until}
        self._enter(None)

    def done(self, receipt: Receipt, files: tuple[str, ...]) -> None:
        """The run ended with a receipt."""
        self._end(
            State.DONE,
            run=receipt.run_id,
            outcome=receipt.outcome.value,
            exit_status=receipt.exit_status,
            details=list(receipt.details),
            files=list(files),
        )

    def failed(
        self, error: dict[str, object] | None, *, run_id: RunId = NO_RUN, cost: dict[str, str] | None = None
    ) -> None:
        """The run ended without a receipt. error: what went wrong; None where somebody stopped it.

        run_id: where a broker gave it keys. cost: by party, whether its broker counted a run.
        Files that are in memory alone are lost then.
        """
        held_files = self.document.pop("held", None)
        spent: dict[str, object] = {"cost": cost or {}, **({"run": run_id} if run_id else {})}
        if held_files is not None:
            spent["lost"] = held_files["files"]
        # The failure itself matters more than that it could not be noted.
        with contextlib.suppress(OSError):
            if error is None:
                self._end(State.INTERRUPTED, **spent)
            else:
                self._end(State.FAILED, error=error, **spent)

    @property
    def reached(self) -> str:
        """How far the room was, for people: its last phase; nothing where none was started."""
        boot = "its boot" if State.BOOTING.value in self._times else ""
        return str(self.document.get("phase", boot))

    def _enter(self, state: State | None) -> None:
        if state is not None and state.value not in self._times:
            self._times[state.value] = fields.format_time(self._now())
            self.document["state"] = state.value
        with contextlib.suppress(
            OSError
        ):  # a full disk ends no room: its end is reported, and written if it can be
            self._write(durable=False)

    def _end(self, state: State, **values: object) -> None:
        self._times[state.value] = fields.format_time(self._now())
        self.document.update(values, state=state.value)
        self._write(durable=True)

    def _write(self, *, durable: bool) -> None:
        self.document.update(
            times=self._times, phases=self._phases, notes=self.notes, total_milliseconds=self.elapsed()
        )
        data = canonical.dumps(self.document) + b"\n"
        part = self._file.with_name(f".{self._file.name}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(fd, "wb") as target:
                target.write(data)
                target.flush()
                if durable:
                    os.fsync(target.fileno())
            part.replace(self._file)
        except BaseException as cause:
            part.unlink(missing_ok=True)
            if not (isinstance(cause, OSError) and cause.errno in _FULL and self._over(data)):
                raise

    def _over(self, data: bytes) -> bool:
        """Write over the file in place, where that needs no more room: so a status tells of a full disk on that very disk."""
        fd = os.open(self._file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if len(data) > os.fstat(fd).st_blocks * _BLOCK:
                return False
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
        return True
