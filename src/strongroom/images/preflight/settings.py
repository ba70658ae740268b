"""What an image's own settings and files mean in a room (docs/room.md): each check is one function.

Checked here: set-uid programs, environment, volumes and mount points, ports, working
directory, GPU, start-up systems, what it does with an empty standard input.
Not checked here: whether the program starts (`program`), its user (`user`), memory (`memory`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.images.oci import printable
from strongroom.images.preflight.findings import Finding, blocks, fine, warns
from strongroom.images.preflight.program import ExaminedImage, find, may_enter, path_of
from strongroom.model.contracts import credentials
from strongroom.model.room import mounts
from strongroom.seal.tree import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.images.oci import ImageConfig
    from strongroom.model.room.mounts import Placed

# Variables that change which code runs (rule 27): they count only where they are signed for.
_LOADING = re.compile(
    r"LD_[A-Z_]+|GCONV_PATH|PYTHON(PATH|HOME|STARTUP|INSPECT|BREAKPOINT|WARNINGS|EXECUTABLE)|NODE_OPTIONS|NODE_PATH"
    r"|PERL5(LIB|OPT|DB)|RUBY(LIB|OPT)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH|BASH_ENV|ENV"
    r"|R_(PROFILE|ENVIRON)(_USER)?|R_LIBS(_USER|_SITE)?|LUA_(INIT|PATH|CPATH)|GLIBC_TUNABLES|OPENSSL_CONF|DOTNET_STARTUP_HOOKS",
    re.ASCII,
)
_PROXY = re.compile(r"(http|https|ftp|all|no)_proxy", re.ASCII | re.IGNORECASE)
_GPU = re.compile(r"NVIDIA_(VISIBLE_DEVICES|REQUIRE_CUDA)|CUDA_(VERSION|HOME)|ROCM_(VERSION|PATH)", re.ASCII)
_READ_ONLY = (mounts.DATA, mounts.PROC, mounts.DEV)
_SYSTEMS = {
    "systemd": "systemd wants control groups, mounts and /sys",
    "init": "an init system wants mounts and devices of its own",
    "openrc-init": "an init system wants mounts and devices of its own",
    "dockerd": "containers cannot be started inside a room",
    "containerd": "containers cannot be started inside a room",
    "kubelet": "containers cannot be started inside a room",
    "k3s": "containers cannot be started inside a room",
    "sshd": "it changes its user for each session, and nobody can reach it",
    "cron": "it changes its user for each job",
    "crond": "it changes its user for each job",
}
_SUPERVISORS = (
    "supervisord",
    "s6-svscan",
    "runsvdir",
    "runit",
    "monit",
    "pm2",
    "foreman",
    "honcho",
    "circusd",
)
_INTERACTIVE = ("sh", "bash", "dash", "ash", "python", "python3", "node", "R", "irb", "ruby", "psql", "jshell", "lua", "julia", "ghci")  # fmt: skip


def examine(subject: ExaminedImage, config: ImageConfig) -> Iterator[Finding]:
    """Every check of this file."""
    yield from _raised(subject)
    yield from environment(subject.settings.environment, "image ENV")
    yield from _volumes(subject, config)
    yield from _covered(subject)
    yield from _working_directory(subject)
    yield from ports(config.ports, "EXPOSE")
    yield from _system(subject)
    yield from _input(subject)
    for name in config.ignored:
        if name not in ("Volumes", "ExposedPorts", "Shell"):
            yield fine("setting", name, "has no effect in a room")


def environment(variables: dict[str, str], where: str) -> Iterator[Finding]:
    """Variables that load code, that point to a network, that want a GPU, or that hold somebody's credentials."""
    for name, reason in credentials.exposed(variables).items():
        yield warns(
            "credentials",
            f"{where} {printable(name)}",
            f"it looks like a credential ({reason}); what stands in an image or a contract is read by every party and the operator",
            credentials.FIX,
        )
    for name in sorted(variables):
        place = f"{where} {printable(name)}"
        if _LOADING.fullmatch(name):
            yield warns(
                "environment",
                place,
                "it changes which code runs; in a room it counts as part of what is signed",
                "see that all parties know why it is there, or leave it out",
            )
        elif _PROXY.fullmatch(name):
            yield warns(
                "environment",
                place,
                "a proxy, and a room reaches the hosts that its contract lists alone",
                "leave it out",
            )
        elif _GPU.fullmatch(name):
            yield warns(
                "gpu", place, "it expects a GPU, and a room has none", "give the program a way to run without"
            )


def ports(stated: tuple[str, ...], where: str) -> Iterator[Finding]:
    """Ports that somebody would like to reach."""
    if stated:
        yield warns(
            "ports",
            f"{where} {', '.join(printable(port) for port in stated[:8])}",
            "a port of a room is reached where its contract lists it in `ports`, and else by nobody",
            "draft the contract with the port, or let the image run the client too, and write what counts to /out",
        )


def _raised(subject: ExaminedImage) -> Iterator[Finding]:
    """Programs that get rights by being executed: in a room they do not."""
    paths = [
        entry.path.decode("utf-8", "replace")
        for entry in subject.image.entries()
        if entry.kind is EntryKind.FILE and (entry.mode & 0o6000 or b"security.capability" in entry.xattrs)
    ]
    if paths:
        more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
        yield warns(
            "set-uid",
            ", ".join(f"/{printable(path)}" for path in paths[:5]) + more,
            "set-uid bits and file capabilities have no effect: nothing gains rights in a room",
            "see that the program does not need them",
        )


def _mount_at(subject: ExaminedImage, path: str) -> Placed | None:
    """The room's mount that `path` is, or that it lies in."""
    try:
        end = subject.image.resolve(path[:4096].encode("utf-8", "surrogateescape"))
    except Refused:
        return None
    return next(
        (
            placement
            for placement in reversed(subject.placed)
            if end == placement.place or mounts.is_within(end, placement.place)
        ),
        None,
    )


def _volumes(subject: ExaminedImage, config: ImageConfig) -> Iterator[Finding]:
    for volume in config.volumes:
        path = printable(volume)
        covered = _mount_at(subject, volume)
        if covered is not None and covered.mount in _READ_ONLY:
            yield warns(
                "volumes",
                f"VOLUME {path}",
                "this is where the room mounts its own, read-only: nothing can be written there",
                "move it elsewhere, like /var/lib/NAME",
            )
        else:
            yield fine(
                "volumes",
                f"VOLUME {path}",
                "no volume in a room: what is written there is in memory, and gone at the end",
            )


def _covered(subject: ExaminedImage) -> Iterator[Finding]:
    for placement in subject.placed:
        node = subject.image.find(placement.place)
        if node is not None and node.children:
            leads = (
                ""
                if placement.place == placement.mount.path
                else f" (leads to /{printable(placement.place.decode('utf-8', 'replace'))})"
            )
            yield warns(
                "mount-points",
                placement.mount.shown + leads,
                f"the image has files there ({len(node.children)} entries), and the room's own is mounted over them",
                "move them elsewhere in the image",
            )


def _working_directory(subject: ExaminedImage) -> Iterator[Finding]:
    folder = subject.settings.working_directory
    where = f"WORKDIR {printable(folder)}"
    node = find(subject.tree, folder)
    covered = _mount_at(subject, folder)
    if node is None and covered is not None:
        own = covered.mount
        if own is mounts.OUT and folder.rstrip("/").count("/") == 2:
            yield warns(
                "working-directory",
                where,
                f"{own.shown} is {own.purpose}, and this folder is there only where the contract has an output of that path",
                "see that the contract has it, or use another folder",
            )
            return
        yield blocks(
            "working-directory",
            where,
            f"{own.shown} is {own.purpose}; the room's own is mounted there, and the folder is not in it",
            "use another folder",
        )
    elif node is not None and not may_enter(subject, folder):
        yield blocks(
            "working-directory",
            where,
            f"user {subject.settings.uid} may not enter it (mode {node.mode & 0o7777:04o}, owner {node.uid}:{node.gid})",
            "chmod 0755 in the image, or use another folder",
        )
    elif covered is not None and covered.mount in _READ_ONLY:
        yield warns(
            "working-directory",
            where,
            "the room mounts its own there, read-only: nothing can be written",
            "use another folder",
        )


def _system(subject: ExaminedImage) -> Iterator[Finding]:
    settings = subject.settings
    words = (*settings.entrypoint, *settings.command)
    place = path_of(subject, words[0])
    real = (
        words[0]
        if place is None
        else subject.tree.resolve(place.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
    )
    names = {words[0].rpartition("/")[2], real.rpartition("/")[2]}
    for name in sorted(names):
        if name in _SYSTEMS:
            yield blocks("start-up", words[0][:200], _SYSTEMS[name], "start the one program that counts")
            return
    if names & set(_SUPERVISORS):
        yield warns(
            "processes",
            words[0][:200],
            "a supervisor of several programs: the room ends when it ends, and it must not change users",
            "start the programs from a small script, as one user",
        )


def _input(subject: ExaminedImage) -> Iterator[Finding]:
    settings = subject.settings
    words = (*settings.entrypoint, *settings.command)
    if len(words) == 1 and words[0].rpartition("/")[2] in _INTERACTIVE:
        yield warns(
            "standard-input",
            words[0][:200],
            "it would read commands from standard input, which is empty in a room, and end at once",
            "give it a script: CMD in the image, or the contract's arguments",
        )
