"""Typed, exhaustive reading of a decoded JSON object.

Each getter removes its key; `done()` refuses whatever is left, so an unknown or misspelt key is
never silently dropped. Missing means `Malformed`, unless the getter's name says `optional`.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime
from typing import Any

from strongroom.errors import Malformed

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
NAMES = "lower-case letters, digits, dots, dashes and underscores, at most 64, like team-7"  # `NAME` in words
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1970, 8999
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)


class Fields:
    """One JSON object being consumed. `what` names it in messages."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{what}: expected an object", code="not-object")
        self._left: dict[str, Any] = dict(value)
        self.what = what

    def _pop(self, key: str) -> Any:
        if key not in self._left:
            raise Malformed(f"{self.what}: key {key!r} is missing", code="missing-key")
        return self._left.pop(key)

    def _bad(self, key: str, wanted: str) -> Malformed:
        return Malformed(f"{self.what}.{key}: expected {wanted}", code="bad-value")

    def text(self, key: str, *, max_length: int = 4096, pattern: re.Pattern[str] | None = None) -> str:
        """Non-empty text of at most `max_length` characters, matching `pattern` in full."""
        value = self._pop(key)
        if not isinstance(value, str) or not value or len(value) > max_length:
            raise self._bad(key, f"text of 1 to {max_length} characters")
        if "\x00" in value:
            raise self._bad(key, "text without NUL")
        if pattern is not None and pattern.fullmatch(value) is None:
            raise self._bad(key, f"text that matches {pattern.pattern}")
        return value

    def name(self, key: str) -> str:
        """A lower-case name: letters, digits, dot, dash, underscore; 1 to 64 characters."""
        return self.text(key, max_length=64, pattern=NAME)

    def digest(self, key: str) -> str:
        """`sha256:` and 64 lower-case hexadecimal digits."""
        return self.text(key, max_length=71, pattern=DIGEST)

    def digest_or_null(self, key: str) -> str | None:
        """A digest, or an explicit null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.digest(key)

    def integer(self, key: str, *, low: int, high: int) -> int:
        """An integer with low ≤ value ≤ high."""
        value = self._pop(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._bad(key, f"an integer from {low} to {high}")
        return value

    def boolean(self, key: str) -> bool:
        """True or false, nothing like it."""
        value = self._pop(key)
        if not isinstance(value, bool):
            raise self._bad(key, "true or false")
        return value

    def data(self, key: str, *, max_bytes: int, exactly: int | None = None) -> bytes:
        """Standard base64 with padding, canonical; `exactly` demands one decoded length in bytes."""
        value = self._pop(key)
        if not isinstance(value, str) or len(value) > (max_bytes + 2) // 3 * 4:
            raise self._bad(key, f"base64 of at most {max_bytes} bytes")
        try:
            decoded = binascii.a2b_base64(value, strict_mode=True)
        except ValueError:  # `binascii.Error` is one
            raise self._bad(key, "base64") from None
        if format_data(decoded) != value or len(decoded) > max_bytes:
            raise self._bad(key, "canonical base64")
        if exactly is not None and len(decoded) != exactly:
            raise self._bad(key, f"{exactly} bytes in base64")
        return decoded

    def data_or_null(self, key: str, *, max_bytes: int) -> bytes | None:
        """Base64 data, or an explicit null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.data(key, max_bytes=max_bytes)

    def time(self, key: str) -> datetime:
        """UTC time as `YYYY-MM-DDTHH:MM:SSZ`."""
        value = self.text(key, max_length=20, pattern=TIME)
        try:
            # Not strptime: loading it takes a room 50 ms of its start; TIME has fixed the form already.
            moment = datetime.fromisoformat(value.removesuffix("Z")).replace(tzinfo=UTC)
        except ValueError:
            raise self._bad(key, "a real date and time") from None
        # Bounded, so that adding a run's or a lifetime's seconds never leaves the calendar.
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise self._bad(key, f"a time between the years {FIRST_YEAR} and {LAST_YEAR}")
        return moment

    def items(self, key: str, *, max_items: int) -> list[Any]:
        """A list of at most `max_items`."""
        value = self._pop(key)
        if not isinstance(value, list) or len(value) > max_items:
            raise self._bad(key, f"a list of at most {max_items}")
        return value

    def items_or_null(self, key: str, *, max_items: int) -> list[Any] | None:
        """A list, or an explicit null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.items(key, max_items=max_items)

    def texts(
        self, key: str, *, max_items: int, max_length: int = 4096, pattern: re.Pattern[str] | None = None
    ) -> tuple[str, ...]:
        """A list of distinct-or-not texts, each of at most `max_length` characters."""
        out = []
        for index, item in enumerate(self.items(key, max_items=max_items)):
            one = Fields({"item": item}, f"{self.what}.{key}[{index}]")
            out.append(one.text("item", max_length=max_length, pattern=pattern))
        return tuple(out)

    def text_map(self, key: str, *, max_items: int, max_length: int = 4096) -> dict[str, str]:
        """An object whose values are all text (possibly empty)."""
        value = self._pop(key)
        if not isinstance(value, dict) or len(value) > max_items:
            raise self._bad(key, f"an object of at most {max_items} entries")
        for name, item in value.items():
            if not name or len(name) > 256 or "\x00" in name:
                raise self._bad(key, "short, non-empty entry names")
            if not isinstance(item, str) or len(item) > max_length or "\x00" in item:
                raise self._bad(key, f"text of at most {max_length} characters in each entry")
        return dict(value)

    def text_map_of(self, keys: tuple[str, ...], *, max_length: int) -> dict[str, str]:
        """The named texts, each possibly empty, of at most `max_length` characters."""
        out = {}
        for key in keys:
            value = self._pop(key)
            if not isinstance(value, str) or len(value) > max_length:
                raise self._bad(key, f"text of at most {max_length} characters")
            out[key] = value
        return out

    def value(self, key: str) -> Any:
        """Whatever stands under `key`, for the caller to judge."""
        return self._pop(key)

    def raw_object(self, key: str) -> dict[str, Any]:
        """A nested object as it was decoded, for values that are kept and shown but not acted on."""
        value = self._pop(key)
        if not isinstance(value, dict):
            raise self._bad(key, "an object")
        return value

    def object(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self._pop(key), f"{self.what}.{key}")

    def object_or_null(self, key: str) -> Fields | None:
        """A nested object, or an explicit null."""
        value = self._pop(key)
        return None if value is None else Fields(value, f"{self.what}.{key}")

    def objects(self, key: str, *, max_items: int) -> list[Fields]:
        """A list of nested objects."""
        return [
            Fields(item, f"{self.what}.{key}[{index}]")
            for index, item in enumerate(self.items(key, max_items=max_items))
        ]

    def constant(self, key: str, wanted: str) -> None:
        """Demand exactly the text `wanted`."""
        if self._pop(key) != wanted:
            raise self._bad(key, repr(wanted))

    def names(self) -> tuple[str, ...]:
        """The keys not read yet."""
        return tuple(self._left)

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self._left:
            names = ", ".join(repr(name[:40]) for name in sorted(self._left)[:5])
            raise Malformed(f"{self.what}: unknown key {names}", code="unknown-key")


def format_time(moment: datetime) -> str:
    """The text form that `Fields.time` reads. Sub-second parts are dropped."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def format_data(data: bytes) -> str:
    """The text form that `Fields.data` reads."""
    return binascii.b2a_base64(data, newline=False).decode()
