"""Endorsements: what a hardware vendor says about its TEEs, fetched before and kept with the verdict.

Revocation lists, TCB levels, intermediate certificates: byte strings by name, not yet believed.
Verification never fetches; a record keeps its endorsements so that its verdict can be judged again.
JSON form: {"parts": {name: BASE64}}. A verifier refuses parts that it does not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

MAX_BYTES = 4 * 1024 * 1024
MAX_PARTS = 64


@dataclass(frozen=True, kw_only=True)
class Endorsements:
    """Unverified endorsements."""

    parts: dict[str, bytes]

    def part(self, name: str) -> bytes:
        """The named part. Raises `Malformed` when it is missing: nothing is skipped for want of it."""
        if name not in self.parts:
            raise Malformed(f"endorsements: part {name!r} is missing", code="missing-part")
        return self.parts[name]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {"parts": {name: fields.format_data(data) for name, data in self.parts.items()}}

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.to_json())


NONE = Endorsements(parts={})
"""For TEEs whose evidence carries all that its verifier reads (`tpm`)."""


def read(source: fields.Fields) -> Endorsements:
    """Read the object form. Raises `Malformed`."""
    inner = source.object("parts")
    names = inner.names()
    if len(names) > MAX_PARTS:
        raise Malformed(f"{inner.what}: expected at most {MAX_PARTS} parts")
    parts = {}
    for name in names:
        if fields.NAME.fullmatch(name) is None:
            raise Malformed(f"{inner.what}: bad part name")
        parts[name] = inner.data(name, max_bytes=MAX_BYTES)
    source.done()
    return Endorsements(parts=parts)


def parse(data: bytes) -> Endorsements:
    """Parse the JSON form. Raises `Malformed`."""
    value = canonical.loads(data, what="endorsements", max_bytes=2 * MAX_BYTES)
    return read(fields.Fields(value, "endorsements"))
