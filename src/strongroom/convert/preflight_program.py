"""Would the image's program start: is it there, may it be executed, does its interpreter or loader find its parts?

As execve(2) and execvp(3) do it: a name is looked up on PATH, a path without a leading slash from the working
directory; `#!` leads to an interpreter, an ELF file to its loader and libraries. Beside the program that is
started, every other program on PATH is looked at, and only warned of.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.convert import elf
from strongroom.convert.findings import Finding, blocks, fine, warns
from strongroom.convert.libraries import Libraries
from strongroom.convert.oci import printable
from strongroom.errors import Malformed, Refused
from strongroom.seal.tree import Kind, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.convert.layers import Node, Tree
    from strongroom.model.manifest import ImageSettings

SHELLS = ("sh", "bash", "dash", "ash", "busybox")
# x86-64 levels that a processor has: QEMU's own has no AVX-512; the TEEs' do.
LEVELS = {"local": 3}
TEE_LEVEL = 4
_HEAD = 4096
_MAX_HOPS = 5
_MAX_PROGRAMS = 5000
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./-]+", re.ASCII)
_BUILT_IN = frozenset(
    [
        "if",
        "for",
        "while",
        "until",
        "case",
        "{",
        "(",
        "!",
        "[",
        "test",
        "echo",
        "printf",
        "exec",
        "cd",
        "set",
        "export",
        "eval",
        "exit",
        "trap",
        "ulimit",
        "umask",
        "wait",
        "source",
        ".",
        ":",
        "true",
        "false",
        "read",
    ]
)
_ROOMS_OWN = re.compile(r"/(data|out|tmp|proc|dev|run|sys)(/.*)?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is looked at: a tree, the settings it would be run with, and the platform."""

    tree: Tree
    settings: ImageSettings
    platform: str


def look(subject: Subject) -> Iterator[Finding]:
    """Everything about starting the program."""
    settings = subject.settings
    words = (*settings.entrypoint, *settings.command)
    libraries = Libraries(subject.tree, settings.environment)
    where = "ENTRYPOINT" if settings.entrypoint else "CMD"
    problems = list(_start(subject, libraries, words, where, 0))
    yield from problems
    if not problems:
        yield fine("program", where, f"{printable(words[0])} is there and has all its parts")
        yield from _shell_command(subject, words, where)
    yield from _arguments(subject, words)
    started = path_of(subject, words[0])
    yield from _others(subject, libraries, None if started is None else _find(subject.tree, started))


def path_of(subject: Subject, name: str) -> str | None:
    """Where execvp would find `name`: absolute, or None."""
    folder = subject.settings.working_directory
    if "/" in name:
        places = [name if name.startswith("/") else f"{folder}/{name}"]
    else:
        search = subject.settings.environment.get("PATH", "")
        places = [f"{one or folder}/{name}" for one in search.split(":")[:64]]
    for place in places:
        node = _find(subject.tree, place)
        if node is not None and (node.kind is Kind.FILE) and ("/" in name or node.mode & 0o111):
            return place
    return None


def _find(tree: Tree, place: str) -> Node | None:
    try:
        return tree.find(place[:4096].encode("utf-8", "surrogateescape"))
    except Refused:
        return None


def _start(
    subject: Subject, libraries: Libraries, words: tuple[str, ...], where: str, hops: int
) -> Iterator[Finding]:
    name = words[0]
    shown = printable(name)
    if hops > _MAX_HOPS:
        yield blocks(
            "interpreter", where, f"interpreters lead from one to another, last {shown}", "name a program"
        )
        return
    if not name or (
        "/" in name
        and not name.startswith("/")
        and subject.settings.working_directory.startswith(("/data", "/out"))
    ):
        yield blocks(
            "program", where, f"{shown!r} is relative to a folder that the room mounts", "give its whole path"
        )
        return
    place = path_of(subject, name)
    if place is None:
        yield _absent(subject, name, where)
        return
    node = _find(subject.tree, place)
    if node is None or node.open is None:
        return
    if not _may(subject, place, node):
        yield blocks(
            "program-mode",
            place,
            f"user {subject.settings.uid} may not execute it (mode {node.mode & 0o7777:04o}, owner {node.uid}:{node.gid})",
            "chmod 0755 in the image; even root has no rights beyond modes in a room",
        )
        return
    with node.open() as source:
        head = source.read(_HEAD)
    if head.startswith(b"#!"):
        yield from _script(subject, libraries, place, head, hops)
    elif head.startswith(elf.MAGIC):
        yield from _binary(subject, libraries, place, node)
    else:
        yield blocks(
            "program-format",
            place,
            "neither an ELF program nor a script with #!, so the kernel cannot start it",
            "add a first line like #!/bin/sh",
        )


def _absent(subject: Subject, name: str, where: str) -> Finding:
    shown = printable(name)
    if name.rpartition("/")[2] in SHELLS:
        return blocks(
            "shell",
            where,
            f"it is started through the shell {shown}, and the image has none",
            'use the exec form, like ENTRYPOINT ["/program", "argument"], or add a shell',
        )
    if "/" in name:
        node = _find(subject.tree, name)
        if node is not None and node.kind is Kind.DIRECTORY:
            return blocks("program", where, f"{shown} is a directory", "name the program in it")
        return blocks("program", where, f"{shown} is not in the image", "add it, or mend the path")
    return blocks(
        "program", where, f"no executable {shown} on the image's PATH", "give its whole path, or set PATH"
    )


def _script(subject: Subject, libraries: Libraries, place: str, head: bytes, hops: int) -> Iterator[Finding]:
    line = head[2:].partition(b"\n")[0][:255]
    if line.endswith(b"\r"):
        yield blocks(
            "interpreter", place, "its first line ends as on Windows, and is part of the interpreter's name",
            "save it with line feeds alone (dos2unix)",
        )  # fmt: skip
        return
    words = line.decode("utf-8", "replace").split(None, 1)
    if not words:
        yield blocks("interpreter", place, "an empty #! line", "name an interpreter")
        return
    program = words[0]
    if not program.startswith("/"):
        yield blocks(
            "interpreter", place, f"the interpreter {printable(program)} is no whole path", "write it out"
        )
        return
    problems = list(_start(subject, libraries, (program,), place, hops + 1))
    if problems and problems[0].check in ("program", "shell"):
        yield blocks(
            "interpreter",
            place,
            f"its interpreter {printable(program)} is not in the image",
            "add it to the image, or name one that is there",
        )
        return
    yield from problems
    if not problems and program.endswith("/env") and len(words) > 1:
        rest = words[1].split()
        rest = rest[1:] if rest[0] == "-S" else rest
        if rest and "=" not in rest[0]:
            yield from _start(subject, libraries, (rest[0],), place, hops + 1)


def _binary(subject: Subject, libraries: Libraries, place: str, node: Node) -> Iterator[Finding]:
    try:
        program = libraries.read(node, show(place.encode("utf-8", "surrogateescape")))
    except Malformed as cause:
        yield blocks("program-format", place, cause.message, "rebuild it")
        return
    if program.machine != "amd64" or program.bits != 64:
        yield blocks(
            "architecture",
            place,
            f"a program for {program.machine}, {program.bits} bits; rooms are 64-bit x86 alone",
            "build the image for linux/amd64",
        )
        return
    if program.type not in (elf.EXECUTABLE, elf.SHARED):
        yield blocks("program-format", place, "an ELF file that is no program", "name the program itself")
        return
    has = LEVELS.get(subject.platform, TEE_LEVEL)
    if program.level > has:
        yield blocks(
            "cpu-level",
            place,
            f"built for x86-64-v{program.level}; a {subject.platform} room's processor has v{has}",
            "build it for x86-64-v2 or v3, or run it on a TEE's own processor",
        )
    if program.interpreter:
        loader = program.interpreter.decode("utf-8", "replace")
        if _find(subject.tree, loader) is None:
            libc = "musl (Alpine)" if "musl" in loader else "glibc"
            yield blocks(
                "loader",
                place,
                f"its loader {printable(loader)} is not in the image; it was built for {libc}",
                f"take an image with {libc}, or link the program statically",
            )
            return
    lost = libraries.missing(place.encode("utf-8", "surrogateescape"), program)
    if lost:
        names = ", ".join(printable(name.decode("utf-8", "replace")) for name in lost[:5])
        yield blocks(
            "libraries", place, f"it needs {names}, not in the image", "add the packages that bring them"
        )


def _may(subject: Subject, place: str, node: Node) -> bool:
    """Whether the user may reach and execute it, by modes alone: nobody has more in a room."""
    tree = subject.tree
    parts = tree.resolve(place.encode("utf-8", "surrogateescape")).split(b"/")[:-1]
    folder = tree.root
    for part in (b"", *parts):
        folder = folder.children.get(part, folder) if part else folder
        if not _bits(subject.settings, folder) & 1:
            return False
    return bool(_bits(subject.settings, node) & 1)


def _bits(settings: ImageSettings, node: Node) -> int:
    if settings.uid == node.uid:
        return node.mode >> 6 & 7
    if node.gid in (settings.gid, *settings.groups):
        return node.mode >> 3 & 7
    return node.mode & 7


def _shell_command(subject: Subject, words: tuple[str, ...], where: str) -> Iterator[Finding]:
    """Of a command for a shell, only a plain first word can be looked up."""
    if len(words) < 3 or words[0].rpartition("/")[2] not in SHELLS or words[1] != "-c":
        return
    try:
        inner = shlex.split(words[2], comments=True)
    except ValueError:
        return
    while inner and (inner[0] == "exec" or "=" in inner[0]):
        inner = inner[1:]
    if (
        inner
        and _PLAIN_WORD.fullmatch(inner[0])
        and inner[0] not in _BUILT_IN
        and path_of(subject, inner[0]) is None
    ):
        yield warns("shell", where, f"the shell is to run {inner[0]}, which is not in the image", "add it")


def _arguments(subject: Subject, words: tuple[str, ...]) -> Iterator[Finding]:
    for word in words[1:]:
        absolute = word.startswith("/") and len(word) > 1 and _PLAIN_WORD.fullmatch(word)
        if absolute and not _ROOMS_OWN.fullmatch(word) and _find(subject.tree, word) is None:
            yield warns(
                "argument", word[:200], "an argument that names no file of the image", "is the path right?"
            )


def _others(subject: Subject, libraries: Libraries, started: Node | None) -> Iterator[Finding]:
    """All other programs on PATH: those that could not be started, in one finding."""
    broken: list[str] = []
    seen = {id(started)}
    for folder in subject.settings.environment.get("PATH", "").split(":")[:64]:
        node = _find(subject.tree, folder)
        for name in sorted(node.children if node is not None else ()):
            place = folder + "/" + name.decode("utf-8", "surrogateescape")
            child = _find(subject.tree, place)
            if child is None or child.open is None or id(child) in seen or not child.mode & 0o111:
                continue
            seen.add(id(child))
            if len(seen) > _MAX_PROGRAMS:
                return
            with child.open() as source:
                head = source.read(4)
            if head == elf.MAGIC and any(_binary(subject, libraries, place, child)):
                broken.append(printable(place))
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        yield warns(
            "other-programs",
            ", ".join(broken[:5]) + more,
            "these would not start: a loader, a library or the processor is not what they need",
            "add what is missing, if the image's program calls them",
        )
