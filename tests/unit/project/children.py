"""Children of a supervisor that are no processes, and a folder with a plan for them."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

from strongroom.model.contracts.room_terms import Restart
from strongroom.node import run_status
from strongroom.project import folder as folders
from strongroom.project import plan as plans
from strongroom.project import supervisor
from strongroom.project.plan import Plan, PlannedRoom

DIGEST = "sha256:" + "ab" * 32


class Fake:
    """A child: it ends when a test says so, or when it is signalled, unless it is stubborn."""

    numbers = iter(range(100_000, 200_000))

    def __init__(self, stubborn: bool = False) -> None:
        self.pid, self.code, self.stubborn = next(self.numbers), None, stubborn
        self.signals: list[int] = []

    def poll(self):
        return self.code

    def send_signal(self, number):
        self.signals.append(number)
        if not self.stubborn or number == signal.SIGKILL:
            self.code = -number


class Commands:
    """Starts fakes, and writes the status of a room's run as the room would."""

    def __init__(self) -> None:
        self.brokers: list[Fake] = []
        self.rooms: dict[str, list[tuple[Fake, Path]]] = {}
        self.ready = True
        self.stubborn = False

    def broker(self, log):
        with log.open("ab") as target:
            target.write(b'{"ready": true}\n' if self.ready else b"starting\n")
        self.brokers.append(Fake())
        return self.brokers[-1]

    def room(self, room, *, out, log):
        with log.open("ab") as target:
            target.write(b"0.1 s  booting\n")
        self.rooms.setdefault(room.name, []).append((Fake(self.stubborn), out))
        return self.rooms[room.name][-1][0]

    def says(self, name, state, **more):
        """The last run of a room says how it is."""
        fake, out = self.rooms[name][-1]
        out.mkdir(exist_ok=True)
        document = {
            "format": run_status.FORMAT,
            "contract": DIGEST,
            "id": "c",
            "room": name,
            "state": state.value,
            **more,
        }
        folders.write_document(out / "status.json", document)
        return fake

    def ends(self, name, code=0, **more):
        """It ended with a receipt."""
        fake = self.says(name, run_status.State.DONE, **{"outcome": "exited", "exit_status": code, **more})
        fake.code = code


def room(name, **changes):
    base = PlannedRoom(
        name=name, contract=Path("contracts/1.json"), contract_digest=DIGEST, base=Path("bases/b"),
        disks=(Path("images/k/web.disk"),), is_job=False, restart=Restart.NEVER, memory_guard=True, depends_on={},
        published={}, tunnels={}, peers={}, room_identity=DIGEST,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


class World:
    def __init__(self, place, monkeypatch) -> None:
        self.folder = folders.StateFolder(path=place / ".strongroom")
        self.folder.make()
        self.commands, self.now = Commands(), 0.0
        # Runs of fakes hold no lock: what they say is what counts.
        monkeypatch.setattr("strongroom.node.runs._alive", lambda _folder: True)

    def plan(self, *rooms, down=False):
        plans.write_plan(self.folder, Plan(broker="https://127.0.0.1:9", rooms=rooms, down=down))

    def begin(self, *rooms):
        self.plan(*rooms)
        self.keeper = supervisor.ProjectSupervisor(self.folder, self.commands, clock=lambda: self.now)
        self.turns(3)

    def turns(self, count=2, seconds=0.2):
        for _ in range(count):
            self.now += seconds
            self.going = self.keeper.turn()

    def state(self, name):
        status = plans.read_status(self.folder).room(name)
        return status.state.value

    def starts(self, name):
        return len(self.commands.rooms.get(name, []))
