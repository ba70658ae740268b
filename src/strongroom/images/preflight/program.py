"""Would the image's program start: is it there, may it be executed, does its interpreter or loader find its parts?

As execve(2) and execvp(3) do it: a name is looked up on PATH, a path without a leading slash from the working
directory; `#!` leads to an interpreter, an ELF file to its loader and libraries. All of them are looked up in the
tree that the program sees, where the room's own is mounted over the image's. Beside the program that is
started, every other program on PATH is looked at, and only warned of.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused
from strongroom.images.oci import printable
from strongroom.images.preflight import command, elf
from strongroom.images.preflight.findings import Finding, Severity, blocks, fine, warns
from strongroom.images.preflight.libraries import Libraries
from strongroom.model.room import mounts
from strongroom.seal.tree import EntryKind, show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from strongroom.images.layers import Inode, Tree
    from strongroom.images.preflight.elf import Elf
    from strongroom.model.manifest import ImageSettings
    from strongroom.model.room.mounts import Placed

# x86-64 levels that a processor has: QEMU's own has no AVX-512; the TEEs' do.
LEVELS = {"local": 3}
TEE_LEVEL = 4
_HEAD = 4096
_MAX_HOPS = 5
_MAX_PROGRAMS = 5000
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./-]+", re.ASCII)
_ROOMS_OWN = re.compile(r"/(data|out|tmp|proc|dev|run|sys)(/.*)?", re.DOTALL)


# What makes execvp(3) go on to the next folder of PATH.
_TRIED_ON = ("program-mode", "interpreter", "loader")
_ELSEWHERE = "put it elsewhere in the image, like /usr/local"


@dataclass(frozen=True, kw_only=True)
class ExaminedImage:
    """What is looked at: an image's files, the settings they would be run with, and the platform.

    image: the files as they were built. placed: what the room mounts over them. tree: what the program sees of them then.
    """

    image: Tree
    placed: tuple[Placed, ...]
    tree: Tree
    settings: ImageSettings
    platform: str

    @property
    def level(self) -> int:
        """The x86-64 level of the room's processor."""
        return LEVELS.get(self.platform, TEE_LEVEL)

    @functools.cached_property
    def libraries_as_built(self) -> Libraries:
        """The libraries of the image where nothing is mounted over it."""
        return Libraries(self.image, self.settings.environment, level=self.level)

    def covers(self, name: str) -> str:
        """Which of the room's mounts hides this file of the image, for a message; empty when none does."""
        if find(self.image, name) is None or find(self.tree, name) is not None:
            return ""
        end = self.image.resolve(name[:4096].encode("utf-8", "surrogateescape"))
        for placement in reversed(self.placed):
            if mounts.is_within(end, placement.place):
                return f"{printable(name)} is in the image, but {placement.mount.shown} is {placement.mount.purpose}, and hides it"
        return f"{printable(name)} is in the image, but leads through what the room hides"


def examine(subject: ExaminedImage) -> Iterator[Finding]:
    """Everything about starting the program."""
    settings = subject.settings
    words = (*settings.entrypoint, *settings.command)
    libraries = Libraries(
        subject.tree,
        settings.environment,
        level=subject.level,
        readable=functools.partial(_may_read, subject),
    )
    where = "ENTRYPOINT" if settings.entrypoint else "CMD"
    problems = list(_start(subject, libraries, words, where, 0))
    yield from problems
    commands = [words]
    while len(commands) <= _MAX_HOPS and (inner := command.started(commands[-1])):
        commands.append(inner)
    if not problems:
        yield fine("program", where, f"{printable(words[0])} is there and has all its parts")
        yield from _in_turn(subject, libraries, commands, where)
    yield from _arguments(subject, commands)
    started = path_of(subject, words[0])
    yield from _others(subject, libraries, None if started is None else find(subject.tree, started))


def path_of(subject: ExaminedImage, name: str) -> str | None:
    """Where execvp would find `name`: absolute, or None."""
    return next(_places(subject, subject.tree, name), None)


def _places(subject: ExaminedImage, tree: Tree, name: str) -> Iterator[str]:
    """Every place of a tree where execvp would find `name`, in its order."""
    folder = subject.settings.working_directory
    searched = [""] if "/" in name else subject.settings.environment.get("PATH", "").split(":")[:64]
    for entry in searched:
        place = f"{entry}/{name}" if entry else name
        place = place if place.startswith("/") else f"{folder}/{place}"
        node = find(tree, place)
        if node is not None and node.kind is EntryKind.FILE and ("/" in name or node.mode & 0o111):
            yield place


def find(tree: Tree, place: str) -> Inode | None:
    """What is there, links followed."""
    try:
        return tree.find(place[:4096].encode("utf-8", "surrogateescape"))
    except Refused:
        return None


def _start(
    subject: ExaminedImage, libraries: Libraries, words: tuple[str, ...], where: str, hops: int
) -> Iterator[Finding]:
    name = words[0]
    shown = printable(name)
    if hops > _MAX_HOPS:
        yield blocks(
            "interpreter", where, f"interpreters lead from one to another, last {shown}", "name a program"
        )
        return
    problems_before: list[Finding] = []
    for place in _places(subject, subject.tree, name):
        problems = list(_at(subject, libraries, place, hops))
        goes_on = "/" not in name and problems and problems[0].check in _TRIED_ON
        if not goes_on:
            yield from problems
            return
        problems_before = problems_before or problems
    yield from problems_before or [_absent(subject, name, where)]


def _at(subject: ExaminedImage, libraries: Libraries, place: str, hops: int) -> Iterator[Finding]:
    """What keeps the file at `place` from being executed."""
    node = find(subject.tree, place)
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


def _absent(subject: ExaminedImage, name: str, where: str) -> Finding:
    shown = printable(name)
    if not name:
        return blocks("program", where, "an empty name", "name a program")
    for place in _places(subject, subject.image, name):
        hidden = subject.covers(place)
        if hidden:
            return blocks("program", where, hidden, _ELSEWHERE)
    if name.rpartition("/")[2] in command.SHELLS:
        return blocks(
            "shell",
            where,
            f"it is started through the shell {shown}, and the image has none",
            'use the exec form, like ENTRYPOINT ["/program", "argument"], or add a shell',
        )
    if "/" in name:
        node = find(subject.tree, name)
        if node is not None and node.kind is EntryKind.DIRECTORY:
            return blocks("program", where, f"{shown} is a directory", "name the program in it")
        return blocks("program", where, f"{shown} is not in the image", "add it, or mend the path")
    return blocks(
        "program", where, f"no executable {shown} on the image's PATH", "give its whole path, or set PATH"
    )


def _script(
    subject: ExaminedImage, libraries: Libraries, place: str, head: bytes, hops: int
) -> Iterator[Finding]:
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
        hidden = subject.covers(program)
        yield blocks(
            "interpreter",
            place,
            f"its interpreter {hidden}"
            if hidden
            else f"its interpreter {printable(program)} is not in the image",
            _ELSEWHERE if hidden else "add it to the image, or name one that is there",
        )
        return
    yield from problems
    node = find(subject.tree, place)
    if not problems and node is not None and not _bits(subject.settings, node) & 4:
        yield blocks(
            "program-mode",
            place,
            f"user {subject.settings.uid} may not read it, so its interpreter cannot (mode {node.mode & 0o7777:04o}, owner {node.uid}:{node.gid})",
            "chmod 0755 in the image; even root has no rights beyond modes in a room",
        )
        return
    asked = _asked_of_env(words[1]) if program.endswith("/env") and len(words) > 1 else ""
    if not problems and asked:
        for finding in _start(subject, libraries, (asked,), place, hops + 1):
            hidden = next(filter(None, map(subject.covers, _places(subject, subject.image, asked))), "")
            yield replace(finding, check="interpreter") if hidden and finding.check == "program" else finding


def _asked_of_env(arguments: str) -> str:
    """The program that env(1) is to start, by the rest of a #! line: one argument to the kernel, several with -S."""
    text = arguments.strip()
    if not text.startswith("-S"):
        return "" if text.startswith("-") or "=" in text else text
    words = [word for word in text.removeprefix("-S").split() if "=" not in word]
    return words[0] if words and not words[0].startswith("-") else ""


def _binary(subject: ExaminedImage, libraries: Libraries, place: str, node: Inode) -> Iterator[Finding]:
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
    if program.level > subject.level:
        yield _beyond(subject, place, "built", program.level)
    if program.interpreter:
        loader = program.interpreter.decode("utf-8", "replace")
        hidden = subject.covers(loader)
        if hidden:
            yield blocks("loader", place, f"its loader {hidden}", _ELSEWHERE)
            return
        there = find(subject.tree, loader)
        if there is None:
            libc = "musl (Alpine)" if "musl" in loader else "glibc"
            yield blocks(
                "loader",
                place,
                f"its loader {printable(loader)} is not in the image; it was built for {libc}",
                f"take an image with {libc}, or link the program statically",
            )
            return
        unfit = _unfit_loader(subject, libraries, loader, there)
        if unfit:
            yield blocks("loader", place, f"its loader {printable(loader)} {unfit}", "mend it in the image")
            return
    yield from _needed(subject, libraries, place, program)


def _needed(subject: ExaminedImage, libraries: Libraries, place: str, program: Elf) -> Iterator[Finding]:
    """Its libraries."""
    path = place.encode("utf-8", "surrogateescape")
    missing = libraries.missing(path, program)
    if missing.lost:
        built = subject.libraries_as_built.missing(path, program)
        hidden_ones = [name for name in missing.lost if name not in built.lost]
        names = _names(hidden_ones or missing.lost)
        if hidden_ones:
            yield blocks("libraries", place, f"it needs {names}, where the room mounts its own", _ELSEWHERE)
        else:
            yield blocks(
                "libraries",
                place,
                f"it needs {names}, not where its loader looks for libraries",
                "add the packages that bring them, or name their folder in LD_LIBRARY_PATH",
            )
    for name, level in missing.beyond[:5]:
        yield _beyond(subject, place, f"it needs {_names([name])}, which is built", level)
    if missing.untold:
        yield warns(
            "libraries",
            place,
            f"it needs {_names(missing.untold)}; they are in the image, but its loader does not tell where it looks",
            "`strongroom try` shows whether it finds them",
        )


def _beyond(subject: ExaminedImage, place: str, what: str, level: int) -> Finding:
    return blocks(
        "cpu-level",
        place,
        f"{what} for x86-64-v{level}; a {subject.platform} room's processor has v{subject.level}",
        "build it for x86-64-v2 or v3, or run it on a TEE's own processor",
    )


def _unfit_loader(subject: ExaminedImage, libraries: Libraries, loader: str, node: Inode) -> str:
    """What keeps the kernel from starting a loader that is there: it is executed as a program is."""
    if node.kind is not EntryKind.FILE:
        return f"is a {node.kind.value}"
    if not _may(subject, loader, node):
        return f"may not be executed by user {subject.settings.uid} (mode {node.mode & 0o7777:04o}, owner {node.uid}:{node.gid})"
    try:
        made_for = libraries.read(node, loader)
    except Malformed:
        return "is no ELF file"
    return "" if (made_for.machine, made_for.bits) == ("amd64", 64) else f"is for {made_for.machine}"


def _names(libraries: Sequence[bytes]) -> str:
    return ", ".join(printable(name.decode("utf-8", "replace")) for name in libraries[:5])


def _may(subject: ExaminedImage, place: str, node: Inode) -> bool:
    """Whether the user may reach and execute it, by modes alone: nobody has more in a room."""
    folder = place.rpartition("/")[0]
    real = b"/" + subject.tree.resolve(place.encode("utf-8", "surrogateescape")).rpartition(b"/")[0]
    return (
        may_enter(subject, folder)
        and may_enter(subject, real.decode("utf-8", "surrogateescape"))
        and bool(_bits(subject.settings, node) & 1)
    )


def _may_read(subject: ExaminedImage, place: bytes, node: Inode) -> bool:
    """Whether the user may open a library there to read it."""
    folder = (b"/" + subject.tree.resolve(place)).rpartition(b"/")[0]
    return bool(_bits(subject.settings, node) & 4) and may_enter(
        subject, folder.decode("utf-8", "surrogateescape")
    )


def may_enter(subject: ExaminedImage, place: str) -> bool:
    """Whether the user may go into that folder, by the modes of all folders on its real way."""
    tree = subject.tree
    folder = tree.root
    for part in (b"", *tree.resolve(place.encode("utf-8", "surrogateescape")).split(b"/")):
        folder = folder.children.get(part, folder) if part else folder
        if not _bits(subject.settings, folder) & 1:
            return False
    return True


def _bits(settings: ImageSettings, node: Inode) -> int:
    if settings.uid == node.uid:
        return node.mode >> 6 & 7
    if node.gid in (settings.gid, *settings.groups):
        return node.mode >> 3 & 7
    return node.mode & 7


def _in_turn(
    subject: ExaminedImage, libraries: Libraries, commands: list[tuple[str, ...]], where: str
) -> Iterator[Finding]:
    """The programs that the started program starts in turn, as far as its arguments name them."""
    for words in commands:
        yield from _shell_command(subject, words, where)
    for before, words in itertools.pairwise(commands):
        # A shell's command may be a function or built in, as busybox's are: `_shell_command` looks those up.
        if before[0].rpartition("/")[2] not in command.SHELLS:
            for finding in _start(subject, libraries, words, where, 0):
                # execvp(3) of glibc gives a file that is no program to the shell.
                yield (
                    replace(finding, severity=Severity.WARNS)
                    if finding.check == "program-format"
                    else finding
                )


def _shell_command(subject: ExaminedImage, words: tuple[str, ...], where: str) -> Iterator[Finding]:
    """Of a command for a shell, only a plain first word can be looked up."""
    text = command.shell_text(words)
    inner = command.plain_command(text or "")
    if text is None or not inner or path_of(subject, inner[0]) is not None:
        return
    hidden = next(filter(None, map(subject.covers, _places(subject, subject.image, inner[0]))), "")
    if hidden:
        # How a simple command ends is known; a compound one may go on without it.
        check = warns if command.COMPOUND.search(text) else blocks
        yield check("program", where, f"the shell is to run it: {hidden}", _ELSEWHERE)
    else:
        yield warns("shell", where, f"the shell is to run {inner[0]}, which is not in the image", "add it")


def _arguments(subject: ExaminedImage, commands: list[tuple[str, ...]]) -> Iterator[Finding]:
    """Words that name files: the one that an interpreter runs has to be there."""
    named = set()
    for words in commands:
        file = command.script(words)
        hidden = subject.covers(_from_folder(subject, file)) if file else ""
        if hidden:
            named.add(file)
            yield blocks("argument", file[:200], hidden, _ELSEWHERE)
    for word in dict.fromkeys(word for words in commands for word in words[1:] if word not in named):
        hidden = subject.covers(word) if word.startswith("/") else ""
        if hidden:
            yield warns("argument", word[:200], hidden, _ELSEWHERE)
            continue
        absolute = word.startswith("/") and len(word) > 1 and _PLAIN_WORD.fullmatch(word)
        if absolute and not _ROOMS_OWN.fullmatch(word) and find(subject.tree, word) is None:
            yield warns(
                "argument", word[:200], "an argument that names no file of the image", "is the path right?"
            )


def _from_folder(subject: ExaminedImage, name: str) -> str:
    return name if name.startswith("/") else f"{subject.settings.working_directory}/{name}"


def _others(subject: ExaminedImage, libraries: Libraries, started: Inode | None) -> Iterator[Finding]:
    """All other programs on PATH: those that could not be started, in one finding."""
    broken: list[str] = []
    known_nodes = {id(started)}
    for folder in subject.settings.environment.get("PATH", "").split(":")[:64]:
        node = find(subject.tree, folder)
        for name in sorted(node.children if node is not None else ()):
            place = folder + "/" + name.decode("utf-8", "surrogateescape")
            child = find(subject.tree, place)
            if child is None or child.open is None or id(child) in known_nodes or not child.mode & 0o111:
                continue
            known_nodes.add(id(child))
            if len(known_nodes) > _MAX_PROGRAMS:
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
