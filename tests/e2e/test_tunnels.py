"""Two real rooms under one contract, a tunnel between them, and somebody outside who verifies the first and reaches the second through it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

import strongroom
from strongroom.errors import PolicyDenied, Unavailable
from strongroom.model.contracts.network_terms import Peer, Port
from strongroom_testing import ports
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, PASSPHRASE
from tests.unit.images import kit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.room,
    pytest.mark.root,  # for the memory guard
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
APPLETS = ("sh", "httpd", "mkdir", "sleep", "wget", "echo", "cat", "nc")
DB = "mkdir /tmp/www; echo rows of the database >/tmp/www/index.html; httpd -p 8080 -h /tmp/www; sleep 300"
WEB = "mkdir /tmp/www; until wget -O /tmp/www/db http://db:8080/; do sleep 1; done; httpd -p 80 -h /tmp/www; sleep 300"
PATIENCE = 240.0


def image(place: Path) -> None:
    """busybox as an OCI layout."""
    parts = kit.folder(b"bin/") + kit.entry(b"bin/busybox", real_rooms.BUSYBOX.read_bytes(), mode=0o755)
    for name in APPLETS:
        parts += kit.symlink(b"bin/" + name.encode(), b"busybox")
    kit.simple(place, parts, config={"Entrypoint": ["/bin/sh"], "Env": ["PATH=/bin"]})


class House:
    """alice owns both rooms' image and has a broker; the operator has a node and a base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: list[subprocess.Popen[str]] = []
        image(root / "box")
        real_rooms.strongroom("identity", "new", "alice", "--out", root)
        real_rooms.strongroom(
            "broker",
            "init",
            root / "broker",
            "-i",
            root / "alice.identity",
            "--listen",
            f"127.0.0.1:{ports.free()}",
        )
        real_rooms.strongroom(
            "convert",
            root / "box",
            "-i",
            root / "alice.identity",
            "--name",
            "box",
            "--out",
            root,
            "--encrypt",
        )
        real_rooms.strongroom(
            "broker", "add-key", root / "broker", root / "box.manifest.json", root / "box.key.age",
            "-i", root / "alice.identity",
        )  # fmt: skip
        node = real_rooms.strongroom("node", "init", root / "node", "--name", "test", "--json")
        (root / "node.json").write_text(node.stdout)
        real_rooms.strongroom("base", "build", "--out", root / "base")
        self.start("", "broker", "serve", root / "broker").stdout.readline()

    def start(self, log: str, *words: object) -> subprocess.Popen[str]:
        """A command that goes on. log: where it writes; empty for a pipe."""
        with (self.root / f"{log or 'none'}.log").open("w") as file:
            process = subprocess.Popen(
                [*COMMAND, *map(str, words)],
                env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
                stdin=subprocess.DEVNULL,
                stdout=file if log else subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self.children.append(process)
        return process

    def contract(self, name: str = "shop") -> Path:
        """Of two rooms: web reaches the port `rows` of db, and has the port `http`."""
        party = strongroom.load_party(self.root / "alice.party.json")
        disk = self.root / "box.manifest.json"
        draft = strongroom.Draft(
            id=name,
            members=(strongroom.Member(party=party, role=strongroom.Role.PROGRAM_OWNER),),
            rooms=(
                strongroom.RoomDraft(
                    name="db", image=disk, arguments=("-c", DB), logs=("alice",), memory_mib=384,
                    ports=(Port(name="rows", number=8080, open=False),),
                ),
                strongroom.RoomDraft(
                    name="web", image=disk, arguments=("-c", WEB), logs=("alice",), memory_mib=384,
                    ports=(Port(name="http", number=80, open=False),),
                    peers=(Peer(room="db", port="rows", wait=True),),
                ),
            ),
            platforms=(
                strongroom.local_platform(
                    nodes=[strongroom.load_node(self.root / "node.json")], bases=[self.root / "base"],
                    simulated=True, memory_guard=False,
                ),
            ),
            runs=5,
        )  # fmt: skip
        out = self.root / f"{name}.json"
        agreement = strongroom.draft_contract(draft, now=datetime.now(UTC))
        agreement = strongroom.sign_contract(
            agreement,
            identity=strongroom.open_identity(self.root / "alice.identity", passphrase=PASSPHRASE.encode()),
            own=party,
        )
        strongroom.save_agreement(agreement, out=out)
        return out

    def room(self, contract: Path, name: str, *options: object) -> subprocess.Popen[str]:
        """One room, which runs on."""
        return self.start(
            f"{contract.stem}-{name}", "run", contract, "--room", name, "--node", self.root / "node",
            "--base", self.root / "base", "--disk", self.root / "box.disk",
            "--out", self.root / f"run-{contract.stem}-{name}", "--no-memory-guard", *options,
        )  # fmt: skip

    def must_live(self) -> None:
        """Nothing has ended that should go on."""
        assert [process.args for process in self.children if process.poll() is not None] == []

    def close(self) -> None:
        """End everything."""
        for process in self.children:
            process.send_signal(signal.SIGTERM)
        for process in self.children:
            process.wait(60)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    try:
        yield made
    finally:
        made.close()
        for path in tmp_path.glob("*.log"):
            print(path.name, path.read_text())
        shutil.rmtree(tmp_path, ignore_errors=True)


def reached(house, contract, at, **options):
    """The verified room, once it answers."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(Unavailable):
            return strongroom.connect(
                "web:http",
                agreement=strongroom.load_agreement(contract),
                at=at,
                trust=[strongroom.load_party(house.root / "alice.party.json")],
                **options,
            )
        house.must_live()
        assert time.monotonic() < until, "no room answers"
        time.sleep(1)


def fetched(house, address):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/db", timeout=30) as answer:
                return answer.read()
        except OSError:
            house.must_live()
            assert time.monotonic() < until, "the program does not answer"
            time.sleep(1)


def test_two_rooms_speak_through_a_tunnel_and_one_is_verified_from_outside(house, tmp_path):
    contract = house.contract()
    house.room(contract, "db", "--tunnel", f"rows=unix:{tmp_path / 'rows'}")
    house.room(
        contract,
        "web",
        "--tunnel",
        f"http=unix:{tmp_path / 'http'}",
        "--peer",
        f"db:rows=unix:{tmp_path / 'rows'}",
    )
    with reached(house, contract, f"unix:{tmp_path / 'http'}") as room:
        assert room.verification.status == "simulated"
        assert {step.status for step in room.verification.steps} == {"verified", "simulated"}
        assert fetched(house, room.address) == b"rows of the database\n"
    typed = real_rooms.strongroom(
        "connect",
        "web:http",
        "--contract",
        contract,
        "--at",
        f"unix:{tmp_path / 'http'}",
        "--verify",
        "--json",
    )
    assert json.loads(typed.stdout)["verification"]["status"] == "simulated"
    # Whoever is outside does not come to the database, and another contract's owner is not answered as this one.
    other = house.contract("trains")
    with pytest.raises(PolicyDenied) as caught:
        reached(house, other, f"unix:{tmp_path / 'http'}")
    assert caught.value.code == "tunnel-refused"
