"""The watcher and the guardian processes: `python3 -I -m strongroom.node.guard.main CONTROL-FD`.

The watcher (this process) forks the guardian, and the two trace each other. A debugger can attach to
neither, because a thread has one tracer; a SIGSTOP to either is swallowed by the other; the death of either
is, by PTRACE_O_EXITKILL, the death of both and of the program. All signals are blocked in both, so that
neither ever stops the other.

Starts with every room, so it imports as little as it can.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING

from strongroom.node.guard import ptrace
from strongroom.node.guard import tracer as guard_tracer

if TYPE_CHECKING:
    from typing import NoReturn

_MAX_REQUEST = 16 << 20
_PATIENCE_MS = 5000  # how long the guardian may take to clear up before it is killed
_SET_PDEATHSIG, _SET_NO_NEW_PRIVS, _SET_CHILD_SUBREAPER = 1, 38, 36


class _Request:
    """What the caller asks for; see `launch.spawn`."""

    def __init__(self, control: socket.socket) -> None:
        (size,) = struct.unpack("<I", _exactly(control, 4))
        if size > _MAX_REQUEST:
            raise ValueError
        data = _exactly(control, size)
        lists = []
        at = 0
        for _ in range(3):
            (count,) = struct.unpack_from("<I", data, at)
            at += 4
            words = []
            for _ in range(count):
                (length,) = struct.unpack_from("<I", data, at)
                words.append(data[at + 4 : at + 4 + length])
                at += 4 + length
            lists.append(words)
        self.argv, self.env = lists[0], dict(pair.split(b"=", 1) for pair in lists[1])
        self.fds = [int(word) for word in lists[2]]


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = control.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def main() -> NoReturn:
    """Read the request and become the watcher; the guardian is its child."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    try:
        request = _Request(control)
    except (EOFError, OSError):
        os._exit(1)  # the caller is gone
    ptrace.prctl(ptrace.SET_DUMPABLE, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    watcher = os.getpid()
    say_read, say_write = os.pipe()
    hear_read, hear_write = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        os.close(say_read)
        os.close(hear_write)
        _guard(request, control, watcher, hear_read, say_write)
    os.close(say_write)
    os.close(hear_read)
    _close_program_files(request)
    try:
        ptrace.seize(guardian, ptrace.EXITKILL)
    except OSError as failure:
        _tell(control, f"failed the guardian cannot be guarded: {failure}")
        os.kill(guardian, signal.SIGKILL)
        os._exit(1)
    os.write(hear_write, b"s")
    program = os.read(say_read, 16)
    _watch(control, guardian, int(program) if program else 0)


def _close_program_files(request: _Request) -> None:
    """A pipe to the program must end when the program does, not when its guard does."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2, *request.fds):
        os.dup2(null, fd, inheritable=False)
    os.close(null)


def _tell(control: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # the caller is gone; the watcher sees that too
        control.send(line.encode(errors="replace")[:4000] + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


# --- the watcher ---


def _watch(control: socket.socket, guardian: int, program: int) -> NoReturn:
    """Keep the guardian running until it exits, and end the program when the caller asks or is gone."""
    wanted = ctypes.c_uint64(1 << (signal.SIGCHLD - 1))
    children = ptrace.LIBC.syscall(282, -1, ctypes.byref(wanted), 8)  # signalfd
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(children, select.POLLIN)
    patience: int | None = None
    _tend(guardian)
    while True:
        ready = poll.poll(patience)
        if not ready:
            os.kill(guardian, signal.SIGKILL)  # it did not manage; the kernel will
        for fd, _ in ready:
            if fd == children:
                os.read(children, 128)
                _tend(guardian)
            elif not control.recv(16) or patience is None:
                if program:
                    _kill(program)
                else:
                    _kill(guardian)
                poll.unregister(control)
                patience = _PATIENCE_MS


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _tend(guardian: int) -> None:
    """Undo every stop of the guardian; leave with it when it has left."""
    while True:
        try:
            pid, status = os.waitpid(guardian, ptrace.WALL | os.WNOHANG)
        except ChildProcessError:
            os._exit(1)
        if pid == 0:
            return
        if not os.WIFSTOPPED(status):
            os._exit(0)
        with contextlib.suppress(ProcessLookupError):
            ptrace.resume(guardian)


# --- the guardian ---


def _guard(request: _Request, control: socket.socket, watcher: int, hear: int, say: int) -> NoReturn:
    try:
        ptrace.prctl(_SET_CHILD_SUBREAPER, 1)
        os.read(hear, 1)
        ptrace.seize(watcher, ptrace.EXITKILL)
        tracer = guard_tracer.Tracer(watcher)
        program, failed = _fork_program(request)
        os.write(say, b"%d" % program)
        os.close(say)
        tracer.run(program, lambda: _tell(control, f"started {program} {os.getpid()}"))
        refused = os.read(failed, 16)
        if refused:
            _tell(control, f"exec {int(refused)}")
        elif tracer.failure:
            _tell(control, f"failed {tracer.failure}")
        else:
            _tell(control, f"exit {tracer.code}")
        tracer.release_watcher()
    except Exception as failure:  # noqa: BLE001 - whatever it is, the program must not run unguarded
        _tell(control, f"failed {type(failure).__name__}: {failure}")
        os._exit(1)
    os._exit(0)


def _fork_program(request: _Request) -> tuple[int, int]:
    """Fork the program, seized before it may execute. Returns its pid, and where a failed exec shows."""
    go_read, go_write = os.pipe()
    failed_read, failed_write = os.pipe()
    guardian = os.getpid()
    program = os.fork()
    if program == 0:
        try:
            os.read(go_read, 1)
            ptrace.prctl(_SET_PDEATHSIG, signal.SIGKILL)
            ptrace.prctl(_SET_NO_NEW_PRIVS, 1)
            if os.getppid() != guardian:
                os._exit(127)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with contextlib.suppress(OSError, ValueError):
                # Secret pages count as locked memory, without a limit only while the program keeps CAP_IPC_LOCK.
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execvpe(request.argv[0], request.argv, request.env)  # noqa: S606 - as asked, without a shell
        except OSError as failure:
            os.write(failed_write, b"%d" % (failure.errno or errno.EIO))
        except Exception:  # noqa: BLE001
            os.write(failed_write, b"%d" % errno.EINVAL)
        os._exit(127)
    os.close(go_read)
    os.close(failed_write)
    _close_program_files(request)
    ptrace.seize(program, ptrace.PROGRAM_OPTIONS)
    os.write(go_write, b"g")
    os.close(go_write)
    return program, failed_read


if __name__ == "__main__":
    main()
