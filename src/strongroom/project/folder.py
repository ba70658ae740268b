"""`.strongroom/` beside a Compose file: all that one owner has for its rooms, on one machine. Whoever reads it has the owner's keys.

::

    passphrase        of identity and broker, made at random; mode 0600, as the folder is 0700
    owner.identity, owner.party.json, broker/, node/, bases/KEY/
    images/KEY/NAME.disk …, datasets/KEY/NAME.disk …      KEY: of what they were made of
    contracts/N.json  each version, signed
    plan.json         what the supervisor keeps up (`plan`)
    status.json       what it does (`status`)
    lock              held by the supervisor while it runs
    sockets/          where rooms reach each other's tunnels
    runs/ROOM/N/      a folder for each start of a room
    logs/             what the broker, each room's node and the supervisor say
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import canonical
from strongroom.errors import Conflict, Malformed, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWNER = "owner"
FOLDER = ".strongroom"
MAX_DOCUMENT = 1 << 20
_MAX_PASSPHRASE = 4096


@dataclass(frozen=True, kw_only=True)
class StateFolder:
    """The folder by its path, with the names of what lies in it."""

    path: Path

    @property
    def identity(self) -> Path:
        """The owner's identity."""
        return self.path / f"{OWNER}.identity"

    @property
    def party(self) -> Path:
        """The owner's party file, which is handed around."""
        return self.path / f"{OWNER}.party.json"

    @property
    def passphrase_file(self) -> Path:
        """Where the passphrase is."""
        return self.path / "passphrase"

    @property
    def broker(self) -> Path:
        """The broker's folder."""
        return self.path / "broker"

    @property
    def node(self) -> Path:
        """The node's folder."""
        return self.path / "node"

    @property
    def plan(self) -> Path:
        """What the supervisor keeps up."""
        return self.path / "plan.json"

    @property
    def status(self) -> Path:
        """What the supervisor does."""
        return self.path / "status.json"

    @property
    def contracts(self) -> Path:
        """The folder of the contract's versions."""
        return self.path / "contracts"

    def log(self, name: str) -> Path:
        """The log of the broker, a room's node or the supervisor. A room's name has no dot before it, theirs have."""
        return self.path / "logs" / f"{name}.log"

    def runs(self, room: str) -> Path:
        """The folder of a room's runs."""
        return self.path / "runs" / room

    def passphrase(self) -> bytes:
        """The passphrase of identity and broker."""
        return files.parsed(self.passphrase_file, lambda data: data.rstrip(b"\n"), max_bytes=_MAX_PASSPHRASE)

    def make(self, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Make the folder with its passphrase, where they are not there."""
        for folder in (self.path, self.path / "logs", self.path / "sockets", self.contracts):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        if not self.passphrase_file.exists():
            files.write(self.passphrase_file, random(32).hex().encode() + b"\n", private=True)

    def contract_files(self) -> list[Path]:
        """The versions of the contract, lowest first."""
        numbered = [path for path in self.contracts.glob("*.json") if path.stem.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.stem))

    @contextlib.contextmanager
    def supervised(self) -> Iterator[None]:
        """Within, this process is the supervisor. Raises `Conflict` where another is."""
        with self._locked("lock", wait=False):
            yield

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Within, nobody else changes what is planned. Others wait."""
        with self._locked("change.lock", wait=True):
            yield

    def is_supervised(self) -> bool:
        """Whether a supervisor runs."""
        try:
            with self._locked("lock", wait=False):
                return False
        except Conflict:
            return True
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[None]:
        fd = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise Conflict(
                    f"{self.path}: its rooms are kept up by another process",
                    code="supervised",
                    hint="`strongroom ps` shows them, `strongroom down` stops them",
                ) from None
            yield
        finally:
            os.close(fd)


def beside(compose: Path) -> StateFolder:
    """The folder of a Compose file."""
    return StateFolder(path=compose.resolve().parent / FOLDER)


def existing(compose: Path) -> StateFolder:
    """The same. Raises `NotFound` where nothing was ever brought up."""
    folder = beside(compose)
    if not folder.plan.is_file():
        raise NotFound(
            f"{compose}: nothing of it was ever brought up here",
            code="not-up",
            hint="`strongroom up` brings it up; name the Compose file if it lies elsewhere",
        )
    return folder


def write_document(path: Path, value: dict[str, object]) -> None:
    """Replace a document of ours, whole; not durably, since it is written anew."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(canonical.dumps(value) + b"\n")
    part.replace(path)


def read_document(path: Path, *, what: str) -> dict[str, object]:
    """Read one. Raises `Malformed`, `OSError`."""

    def parse(data: bytes) -> dict[str, object]:
        value = canonical.loads(data, what=what, max_bytes=MAX_DOCUMENT)
        if not isinstance(value, dict):
            raise Malformed(f"{what}: expected an object")
        return value

    return files.parsed(path, parse, max_bytes=MAX_DOCUMENT)
