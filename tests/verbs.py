"""`strongroom VERB …` as a process of its own, without the half second in which Python starts and imports for each.

`run` asks a server for it, which has imported the command line and run none of it. The server forks a process for each
command, with the caller's streams, folder and environment, and it enters where the installed program does. Tests of the
start itself (the installed program, what an import costs, a missing package) start Python anew, by COMMAND or by the
program; so do tests that send signals.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

COMMAND = (sys.executable, "-m", "strongroom.cli.main")  # for who starts Python anew
PASSPHRASE = "correct horse"  # what commands find in their environment where nothing else is said
_ROOT = Path(__file__).parents[1]
_LONGEST = 1 << 20  # bytes of a request: words and environment
_starting = threading.Lock()  # of the server, where threads of a test ask for it
_seconds = 0.0


def run(
    *words: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """One command's end: its code and its words, as `subprocess.run` gives them. env: the whole environment.

    Raises subprocess.TimeoutExpired when the command had to be killed.
    """
    global _seconds  # noqa: PLW0603 - of this process
    line = [str(Path(sys.executable).with_name("strongroom")), *map(str, words)]
    request = {
        "line": line,
        "env": dict({**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE} if env is None else env),
        "cwd": str(cwd or Path.cwd()),
    }
    with contextlib.ExitStack() as open_files:
        out, err = (open_files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        source = stdin
        if stdin == subprocess.DEVNULL:
            source = open_files.enter_context(Path(os.devnull).open("rb")).fileno()
        near, far = map(open_files.enter_context, socket.socketpair())
        streams = [source, out.fileno(), err.fileno(), far.fileno()]
        with _starting:
            server = _server(os.getpid())
        socket.send_fds(server, [json.dumps(request).encode()], streams)
        far.close()
        answers = open_files.enter_context(near.makefile("r"))
        pid = int(answers.readline())
        near.settimeout(timeout)
        try:
            ended = json.loads(answers.readline())
        except TimeoutError as error:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(line, timeout) from error
        _seconds += ended["seconds"]
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode())
        return subprocess.CompletedProcess(line, ended["code"], *said)


def seconds() -> float:
    """Of the processor, that the commands of this process have had: they are not its children."""
    return _seconds


@functools.cache
def _server(owner: int) -> socket.socket:
    """Of this process, which ends with it. owner: its number, as a fork must not share it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.verbs", str(far.fileno())],
        cwd=_ROOT,
        pass_fds=[far.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    far.close()

    @atexit.register
    def end() -> None:
        if os.getpid() == owner:
            near.close()
            process.wait()

    return near


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Command:
    """What a forked process is to be."""

    line: list[str]
    env: dict[str, str]
    cwd: str


def _serve(requests: socket.socket) -> _Command | None:
    """Fork a process for each request: this returns in it. In the server it returns None, when nobody asks any more."""
    waiting = selectors.DefaultSelector()
    waiting.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is not requests:
                pid, answers = key.data
                _, status, used = os.wait4(pid, 0)
                ended = {
                    "code": os.waitstatus_to_exitcode(status),
                    "seconds": used.ru_utime + used.ru_stime,
                }
                with contextlib.suppress(BrokenPipeError), answers:
                    answers.sendall(json.dumps(ended).encode() + b"\n")
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                continue
            data, streams, _, _ = socket.recv_fds(requests, _LONGEST, 4)
            if not data:
                return None
            pid = os.fork()
            if pid == 0:
                waiting.close()
                for number, stream in enumerate(streams[:3]):
                    os.dup2(stream, number)
                os.closerange(3, 1024)
                requests.detach()
                return _Command(**json.loads(data))
            answers = socket.socket(fileno=streams.pop())
            for stream in streams:
                os.close(stream)
            answers.sendall(f"{pid}\n".encode())
            waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _import_all() -> None:
    """All that commands may import, as far as this machine has it."""
    import strongroom
    from strongroom.cli import main

    main.application()
    for one in pkgutil.walk_packages(strongroom.__path__, "strongroom."):
        if not one.name.endswith("__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(one.name)
    gc.collect()
    gc.freeze()


def _main() -> NoReturn:
    _import_all()
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    if command is None:
        sys.exit()
    os.environ.clear()
    os.environ.update(command.env)
    os.chdir(command.cwd)
    tempfile.tempdir = None  # as the environment has it now
    sys.argv[:] = command.line
    sys.modules[
        "__main__"
    ].__package__ = ""  # the command line says what it is called by the name that was typed
    from strongroom.cli import entry

    code: object = 0
    try:
        entry.main()
    except SystemExit as left:
        code = left.code
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    _main()
