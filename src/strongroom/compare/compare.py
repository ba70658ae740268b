"""What changed between two bases, images or contracts, as whoever must approve the new one wants to read that.

What is compared is a `ComparedSide`: named facts by topic, and trees of files. What a change touches is the part that it is
in; which registers measure that part, the subject says. Topics are in the order in which they matter.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from strongroom.seal.tree import Entry, EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_RUN = 1 << 20
_CAPABILITIES = b"security.capability"


class Topic(enum.StrEnum):
    """What a change is about, the most important first."""

    DEBUG = "debug"
    PLATFORM = "platform"
    REFERENCE = "reference"
    CMDLINE = "cmdline"
    KERNEL = "kernel"
    SETTING = "setting"
    RIGHTS = "rights"
    PACKAGE = "package"
    MODULE = "module"
    FILE = "file"
    DATE = "date"
    BYTES = "bytes"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference. before, after: None where that side has no such thing. registers: those that measure `part`."""

    topic: Topic
    part: str
    name: str
    before: str | None
    after: str | None
    registers: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "topic": self.topic.value,
            "part": self.part,
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "registers": list(self.registers),
        }


@dataclass(frozen=True, kw_only=True)
class ComparedSide:
    """One side. kind: only like is compared with like. parts: digests of what is measured or signed as a whole.

    facts: (topic, part, name) → value. words: the command line. trees: by the part that they are in. registers: by part.
    """

    kind: str
    parts: Mapping[str, str]
    facts: Mapping[tuple[Topic, str, str], str]
    words: tuple[str, ...] = ()
    trees: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    registers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def compare(old: ComparedSide, new: ComparedSide) -> tuple[Difference, ...]:
    """Every difference, the most important first; empty when both are the same bytes."""
    changes = [*_facts(old, new), *_words(old, new)]
    for part in dict.fromkeys((*old.trees, *new.trees)):
        changes += _files(part, old.trees.get(part, ()), new.trees.get(part, ()))
    explained = {change.part for change in changes}
    changes += [
        Difference(
            topic=Topic.BYTES,
            part=part,
            name=part,
            before=old.parts[part],
            after=new.parts[part],
            registers=(),
        )
        for part in changed_registers(old, new)
        if part not in explained
    ]
    order = list(Topic)
    measured = (replace(change, registers=_registers(change.part, old, new)) for change in changes)
    # Of one topic, what came and what went stand before what changed.
    return tuple(
        sorted(
            measured,
            key=lambda change: (order.index(change.topic), None not in (change.before, change.after)),
        )
    )


def changed_registers(old: ComparedSide, new: ComparedSide) -> dict[str, tuple[str, ...]]:
    """The registers that change, by the part that changed. A part that one side does not state is not compared."""
    return {
        part: _registers(part, old, new)
        for part in old.parts
        if part in new.parts and old.parts[part] != new.parts[part]
    }


def _registers(part: str, old: ComparedSide, new: ComparedSide) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*old.registers.get(part, ()), *new.registers.get(part, ()))))


def _facts(old: ComparedSide, new: ComparedSide) -> Iterator[Difference]:
    for key in sorted({*old.facts, *new.facts}):
        topic, part, name = key
        before, after = old.facts.get(key), new.facts.get(key)
        if before != after:
            yield _change(topic, part, name, before, after)


def _change(topic: Topic, part: str, name: str, before: str | None, after: str | None) -> Difference:
    return Difference(topic=topic, part=part, name=name, before=before, after=after, registers=())


def _words(old: ComparedSide, new: ComparedSide) -> Iterator[Difference]:
    """The command line word by word: values of one name side by side, then what only one side has."""
    change = functools.partial(_change, Topic.CMDLINE, "cmdline")
    removed, come = Counter(old.words) - Counter(new.words), Counter(new.words) - Counter(old.words)
    values = [_once(words) for words in (removed, come)]
    for name in sorted(values[0].keys() & values[1].keys()):
        yield change(name, values[0][name], values[1][name])
        del removed[f"{name}={values[0][name]}"], come[f"{name}={values[1][name]}"]
    for word in sorted(removed.elements()):
        yield change(word, word, None)
    for word in sorted(come.elements()):
        yield change(word, None, word)
    if Counter(old.words) == Counter(new.words) and old.words != new.words:
        yield change("order of the words", " ".join(old.words), " ".join(new.words))


def _once(words: Counter[str]) -> dict[str, str]:
    """Name → value of the words of form name=value whose name is there once."""
    names = Counter(word.partition("=")[0] for word in words.elements())
    return {
        name: value
        for name, _, value in (word.partition("=") for word in words)
        if value and names[name] == 1
    }


def _files(part: str, old: Iterable[Entry], new: Iterable[Entry]) -> Iterator[Difference]:
    before, after = ({entry.path: entry for entry in side} for side in (old, new))
    dates = 0
    for path in sorted({*before, *after}):
        left, right = before.get(path), after.get(path)
        name = f"{part}: {path.decode('utf-8', 'backslashreplace') or '/'}"
        digests = _digests(left, right)
        if (
            left is not None
            and right is not None
            and digests == (None, None)
            and _owned(left) == _owned(right)
        ):
            dates += left.mtime != right.mtime
            continue
        if _rights(left) != _rights(right):
            yield _change(Topic.RIGHTS, part, name, _rights(left), _rights(right))
        yield _change(Topic.FILE, part, name, _described(left, digests[0]), _described(right, digests[1]))
    if dates:
        count = f"{dates} file{'s' if dates > 1 else ''} with other dates and nothing else"
        yield _change(Topic.DATE, part, part, "", count)


def _digests(left: Entry | None, right: Entry | None) -> tuple[str | None, str | None]:
    """The contents' digests where they differ. Files are read: there is no other way to know."""
    if left is None or right is None or left.kind is not right.kind or left.kind is not EntryKind.FILE:
        return None, None
    pair = (_digest(left), _digest(right))
    return (None, None) if pair[0] == pair[1] else pair


def _digest(entry: Entry) -> str:
    if entry.open is None:
        return ""
    value = hashlib.sha256()
    with entry.open() as content:
        while run := content.read(_RUN):
            value.update(run)
    return value.hexdigest()


def _owned(entry: Entry) -> tuple[object, ...]:
    """All but content and date."""
    return entry.kind, entry.mode, entry.uid, entry.gid, entry.target, dict(entry.xattrs)


def _rights(entry: Entry | None) -> str | None:
    """What a file may do that its user may not; None where that is nothing."""
    if entry is None or entry.kind is not EntryKind.FILE:
        return None
    words = ["set-uid"] if entry.mode & 0o4000 else []
    words += ["set-gid"] if entry.mode & 0o2000 else []
    words += ["capabilities"] if _CAPABILITIES in entry.xattrs else []
    return f"{', '.join(words)}, owner {entry.uid}:{entry.gid}" if words else None


def _described(entry: Entry | None, digest: str | None) -> str | None:
    if entry is None:
        return None
    words = [f"{entry.kind.value}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}"]
    if entry.kind is EntryKind.FILE:
        words.append(f"{entry.size} bytes")
    if entry.kind is EntryKind.SYMLINK:
        words.append(f"to {entry.target.decode('utf-8', 'backslashreplace')}")
    if digest:
        words.append(f"sha256:{digest}")
    if entry.xattrs:
        words.append("attributes " + " ".join(sorted(name.decode() for name in entry.xattrs)))
    return ", ".join(words)
