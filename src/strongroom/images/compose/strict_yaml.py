"""YAML that every parser reads alike; where parsers differ, this reader says so and takes nothing for a value (rule 31).

The characters become events by PyYAML; what they mean is decided here, since there versions and libraries differ:
  1 one document, UTF-8, bounded in bytes, depth and nodes      2 no anchors, aliases, merge keys, tags, directives
  3 keys are text, each once in its mapping                     4 a plain word that YAML 1.1 and 1.2 read differently: quote it
So `yes`, `012`, `22:22`, `1_000`, `0x1F`, `1e3`, dates and the like must be in quotes; `true`, `null`, `42`, `1.5` are what they look like.

What breaks 1, or is no YAML at all, is `Malformed`. What breaks 2, 3 or 4 is a `Flaw` with its line, and the file is read on to
its end: whoever mends it sees all of them at once. In the value's place stands `UNCLEAR`, which is no value and equals none.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000
_MEND = "mend the file there: its indentation, quotes or brackets"
MAX_SCALAR = 65_536
MERGE = "<<"
"""Never a key that is known. It stands, with `UNCLEAR`, in a mapping whose keys are not all known."""


class Unclear(enum.Enum):
    """The type of `UNCLEAR`."""

    UNCLEAR = "unclear"


UNCLEAR = Unclear.UNCLEAR

Value = None | bool | int | float | str | Unclear | list["Value"] | dict[str, "Value"]
Path = tuple[str | int, ...]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,18})\.[0-9]{1,19}", re.ASCII)
_NULL = ("", "null", "~")
_BOOLEAN = {"true": True, "false": False}
# What some schema takes for something other than text: YAML 1.1's booleans and numbers, 1.2's octal, dates.
_AMBIGUOUS = re.compile(
    r"(?i:y|n|yes|no|on|off|true|false|null)|<<|=|[-+]?\.(?i:inf|nan)"
    r"|[-+]?0[xob]?[0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?",
    re.ASCII,
)
_ALIAS = "an alias"


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """Something that readers of YAML take differently: where, what, and how to write it for all of them."""

    path: Path
    line: int
    what: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class YamlDocument:
    """What a file says. `lines`: where each key and each item of a list begins; `flaws` in the file's order."""

    value: Value
    flaws: tuple[Flaw, ...]
    lines: dict[Path, int] = field(repr=False)

    def line(self, path: Path) -> int:
        """The line of what lies at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass
class _State:
    what: str
    nodes: int = 0
    flaws: list[Flaw] = field(default_factory=list)
    lines: dict[Path, int] = field(default_factory=dict)

    def flaw(self, event: Any, path: Path, what: str, fix: str) -> None:
        self.flaws.append(Flaw(path=path, line=_line(event), what=what, fix=fix))

    def count(self, event: Any, depth: int) -> None:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise Malformed(
                f"{self.what} line {_line(event)}: nested too deeply, or too much",
                code="too-large",
                hint=f"at most {MAX_DEPTH} levels and {MAX_NODES} keys and values are read",
            )


def read(data: bytes, *, what: str) -> YamlDocument:
    """Read the one document in `data`, to its end. Raises `Malformed` for what cannot be read on."""
    if len(data) > MAX_BYTES:
        raise Malformed(
            f"{what}: {len(data)} bytes, at most {MAX_BYTES} allowed",
            code="too-large",
            hint="keep the one service that is meant",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{what}: not UTF-8", code="bad-yaml", hint="save it as UTF-8") from None
    if text.startswith("\ufeff") or "\r" in text.replace("\r\n", "") or "\x85" in text or "\u2028" in text:
        # YAML 1.1 and 1.2 end lines at different characters.
        raise Malformed(
            f"{what}: a byte order mark, or line ends that parsers disagree on",
            code="bad-yaml",
            hint="save it as UTF-8 without a byte order mark, with ordinary line ends",
        )
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        return _document(iter(events), _State(what))
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}:"
        problem = str(getattr(cause, "problem", None) or getattr(cause, "reason", None) or "does not parse")
        raise Malformed(f"{what}:{line} {problem}"[:300], code="bad-yaml", hint=_MEND) from None
    except (ValueError, IndexError, KeyError, AttributeError, RecursionError) as cause:
        raise Malformed(
            f"{what}: does not parse ({type(cause).__name__})", code="bad-yaml", hint=_MEND
        ) from None


def known(value: Value) -> Value:
    """`value` without whatever in it is unclear."""
    if isinstance(value, list):
        return [known(item) for item in value if item is not UNCLEAR]
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items() if item is not UNCLEAR}
    return value


def clear(value: Value) -> bool:
    """Whether nothing in `value` is unclear."""
    if isinstance(value, list):
        return all(clear(item) for item in value)
    if isinstance(value, dict):
        return all(clear(item) for item in value.values())
    return value is not UNCLEAR


def _document(source: Iterator[Any], state: _State) -> YamlDocument:
    next(source)  # the stream's start
    start = next(source)
    if isinstance(start, yaml.StreamEndEvent):
        raise Malformed(f"{state.what}: empty", code="empty")
    if start.version or start.tags:
        state.flaw(start, (), "a %YAML or %TAG directive", "leave it out")
    value = _node(next(source), source, state, ())
    next(source)  # the document's end
    if not isinstance(next(source), yaml.StreamEndEvent):
        raise Malformed(f"{state.what}: several documents in one file", code="bad-yaml", hint="keep one")
    return YamlDocument(value=value, flaws=tuple(state.flaws), lines=state.lines)


def _node(event: Any, source: Iterator[Any], state: _State, path: Path) -> Value:
    state.count(event, len(path))
    if isinstance(event, yaml.AliasEvent):
        state.flaw(event, path, f"{_ALIAS} (*{str(event.anchor)[:40]})", "write the value out in each place")
        return UNCLEAR
    if event.anchor is not None:
        state.flaw(event, path, f"an anchor (&{event.anchor[:40]})", "write the value out in each place")
    value: Value
    if isinstance(event, yaml.ScalarEvent):
        value = UNCLEAR if event.tag is not None else _scalar(event, state, path)
    elif isinstance(event, yaml.SequenceStartEvent):
        value = _sequence(source, state, path)
    else:
        value = _mapping(source, state, path)
    if event.tag is not None:
        own = (
            " of Compose's, for files that are laid over each other"
            if event.tag in ("!reset", "!override")
            else ""
        )
        state.flaw(event, path, f"the tag {event.tag[:40]}{own}", "leave tags out")
        return UNCLEAR
    return value


def _sequence(source: Iterator[Any], state: _State, path: Path) -> list[Value]:
    items: list[Value] = []
    while not isinstance(event := next(source), yaml.SequenceEndEvent):
        place = (*path, len(items))
        state.lines[place] = _line(event)
        items.append(_node(event, source, state, place))
    return items


def _mapping(source: Iterator[Any], state: _State, path: Path) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    while not isinstance(event := next(source), yaml.MappingEndEvent):
        key = _key(event, source, state, path)
        place = (*path, key)
        before = len(state.flaws)
        repeated = key in mapping and key != MERGE
        if not repeated:
            state.lines.setdefault(place, _line(event))
        value = _node(next(source), source, state, place)
        if key == MERGE:
            # An alias names what is merged: it is said once, with the merge key.
            state.flaws[before:] = [flaw for flaw in state.flaws[before:] if not flaw.what.startswith(_ALIAS)]
            value = UNCLEAR
        if repeated:
            first = state.lines[place]
            state.flaw(
                event, place, f"{key[:60]!r} a second time, first in line {first}", "keep one of the two"
            )
            value = UNCLEAR
        mapping[key] = value
    return mapping


def _key(event: Any, source: Iterator[Any], state: _State, path: Path) -> str:
    """The key, or `MERGE` for a key that is not known."""
    if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
        state.flaw(event, path, "a key that is no plain text", "write a name")
        if not isinstance(event, yaml.AliasEvent | yaml.ScalarEvent):
            _node(event, source, state, (*path, MERGE))
        return MERGE
    state.count(event, len(path))
    if event.value == MERGE:
        state.flaw(event, path, "a merge key (<<)", "write the values out in each place")
        return MERGE
    before = len(state.flaws)
    value = _scalar(event, state, path)
    if isinstance(value, str) and value:
        return value
    del state.flaws[before:]
    state.flaw(event, path, f"the key {event.value[:40]!r} is no text", "put it in quotes")
    return MERGE


def _scalar(event: yaml.ScalarEvent, state: _State, path: Path) -> Value:
    text: str = event.value
    if len(text) > MAX_SCALAR:
        raise Malformed(
            f"{state.what} line {_line(event)}: a text of {len(text)} characters, expected at most {MAX_SCALAR}",
            code="too-large",
            hint="put it into a file of the image, or seal it as a dataset",
        )
    if "\x00" in text:
        raise Malformed(
            f"{state.what} line {_line(event)}: NUL in a text",
            code="bad-yaml",
            hint="take it out: no variable or argument can hold it",
        )
    if event.style is not None:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text) and text != "-0":
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _AMBIGUOUS.fullmatch(text):
        state.flaw(
            event,
            path,
            f"{text[:40]!r} means different things to different readers of YAML",
            f"put it in quotes if it is text: {text[:40]!r}; or write true, false, or a decimal number",
        )
        return UNCLEAR
    return text


def _line(event: Any) -> int:
    mark = getattr(event, "start_mark", None)
    return 1 if mark is None else int(mark.line) + 1
