"""YAML that every parser reads alike, or `Malformed` (rule 31).

The characters become events by PyYAML; what they mean is decided here, since there versions and libraries differ:
  1 one document, UTF-8, bounded in bytes, depth and nodes      2 no anchors, aliases, merge keys, tags, directives
  3 keys are text, each once in its mapping                     4 a plain word that YAML 1.1 and 1.2 read differently is refused: quote it
So `yes`, `012`, `22:22`, `1_000`, `0x1F`, `1e3`, dates and the like must be in quotes; `true`, `null`, `42`, `1.5` are what they look like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_SCALAR = 65_536

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

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


@dataclass
class _State:
    what: str
    nodes: int = 0


def loads(data: bytes, *, what: str) -> Value:
    """The one document in `data`. Raises `Malformed`."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"{what}: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{what}: not UTF-8", code="bad-yaml") from None
    if text.startswith("\ufeff") or "\r" in text.replace("\r\n", "") or "\x85" in text or "\u2028" in text:
        # YAML 1.1 and 1.2 end lines at different characters.
        raise Malformed(f"{what}: a byte order mark, or line ends that parsers disagree on", code="bad-yaml")
    events = yaml.parse(text, Loader=yaml.SafeLoader)
    try:
        return _document(iter(events), _State(what))
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}:"
        problem = str(getattr(cause, "problem", None) or getattr(cause, "reason", None) or "does not parse")
        raise Malformed(f"{what}:{line} {problem}"[:300], code="bad-yaml") from None
    except (ValueError, IndexError, KeyError, AttributeError, RecursionError) as cause:
        raise Malformed(f"{what}: does not parse ({type(cause).__name__})", code="bad-yaml") from None


def _document(source: Iterator[Any], state: _State) -> Value:
    next(source)  # the stream's start
    start = next(source)
    if isinstance(start, yaml.StreamEndEvent):
        raise Malformed(f"{state.what}: empty", code="empty")
    if start.version or start.tags:
        raise Malformed(f"{state.what}: a %YAML or %TAG directive", code="bad-yaml", hint="leave it out")
    value = _node(next(source), source, state, 0)
    next(source)  # the document's end
    if not isinstance(next(source), yaml.StreamEndEvent):
        raise Malformed(f"{state.what}: several documents in one file", code="bad-yaml", hint="keep one")
    return value


def _node(event: Any, source: Iterator[Any], state: _State, depth: int) -> Value:
    state.nodes += 1
    where = _where(event, state)
    if depth > MAX_DEPTH or state.nodes > MAX_NODES:
        raise Malformed(f"{where}: nested too deeply, or too much", code="too-large")
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise Malformed(
            f"{where}: an anchor or alias", code="ambiguous-yaml", hint="write the value out in each place"
        )
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise Malformed(f"{where}: the tag {str(tag)[:40]}", code="ambiguous-yaml", hint="leave tags out")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, where)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Value] = []
        while not isinstance(one := next(source), yaml.SequenceEndEvent):
            items.append(_node(one, source, state, depth + 1))
        return items
    found: dict[str, Value] = {}
    while not isinstance(one := next(source), yaml.MappingEndEvent):
        key = _key(one, state)
        if key in found:
            raise Malformed(
                f"{_where(one, state)}: {key[:60]!r} twice", code="duplicate-key", hint="keep one of the two"
            )
        found[key] = _node(next(source), source, state, depth + 1)
    return found


def _key(event: object, state: _State) -> str:
    state.nodes += 1
    where = _where(event, state)
    if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
        raise Malformed(f"{where}: a key that is no plain text", code="ambiguous-yaml", hint="write a name")
    if event.value == "<<":
        raise Malformed(f"{where}: a merge key (<<)", code="ambiguous-yaml", hint="write the values out")
    value = _scalar(event, where)
    if not isinstance(value, str) or not value:
        raise Malformed(
            f"{where}: the key {event.value[:40]!r} is no text",
            code="ambiguous-yaml",
            hint="put it in quotes",
        )
    return value


def _scalar(event: yaml.ScalarEvent, where: str) -> Value:
    text: str = event.value
    if len(text) > MAX_SCALAR:
        raise Malformed(f"{where}: a text of {len(text)} characters", code="too-large")
    if "\x00" in text:
        raise Malformed(f"{where}: NUL in a text", code="bad-yaml")
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
        raise Malformed(
            f"{where}: {text[:40]!r} means different things to different parsers of YAML",
            code="ambiguous-yaml",
            hint=f"put it in quotes if it is text: {text[:40]!r}; or write true, false, or a decimal number",
        )
    return text


def _where(event: object, state: _State) -> str:
    mark = getattr(event, "start_mark", None)
    return state.what if mark is None else f"{state.what} line {mark.line + 1}"
