"""The memory guard: run a program so that nobody on its host can read its memory by the usual means.

`spawn` starts an unmodified program whose stack, heap, data and private anonymous memory lie in
memfd_secret(2) pages, which the kernel itself has unmapped: /proc/PID/mem, process_vm_readv, debuggers,
core dumps and swap see nothing. A guardian process traces it, so that nobody else can attach, and the
kernel kills the program when its guardian dies. What this does not stop is in docs/decisions
(memory-guard): above all the kernel itself, and root writing code into the program.

Three processes: the watcher (child of the caller) and the guardian trace each other, which closes both
to debuggers; the guardian traces the program and all its descendants. The whole tree lives as long as its
first program, and no longer than the caller: the watcher holds one end of a socket, and an end of file
there ends everything. (PR_SET_PDEATHSIG would fire when the *thread* that called `spawn` ends.)
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from strongroom.errors import Misuse, Unavailable
from strongroom.node.guard import ptrace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_START_SECONDS = 30.0  # a loaded machine; the usual start takes a tenth of a second
_GONE_SECONDS = 10.0
_MAX_LINE = 4096
_MEMFD_SECRET = 447
_SYS_PTRACE, _IPC_LOCK = 19, 14


class Guarded:
    """A running guarded program. Methods may be called from any thread."""

    def __init__(self, watcher: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._watcher = watcher
        self._control = control
        self._lock = threading.Lock()
        self._line = b""
        self._program = -1  # pidfd of the program
        self._code: int | None = None
        self.watcher_pid = watcher.pid  # also the session of the program
        self.pid = 0
        self.guardian_pid = 0
        self.failure = ""  # why the guard itself ended the program, if it did

    def _started(self) -> None:
        """Read until the program runs. Raises `Unavailable` or `Misuse` when it does not."""
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self.pid:
                line = self._read_line(deadline)
                word, _, rest = line.partition(" ")
                if word == "started":
                    self.pid, self.guardian_pid = (int(number) for number in rest.split())
                    # A program can be over before its caller looks: then there is nothing to wait for.
                    with contextlib.suppress(ProcessLookupError):
                        self._program = os.pidfd_open(self.pid)
                elif word == "exec":
                    raise Misuse(
                        f"starting a guarded program: {os.strerror(int(rest))}",
                        code="guard-exec",
                        hint="check that the program exists and may be executed",
                    )
                else:
                    raise Unavailable(
                        f"starting a guarded program: {rest or 'the guardian ended'}",
                        code="guard-failed",
                        hint="`strongroom node doctor` tells what the memory guard needs on this machine",
                    )
        except BaseException:
            self.kill()
            self._finish()
            raise

    def _read_line(self, deadline: float | None) -> str:
        """One line from the guardian; "" at its end. `TimeoutError` at the deadline."""
        while b"\n" not in self._line:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            poll = select.poll()
            poll.register(self._control, select.POLLIN)
            if not poll.poll(None if left is None else left * 1000):
                raise TimeoutError
            try:
                data = self._control.recv(_MAX_LINE)
            except ConnectionResetError:
                data = b""
            if not data or len(self._line) > _MAX_LINE:
                return ""
            self._line += data
        line, _, self._line = self._line.partition(b"\n")
        return line.decode(errors="replace")

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code of the program, negative for a signal; None while it runs after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return None
        try:
            while self._code is None:
                word, _, rest = self._read_line(deadline).partition(" ")
                if word == "exit":
                    code = int(rest)
                elif word == "failed":
                    self.failure, code = rest, -signal.SIGKILL
                else:  # the guardian was killed, and the kernel has killed the program with it
                    self.failure, code = "the guardian was killed", -signal.SIGKILL
                self._finish()
                self._code = code
        except TimeoutError:
            return None
        finally:
            self._lock.release()
        return self._code

    def kill(self) -> None:
        """End the program and all its descendants; does not wait. Harmless when it has ended."""
        with contextlib.suppress(OSError):
            self._control.send(b"k")

    def _finish(self) -> None:
        """Wait until watcher and program are gone and let go of everything."""
        try:
            self._watcher.wait(_GONE_SECONDS)
        except subprocess.TimeoutExpired:
            self._watcher.kill()
            self._watcher.wait()
        if self._program >= 0:
            poll = select.poll()
            poll.register(self._program, select.POLLIN)
            poll.poll(_GONE_SECONDS * 1000)
            os.close(self._program)
            self._program = -1
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()

    def __del__(self) -> None:
        # Forgotten by its owner: the end of file on the socket has ended or will end the program.
        if self._program >= 0:
            with contextlib.suppress(OSError):
                os.close(self._program)


def spawn(
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Guarded:
    """Start `argv` under the guard and return once it has been executed.

    `stdin`, `stdout`, `stderr` are descriptors or `subprocess.DEVNULL`; None inherits. `env` replaces the
    environment. The program is in a session of its own. It lives no longer than the returned object or this process.
    Raises `Misuse` when the program cannot be executed, `Unavailable` when it cannot be guarded.
    """
    if not argv:
        raise Misuse(
            "starting a guarded program: no program was named", code="guard-exec", hint="name a program"
        )
    ours, theirs = socket.socketpair()
    try:
        # The program's own arguments and environment go by the socket: the watcher's are for all to read.
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-m", "strongroom.node.guard.main", str(theirs.fileno())],
            pass_fds=[*pass_fds, theirs.fileno()],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    guarded = Guarded(watcher, ours)
    variables = os.environ if env is None else env
    request = _pack([os.fsencode(word) for word in argv])
    request += _pack([os.fsencode(name) + b"=" + os.fsencode(value) for name, value in variables.items()])
    request += _pack([b"%d" % fd for fd in pass_fds])
    with contextlib.suppress(OSError):  # a watcher that could not start is reported by `_started`
        ours.sendall(struct.pack("<I", len(request)) + request)
    guarded._started()  # noqa: SLF001 - the other half of its constructor
    return guarded


def _pack(words: list[bytes]) -> bytes:
    return struct.pack("<I", len(words)) + b"".join(struct.pack("<I", len(word)) + word for word in words)


@functools.cache
def supported() -> str | None:
    """None when this machine can guard programs (proven by guarding one), else the reason in words."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the guard needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    fd = ptrace.LIBC.syscall(_MEMFD_SECRET, 0x80000)
    if fd < 0:
        return "the kernel has no memfd_secret: Linux 5.14 or newer, with secretmem.enable=1 before 6.5"
    os.close(fd)
    missing = [
        name
        for bit, name in ((_SYS_PTRACE, "CAP_SYS_PTRACE"), (_IPC_LOCK, "CAP_IPC_LOCK"))
        if not _holds(bit)
    ]
    if missing:
        return f"this process lacks {' and '.join(missing)}"
    try:
        with spawn([sys.executable, "-I", "-S", "-c", "pass"]) as probe:
            code = probe.wait(_START_SECONDS)
    except (Unavailable, Misuse, OSError) as failure:
        return str(failure)
    return None if code == 0 else f"a guarded program ended with {code}: {probe.failure}"


def _holds(capability: int) -> bool:
    with open("/proc/self/status", "rb") as lines:  # noqa: PTH123 - one read of a kernel file
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith(b"CapEff"))
    return bool(effective >> capability & 1)
