"""What a command line comes to: the program that another one starts, and the file that an interpreter runs.

    started(("tini", "--", "python3", "-u", "main.py")) == ("python3", "-u", "main.py")
    script(("python3", "-u", "main.py")) == "main.py"

Known are the starters of containers (tini, dumb-init), those of coreutils, `sh -c` with one plain command, and common
interpreters. An option that is not known here ends the reading: then nothing is said, since nothing would be certain.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

SHELLS = ("sh", "bash", "dash", "ash", "busybox")
COMPOUND = re.compile(r"[;&|<>()$`\n]")
_NOTHING = re.compile(r"(?!)")
_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL | re.ASCII)
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


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of a program before the first word that is none: those alone, and those that take the next word."""

    alone: re.Pattern[str] = _NOTHING
    valued: re.Pattern[str] = _NOTHING
    operands: int = 0


# Programs that start what follows their options, and so many words more.
_STARTERS = {
    "tini": _Options(alone=re.compile(r"-[svwgl]+|-vv+"), valued=re.compile(r"-[pe]")),
    "dumb-init": _Options(alone=re.compile(r"-[cv]+|--single-child|--verbose"), valued=re.compile(r"-r|--rewrite")),
    "env": _Options(valued=re.compile(r"-u|--unset")),
    "nice": _Options(alone=re.compile(r"-n?-?[0-9]+|--adjustment=-?[0-9]+"), valued=re.compile(r"-n")),
    "nohup": _Options(),
    "setsid": _Options(alone=re.compile(r"-[cfw]+")),
    "timeout": _Options(
        alone=re.compile(r"-v|--foreground|--preserve-status|--(kill-after|signal)=.*"),
        valued=re.compile(r"-[ks]"),
        operands=1,
    ),
}  # fmt: skip
_STARTERS["tini-static"] = _STARTERS["docker-init"] = _STARTERS["tini"]
_SHELL = _Options(
    alone=re.compile(r"-[abefhkmnpuvxBCEHPT]+|--no(rc|profile)"), valued=re.compile(r"-[abefhmpuvx]*o")
)
# Interpreters whose first word that is no option is the file that they run.
_RUNNERS = (
    (re.compile(r"(ba|da|a)?sh"), _SHELL),
    (re.compile(r"python[0-9.]*"), _Options(alone=re.compile(r"-[bBdEiIOPqsSuvx]+|-[WX].+"), valued=re.compile(r"-[WX]"))),
    (
        re.compile(r"node"),
        _Options(
            alone=re.compile(r"--[a-z-]+=.*|--(enable-source-maps|expose-gc|no-warnings|trace-warnings)"),
            valued=re.compile(r"-r|--(require|import|loader)"),
        ),
    ),
    (re.compile(r"Rscript"), _Options(alone=re.compile(r"--[a-z-]+(=.*)?"))),
    (re.compile(r"perl|ruby|php|lua|julia"), _Options()),
)  # fmt: skip
_JAVA = _Options(
    alone=re.compile(r"-(?!jar$|cp$|classpath$|p$).*"),
    valued=re.compile(r"-cp|-classpath|-p|--(class-path|module-path|add-modules|add-opens|add-exports|add-reads)"),
)  # fmt: skip


def started(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command line that these words start in turn; empty where they start none, or where that is not certain."""
    name = _name(words)
    if name == "busybox":
        return words[1:]
    text = shell_text(words)
    if text is not None:
        return () if COMPOUND.search(text) else plain_command(text)
    options = _STARTERS.get(name)
    rest = None if options is None else _after(words[1:], options)
    while rest and name == "env" and _ASSIGNED.fullmatch(rest[0]):
        if rest[0].startswith("PATH="):
            return ()
        rest = rest[1:]
    return rest[options.operands :] if rest and options is not None else ()


def shell_text(words: tuple[str, ...]) -> str | None:
    """What `sh -c` is to run, with the options that scripts have beside it; None where it is no such command."""
    name = _name(words)
    if name not in SHELLS or name == "busybox":
        return None
    rest = words[1:]
    while rest and rest[0][:1] == "-":
        if (
            rest[0].startswith("-")
            and rest[0].endswith("c")
            and (rest[0] == "-c" or _SHELL.alone.fullmatch(rest[0][:-1]))
        ):
            return rest[1] if len(rest) > 1 else None
        rest = (
            rest[1:]
            if _SHELL.alone.fullmatch(rest[0])
            else rest[2:]
            if _SHELL.valued.fullmatch(rest[0])
            else ()
        )
    return None  # fmt: skip


def plain_command(text: str) -> tuple[str, ...]:
    """The first command of a shell's text, where it is the name of a program; else empty."""
    try:
        inner = shlex.split(text, comments=True)
    except ValueError:
        return ()
    while inner and (inner[0] == "exec" or "=" in inner[0]):
        inner = inner[1:]
    return tuple(inner) if inner and _PLAIN_WORD.fullmatch(inner[0]) and inner[0] not in _BUILT_IN else ()


def script(words: tuple[str, ...]) -> str:
    """The file that an interpreter is to run, as it is named; empty where there is none, or where that is not certain."""
    name = _name(words)
    if name == "java":
        rest = _after(words[1:], _JAVA)
        return rest[1] if rest and rest[0] == "-jar" and len(rest) > 1 else ""
    options = next((known for pattern, known in _RUNNERS if pattern.fullmatch(name)), None)
    rest = None if options is None else _after(words[1:], options)
    return rest[0] if rest and rest[0][:1] not in ("", "-") else ""


def _after(words: tuple[str, ...], options: _Options) -> tuple[str, ...] | None:
    """The words behind the options. None where one of them is not known."""
    while words and words[0][:1] == "-":
        if words[0] == "--":
            return words[1:]
        if options.alone.fullmatch(words[0]):
            words = words[1:]
        elif options.valued.fullmatch(words[0]):
            words = words[2:]
        else:
            return words if options is _JAVA and words[0] == "-jar" else None
    return words


def _name(words: tuple[str, ...]) -> str:
    return words[0].rpartition("/")[2] if words else ""
