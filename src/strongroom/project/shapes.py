"""Shapes of values below `x-strongroom`: each reads a value that YAML gave, and says itself in JSON Schema (draft 2020-12).

So what editors complete and what is accepted cannot part: both come of one object. What does not fit is a finding at its line,
and every finding of a file is gathered before anything is refused.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from strongroom.images.compose import strict_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.images.compose.place import ComposePlace
    from strongroom.images.compose.strict_yaml import Value
    from strongroom.images.preflight.findings import Finding

CHECK = "x-strongroom"
"""The name of findings about these keys."""
Schema = dict[str, Any]


class Shape(Protocol):
    """What a value may be."""

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> Any:
        """The value, where it fits; what does not goes to `problems`, and None stands in its place."""

    def schema(self) -> Schema:
        """The same for editors."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text that `pattern` matches as a whole; `like` says it in words. The pattern is read by Python and by ECMAScript."""

    pattern: str
    like: str
    most: int = 400

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> str | None:
        """As of `Shape`."""
        if isinstance(value, str) and len(value) <= self.most and re.fullmatch(self.pattern, value, re.ASCII):
            return value
        _wrong(place, problems, self.like, value)
        return None

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {
            "type": "string",
            "maxLength": self.most,
            "pattern": f"^(?:{self.pattern})$(?!\\n)",
        }  # Python's $ is before a last line end, too


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> str | None:
        """As of `Shape`."""
        if isinstance(value, str) and value in self.words:
            return value
        _wrong(place, problems, f"one of {', '.join(self.words)}", value)
        return None

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> int | None:
        """As of `Shape`."""
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return value
        _wrong(place, problems, f"a whole number from {self.low} to {self.high}, without quotes", value)
        return None

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """`true` or `false`."""

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> bool | None:
        """As of `Shape`."""
        if isinstance(value, bool):
            return value
        _wrong(place, problems, "true or false", value)
        return None

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class ListOf:
    """A list of 1 to `most` items of one shape, each there once, unless it `repeats`."""

    item: Shape
    most: int = 64
    repeats: bool = False

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> list[Any] | None:
        """As of `Shape`."""
        if not isinstance(value, list) or not 1 <= len(value) <= self.most:
            _wrong(place, problems, f"a list of 1 to {self.most}", value)
            return None
        items = [self.item.read(item, place.key(number), problems) for number, item in enumerate(value)]
        for number, item in enumerate(items):
            if item is not None and item in items[:number] and not self.repeats:
                problems.append(place.key(number).blocks(CHECK, "stands there twice", "keep one of the two"))
        return [item for item in items if item is not None]

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {
            "type": "array",
            "items": self.item.schema(),
            "minItems": 1,
            "maxItems": self.most,
            **({} if self.repeats else {"uniqueItems": True}),
        }


@dataclass(frozen=True, kw_only=True)
class MapOf:
    """A mapping from names to values of one shape, 1 to `most` of them."""

    key: Text
    item: Shape
    most: int = 64

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> dict[str, Any] | None:
        """As of `Shape`."""
        if not isinstance(value, dict) or not 1 <= len(value) <= self.most:
            _wrong(place, problems, f"1 to {self.most} names, each with its value", value)
            return None
        out = {}
        for name, item in value.items():
            at = place.key(name)
            if name == strict_yaml.MERGE:
                continue  # said already
            taken = self.item.read(item, at, problems)
            if self.key.read(name, at, problems) is not None and taken is not None:
                out[name] = taken
        return out

    def schema(self) -> Schema:
        """As of `Shape`."""
        return {
            "type": "object",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.item.schema(),
            "minProperties": 1,
            "maxProperties": self.most,
        }


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key: the shape of its value, and a sentence for whoever writes the file."""

    shape: Shape
    about: str
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class KeyedObject:
    """A mapping with keys of these names alone."""

    keys: Mapping[str, Key] = field(default_factory=dict)

    def read(self, value: Value, place: ComposePlace, problems: list[Finding]) -> dict[str, Any] | None:
        """As of `Shape`: what the file does not say, or says nothing clear of, is not in it."""
        if not isinstance(value, dict) or not value:
            _wrong(place, problems, f"keys of {', '.join(self.keys)}", value)
            return None
        out = {}
        for name, item in value.items():
            at = place.key(name)
            if name == strict_yaml.MERGE or item is strict_yaml.UNCLEAR:
                continue
            known = self.keys.get(name)
            if known is None:
                near = difflib.get_close_matches(name, self.keys, 1, 0.7)
                fix = f"is {near[0]} meant?" if near else f"known are {', '.join(self.keys)}"
                problems.append(at.blocks(CHECK, "is no key here, and nothing would be done with it", fix))
                continue
            taken = known.shape.read(item, at, problems)
            if taken is not None:
                out[name] = taken
        for name, known in self.keys.items():
            if known.required and name not in value:
                problems.append(place.blocks(CHECK, f"{name} is missing", f"write {name}: {known.about}"))
        return out

    def schema(self) -> Schema:
        """As of `Shape`."""
        properties = {
            name: {"description": key.about, **key.shape.schema()} for name, key in self.keys.items()
        }
        required = [name for name, key in self.keys.items() if key.required]
        return {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "minProperties": 1,
            **({"required": required} if required else {}),
        }


def _wrong(place: ComposePlace, problems: list[Finding], expected: str, value: Value) -> None:
    if value is strict_yaml.UNCLEAR:
        return  # the reader of YAML has said it, with its line
    got = "nothing" if value is None else f"{str(value)[:60]!r}"
    problems.append(place.blocks(CHECK, f"expected {expected}, got {got}", f"write {expected}"))
