"""The runs below a folder, by the status that each keeps in its own (`run_status`). Read only; nothing in them is believed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound
from strongroom.model.contracts import agreement, contract
from strongroom.model.identifiers import ContractDigest, ContractId, RoomName, RunId
from strongroom.model.room import run_files
from strongroom.node.run_status import ENDED, FORMAT, MAX_BYTES, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract

OLD_FORMAT = "strongroom-run/1"  # of versions that replaced the status only once a run had ended
# A status of them that still says "running" is of a process that was killed.
_OLD_STATES = {
    "finished": State.DONE,
    "running": State.KILLED,
    "failed": State.FAILED,
    "interrupted": State.INTERRUPTED,
}
MAX_FOLDERS = 10_000  # that are looked into
MAX_DEPTH = 4  # of folders below the one that was named
MAX_HELD = 1000  # files
ATTEMPT = "attempt-"  # a folder with that and a number, in a run's own: an earlier attempt, which failed


def good(outcome: str, exit_status: int | None) -> bool:
    """Whether a program whose receipt says that outcome and exit status did its work: it left with 0."""
    return (outcome, exit_status) == ("exited", 0)


@dataclass(frozen=True, kw_only=True)
class NodeRun:
    """A run as its folder tells it. contract_id, room: empty where it is not stated. phase: how far the room came, for people.

    times: by state, in their order. milliseconds: from the start to when the status was last written. run_id, outcome, exit_status: of the receipt;
    empty and None without one. error: code and message of a run that failed, else empty.

    held: files that the folder has no room for, while the run goes on. renewed: when a service attested again last, in UTC; renewals: how often.
    """

    folder: Path
    contract_digest: ContractDigest
    contract_id: ContractId
    room: RoomName
    state: State
    phase: str
    times: dict[str, str]
    milliseconds: int
    run_id: RunId
    outcome: str
    exit_status: int | None
    error: str
    held: tuple[str, ...] = ()
    renewed: str = ""
    renewals: int = 0

    @property
    def good(self) -> bool:
        """Whether the program did its work: it left with 0."""
        return self.state is State.DONE and good(self.outcome, self.exit_status)

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "folder": str(self.folder),
            "contract": self.contract_digest,
            "id": self.contract_id,
            "room": self.room,
            "state": self.state.value,
            "phase": self.phase,
            "times": self.times,
            "milliseconds": self.milliseconds,
            "run": self.run_id,
            "outcome": self.outcome,
            "exit_status": self.exit_status,
            "error": self.error,
            "held": list(self.held),
            "renewed": self.renewed,
            "renewals": self.renewals,
        }


def find(folder: Path) -> tuple[NodeRun, ...]:
    """The runs in `folder` and below it, the earliest first. Folders that are no runs, or damaged ones, are passed over.

    Raises `NotFound` where there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(
            f"{folder}: no such folder",
            code="no-such-file",
            hint="name the --out folder of a run, or a folder that has such below it",
        )
    runs = []
    for run_folder in _folders(folder):
        with contextlib.suppress(Malformed, OSError):
            runs.append(read(run_folder))
    return tuple(sorted(runs, key=lambda run: (min(run.times.values(), default=""), run.folder)))


def _folders(top: Path) -> Iterator[Path]:
    waiting, visited = [(top, 0)], 0
    while waiting and visited < MAX_FOLDERS:
        folder, depth = waiting.pop()
        visited += 1
        is_run = (folder / run_files.STATUS).is_file()
        if is_run:
            yield folder
        if depth < MAX_DEPTH:
            with contextlib.suppress(OSError):
                waiting += [
                    (folder / entry.name, depth + 1)
                    for entry in os.scandir(folder)
                    if entry.is_dir(follow_symlinks=False)
                    and (not is_run or entry.name.startswith(ATTEMPT))  # of its other folders none is a run
                ]


def read(folder: Path) -> NodeRun:
    """The run of that folder. Raises `Malformed`, or `OSError` where there is none."""
    # Asked first: a run that ends meanwhile has then written how.
    alive = _alive(folder)
    data = _plain(folder / run_files.STATUS, MAX_BYTES + 1)
    top = fields.Fields(canonical.loads(data, what="run status", max_bytes=MAX_BYTES), "run status")
    form = _text(top, "format")
    if form not in {FORMAT, OLD_FORMAT}:
        raise Malformed(
            "run status: of another format",
            code="wrong-format",
            hint="another version of Strongroom wrote it: look with that version",
        )
    stated = _text(top, "state")
    states = {known.value: known for known in State} if form == FORMAT else _OLD_STATES
    if stated not in states:
        raise Malformed(
            "run status.state: not known to this version",
            hint="another version of Strongroom wrote it: look with that version",
        )
    state = states[stated]
    if state not in ENDED and not alive:
        state = State.KILLED
    times = top.text_map("times", max_items=16) if "times" in top.names() else {}
    renewal = top.object("renewed") if "renewed" in top.names() else None
    return NodeRun(
        folder=folder,
        contract_digest=ContractDigest(_text(top, "contract")),
        contract_id=ContractId(_text(top, "id")),
        room=RoomName(_text(top, "room")),
        state=state,
        phase=_text(top, "phase"),
        times={known.value: times[known.value] for known in State if known.value in times},
        milliseconds=_number(top, "total_milliseconds") or 0,
        run_id=RunId(_text(top, "run")),
        outcome=_text(top, "outcome"),
        exit_status=_number(top, "exit_status"),
        error=_error(top),
        held=_held(top) if state not in ENDED else (),
        renewed="" if renewal is None else _text(renewal, "last"),
        renewals=0 if renewal is None else _number(renewal, "count") or 0,
    )


def _plain(path: Path, most: int) -> bytes:
    """So many bytes of a plain file. Raises `OSError` for all else: a link leads elsewhere, a fifo waits for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as source:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        return source.read(most)


def _alive(folder: Path) -> bool:
    """Whether somebody holds the folder's lock, as long as its room runs."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return True  # no locks here: nobody can tell, and a run that looks dead might be alive
    finally:
        os.close(fd)
    return False


def _text(top: fields.Fields, key: str) -> str:
    return top.text_map_of((key,), max_length=4096)[key] if key in top.names() else ""


def _number(top: fields.Fields, key: str) -> int | None:
    return top.integer(key, low=0, high=1 << 50) if key in top.names() else None


def _error(top: fields.Fields) -> str:
    if "error" not in top.names():
        return ""
    error: dict[str, Any] = top.raw_object("error")
    return f"{error.get('code', 'error')}: {error.get('message', '')}"[:400]


def _held(top: fields.Fields) -> tuple[str, ...]:
    if "held" not in top.names():
        return ()
    return top.object("held").texts("files", max_items=MAX_HELD)


def reading_the_log(folder: Path) -> tuple[str, ...]:
    """How to read the log of a run's program: the command for each party that may read it; or why nobody can."""
    agreed = _contract(folder)
    if agreed is None:
        return ()
    name = read(folder).room
    logs = next((room.logs for room in agreed.rooms if room.name == name), None)
    if logs is None:
        return ("nobody reads the log: the contract names none who may (`contract new --logs PARTY`)",)
    if not (folder / run_files.LOG).is_file():
        return ("no log left the room",)
    log, out = shlex.quote(str(folder / run_files.LOG)), shlex.quote(str(folder / "log"))
    return tuple(
        f"{party} reads the log: strongroom open {log} --identity {party}.identity --out {out}"
        for party in logs.recipients
    )


def _contract(folder: Path) -> Contract | None:
    try:
        return agreement.read(_plain(folder / run_files.AGREEMENT, 4 * contract.MAX_BYTES + 1)).contract
    except (OSError, Malformed):
        return None
