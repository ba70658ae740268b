"""Images of which a room runs some and hides the others' programs, and the right word for each.

They are tried in the agent's own container (`test_preflight_is_right`) and in real rooms (`tests/e2e/test_preflight_in_rooms`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.unit.dryrun.images import busybox
from tests.unit.images.kit import entry, folder, symlink

RUNS, HIDDEN = True, False
LOADER = Path("/lib64/ld-linux-x86-64.so.2")
LIBC = Path("/lib/x86_64-linux-gnu/libc.so.6")


def script(path: bytes, text: bytes) -> bytes:
    return entry(path, text, mode=0o755)


def host(path: bytes, source: Path) -> bytes:
    return entry(path, source.read_bytes(), mode=0o755)


def dynamic(
    loader: bytes = b"lib64/ld-linux-x86-64.so.2", libc: bytes = b"lib/x86_64-linux-gnu/libc.so.6"
) -> bytes:
    """The host's own true(1), which needs the C library alone, and where its two parts lie."""
    return host(b"bin/dynamic", Path(shutil.which("true") or "")) + host(loader, LOADER) + host(libc, LIBC)


def better(level: int) -> bytes:
    """Where a C library lies for processors of that level."""
    return b"lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v%d/libc.so.6" % level


def entrypoint(text: str) -> bytes:
    """A script that images start with, and what it needs: setpriv is the host's own."""
    applets = b"".join(symlink(b"bin/" + name, b"sh") for name in (b"chown", b"chroot", b"su"))
    setpriv = host(b"usr/bin/setpriv", Path("/usr/bin/setpriv")) + host(
        b"lib/x86_64-linux-gnu/libcap-ng.so.0", Path("/lib/x86_64-linux-gnu/libcap-ng.so.0")
    )
    return script(b"entrypoint.sh", b"#!/bin/sh\n" + text.encode()) + applets + setpriv + dynamic()


# As official images do it: where it is root it goes on as somebody else.
GIVES_UP = """set -e
if [ "${1#-}" != "$1" ]; then set -- true "$@"; fi
if [ "$1" = true -a "$(id -u)" = 0 ]; then
    exec /usr/bin/setpriv --reuid=1000 --regid=100 --clear-groups -- "$0" "$@"
fi
exec "$@"
"""


# By name: whether it runs, its files beside the usual ones, its settings.
CASES: dict[str, tuple[bool, Any, dict[str, Any]]] = {
    "plain": (RUNS, list, {}),
    "in /sys": (RUNS, lambda: [busybox(b"sys/true")], {"Entrypoint": ["/sys/true"]}),
    "in /run": (RUNS, lambda: [busybox(b"run/true")], {"Entrypoint": ["/run/true"]}),
    **{
        f"in /{place}": (HIDDEN, lambda place=place: [busybox(f"{place}/true".encode())], {"Entrypoint": [f"/{place}/true"]})
        for place in ("data", "data/flights", "tmp", "tmp/a/b", "out", "dev", "dev/shm", "proc", "proc/x")
    },
    "on PATH in /data": (HIDDEN, lambda: [busybox(b"data/only")], {"Entrypoint": ["only"], "Env": ["PATH=/data:/bin"]}),
    "on PATH in /tmp, then in /bin": (RUNS, lambda: [busybox(b"tmp/true")], {"Entrypoint": ["true"], "Env": ["PATH=/tmp:/bin"]}),
    "on PATH, not to be executed, then in /bin": (RUNS, lambda: [busybox(b"usr/true", 0o700)], {"Entrypoint": ["true"], "Env": ["PATH=/usr:/bin"]}),
    "on PATH, without its interpreter, then in /bin": (RUNS, lambda: [script(b"usr/true", b"#!/gone\n")], {"Entrypoint": ["true"], "Env": ["PATH=/usr:/bin"]}),
    "by a link to the file": (HIDDEN, lambda: [busybox(b"data/true"), symlink(b"usr/true", b"../data/true")], {"Entrypoint": ["/usr/true"]}),
    "by a link to the folder": (HIDDEN, lambda: [busybox(b"data/true"), symlink(b"opt", b"/data")], {"Entrypoint": ["/opt/true"]}),
    "by a chain of links": (HIDDEN, lambda: [busybox(b"tmp/true"), symlink(b"a", b"b"), symlink(b"b", b"tmp")], {"Entrypoint": ["/a/true"]}),
    "relative, in a link to /data": (HIDDEN, lambda: [busybox(b"data/true"), symlink(b"work", b"data")], {"Entrypoint": ["./true"], "WorkingDir": "/work"}),
    "relative, in /database": (RUNS, lambda: [busybox(b"database/true")], {"Entrypoint": ["./true"], "WorkingDir": "/database"}),
    "script": (RUNS, lambda: [script(b"bin/program", b"#!/bin/sh\nexit 0\n")], {"Entrypoint": ["/bin/program"]}),
    "interpreter in /tmp": (HIDDEN, lambda: [script(b"bin/program", b"#!/tmp/sh\nexit 0\n"), busybox(b"tmp/sh")], {"Entrypoint": ["/bin/program"]}),
    "interpreter by a link into /tmp": (HIDDEN, lambda: [script(b"bin/program", b"#!/usr/sh\nexit 0\n"), busybox(b"tmp/sh"), symlink(b"usr/sh", b"/tmp/sh")], {"Entrypoint": ["/bin/program"]}),
    "interpreter of env": (RUNS, lambda: [script(b"bin/program", b"#!/bin/env sh\nexit 0\n")], {"Entrypoint": ["/bin/program"]}),
    "interpreter of env in /tmp": (HIDDEN, lambda: [script(b"bin/program", b"#!/bin/env own\n"), script(b"tmp/own", b"#!/bin/sh\nexit 0\n")], {"Entrypoint": ["/bin/program"], "Env": ["PATH=/tmp:/bin"]}),
    "interpreter of env in /opt": (RUNS, lambda: [script(b"bin/program", b"#!/bin/env own\n"), script(b"opt/own", b"#!/bin/sh\nexit 0\n")], {"Entrypoint": ["/bin/program"], "Env": ["PATH=/opt:/bin"]}),
    "interpreter of env with an argument": (HIDDEN, lambda: [script(b"bin/program", b"#!/bin/env sh -e\nexit 0\n")], {"Entrypoint": ["/bin/program"]}),
    "nested interpreter": (RUNS, lambda: [script(b"bin/program", b"#!/bin/two\n"), script(b"bin/two", b"#!/bin/sh\nexit 0\n")], {"Entrypoint": ["/bin/program"]}),
    "nested interpreter in /data": (HIDDEN, lambda: [script(b"bin/program", b"#!/bin/two\n"), script(b"bin/two", b"#!/data/sh\n"), busybox(b"data/sh")], {"Entrypoint": ["/bin/program"]}),
    "loader and library": (RUNS, lambda: [dynamic()], {"Entrypoint": ["/bin/dynamic"]}),
    "loader in /tmp": (HIDDEN, lambda: [dynamic(loader=b"tmp/ld.so"), symlink(b"lib64/ld-linux-x86-64.so.2", b"/tmp/ld.so")], {"Entrypoint": ["/bin/dynamic"]}),
    "library in /data": (HIDDEN, lambda: [dynamic(libc=b"data/libc.so.6"), symlink(b"lib/x86_64-linux-gnu/libc.so.6", b"/data/libc.so.6")], {"Entrypoint": ["/bin/dynamic"]}),
    "library in /data, by LD_LIBRARY_PATH": (HIDDEN, lambda: [dynamic(libc=b"data/libc.so.6")], {"Entrypoint": ["/bin/dynamic"], "Env": ["LD_LIBRARY_PATH=/data"]}),
    "library in /opt, by LD_LIBRARY_PATH": (RUNS, lambda: [dynamic(libc=b"opt/libc.so.6")], {"Entrypoint": ["/bin/dynamic"], "Env": ["LD_LIBRARY_PATH=/opt"]}),
    "library for x86-64-v2": (RUNS, lambda: [dynamic(libc=better(2))], {"Entrypoint": ["/bin/dynamic"]}),
    "library for x86-64-v3, by LD_LIBRARY_PATH": (RUNS, lambda: [dynamic(libc=b"opt/glibc-hwcaps/x86-64-v3/libc.so.6")], {"Entrypoint": ["/bin/dynamic"], "Env": ["LD_LIBRARY_PATH=/opt"]}),
    "library for no processor": (HIDDEN, lambda: [dynamic(libc=better(9))], {"Entrypoint": ["/bin/dynamic"]}),
    "root gives itself up": (HIDDEN, lambda: [entrypoint(GIVES_UP)], {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["true"], "User": ""}),
    "root gives itself up by default": (HIDDEN, lambda: [entrypoint(GIVES_UP)], {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["--all"], "User": "0:0"}),
    "root gives itself up, and is not root": (RUNS, lambda: [entrypoint(GIVES_UP)], {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["true"]}),
    "root gives itself up, not for this command": (RUNS, lambda: [entrypoint(GIVES_UP)], {"Entrypoint": ["/bin/sh", "/entrypoint.sh"], "Cmd": ["echo"], "User": ""}),
    "root becomes somebody by su": (HIDDEN, lambda: [entrypoint("exec su -s /bin/sh ann -c true")], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "somebody becomes root by su": (HIDDEN, lambda: [entrypoint("exec su -c true")], {"Entrypoint": ["/entrypoint.sh"]}),
    "somebody becomes somebody by setpriv": (HIDDEN, lambda: [entrypoint("")], {"Entrypoint": ["/usr/bin/setpriv", "--reuid=0", "/bin/true"]}),
    "setpriv changes no user, and asks for rights": (HIDDEN, lambda: [entrypoint("")], {"Entrypoint": ["/usr/bin/setpriv", "--no-new-privs", "/bin/true"], "User": ""}),
    "root in another root folder": (HIDDEN, lambda: [entrypoint("")], {"Entrypoint": ["/bin/chroot", "/", "/bin/true"], "User": ""}),
    "root gives files away": (HIDDEN, lambda: [entrypoint("set -e\nchown -R ann:users /etc\nexec true")], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "root keeps its files": (RUNS, lambda: [entrypoint("set -e\nchown -R root:root /etc\nexec true")], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "root may fail to give files away": (RUNS, lambda: [entrypoint("set -e\nchown -R ann /etc || true\nexec true")], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "su in words alone": (RUNS, lambda: [entrypoint("# exec su ann\necho 'use gosu or su'\nexec true")], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "a variable says whom to become, and is not set": (RUNS, lambda: [entrypoint('if [ -n "$PUID" ]; then exec su "$PUID" -c true; fi; exec true')], {"Entrypoint": ["/entrypoint.sh"], "User": ""}),
    "a variable says whom to become, and is set": (HIDDEN, lambda: [entrypoint('if [ -n "$PUID" ]; then exec su "$PUID" -c true; fi; exec true')], {"Entrypoint": ["/entrypoint.sh"], "User": "", "Env": ["PATH=/bin", "PUID=ann"]}),
    "shell runs what is in /data": (HIDDEN, lambda: [busybox(b"data/true")], {"Entrypoint": ["/bin/sh", "-c", "/data/true --all"]}),
    "shell has another way": (RUNS, lambda: [busybox(b"data/true")], {"Entrypoint": ["/bin/sh", "-c", "/data/true || exit 0"]}),
    "shell reads what is in /tmp": (HIDDEN, lambda: [script(b"tmp/run.sh", b"exit 0\n")], {"Entrypoint": ["/bin/sh", "/tmp/run.sh"]}),
    "working directory in /tmp": (HIDDEN, list, {"WorkingDir": "/tmp/w"}),
    "working directory /tmp": (RUNS, list, {"WorkingDir": "/tmp"}),
    "working directory /out": (RUNS, list, {"WorkingDir": "/out"}),
    "working directory /data": (RUNS, list, {"WorkingDir": "/data"}),
    "working directory of another user": (HIDDEN, lambda: [folder(b"work/", mode=0o700)], {"WorkingDir": "/work"}),
    "/tmp and /run are links": (RUNS, lambda: [folder(b"var/"), folder(b"var/tmp/", mode=0o1777), symlink(b"tmp", b"var/tmp"), symlink(b"run", b"/tmp")], {"Entrypoint": ["/bin/touch", "/tmp/x", "/run/y"]}),
    "where /data leads is covered": (HIDDEN, lambda: [symlink(b"data", b"/srv/data"), busybox(b"srv/data/true")], {"Entrypoint": ["/srv/data/true"]}),
    "beside where /data leads": (RUNS, lambda: [symlink(b"data", b"/srv/data"), busybox(b"srv/true")], {"Entrypoint": ["/srv/true"]}),
    "all mount points are links": (RUNS, lambda: [symlink(name, b"../srv/" + name) for name in (b"data", b"out", b"tmp", b"dev", b"proc")], {"Entrypoint": ["/bin/touch", "/out/x", "/tmp/y", "/srv/out/z"]}),
    "/tmp is /dev/shm": (RUNS, lambda: [symlink(b"tmp", b"dev/shm")], {"Entrypoint": ["/bin/touch", "/tmp/x", "/dev/shm/y"]}),
    "/etc is a link": (RUNS, lambda: [symlink(b"srv", b"etc")], {"Entrypoint": ["/bin/grep", "localhost", "/srv/hosts"]}),
    "a file at /out": (HIDDEN, lambda: [busybox(b"out")], {}),
    "a circle at /data": (HIDDEN, lambda: [symlink(b"data", b"data")], {}),
    "/out leads into /data": (HIDDEN, lambda: [symlink(b"out", b"data/x")], {}),
    "/dev leads to /proc": (HIDDEN, lambda: [symlink(b"dev", b"proc")], {}),
}  # fmt: skip

# What depends on the processor: in a dry run that is this machine's, in a room the room's.
IN_ROOMS_ALONE: dict[str, tuple[bool, Any, dict[str, Any]]] = {
    "library for x86-64-v4": (HIDDEN, lambda: [dynamic(libc=better(4))], {"Entrypoint": ["/bin/dynamic"]}),
}
