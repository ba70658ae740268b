"""Statements on disk: one private file each, whole or absent, with a bound on all of them together.

A file that is damaged, cut or not a statement counts as absent: what it held can be fetched again. Nothing here is
believed for being here; who takes a statement from the shelf judges it like one from the network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Unavailable
from strongroom.fetch.endorsements import statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.fetch.endorsements.statement import Statement

MAX_TOTAL = 64 * 1024 * 1024
MAX_FILES = 4096
LOCKS = 256
_POLL_SECONDS = 0.02
_LEFT_OVER_SECONDS = 3600
_ENDING, _PART = ".json", ".part"

_REMOVE = "nothing of ours: remove it, and what belongs there is fetched again"


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Statements in `folder`, which is made when it is first needed."""

    folder: Path
    max_total: int = MAX_TOTAL
    max_files: int = MAX_FILES

    def get(self, key: str) -> Statement | None:
        """The statement, or None when it is not there or damaged."""
        statement = _load(self._path(key))
        return statement if statement is not None and statement.key == key else None

    def put(self, statement: Statement) -> None:
        """Keep a statement in place of an older one; the longest unchanged make room for it."""
        path = self._path(statement.key)
        write(path, statement.encode())
        self._make_room(path)

    def drop(self, key: str) -> None:
        """Forget a statement."""
        self._path(key).unlink(missing_ok=True)

    def everything(self) -> tuple[str, ...]:
        """The keys of all whole statements, sorted."""
        if not self.folder.is_dir():
            return ()
        statements = (_load(path) for path in self.folder.glob(f"*{_ENDING}"))
        return tuple(sorted(statement.key for statement in statements if statement is not None))

    def changed(self, key: str) -> int:
        """A number that changes with each `put`; 0 where there is no such statement."""
        try:
            return self._path(key).stat().st_mtime_ns
        except OSError:
            return 0

    @contextlib.contextmanager
    def alone(self, key: str, *, seconds: float) -> Iterator[None]:
        """Hold the one right to fetch `key`, among all threads and processes. Raises `Unavailable` after `seconds`."""
        name = _name(key)
        with locked(self.folder / f"{int(name[:8], 16) % LOCKS:02x}.lock", seconds=seconds):
            yield

    def _path(self, key: str) -> Path:
        return self.folder / (_name(key) + _ENDING)

    def _make_room(self, fresh: Path) -> None:
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process tidies too
                status = path.lstat()
                if path.suffix == _PART and time.time() - status.st_mtime > _LEFT_OVER_SECONDS:
                    path.unlink()
                elif path.suffix == _ENDING:
                    files.append((status.st_mtime_ns, status.st_size, path))
        files.sort(key=lambda file: file[0])
        total, count = sum(size for _, size, _ in files), len(files)
        for _, size, path in files:
            if total <= self.max_total and count <= self.max_files:
                return
            if path != fresh:
                path.unlink(missing_ok=True)
                total, count = total - size, count - 1


def write(path: Path, data: bytes) -> None:
    """Write a private file durably: it is there whole, or as it was before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PART}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path, *, max_bytes: int) -> bytes | None:
    """The bytes of a plain file, None where there is none. Raises `Malformed` when it is no plain file, or too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise Malformed(f"{path}: {cause.strerror}", hint=_REMOVE) from None
    with os.fdopen(fd, "rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise Malformed(f"{path}: not a plain file", hint=_REMOVE)
        data = source.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise Malformed(f"{path}: larger than {max_bytes} bytes", code="too-large", hint=_REMOVE)
    return data


@contextlib.contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold the lock at `path` against every thread and process. Raises `Unavailable` after `seconds`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        ends = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise Unavailable(
                        f"{path.parent}: another process has been fetching for {seconds:g} s",
                        code="fetch-busy",
                        hint="another Strongroom uses this folder: try again when it is done",
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(fd)


def _load(path: Path) -> Statement | None:
    try:
        data = load(path, max_bytes=statement.MAX_BYTES)
        return None if data is None else statement.parse(data)
    except Malformed:
        return None


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
