"""Typed, exhaustive reading of a decoded JSON object.

Each getter removes its key; `done()` refuses whatever is left, so an unknown or misspelt key is
never silently dropped. Missing means `Malformed`, unless the getter's name says `optional`.
"""

from __future__ import annotations

import binascii
import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from strongroom.encoding import unexpected
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
NAMES = "lower-case letters, digits, dots, dashes and underscores, at most 64, like team-7"  # `NAME` in words
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
MAX_WORD = 65536
FIRST_YEAR, LAST_YEAR = 1970, 8999
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
# What texts of these forms look like, in words.
NAME_LIKE = "a name: at most 64 lower-case letters, digits, dots, dashes and underscores, first and last a letter or digit"
DIGEST_LIKE = "sha256: and 64 lower-case hexadecimal digits"
_LIKE: dict[re.Pattern[str] | None, str] = {
    NAME: NAME_LIKE,
    DIGEST: DIGEST_LIKE,
    TIME: "a UTC time like 2026-12-31T00:00:00Z",
}


class Fields:
    """One JSON object being consumed. `what` names it in messages.

    quoting: messages quote a wrong name, digest, time or choice. For documents that people exchange as files, and not for
    requests, which do not come back in answers; a text of no form may be a secret and is quoted in neither.
    """

    def __init__(self, value: object, what: str, *, quoting: bool = False) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{what}: expected an object, got {unexpected.kind(value)}", code="not-object")
        self._left: dict[str, Any] = dict(value)
        self._shown = unexpected.quoted if quoting else unexpected.kind
        self._quoting = quoting
        self.what = what

    def _pop(self, key: str) -> Any:
        if key not in self._left:
            raise Malformed(f"{self.what}: key {key!r} is missing", code="missing-key")
        return self._left.pop(key)

    def _bad(self, key: str, wanted: str, got: str) -> Malformed:
        return _bad(f"{self.what}.{key}", wanted, got)

    def null(self, key: str) -> bool:
        """Whether an explicit null stands there, which is read by this; all else is left for another reading."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return True
        return False

    def text(
        self, key: str, *, max_length: int = 4096, pattern: re.Pattern[str] | None = None, like: str = ""
    ) -> str:
        """Non-empty text of at most `max_length` characters, matching `pattern` in full; `like` says that in words."""
        return _text(
            self._pop(key),
            f"{self.what}.{key}",
            max_length,
            pattern,
            like or _LIKE.get(pattern, ""),
            self._shown,
        )

    def name(self, key: str) -> str:
        """A lower-case name: letters, digits, dot, dash, underscore; 1 to 64 characters."""
        return self.text(key, max_length=64, pattern=NAME)

    def digest(self, key: str) -> str:
        """`sha256:` and 64 lower-case hexadecimal digits."""
        return self.text(key, max_length=71, pattern=DIGEST)

    def digest_or_null(self, key: str) -> str | None:
        """A digest, or an explicit null."""
        return None if self.null(key) else self.digest(key)

    def integer(self, key: str, *, low: int, high: int) -> int:
        """An integer with low ≤ value ≤ high."""
        value = self._pop(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._bad(key, f"an integer from {low} to {high}", unexpected.kind(value))
        return value

    def boolean(self, key: str) -> bool:
        """True or false, nothing like it."""
        value = self._pop(key)
        if not isinstance(value, bool):
            raise self._bad(key, "true or false", unexpected.kind(value))
        return value

    def data(self, key: str, *, max_bytes: int, exactly: int | None = None) -> bytes:
        """Standard base64 with padding, canonical; `exactly` demands one decoded length in bytes."""
        value = self._pop(key)
        if not isinstance(value, str) or len(value) > (max_bytes + 2) // 3 * 4:
            raise self._bad(key, f"base64 of at most {max_bytes} bytes", unexpected.kind(value))
        try:
            decoded = binascii.a2b_base64(value, strict_mode=True)
        except ValueError:  # `binascii.Error` is one
            raise self._bad(key, "base64 with its padding", "other text") from None
        if len(decoded) > max_bytes:
            raise self._bad(key, f"base64 of at most {max_bytes} bytes", f"{len(decoded)} bytes")
        if format_data(decoded) != value:
            raise self._bad(
                key, "canonical base64", "text whose last character has unused bits that are not zero"
            )
        if exactly is not None and len(decoded) != exactly:
            raise self._bad(key, f"{exactly} bytes in base64", f"{len(decoded)} bytes")
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
            raise self._bad(key, "a date and time that exist", ascii(value)) from None
        # Bounded, so that adding a run's or a lifetime's seconds never leaves the calendar.
        if not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise self._bad(key, f"a time in the years {FIRST_YEAR} to {LAST_YEAR}", ascii(value))
        return moment

    def items(self, key: str, *, max_items: int) -> list[Any]:
        """A list of at most `max_items`."""
        value = self._pop(key)
        if not isinstance(value, list) or len(value) > max_items:
            raise self._bad(key, f"a list of at most {max_items}", unexpected.kind(value))
        return value

    def texts(
        self,
        key: str,
        *,
        max_items: int,
        max_length: int = 4096,
        pattern: re.Pattern[str] | None = None,
        like: str = "",
    ) -> tuple[str, ...]:
        """A list of distinct-or-not texts, each of at most `max_length` characters."""
        listed, form = enumerate(self.items(key, max_items=max_items)), like or _LIKE.get(pattern, "")
        return tuple(
            [
                _text(item, f"{self.what}.{key}[{at}]", max_length, pattern, form, self._shown)
                for at, item in listed
            ]
        )

    def choice(self, key: str, known: Iterable[str]) -> str:
        """One of the texts `known`."""
        value = self._pop(key)
        wanted = tuple(known)
        if not isinstance(value, str) or value not in wanted:
            raise self._bad(
                key, ("" if len(wanted) == 1 else "one of ") + ", ".join(wanted), self._shown(value)
            )
        return value

    def words(self, key: str, *, max_items: int) -> tuple[str, ...]:
        """A list of texts, each possibly empty, of at most `MAX_WORD` characters: a command's arguments."""
        listed = self.items(key, max_items=max_items)
        for index, item in enumerate(listed):
            if not isinstance(item, str) or len(item) > MAX_WORD or "\x00" in item:
                wanted = f"text of at most {MAX_WORD} characters, none of them NUL"
                raise self._bad(f"{key}[{index}]", wanted, unexpected.kind(item))
        return tuple(listed)

    def words_or_null(self, key: str, *, max_items: int) -> tuple[str, ...] | None:
        """Words, or an explicit null."""
        return None if self.null(key) else self.words(key, max_items=max_items)

    def datas(
        self, key: str, *, max_items: int, max_bytes: int, exactly: int | None = None
    ) -> tuple[bytes, ...]:
        """A list of byte strings, each as `data` reads one."""
        listed = self.items(key, max_items=max_items)
        each = Fields({f"{key}[{at}]": item for at, item in enumerate(listed)}, self.what)
        return tuple([each.data(name, max_bytes=max_bytes, exactly=exactly) for name in each.names()])

    def text_map(self, key: str, *, max_items: int, max_length: int = 4096) -> dict[str, str]:
        """An object whose values are all text (possibly empty)."""
        value = self._pop(key)
        if not isinstance(value, dict) or len(value) > max_items:
            raise self._bad(key, f"an object of at most {max_items} entries", unexpected.kind(value))
        for name, item in value.items():
            if not name or len(name) > 256 or "\x00" in name:
                wanted = "an object whose keys have 1 to 256 characters, none of them NUL"
                raise self._bad(key, wanted, f"the key {name[:40]!a}")
            if not isinstance(item, str) or len(item) > max_length or "\x00" in item:
                wanted = f"text of at most {max_length} characters, none of them NUL"
                place = name[:40] if name.isascii() and name.isprintable() else f"{name[:40]!a}"
                raise self._bad(f"{key}.{place}", wanted, unexpected.kind(item))
        return dict(value)

    def text_map_of(self, keys: tuple[str, ...], *, max_length: int) -> dict[str, str]:
        """The named texts, each possibly empty, of at most `max_length` characters."""
        out = {}
        for key in keys:
            value = self._pop(key)
            if not isinstance(value, str) or len(value) > max_length:
                raise self._bad(key, f"text of at most {max_length} characters", unexpected.kind(value))
            out[key] = value
        return out

    def value(self, key: str) -> Any:
        """Whatever stands under `key`, for the caller to judge."""
        return self._pop(key)

    def raw_object(self, key: str) -> dict[str, Any]:
        """A nested object as it was decoded, for values that are kept and shown but not acted on."""
        value = self._pop(key)
        if not isinstance(value, dict):
            raise self._bad(key, "an object", unexpected.kind(value))
        return value

    def object(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self._pop(key), f"{self.what}.{key}", quoting=self._quoting)

    def object_or_null(self, key: str) -> Fields | None:
        """A nested object, or an explicit null."""
        value = self._pop(key)
        return None if value is None else Fields(value, f"{self.what}.{key}", quoting=self._quoting)

    def objects(self, key: str, *, max_items: int) -> list[Fields]:
        """A list of nested objects."""
        return [
            Fields(item, f"{self.what}.{key}[{index}]", quoting=self._quoting)
            for index, item in enumerate(self.items(key, max_items=max_items))
        ]

    def constant(self, key: str, wanted: str) -> None:
        """Demand exactly the text `wanted`."""
        value = self._pop(key)
        if value != wanted:
            raise self._bad(key, repr(wanted), self._shown(value))

    def names(self) -> tuple[str, ...]:
        """The keys not read yet."""
        return tuple(self._left)

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self._left:
            names = ", ".join(repr(name[:40]) for name in sorted(self._left)[:5])
            raise Malformed(f"{self.what}: unknown key {names}", code="unknown-key")


def _bad(place: str, wanted: str, got: str) -> Malformed:
    return Malformed(f"{place}: expected {wanted}, got {got}", code="bad-value")


def _text(
    value: object,
    place: str,
    max_length: int,
    pattern: re.Pattern[str] | None,
    form: str,
    shown: Callable[[object], str],
) -> str:
    """The text `value`. form: what `pattern` demands, in words; shown: what messages say of a text of another form."""
    if not isinstance(value, str) or not value or len(value) > max_length:
        if form:
            raise _bad(place, form, shown(value))
        raise _bad(place, f"text of 1 to {max_length} characters", unexpected.kind(value))
    if "\x00" in value:
        raise _bad(place, "text without NUL", "text with one")
    if pattern is not None and pattern.fullmatch(value) is None:
        raise _bad(place, form or f"text that matches {pattern.pattern}", shown(value))
    return value


@contextlib.contextmanager
def hinted(hint: str) -> Iterator[None]:
    """Within, what does not parse says what to do: `hint`, where its parser has none of its own."""
    try:
        yield
    except Malformed as cause:
        cause.hint = cause.hint or hint
        raise


def format_time(moment: datetime) -> str:
    """The text form that `Fields.time` reads. Sub-second parts are dropped."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def format_data(data: bytes) -> str:
    """The text form that `Fields.data` reads."""
    return binascii.b2a_base64(data, newline=False).decode()
