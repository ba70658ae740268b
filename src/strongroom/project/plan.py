"""What a supervisor keeps up, and what it says of it: two documents in the folder, each replaced whole.

::

    {"format": "strongroom-plan/1", "down": bool, "broker": "HOST:PORT",
     "rooms": [{"name", "contract": path, "digest", "base": path, "disks": [path], "job": bool, "restart", "memory_guard": bool,
                "depends_on": {name: what is waited for}, "published", "tunnels", "peers": {name: address}, "identity": digest, "generation"}]}

    {"format": "strongroom-status/1", "supervisor": pid, "broker": {"state", "pid", "starts"},
     "rooms": [{"name", "state", "pid", "starts", "generation", "run": path, "error"}]}

Who wants something changed writes the plan; the supervisor sees it and does it. So nobody sends signals to a process that may be
another by now, and what was asked for is there after any crash. Paths begin in the folder. `identity` is of all that a room is:
where that or `generation` changes, it is started anew, and every other room goes on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.model.contracts.room_terms import Restart
from strongroom.model.identifiers import ContractDigest, RoomName
from strongroom.project import folder as folders
from strongroom.project.model import Wait

if TYPE_CHECKING:
    from strongroom.project.folder import StateFolder

PLAN, STATUS = "strongroom-plan/1", "strongroom-status/1"
UNIX = "unix:"  # before the path of a socket, in addresses
_MOST_ROOMS = 64


class ChildState(enum.StrEnum):
    """How a child of the supervisor is."""

    WAITING = "waiting"  # for others that have to be there first
    STARTING = "starting"
    RUNNING = "running"  # a room's program runs; the broker serves
    DONE = "done"  # a job's program left with 0
    FAILED = "failed"  # it ended, and is not started again
    PAUSING = "pausing"  # it ended, and is started again after a pause
    STOPPED = "stopped"


ENDED = frozenset((ChildState.DONE, ChildState.FAILED, ChildState.STOPPED))


@dataclass(frozen=True, kw_only=True)
class PlannedRoom:
    """A room that is kept up. contract, base, disks: paths, which begin in the folder. published: where its open ports are, by the port's name;
    tunnels: where tunnels to its ports are; peers: where those of others are, by ROOM:PORT; a Unix socket's path begins in the folder. room_identity: a digest of all that it is.
    """

    name: RoomName
    contract: Path
    contract_digest: ContractDigest
    base: Path
    disks: tuple[Path, ...]
    is_job: bool
    restart: Restart
    memory_guard: bool
    depends_on: dict[str, Wait]
    published: dict[str, str]
    tunnels: dict[str, str]
    peers: dict[str, str]
    room_identity: str
    generation: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is kept up. down: nothing, any more. broker: HOST:PORT of it."""

    broker: str
    rooms: tuple[PlannedRoom, ...]
    down: bool = False

    def room(self, name: str) -> PlannedRoom | None:
        """The room of that name."""
        return next((room for room in self.rooms if room.name == name), None)


@dataclass(frozen=True, kw_only=True)
class ChildStatus:
    """How one child is. run: the folder of its last run; None of the broker, and before the first. starts: so far, this one counted."""

    name: str
    state: ChildState
    pid: int = 0
    starts: int = 0
    generation: int = 0
    run: Path | None = None
    error: str = ""

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "starts": self.starts,
            "generation": self.generation,
            "run": "" if self.run is None else str(self.run),
            "error": self.error,
        }


@dataclass(frozen=True, kw_only=True)
class SupervisorStatus:
    """What the supervisor says."""

    pid: int
    broker: ChildStatus
    rooms: tuple[ChildStatus, ...]

    def room(self, name: str) -> ChildStatus | None:
        """The room of that name."""
        return next((room for room in self.rooms if room.name == name), None)


def write_plan(folder: StateFolder, plan: Plan) -> None:
    """Replace the plan."""
    rooms = [
        {
            "name": room.name,
            "contract": str(room.contract),
            "digest": room.contract_digest,
            "base": str(room.base),
            "disks": [str(disk) for disk in room.disks],
            "job": room.is_job,
            "restart": room.restart.value,
            "memory_guard": room.memory_guard,
            "depends_on": {name: wait.value for name, wait in room.depends_on.items()},
            "published": dict(room.published),
            "tunnels": dict(room.tunnels),
            "peers": dict(room.peers),
            "identity": room.room_identity,
            "generation": room.generation,
        }
        for room in plan.rooms
    ]
    folders.write_document(
        folder.plan, {"format": PLAN, "down": plan.down, "broker": plan.broker, "rooms": rooms}
    )


def read_plan(folder: StateFolder) -> Plan:
    """Read the plan. Raises `Malformed`, `OSError` where there is none."""
    top = fields.Fields(folders.read_document(folder.plan, what="plan.json"), "plan.json")
    top.constant("format", PLAN)
    plan = Plan(
        down=top.boolean("down"),
        broker=top.text("broker", max_length=300),
        rooms=tuple(_room(item) for item in top.objects("rooms", max_items=_MOST_ROOMS)),
    )
    top.done()
    return plan


def _room(source: fields.Fields) -> PlannedRoom:
    room = PlannedRoom(
        name=RoomName(source.name("name")),
        contract=Path(source.text("contract", max_length=4096)),
        contract_digest=ContractDigest(source.digest("digest")),
        base=Path(source.text("base", max_length=4096)),
        disks=tuple(Path(path) for path in source.texts("disks", max_items=100, max_length=4096)),
        is_job=source.boolean("job"),
        restart=Restart(source.choice("restart", Restart)),
        memory_guard=source.boolean("memory_guard"),
        depends_on={
            name: Wait(wait) for name, wait in source.text_map("depends_on", max_items=_MOST_ROOMS).items()
        },
        published=source.text_map("published", max_items=64),
        tunnels=source.text_map("tunnels", max_items=64),
        peers=source.text_map("peers", max_items=64),
        room_identity=source.digest("identity"),
        generation=source.integer("generation", low=1, high=1 << 40),
    )
    source.done()
    return room


def write_status(folder: StateFolder, status: SupervisorStatus) -> None:
    """Replace the status."""
    folders.write_document(
        folder.status,
        {
            "format": STATUS,
            "supervisor": status.pid,
            "broker": status.broker.to_json(),
            "rooms": [room.to_json() for room in status.rooms],
        },
    )


def read_status(folder: StateFolder) -> SupervisorStatus | None:
    """What the supervisor said last; None where there is nothing yet. Raises `Malformed`."""
    try:
        top = fields.Fields(folders.read_document(folder.status, what="status.json"), "status.json")
    except FileNotFoundError:
        return None
    top.constant("format", STATUS)
    status = SupervisorStatus(
        pid=top.integer("supervisor", low=0, high=1 << 31),
        broker=_child(top.object("broker")),
        rooms=tuple(_child(item) for item in top.objects("rooms", max_items=_MOST_ROOMS)),
    )
    top.done()
    return status


def _child(source: fields.Fields) -> ChildStatus:
    run = source.text_map_of(("run", "error"), max_length=4096)
    child = ChildStatus(
        name=source.name("name"),
        state=ChildState(source.choice("state", ChildState)),
        pid=source.integer("pid", low=0, high=1 << 31),
        starts=source.integer("starts", low=0, high=1 << 40),
        generation=source.integer("generation", low=0, high=1 << 40),
        run=Path(run["run"]) if run["run"] else None,
        error=run["error"],
    )
    source.done()
    return child
