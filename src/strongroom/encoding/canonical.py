"""JSON as this project writes and reads it.

Written: RFC 8785 (JCS) over the subset {object, array, string, integer, boolean, null}; no floats,
integers within ±(2**53 - 1), so that sorting and number formatting have one answer.
A process that writes much gives `write_with` a faster encoder; what may be written is checked here all the
same, and the bytes do not differ by one (properties hold both to that).

Read: strict. Duplicate keys, floats, NaN, big integers, lone surrogates, deep nesting and
over-long input are refused. Signed documents are hashed as the exact bytes that were read.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
_TOO_DEEP = f"nested too deeply: at most {MAX_DEPTH} levels allowed"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Encoder(Protocol):
    """Writes what `dumps` has checked: UTF-8, no spaces, only what JSON demands escaped."""

    def __call__(self, value: object, *, sort: bool) -> bytes:
        """The bytes. sort: keys by code point; else in the order in which they stand.

        Raises `TypeError` for what it does not know; the standard library then writes it.
        """


def dumps(value: object) -> bytes:
    """Encode `value` canonically. Raises `Malformed` for what the subset does not hold."""
    # Code points and UTF-16 code units sort ASCII keys alike, and this way is many times faster.
    ascii_keys = _check(value)
    ordered = value if ascii_keys else _sorted(value)
    try:
        return _encoder(ordered, sort=ascii_keys)
    except TypeError:
        return by_json(ordered, sort=ascii_keys)


def by_json(value: object, *, sort: bool) -> bytes:
    """The encoder of the standard library, which every process has."""
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=sort
    ).encode()


_encoder: Encoder = by_json


def write_with(encoder: Encoder) -> None:
    """Write with `encoder` from now on, in this process."""
    global _encoder  # noqa: PLW0603 - one process has one encoder
    _encoder = encoder


def loads(data: bytes, *, what: str, max_bytes: int) -> Any:
    """Decode `data` strictly. Raises `Malformed` only."""
    if len(data) > max_bytes:
        raise Malformed(f"{what}: {len(data)} bytes, at most {max_bytes} allowed", code="too-large")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        _check(value)
    except Malformed as cause:
        raise Malformed(f"{what}: {cause.message}", code=cause.code) from None
    except RecursionError:
        raise Malformed(f"{what}: {_TOO_DEEP}", code="too-deep") from None
    except ValueError as cause:
        raise Malformed(f"{what}: not JSON: {_why(cause)}", code="not-json") from None
    return value


def _why(cause: ValueError) -> str:
    """The reason in a sentence; Python's own speak of codecs and of its settings."""
    if isinstance(cause, json.JSONDecodeError):
        return str(cause)
    if isinstance(cause, UnicodeDecodeError):
        return f"byte {cause.start} is not UTF-8"
    return "a number has too many digits"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise Malformed(f"duplicate key {key[:40]!r}", code="duplicate-key")
        unique[key] = value
    return unique


def _no_float(text: str) -> NoReturn:
    raise Malformed(f"number {text[:40]!r} is not an integer", code="not-integer")


# Made once: to make it takes longer than to read a short message.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float)


def _check(value: object) -> bool:
    """Raise `Malformed` for what the subset does not hold; return whether all keys are ASCII.

    Level by level, and every key once, however often it occurs: this walk is a good part of what a ledger entry costs.
    """
    keys: set[Any] = set()
    texts: list[str] = []
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, dict):
                keys.update(item)
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif item is not None and not isinstance(item, bool):
                _check_integer(item)
        if not below:
            _check_texts(texts)
            return _check_keys(keys)
        level = below
    raise Malformed(_TOO_DEEP, code="too-deep")


def _check_integer(value: object) -> None:
    if not isinstance(value, int):
        raise Malformed(f"{type(value).__name__} has no place in canonical JSON", code="bad-type")
    if abs(value) > MAX_INTEGER:
        raise Malformed(f"integer out of range, at most {MAX_INTEGER} either way", code="integer-range")


def _check_keys(keys: set[Any]) -> bool:
    for key in keys:
        if not isinstance(key, str):
            raise Malformed("object key is not text", code="bad-key")
    return _check_texts(keys)


def _check_texts(texts: Collection[str]) -> bool:
    """Raise `Malformed` for a lone surrogate; return whether all of it is ASCII."""
    if "".join(texts).isascii():
        return True
    # Text by text: what is ASCII, and long because it is base64, is not searched because of one dash elsewhere.
    for text in texts:
        if not text.isascii() and _SURROGATE.search(text) is not None:
            raise Malformed(
                "lone surrogate in text (U+D800 to U+DFFF), which is no character", code="bad-text"
            )
    return False


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return _sorted_object(value)
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def _sorted_object(value: Mapping[str, object]) -> dict[str, object]:
    # RFC 8785 sorts keys by UTF-16 code units, which differs from code points above the BMP.
    return {key: _sorted(value[key]) for key in sorted(value, key=lambda k: k.encode("utf-16-be"))}
