"""Text of others on one's own terminal: shown, never obeyed.

A contract, a record or an answer may hold line ends, escape sequences and marks that turn the reading
direction. Printed as they are, they could write a line of their own ("the proof holds") or hide one. A plain character
is the space, or one that has a shape and no other effect.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Unicode general categories without a shape: controls, formats, surrogates, private use, unassigned, and all separators.
_SHAPELESS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"))
# Characters that are blank although their category is of letters or symbols.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Begins each row of a broken line but the first.
MORE = "       ... "


def printable(text: str) -> str:
    """One line: each character that is no plain one is written as a backslash escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character == " " or (unicodedata.category(character) not in _SHAPELESS and character not in _BLANK):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode()


def printable_json(document: str) -> str:
    """The same JSON: what is no plain character in a text of it becomes an escape of JSON's own."""
    if document.isascii():
        return document
    return "".join(
        character if _shown(character) == character else json.dumps(character)[1:-1] for character in document
    )


def say(text: str) -> None:
    """Print a line that holds texts of others. On a terminal the line is broken to fit, so that no text of others begins a row.

    A terminal would break it too, at its edge: text that is padded to there would look like a line of ours.
    """
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for row in rows(printable(text), columns):
        print(row)


def rows(line: str, columns: int) -> Iterator[str]:
    """`line` in rows of at most `columns`; all but the first begin with `MORE`. One row where there is no terminal (0 columns), or one
    so narrow that `MORE` would fill half of a row.
    """
    row, used = "", 0
    for character in line:
        wide = 1 if character.isascii() else 2  # columns, at most: a row too short does no harm
        if used + wide > columns > 2 * len(MORE):
            yield row
            row, used = MORE, len(MORE)
        row, used = row + character, used + wide
    yield row
