"""YAML as programs print evidence in it: mappings, lists, block texts, and JSON's lists in brackets. Bounded.

Spec: YAML 1.2.2, of which this reads what cannot be read in two ways. Refused: anchors, aliases, tags, merge keys,
several documents, tabs, keys that come twice or are not plain names (rule 31).
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_LINES = 50_000
MAX_DEPTH = 12
_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,79}):(?:$|[ ]+(.*))")
_BLOCK = re.compile(r"[|>][+-]?")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_WORDS: dict[str, Any] = {"null": None, "~": None, "true": True, "false": False}
_NEVER = "&*!%@`{}?"


def loads(text: str) -> Any:
    """The one mapping or list in `text`. Raises `ValueError`."""
    reader = _Reader(text)
    value = reader.block(0, 0)
    if reader.peek() is not None:
        raise ValueError("something after the end, or out of line")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.at = 0
        if len(self.lines) > MAX_LINES or "\t" in text or "\r" in text:
            raise ValueError("too long, or with tabs")

    def peek(self) -> tuple[int, str] | None:
        """How far the next line that says something is indented, and what it says."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            content = line.lstrip(" ")
            if content and not content.startswith("#"):
                return len(line) - len(content), content.rstrip()
            self.at += 1
        return None

    def block(self, least: int, depth: int) -> Any:
        """The mapping or list that begins at the next line, indented by at least `least`."""
        line = self.peek()
        if depth > MAX_DEPTH or line is None or line[0] < least:
            raise ValueError("too deep, or nothing where something is due")
        indent, content = line
        return self._list(indent, depth) if content.startswith("-") else self._mapping(indent, depth)

    def _list(self, indent: int, depth: int) -> list[Any]:
        out = []
        while (line := self.peek()) is not None and line[0] == indent and line[1].startswith("- "):
            self.at += 1
            out.append(self._value(line[1][2:].strip(), indent, depth))
        return out

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while (line := self.peek()) is not None and line[0] == indent:
            match = _KEY.fullmatch(line[1])
            if match is None or match[1] in out:
                raise ValueError("expected a plain key, once")
            self.at += 1
            rest = (match[2] or "").strip()
            out[match[1]] = self._value(rest, indent, depth) if rest else self._below(indent, depth)
        return out

    def _below(self, indent: int, depth: int) -> Any:
        line = self.peek()
        if line is None or line[0] < indent or (line[0] == indent and not line[1].startswith("- ")):
            return None
        return self.block(indent, depth + 1)

    def _value(self, rest: str, indent: int, depth: int) -> Any:
        if _BLOCK.fullmatch(rest):
            return self._text(indent)
        if rest.startswith("["):
            return self._brackets(rest)
        if rest.startswith('"'):
            value = json.loads(rest)
            if not isinstance(value, str):
                raise ValueError("expected a text")
            return value
        if rest.startswith("'"):
            if len(rest) < 2 or not rest.endswith("'") or "'" in rest[1:-1].replace("''", ""):
                raise ValueError("expected a text")
            return rest[1:-1].replace("''", "'")
        if rest[0] in _NEVER or rest.startswith(("- ", "<<", "---")) or ": " in rest or depth > MAX_DEPTH:
            raise ValueError("a form that is not read here")
        plain = rest.split(" #", maxsplit=1)[0].rstrip()
        return int(plain) if _NUMBER.fullmatch(plain) else _WORDS.get(plain, plain)

    def _text(self, indent: int) -> str:
        out = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.strip() and len(line) - len(line.lstrip(" ")) <= indent:
                break
            out.append(line.strip())
            self.at += 1
        return "\n".join(out).rstrip("\n")

    def _brackets(self, rest: str) -> Any:
        """A list as JSON has it, which may go over lines: up to where its brackets are closed."""
        parts, still_open = [rest], rest.count("[") - rest.count("]")
        while still_open > 0:
            if self.at == len(self.lines):
                raise ValueError("brackets that are not closed")
            line = self.lines[self.at].strip()
            still_open += line.count("[") - line.count("]")
            parts.append(line)
            self.at += 1
        try:
            return json.loads(" ".join(parts))  # JSONDecodeError is a ValueError
        except RecursionError:
            raise ValueError("too deep") from None
