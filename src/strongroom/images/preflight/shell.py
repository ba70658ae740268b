"""What a shell script of an image would start, as far as its text says. The text is read; nothing is executed.

    steps('[ $(id -u) = 0 ] && exec gosu app "$@"', Shell(uid=0, arguments=("serve",), variables={}))
    == [Step(words=("gosu", "app", "serve"), sure=True, ends=True)]

Each condition is true, false or unknown: known are tests of words, of variables that the image sets, of arguments and of the user.
A command under a false one is no step; under an unknown one it is a step that is not sure. A function counts where it is called
with "$@", and else is unknown. What a text does beyond that (eval, loops, arithmetic, here documents) makes nothing known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT = 1 << 16
_MAX_WORD = 1 << 12
_MAX_DEPTH = 64
_MAX_TESTED = 64
_OPERATOR = re.compile(r"&&|\|\||;;&?|;&|\|&?|&(?!>)|;|\(|\)|\n")
_REDIRECTED = re.compile(r"(?:[0-9]*|&)(<<-?(?!<)|<<<|>>|<&|>&|<>|>\||<|>)[ \t]*")
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL | re.ASCII)
_VALUE = re.compile(
    r"\$\(id -u\)|`id -u`|\$(?P<plain>[A-Za-z_][A-Za-z0-9_]*|[0-9#])"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*|[0-9#])(?:(?P<cut>##?|%%?)(?P<what>[^*?$}\[\]]*)"
    r"|:(?P<from>[0-9]+):(?P<count>[0-9]+)|:?-(?P<default>[^$`}]*))?\}",
    re.ASCII,
)
_ALL = ("$@", '"$@"', "$*", '"$*"', '"${@}"', "${@}")
_OF_THE_SHELL = re.compile(
    r"BASH.*|FUNCNAME|PWD|OLDPWD|HOSTNAME|RANDOM|SECONDS|PPID|IFS|OPT.*|REPLY|LINENO|PS[0-9]|SHLVL"
)
_BEFORE_ASSIGNED = ("export", "local", "declare", "readonly", "typeset")
_ERREXIT = re.compile(r"-[A-Za-z]*e[A-Za-z]*|errexit", re.ASCII)
_SHEBANG = re.compile(r"#![^\n]*[ \t]-[A-Za-z]*e[A-Za-z]*(?![^\s])")
_CALLED = re.compile(r'(?<![\w-])([\w-]{1,64})[ \t]{1,8}"\$@"', re.ASCII)
_DECIDING = ("if", "while", "until")
_GOING_ON = ("then", "do", "elif", "else", "fi", "done", "}", "esac")
_WITHIN = {"&&": "-a", "||": "-o"}  # of [[ ]], in the words of [ ]

Truth = bool | None


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Who runs a script: the user's number, the script's arguments, its variables."""

    uid: int
    arguments: tuple[str, ...]
    variables: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command that the script starts. Words that are not known are empty.

    sure: no condition keeps it from being started. ends: when it fails, so does the script.
    """

    words: tuple[str, ...]
    sure: bool
    ends: bool


@dataclass(slots=True, kw_only=True)
class _Frame:
    """A compound command that has not ended yet.

    outer: whether it is reached. now: whether the branch that is being read is taken. before: whether an earlier branch
    was. deciding: its condition is being read.
    """

    kind: str
    outer: Truth
    now: Truth = True
    before: Truth = False
    deciding: bool = False


def steps(text: str, shell: Shell) -> list[Step]:
    """All steps in order, to the first that is sure to end or to replace the shell."""
    reader = _Reader(text[:MAX_TEXT], shell)
    reader.read()
    return reader.steps


class _Reader:
    def __init__(self, text: str, shell: Shell) -> None:
        self.steps: list[Step] = []
        self._text = text
        self._uid = str(shell.uid)
        self._arguments: tuple[str, ...] | None = shell.arguments
        self._variables: dict[str, str | None] = dict(shell.variables)
        self._errexit = _SHEBANG.match(text) is not None
        self._called = frozenset(_CALLED.findall(text))  # functions that get the script's arguments
        self._frames: list[_Frame] = []
        self._words: list[str] = []
        self._function = ""  # whose body is about to begin
        self._array = False
        # Of a list of && and ||: what goes before the next command, and what the list has come to.
        self._joint = ""
        self._value: Truth = True
        self._negated = False

    def read(self) -> None:
        for is_word, part in _tokens(self._text):
            if len(self._frames) > _MAX_DEPTH:
                return
            if self._array:
                self._array = is_word or part != ")"
            elif self._is_pattern(part):
                continue
            elif self._words[:1] == ["[["] and self._words[-1] != "]]":
                self._words.append(_WITHIN.get(part, part))
            elif is_word:
                self._take_word(part)
            elif self._take_operator(part):
                return
        if not self._end("\n") and self.steps and not self._frames:
            self.steps[-1] = replace(self.steps[-1], ends=True)  # as it ends, so does the script

    def _take_word(self, part: str) -> None:
        if part == "{" and self._function:
            self._open("function", now=True if self._function in self._called else None)
            self._function = ""
        elif self._words or not self._keyword(part):
            self._words.append(part)
        if self._words[:1] == ["case"] and self._words[2:] == ["in"]:
            self._open("patterns")
            self._words = []
        elif self._words[:1] == ["function"] and len(self._words) > 1:
            self._function = self._words[1]
            self._words = []

    def _take_operator(self, part: str) -> bool:
        """True when the script is sure to end here."""
        if part == "(" and len(self._words) == 1:
            self._array = self._words[0].endswith("=")
            self._function = "" if self._array else self._words[0]
            self._words = []
            return False
        if self._function and part in "()\n":
            return False
        over = self._end(part)
        self._words = []
        return over

    def _is_pattern(self, part: str) -> bool:
        """Pass over the patterns of a case, which look like commands; what they choose is unknown."""
        top = self._frames[-1] if self._frames else None
        if top is None or top.kind != "patterns":
            return False
        if part == "esac":
            self._frames.pop()
        elif part == ")":
            top.kind, top.now = "branch", None
        return True

    def _open(self, kind: str, *, now: Truth = True) -> None:
        self._frames.append(_Frame(kind=kind, outer=self._guard(), now=now, deciding=kind in _DECIDING))
        self._joint = ""

    def _keyword(self, word: str) -> bool:
        """Take a word that stands where a command begins; false when it is the command's."""
        top = self._frames[-1] if self._frames else None
        if word in _DECIDING or word == "{":
            self._open(word)
        elif word in ("for", "select"):
            self._open(word, now=None)
            return False
        elif word == "!":
            self._negated = not self._negated
        elif word not in _GOING_ON:
            return False
        elif top is not None:
            self._go_on(top, word)
        return True

    def _go_on(self, top: _Frame, word: str) -> None:
        if word in ("then", "do") and top.deciding:
            truth = self._value if top.kind == "if" else None  # how often a loop goes round is not known
            top.now, top.deciding = _both(top.now, truth), False
        elif word in ("elif", "else"):
            top.before = _either(top.before, top.now)
            top.now, top.deciding = _not(top.before), word == "elif"
        elif word in ("fi", "done", "}", "esac"):
            self._frames.pop()
            self._value = None
        self._joint = ""

    def _guard(self) -> Truth:
        return {"&&": self._value, "||": _not(self._value)}.get(self._joint, True)

    def _end(self, operator: str) -> bool:
        """Take the command that ends here; true when the script is sure to end with it."""
        words, over = self._words, False
        if words:
            reached = self._guard()
            for frame in self._frames:
                reached = _both(reached, _both(frame.outer, frame.now))
            if reached is not False:
                over = self._start(words, reached, tested=operator in ("&&", "||"))
            truth = self._truth(words)
            truth = _not(truth) if self._negated else truth
            join = {"&&": _both, "||": _either}.get(self._joint)
            self._value = truth if join is None else join(self._value, truth)
        elif operator in ("&&", "||"):
            self._value = None  # of what a compound command comes to nothing is known
        self._negated = False
        if words or operator != "\n":
            self._joint = operator if operator in ("&&", "||") else ""
        if operator == "(":
            self._open("(")
        elif operator == ")" and self._frames and self._frames[-1].kind == "(":
            self._frames.pop()
        elif operator in (";;", ";&", ";;&") and self._frames and self._frames[-1].kind == "branch":
            self._frames[-1].kind = "patterns"
        return over

    def _start(self, words: list[str], reached: Truth, *, tested: bool) -> bool:
        while words and (match := _ASSIGNED.fullmatch(words[0])):
            values = self._expanded(match[2])
            known = reached and None not in values and len(values) <= 1
            self._variables[match[1]] = "".join(value or "" for value in values) if known else None
            words = words[1:]
        if not words:
            return False
        expanded = [part for word in words for part in self._expanded(word)]
        name = expanded[0] if expanded else None
        if name in _BEFORE_ASSIGNED:
            return self._start(
                [word for word in words[1:] if _ASSIGNED.fullmatch(word)], reached, tested=tested
            )
        if name == "set":
            self._set(expanded[1:], reached)
            return False
        if name in ("read", "for", "select", "shift", "getopts", "unset"):
            self._variables.update((variable, None) for variable in expanded[1:2] if variable)
            self._arguments = None if name == "shift" else self._arguments
            return False
        replaces = name == "exec"
        if replaces:
            expanded = expanded[1:]
        over = reached is True and (name == "exit" or (replaces and bool(expanded)))
        if expanded and name != "exit":
            tested = tested or self._negated or any(frame.deciding for frame in self._frames)
            ends = replaces or (self._errexit and not tested)
            self.steps.append(
                Step(words=tuple(part or "" for part in expanded), sure=reached is True, ends=ends)
            )
        return over and not any(frame.kind in ("(", "function") for frame in self._frames)

    def _set(self, words: list[str | None], reached: Truth) -> None:
        if words[:1] == ["--"]:
            known = [word for word in words[1:] if word is not None]
            self._arguments = tuple(known) if reached and len(known) == len(words) - 1 else None
        elif reached and any(word and _ERREXIT.fullmatch(word) for word in words):
            self._errexit = True

    def _truth(self, words: list[str]) -> Truth:
        expanded = [part for word in words for part in self._expanded(word)]
        match expanded:
            case ["true" | ":"]:
                return True
            case ["false"]:
                return False
            case ["[", *inner, "]"] | ["[[", *inner, "]]"] | ["test", *inner]:
                return self._test(inner)
        return None

    def _test(self, words: list[str | None]) -> Truth:
        if len(words) > _MAX_TESTED:
            return None
        for joint, join in (("-o", _either), ("-a", _both)):
            if joint in words:
                at = words.index(joint)
                return join(self._test(words[:at]), self._test(words[at + 1 :]))
        match words:
            case ["!", *rest]:
                return _not(self._test(rest))
            case [str(left)] | ["-n", str(left)]:
                return bool(left)
            case ["-z", str(left)]:
                return not left
            case [str(left), "=" | "==", str(other)]:
                return fnmatchcase(left, other)
            case [str(left), "!=", str(other)]:
                return not fnmatchcase(left, other)
            case [str(left), "-eq" | "-ne" as how, str(other)] if left.isdigit() and other.isdigit():
                return (int(left[:20]) == int(other[:20])) is (how == "-eq")
        return None

    def _expanded(self, raw: str) -> list[str | None]:
        """The values that a word expands to; None stands for a value that is not known."""
        strange = any(frame.kind == "function" and not frame.now for frame in self._frames)
        arguments = None if strange else self._arguments
        if raw in _ALL:
            return [None] if arguments is None else list(arguments)
        out: list[str] = []
        at, quote = 0, ""
        while at < len(raw):
            char = raw[at]
            if char == quote or (not quote and char in "'\""):
                quote = "" if quote else char
                at += 1
            elif char == "\\" and quote != "'":
                out.append(raw[at + 1 : at + 2])
                at += 2
            elif char in "$`" and quote != "'":
                match = _VALUE.match(raw, at)
                value = None if match is None else self._looked_up(match, arguments)
                if match is None or value is None:
                    return [None]
                out.append(value)
                at = match.end()
            else:
                out.append(char)
                at += 1
        text = "".join(out)
        if len(text) > _MAX_WORD:
            return [None]
        return [text] if text or "'" in raw or '"' in raw else []

    def _looked_up(self, match: re.Match[str], arguments: tuple[str, ...] | None) -> str | None:
        name = match["plain"] or match["name"]
        if name is None:
            return self._uid
        if name == "#":
            value = None if arguments is None else str(len(arguments))
        elif name.isdigit():
            number = int(name)
            value = None if arguments is None or not number else (*arguments, *[""] * 9)[number - 1]
        elif name in ("UID", "EUID"):
            value = self._uid
        else:
            value = self._variables.get(name, None if _OF_THE_SHELL.fullmatch(name) else "")
        if value is None:
            return None
        if match["cut"]:
            cut = value.removeprefix if match["cut"][0] == "#" else value.removesuffix
            return cut(match["what"])
        if match["from"]:
            return value[int(match["from"][:9]) :][: int(match["count"][:9])]
        return value or match["default"] or ""


def _both(left: Truth, other: Truth) -> Truth:
    if left is False or other is False:
        return False
    return None if left is None or other is None else True


def _either(left: Truth, other: Truth) -> Truth:
    return _not(_both(_not(left), _not(other)))


def _not(value: Truth) -> Truth:
    return None if value is None else not value


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    """Words as they stand, quotes included, and operators; without comments, redirections and here documents."""
    at = 0
    documents: list[str] = []
    while at < len(text):
        if text[at] in " \t\r":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            at = _position(text, "\n", at)
        elif redirected := _REDIRECTED.match(text, at):
            start = redirected.end()
            at = _word_end(text, start)
            if redirected[1] in ("<<", "<<-"):
                documents.append(text[start:at].strip("'\"\\"))
        elif operator := _OPERATOR.match(text, at):
            yield False, operator[0]
            at = operator.end()
            while documents and operator[0] == "\n":
                end = re.compile(rf"^\t*{re.escape(documents.pop(0))}$", re.MULTILINE).search(text, at)
                at = len(text) if end is None else end.end()
        else:
            end_of_word = max(_word_end(text, at), at + 1)
            yield True, text[at : min(end_of_word, at + _MAX_WORD)]
            at = end_of_word


def _word_end(text: str, at: int) -> int:
    quoted = False
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
        elif char == '"':
            quoted = not quoted
            at += 1
        elif char == "'" and not quoted:
            at = _position(text, "'", at + 1) + 1
        elif char == "`":
            at = _position(text, "`", at + 1) + 1
        elif text.startswith("$(", at):
            at = _closed(text, "()", at + 1)
        elif text.startswith("${", at):
            at = _closed(text, "{}", at + 1)
        elif not quoted and char in " \t\r\n;&|()<>":
            return at
        else:
            at += 1
    return len(text)


def _position(text: str, what: str, at: int) -> int:
    place = text.find(what, at)
    return len(text) if place < 0 else place


def _closed(text: str, pair: str, at: int) -> int:
    depth = 0
    while at < len(text):
        depth += (text[at] == pair[0]) - (text[at] == pair[1])
        at += 1
        if not depth:
            break
    return at
