"""Real rooms as their users run them: every step is the command line's, in processes of their own.

alice owns a dataset and has a broker; bob owns an image of busybox; the operator has a node and a base.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from strongroom.model import identity, receipt
from strongroom.model.contracts import agreement
from strongroom_testing import ports
from tests import verbs
from tests.verbs import COMMAND, PASSPHRASE

BUSYBOX = Path("/usr/bin/busybox")
APPLETS = (
    "sh",
    "cat",
    "id",
    "ls",
    "sleep",
    "wc",
    "dd",
    "env",
    "kill",
    "sha256sum",
    "echo",
    "date",
    "head",
    "grep",
)
ROWS = 40_000


def missing() -> str:
    """Why no real room can run here; empty when one can."""
    for program in ("qemu-system-x86_64", "swtpm", "busybox"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return ""


def missing_for_images() -> str:
    """Why images of Debian packages cannot be made and run here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("umoci", "apt-get", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return missing()


def strongroom(
    *arguments: object, check: bool = True, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run one command of the command line."""
    done = verbs.run(*arguments, timeout=timeout)
    if check and done.returncode:
        raise AssertionError(f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One `strongroom run`: how it left, and its folder."""

    code: int
    text: str
    folder: Path

    @property
    def status(self) -> dict:
        return json.loads((self.folder / "status.json").read_bytes())

    @property
    def receipt(self) -> receipt.Receipt:
        return receipt.parse_envelope((self.folder / "receipt.json").read_bytes())[1]

    @property
    def phases(self) -> list[str]:
        return [one["name"] for one in self.status["phases"]]

    def output(self, owner: identity.Identity, index: int = 0) -> dict[str, bytes]:
        """The files of a sealed output, opened by `owner`."""
        plain = owner.age.open((self.folder / f"out-{index}.tar.age").read_bytes())
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            return {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]


@dataclass(kw_only=True)
class World:
    """Everything that stays the same from run to run, in `root`."""

    root: Path
    broker: subprocess.Popen[str] | None = None
    number: int = field(default=0)

    def path(self, name: str) -> Path:
        return self.root / name

    def identity(self, name: str) -> identity.Identity:
        return identity.unlock(self.path(f"{name}.identity").read_bytes(), PASSPHRASE.encode())

    def contract(
        self,
        script: str,
        *options: object,
        image: str = "query",
        dataset: str = "flights",
        base: str = "base",
        replaces: Path | None = None,
    ) -> Path:
        """A contract under which `sh -c script` runs, signed by both. replaces: the version before it."""
        self.number += 1
        made = self.path(f"contract-{self.number}.json")
        before = () if replaces is None else ("--replaces", replaces)
        id_ = f"run-{self.number}" if replaces is None else agreement.read(replaces.read_bytes()).contract.id
        strongroom(
            "contract", "new", id_, "--out", made, *before,
            "--party", f"data-owner={self.path('alice.party.json')}",
            "--party", f"program-owner={self.path('bob.party.json')}",
            "--image", self.path(f"{image}.manifest.json"), "--base", self.path(base),
            "--node", self.path("node.json"), "--dataset", f"flights={self.path(f'{dataset}.manifest.json')}",
            "--argument", "-c", "--argument", script, "--simulated", "--without-memory-guard",
            "--memory-mib", 256, *(options if "--output" in options else ("--output", "/out=bob", *options)),
        )  # fmt: skip
        for name in ("alice", "bob"):
            strongroom("contract", "sign", made, "-i", self.path(f"{name}.identity"), "--yes", *before)
        return made

    def run(
        self,
        contract: Path,
        *options: object,
        image: str = "query",
        dataset: str = "flights",
        base: str = "base",
    ) -> Ran:
        """Run it, without the memory guard, which is tested elsewhere.

        The node does not ask first what would be refused: rooms and brokers are to refuse it themselves.
        """
        folder = self.path(f"run-{contract.stem}")
        done = strongroom(
            "run", contract, "--node", self.path("node"), "--base", self.path(base),
            "--disk", self.path(f"{image}.disk"), "--disk", self.path(f"{dataset}.disk"), "--out", folder,
            "--no-memory-guard", "--start-anyway", *options, check=False,
        )  # fmt: skip
        return Ran(code=done.returncode, text=done.stdout + done.stderr, folder=folder)

    def damaged(self, source: str, name: str, place: int) -> None:
        """A copy of a disk with one byte changed, under its old manifest."""
        data = bytearray(self.path(f"{source}.disk").read_bytes())
        data[place] ^= 1
        self.path(f"{name}.disk").write_bytes(data)
        shutil.copy(self.path(f"{source}.manifest.json"), self.path(f"{name}.manifest.json"))

    def close(self) -> None:
        if self.broker is not None:
            self.broker.send_signal(signal.SIGTERM)
            self.broker.wait(60)
            assert self.broker.stdout is not None
            self.broker.stdout.close()


def prepare(root: Path, *, rows: int = ROWS) -> World:
    """Make identities, disks, broker, node and base, and start the broker."""
    world = World(root=root)
    for name in ("alice", "bob"):
        strongroom("identity", "new", name, "--out", root)
    strongroom(
        "broker",
        "init",
        root / "broker",
        "-i",
        root / "alice.identity",
        "--listen",
        f"127.0.0.1:{ports.free()}",
    )
    (root / "data").mkdir()
    (root / "data/table.csv").write_text("".join(f"{row},{row * row % 9973}\n" for row in range(rows)))
    strongroom("seal", root / "data", "-i", root / "alice.identity", "--name", "flights", "--out", root)
    _image(root / "image")
    (root / "config.json").write_text(json.dumps(_config("1000:1000")))
    strongroom(
        "convert", root / "image", "-i", root / "bob.identity", "--name", "query",
        "--config", root / "config.json", "--out", root,
    )  # fmt: skip
    strongroom(
        "broker", "add-key", root / "broker", root / "flights.manifest.json", root / "flights.key.age",
        "-i", root / "alice.identity",
    )  # fmt: skip
    (root / "node.json").write_text(
        strongroom("node", "init", root / "node", "--name", "test", "--json").stdout
    )
    strongroom("base", "build", "--out", root / "base")
    world.broker = subprocess.Popen(
        [*COMMAND, "broker", "serve", str(root / "broker")],
        env={**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert world.broker.stdout is not None
    assert world.broker.stdout.readline()
    return world


def convert_busybox(
    root: Path,
    name: str,
    *,
    user: str,
    files: dict[str, bytes],
    links: dict[str, str] | None = None,
    entrypoint: str = "/bin/sh",
) -> None:
    """One more disk of bob's: his busybox with further programs and links, run as that user."""
    shutil.copytree(root / "image", root / f"{name}.tree", symlinks=True)
    for path, target in (links or {}).items():
        (root / f"{name}.tree" / path).symlink_to(target)
    for path, content in files.items():
        (root / f"{name}.tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.tree" / path).write_bytes(content)
        (root / f"{name}.tree" / path).chmod(0o755)
    (root / f"{name}.config.json").write_text(json.dumps(_config(user, entrypoint)))
    strongroom(
        "convert", root / f"{name}.tree", "-i", root / "bob.identity", "--name", name,
        "--config", root / f"{name}.config.json", "--out", root,
    )  # fmt: skip


def _config(user: str, entrypoint: str = "/bin/sh") -> dict:
    settings = {"Entrypoint": [entrypoint], "User": user, "WorkingDir": "/", "Env": ["PATH=/bin"]}
    return {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
        "config": settings,
    }


def _image(root: Path) -> None:
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nduck:x:1000:1000::/home/duck:/bin/sh\n")
