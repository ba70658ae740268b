"""Evidence as it travels: the kind of TEE and its named byte strings, not yet believed.

JSON form: {"tee": name, "parts": {name: BASE64}}. Each verifier names the parts that it reads and
refuses others.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

MAX_BYTES = 1024 * 1024
MAX_PARTS = 32


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Unverified evidence."""

    tee: str
    parts: dict[str, bytes]

    def part(self, name: str) -> bytes:
        """The named part. Raises `Malformed` when it is missing."""
        if name not in self.parts:
            raise Malformed(f"{self.tee} evidence: part {name!r} is missing", code="missing-part")
        return self.parts[name]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "tee": self.tee,
            "parts": {name: fields.format_data(data) for name, data in self.parts.items()},
        }

    def encode(self) -> bytes:
        """The canonical bytes, whose digest names this evidence in records."""
        return canonical.dumps(self.to_json())


def read(source: fields.Fields) -> Evidence:
    """Read the object form. Raises `Malformed`."""
    tee = source.name("tee")
    inner = source.object("parts")
    names = inner.names()
    if not 0 < len(names) <= MAX_PARTS:
        raise Malformed(f"{inner.what}: expected 1 to {MAX_PARTS} parts")
    parts = {}
    for name in names:
        if fields.NAME.fullmatch(name) is None:
            raise Malformed(f"{inner.what}: bad part name")
        parts[name] = inner.data(name, max_bytes=MAX_BYTES)
    source.done()
    return Evidence(tee=tee, parts=parts)


def parse(data: bytes) -> Evidence:
    """Parse the JSON form. Raises `Malformed`."""
    value = canonical.loads(data, what="evidence", max_bytes=2 * MAX_BYTES)
    return read(fields.Fields(value, "evidence"))
