"""The highest numbers seen: what a vendor has said once cannot be unsaid by whoever stands between (rule 2).

TCB infos and QE identities carry a tcbEvaluationDataNumber, revocation lists a CRL number. An answer with a lower
one than was ever seen here is genuine and old: it would hide a broken TCB, or a revoked key. The numbers are
remembered apart from the statements, durably, and outlive their eviction. Only what its vendor signed is remembered,
so that nobody can block a true answer with an invented number. A damaged memory is not an empty one: it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused
from strongroom.fetch.endorsements import disk_cache

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.fetch.endorsements.statement import Mark

MAX_MARKS = 20_000
MAX_BYTES = 8 * 1024 * 1024
LOCK_SECONDS = 30.0
_FILE, _LOCK = "seen.marks", "seen.lock"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,59}", re.ASCII)  # CRL numbers have up to 20 octets


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The numbers seen, in `folder`."""

    folder: Path

    def seen(self) -> dict[str, int]:
        """Every number by its name. Raises `Malformed` when the memory is damaged."""
        path = self.folder / _FILE
        try:
            data = disk_cache.load(path, max_bytes=MAX_BYTES)
            if data is None:
                return {}
            top = fields.Fields(canonical.loads(data, what=str(path), max_bytes=MAX_BYTES), str(path))
            texts = top.text_map("seen", max_items=MAX_MARKS, max_length=60)
            top.done()
            if any(_NUMBER.fullmatch(text) is None for text in texts.values()):
                raise Malformed(f"{path}: expected numbers, got a text that is none")
            return {name: int(text) for name, text in texts.items()}
        except Malformed as cause:
            raise Malformed(
                cause.message,
                code="marks-damaged",
                hint=f"the memory of the newest versions seen is damaged: without it old ones could pass for new. "
                f"Restore {path} from a backup, or remove it if you accept that",
            ) from None

    def check(self, marks: tuple[Mark, ...]) -> None:
        """Raise `Refused` when one of `marks` is lower than what was seen."""
        _check(self.seen(), marks)

    def raise_to(self, marks: tuple[Mark, ...]) -> None:
        """Remember `marks`, durably before return. Raises `Refused` when one of them is lower than what was seen."""
        if not marks:
            return
        with disk_cache.locked(self.folder / _LOCK, seconds=LOCK_SECONDS):
            seen = self.seen()
            _check(seen, marks)
            raised = seen | {mark.name: mark.number for mark in marks}
            if raised == seen:
                return
            if len(raised) > MAX_MARKS:
                raise Refused(
                    f"{self.folder / _FILE}: {len(raised)} platforms and lists seen, expected at most {MAX_MARKS}",
                    code="too-many",
                    hint="use a folder of its own for other machines, or start a new one: what it remembers is then lost",
                )
            texts = {name: str(number) for name, number in raised.items()}
            disk_cache.write(self.folder / _FILE, canonical.dumps({"seen": texts}))


def _check(seen: dict[str, int], marks: tuple[Mark, ...]) -> None:
    for mark in marks:
        if mark.number < seen.get(mark.name, -1):
            raise Refused(
                f"{mark.name}: number {mark.number}, but {seen[mark.name]} was seen before",
                code="downgrade",
                hint="genuine, but older than what was seen: whoever gave it is behind, or holds newer ones back. Get the newest from "
                "the vendor or the publisher. (After --early, Intel's standard ones are refused until they catch up.)",
            )
