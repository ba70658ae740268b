"""Text of others on one's own terminal: shown, never obeyed.

A contract, a record or an answer may hold line ends, escape sequences and marks that turn the reading
direction. Printed as they are, they could write a line of their own ("the proof holds") or hide one.
"""

from __future__ import annotations

import unicodedata

_KINDS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def printable(text: str) -> str:
    """One line: each character that is no plain one is written as a backslash escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(one) for one in text)


def _shown(one: str) -> str:
    if unicodedata.category(one) not in _KINDS:
        return one
    return one.encode("unicode_escape", "backslashreplace").decode()
