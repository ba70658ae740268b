"""The files that a room hands out, on their way to the run's folder.

The room's side is not trusted: only names that are expected, each once, each within its size; a file
appears whole under its name, or not at all. Outputs arrive sealed to the contract's
recipients; this side could not read them if it wanted to.

A room hands out its files once, and its keys are gone. So a folder that takes no more costs no result: the file goes on
into memory, and `settle` puts it into the folder as soon as that takes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Refused, Unavailable
from strongroom.model import messages, receipt
from strongroom.model.room import channel, run_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import RoomName

_LOG_ALLOWANCE = 1 << 20
_AGE_ALLOWANCE = 1 << 20
_CHUNK = 8 << 20
# Errors of a folder that may take the file later. Any other (a link in the file's place) is no accident.
_PASSING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE))


def limit(name: str, contract: Contract, room: RoomName) -> int:
    """How many bytes the file `name` may have of that room. Raises `Refused` for any other name."""
    terms = contract.room(room)
    if name == run_files.RECEIPT:
        return 3 * receipt.MAX_BYTES
    if name == run_files.LOG and terms.logs is not None:
        return _sealed(terms.logs.max_bytes + _LOG_ALLOWANCE)
    if run_files.party_of(name) in contract.key_owners(room):
        return 2 * messages.MAX_ANSWER
    number = run_files.output_of(name)
    if number is not None and number < len(terms.outputs):
        return _sealed(terms.outputs[number].max_bytes + channel.TAR_ALLOWANCE)
    raise Refused(
        f"the room hands out a file {name[:80]!r}, which the contract has no place for",
        code="unexpected-file",
        hint="a room of this version never does that: the base may have been changed",
    )


def most(contract: Contract, room: RoomName) -> int:
    """How many bytes all files of a run may have together."""
    terms = contract.room(room)
    names = [run_files.RECEIPT, *([] if terms.logs is None else [run_files.LOG])]
    names += [run_files.output(index) for index in range(len(terms.outputs))]
    return sum(limit(name, contract, room) for name in names)


def _sealed(most: int) -> int:
    """The largest sealed form of `most` bytes: padded to a power of two, in an age file."""
    padded = 1 << (most - 1).bit_length()
    return padded + padded // 1024 + _AGE_ALLOWANCE


@dataclass(frozen=True, kw_only=True)
class UnwrittenFiles:
    """What is in memory alone: names of files, and how many bytes the folder lacks room for."""

    names: tuple[str, ...] = ()
    size: int = 0


class Inbox:
    """Receives the files of a room into `folder`, which exists. `close` drops whatever is incomplete.

    on_held: called at once whenever one more file goes on in memory, with all files that are held there.
    """

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        room: RoomName,
        *,
        on_held: Callable[[UnwrittenFiles], None] = lambda _held: None,
    ) -> None:
        self._folder = folder
        self._contract = contract
        self._room = room
        self._on_held = on_held
        self._reported: set[str] = set()
        self._open: dict[int, _Incoming] = {}
        self._held: list[_Incoming] = []
        self.received: list[str] = []

    def begin(self, stream: int, name: str) -> None:
        """A file called `name` comes on `stream`. Raises `Refused`."""
        most = limit(name, self._contract, self._room)
        started = {incoming.name for incoming in self._open.values()}
        if name in self.received or name in started or stream in self._open:
            raise Refused(
                f"the room hands out {name!r} twice",
                code="unexpected-file",
                hint="a room of this version never does that: the base may have been changed; `strongroom base verify` tells",
            )
        with _naming(name):
            self._open[stream] = _Incoming(self._folder, name, most)
        self._notice(self._open[stream])

    def takes(self, stream: int) -> bool:
        """Whether a file comes on that stream."""
        return stream in self._open

    def write(self, stream: int, data: bytes | memoryview) -> None:
        """The next bytes. Raises `Refused` beyond the limit, `Unavailable` when neither folder nor memory takes them."""
        incoming = self._open[stream]
        with _naming(incoming.name):
            incoming.write(data)
        self._notice(incoming)

    def finish(self, stream: int) -> str:
        """The file is whole: it gets its name, which is returned, or waits in memory for `settle`."""
        incoming = self._open.pop(stream)
        with _naming(incoming.name):
            incoming.finish()
        if incoming.held:
            self._held.append(incoming)
        self._notice(incoming)
        self.received.append(incoming.name)
        return incoming.name

    def put(self, name: str, data: bytes) -> None:
        """A file of the node's own, whole."""
        with _naming(name):
            incoming = _Incoming(self._folder, name, len(data))
            incoming.write(data)
            incoming.finish()
        if incoming.held:
            self._held.append(incoming)
        self._notice(incoming)

    def _notice(self, incoming: _Incoming) -> None:
        if incoming.held and incoming.name not in self._reported:
            self._reported.add(incoming.name)
            self._on_held(self.held)

    @property
    def held(self) -> UnwrittenFiles:
        """The files that are in memory alone now, whole or still on their way."""
        files = [*self._held, *(incoming for incoming in self._open.values() if incoming.held)]
        return UnwrittenFiles(names=tuple(file.name for file in files), size=sum(file.size for file in files))

    def settle(self) -> UnwrittenFiles:
        """Put what waits in memory into the folder. Returns what still waits, for want of room there."""
        left = []
        for incoming in self._held:
            try:
                incoming.store()
            except OSError:
                left.append(incoming)
        self._held = left
        return self.held

    def close(self) -> None:
        """Remove what is incomplete, and let go of what waits."""
        for incoming in (*self._open.values(), *self._held):
            incoming.discard()
        self._open.clear()
        self._held.clear()


class _Incoming:
    """One file on its way: beside its place until it is whole, or in memory once the folder takes no more."""

    def __init__(self, folder: Path, name: str, most: int) -> None:
        self.name = name
        self.held = False
        self._target = folder / name
        self._part = self._target.with_name(f".{self._target.name}.part")
        self._most = self._left = most
        self._fd = -1
        try:
            self._fd = self._create()
        except OSError as cause:
            if cause.errno not in _PASSING:
                raise
            self._hold()

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._most - self._left

    def _create(self) -> int:
        return os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)

    def write(self, data: bytes | memoryview) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.discard()
            raise Refused(
                f"the room hands out more of {self.name} than the contract allows",
                code="too-large",
                hint="a room of this version never does that: the base may have been changed; `strongroom base verify` tells",
            )
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except OSError as cause:
                    if self.held or cause.errno not in _PASSING:
                        raise
                    self._hold()
        except OSError:
            self.discard()
            raise

    def finish(self) -> None:
        if self.held:
            return
        try:
            os.fsync(self._fd)
            self._part.replace(self._target)
        except OSError as cause:
            if cause.errno not in _PASSING:
                self.discard()
                raise
            self._hold()
            return
        os.close(self._fd)
        self._fd = -1

    def _hold(self) -> None:
        """Go on in memory with the file, with what there is so far."""
        memory = os.memfd_create(self.name, os.MFD_CLOEXEC)
        try:
            if self._fd >= 0:
                _copy(self._fd, memory)
        except OSError:
            os.close(memory)
            raise
        self.discard()
        self._fd, self.held = memory, True

    def store(self) -> None:
        """Into the folder, from memory. Raises `OSError`, and then it is still in memory."""
        fd = self._create()
        try:
            _copy(self._fd, fd)
            os.fsync(fd)
            self._part.replace(self._target)
        except OSError:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        os.close(self._fd)
        self._fd, self.held = -1, False

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


def _copy(source: int, target: int) -> None:
    """All of `source`, to the end of `target`."""
    offset = 0
    while data := os.pread(source, _CHUNK, offset):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
        offset += len(data)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise Unavailable(
            f"writing {name}: {cause.strerror}",
            code="run-folder",
            hint="the run's folder must be writable and have room for the outputs",
        ) from None
