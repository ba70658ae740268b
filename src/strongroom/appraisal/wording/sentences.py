"""What a check says to people: sentences, made of its name and its data where somebody reads it.

Records and proof packs hold names and data alone (`model.verdict`), so that every text of `table` may be
changed. The table is by name; a name that ends in a dot stands for all that begin so, the longest first. What the table does
not know (a check of a later version, data that a stranger made up) is shown plainly, by its data. Never raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.wording.form import MAX_TEXT, plain
from strongroom.appraisal.wording.table import TABLE
from strongroom.model.verdict import Check, Explained

if TYPE_CHECKING:
    from strongroom.appraisal.wording.form import Phrases, Wording
    from strongroom.model.verdict import Data

UNKNOWN = "this check is of a later version, which knows what to do"
_DEVICE = "device-"


def explain(check: Check) -> Explained:
    """The check in words; in its verifier's own where it brought them."""
    words = check.words
    if words is not None:
        expected, got, hint, source = words.expected, words.got, words.hint, words.source
    elif (named := find(check.name)) is not None:
        entry, rest = named
        expected = _phrase(entry.expected, check.expected, rest)
        got = _phrase(entry.got, check.got, rest)
        hint = entry.hint.replace("{name}", rest) if isinstance(entry.hint, str) else entry.hint(check)
        source = entry.source if isinstance(entry.source, str) else entry.source(check)
    else:
        expected, got, hint, source = plain(check.expected), plain(check.got), UNKNOWN, ""
    hint = "" if check.ok else hint
    return Explained(name=check.name, ok=check.ok, expected=expected, got=got, hint=hint, source=source)


def find(name: str) -> tuple[Wording, str] | None:
    """The words for a check of that name, and what follows in the name after the table's; None: there are none."""
    while name.startswith(_DEVICE) and "." in name:  # of an attached device, by `default_policy`
        name = name.partition(".")[2]
    if name in TABLE:
        return TABLE[name], ""
    end = len(name)
    while (end := name.rfind(".", 0, end)) >= 0:
        if name[: end + 1] in TABLE:
            return TABLE[name[: end + 1]], name[end + 1 :]
    return None


def _phrase(phrases: Phrases, value: Data, rest: str) -> str:
    if value is None or value in ([], {}):
        phrase = phrases.get(None)
    else:
        phrase = phrases.get(value) if isinstance(value, str | bool) and value != "" else None
        phrase = phrase or phrases.get("")
    if phrase is None:
        return plain(value)
    if not isinstance(phrase, str):
        return phrase(value)[:MAX_TEXT]
    parts = {name: plain(part) for name, part in value.items()} if isinstance(value, dict) else {}
    try:
        return phrase.format_map({**parts, "it": plain(value), "name": rest})[:MAX_TEXT]
    except KeyError:
        return plain(value)
