"""QEMU and swtpm as children: with the memory guard or without, and never left behind.

A guarded child dies with its guardian, and the guardian with this process (node/guard/launch.py). A child
without guard gets the kernel's parent-death signal, which `setpriv` of util-linux sets: it dies with
the thread that started it, even when that is killed by SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING, Protocol

from strongroom import host_log
from strongroom.errors import Misuse, NotFound, Unavailable
from strongroom.node.guard import launch

if TYPE_CHECKING:
    from collections.abc import Sequence

_GRACE = 10.0
_PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "swtpm": "swtpm", "setpriv": "util-linux"}
# They get nothing else of the caller's environment.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class _Process(Protocol):
    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float) -> int | None: ...


class Child:
    """A child process. `fd` becomes readable when it has ended. What it wrote to stderr is kept."""

    def __init__(self, name: str, process: _Process, stderr: int) -> None:
        self.name = name
        self._process = process
        self._stderr = stderr
        self._code: int | None = None
        try:
            self.fd = os.pidfd_open(process.pid)
        except OSError:
            # Over before anybody looked; an event descriptor that is set from the start stands for it.
            self.fd = os.eventfd(1)

    @property
    def pid(self) -> int:
        """The program's own process id, not that of its guardian."""
        return self._process.pid

    def complaint(self) -> str:
        """The last line that it wrote to standard error, printable, at most 300 characters."""
        size = os.fstat(self._stderr).st_size
        text = os.pread(self._stderr, 4096, max(0, size - 4096)).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        last = lines[-1] if lines else ""
        return "".join(letter if letter.isprintable() else "?" for letter in last)[-300:]

    def wait(self, timeout: float) -> int | None:
        """Its exit code (negative: a signal's number), or None when it still runs."""
        if self._code is None:
            try:
                self._code = self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
            host_log.debug("program ended", program=self.name, pid=self.pid, code=self._code)
        return self._code

    def stop(self) -> None:
        """Kill the program, wait until it is gone, and close its descriptors. Harmless the second time."""
        if self.fd < 0:
            return
        if self._code is None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self.wait(_GRACE)
        os.close(self.fd)
        os.close(self._stderr)
        self.fd = self._stderr = -1


def start(arguments: Sequence[str], *, descriptors: Sequence[int], guarded: bool) -> Child:
    """Start a program that inherits `descriptors` at their own numbers.

    Raises `NotFound` when it is not installed, `Unavailable` when it cannot be guarded.
    """
    name = arguments[0]
    path = _find(name)
    stderr = os.memfd_create(f"{name}-stderr", os.MFD_CLOEXEC)
    try:
        process = _spawn([path, *arguments[1:]], descriptors, stderr, guarded=guarded)
        # What is in it for the program alone goes by descriptors: the line is for every user of this machine to read.
        host_log.debug("program started", line=[path, *arguments[1:]], pid=process.pid, guarded=guarded)
        return Child(name, process, stderr)
    except BaseException:
        os.close(stderr)
        raise


def _spawn(line: list[str], descriptors: Sequence[int], stderr: int, *, guarded: bool) -> _Process:
    if guarded:
        try:
            return launch.spawn(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=descriptors,
                env=_ENVIRONMENT,
            )
        except (Misuse, Unavailable) as cause:
            raise Unavailable(
                f"starting {line[0]} under the memory guard: {launch.supported() or cause.message}",
                code="no-memory-guard",
                hint="run as root; or `--no-memory-guard` runs the room without it, if the contract accepts that",
            ) from None
    setpriv = [_find("setpriv"), "--pdeathsig", "KILL", "--no-new-privs", "--"]
    return subprocess.Popen(
        [*setpriv, *line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=descriptors,
        env=_ENVIRONMENT,
        start_new_session=True,  # a Ctrl-C at the terminal is for this process, which ends the others
    )


def _find(name: str) -> str:
    for folder in _ENVIRONMENT["PATH"].split(":"):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    package = _PACKAGES.get(name, name)
    raise NotFound(
        f"{name} is not installed",
        code=f"no-{name.partition('-')[0]}",
        hint=f"apt-get install {package} (Debian, Ubuntu)",
    )
