"""Two owners, each with a broker of their own: alice gives a table, bob an encrypted program.

The operator has a node and a base. Every step is the command line's, in processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom_testing import ports
from tests.e2e import real_rooms
from tests.e2e.real_rooms import COMMAND, PASSPHRASE, Ran, strongroom

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.model import identity

OWNERS = ("alice", "bob")
TABLE = "radius,texture\n17.99,10.38\n20.57,17.77\n"


@dataclass(kw_only=True)
class World:
    """Everything that stays the same from run to run, in `root`."""

    root: Path
    number: int = 0
    brokers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        return self.root / name

    def identity(self, name: str) -> identity.Identity:
        return real_rooms.World(root=self.root).identity(name)

    def serve(self, owner: str) -> None:
        """Start the broker of `owner` and wait until it is ready."""
        process = subprocess.Popen(
            [*COMMAND, "broker", "serve", str(self.path(f"{owner}.broker"))],
            env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.brokers[owner] = process
        assert process.stdout is not None
        assert process.stdout.readline()

    def stop(self, owner: str) -> None:
        """Stop it."""
        process = self.brokers.pop(owner)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()

    def add_key(self, owner: str, disk: str) -> None:
        """Tell the broker of `owner` the key of that disk."""
        strongroom(
            "broker", "add-key", self.path(f"{owner}.broker"), self.path(f"{disk}.manifest.json"),
            self.path(f"{disk}.key.age"), "-i", self.path(f"{owner}.identity"),
        )  # fmt: skip

    def contract(self, program: str, *options: object) -> Path:
        """A contract over alice's table and that program of bob's, signed by both."""
        self.number += 1
        made = self.path(f"contract-{self.number}.json")
        strongroom(
            "contract", "new", f"two-{self.number}", "--out", made,
            "--party", f"data-owner={self.path('alice.party.json')}",
            "--party", f"program-owner={self.path('bob.party.json')}",
            "--image", self.path(f"{program}.manifest.json"), "--base", self.path("base"),
            "--node", self.path("node.json"), "--dataset", f"table={self.path('table.manifest.json')}",
            "--output", "/out=bob", "--simulated", "--without-memory-guard", *options,
        )  # fmt: skip
        for name in OWNERS:
            strongroom("contract", "sign", made, "-i", self.path(f"{name}.identity"), "--yes")
        return made

    def run(self, contract: Path, program: str) -> Ran:
        """One room."""
        folder = self.path(f"run-{contract.stem}")
        done = strongroom(
            "run", contract, "--node", self.path("node"), "--base", self.path("base"),
            "--disk", self.path(f"{program}.disk"), "--disk", self.path("table.disk"), "--out", folder,
            "--no-memory-guard", "--start-anyway", check=False, timeout=900,
        )  # fmt: skip
        return Ran(code=done.returncode, text=done.stdout + done.stderr, folder=folder)


@contextlib.contextmanager
def world(root: Path, *, programs: dict[str, tuple[object, ...]]) -> Iterator[World]:
    """programs: what `strongroom convert` is given for each of bob's programs; all are encrypted."""
    made = World(root=root)
    for name in OWNERS:
        strongroom("identity", "new", name, "--out", root)
        strongroom(
            "broker", "init", made.path(f"{name}.broker"), "-i", made.path(f"{name}.identity"),
            "--listen", f"127.0.0.1:{ports.free()}",
        )  # fmt: skip
    made.path("data").mkdir()
    made.path("data/table.csv").write_text(TABLE)
    strongroom("seal", made.path("data"), "-i", made.path("alice.identity"), "--name", "table", "--out", root)
    made.add_key("alice", "table")
    for program, source in programs.items():
        strongroom(
            "convert", *source, "-i", made.path("bob.identity"), "--name", program, "--out", root, "--encrypt"
        )
        made.add_key("bob", program)
    node = strongroom("node", "init", made.path("node"), "--name", "test", "--json")
    made.path("node.json").write_text(node.stdout)
    strongroom("base", "build", "--out", made.path("base"))
    for name in OWNERS:
        made.serve(name)
    try:
        yield made
    finally:
        for name in tuple(made.brokers):
            made.stop(name)


def busybox(root: Path) -> tuple[object, ...]:
    """What to convert for a shell."""
    root.mkdir(exist_ok=True)
    real_rooms._image(root / "shell")
    settings = {"Entrypoint": ["/bin/sh"], "User": "1000:1000", "WorkingDir": "/", "Env": ["PATH=/bin"]}
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": settings,
    }
    (root / "shell.json").write_text(json.dumps(document))
    return (root / "shell", "--config", root / "shell.json")


def everything(folder: Path) -> bytes:
    """All bytes of all files below."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def remove(root: Path) -> None:
    """Remove the world."""
    shutil.rmtree(root, ignore_errors=True)
