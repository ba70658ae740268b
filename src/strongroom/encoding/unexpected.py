"""What was found where another value was expected, for messages.

`kind` never repeats a text's or bytes' content, which may be a secret; `quoted` does, and is for names, digests and times.
"""

from __future__ import annotations

_MOST = 80  # characters: more than a digest has


def kind(value: object) -> str:
    """What `value` is, without its content if it is text or bytes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:#x}" if value.bit_length() > 64 else str(value)
    if isinstance(value, str):
        return f"text of {_count(len(value), 'character')}" if value else "an empty text"
    if isinstance(value, bytes):
        return _count(len(value), "byte")
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def quoted(value: object) -> str:
    """A text in quotes, cut where it is long, with letters that look like others marked; the kind of anything else."""
    if not isinstance(value, str) or not value:
        return kind(value)
    return ascii(value) if len(value) <= _MOST else f"{value[:_MOST]!a}…"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
