"""Endorsements: what a hardware vendor says about its TEEs, fetched before and kept with the verdict.

Revocation lists, TCB levels, intermediate certificates: byte strings by name, not yet believed.
Verification never fetches; a record keeps its endorsements so that its verdict can be judged again.
JSON form: {"parts": {name: BASE64}}. A verifier refuses parts that it does not read. The part NAME for the
attached device at place N is called `device-N.NAME` (`evidence/attached.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import parts as named_parts

MAX_BYTES = 4 * 1024 * 1024
MAX_PARTS = 512  # of a processor and 64 devices


@dataclass(frozen=True, kw_only=True)
class Endorsements:
    """Unverified endorsements."""

    parts: dict[str, bytes]

    def part(self, name: str) -> bytes:
        """The named part. Raises `Malformed` when it is missing: nothing is skipped for want of it."""
        if name not in self.parts:
            raise Malformed(
                f"endorsements: part {name!r} is missing, given are: {', '.join(sorted(self.parts)) or 'none'}",
                code="missing-part",
            )
        return self.parts[name]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {"parts": named_parts.to_json(self.parts)}

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.to_json())


NONE = Endorsements(parts={})
"""For TEEs whose evidence carries all that its verifier reads."""

SELF_CONTAINED = frozenset({"nitro", "nvgpu", "tpm"})
"""Those TEEs: nobody is asked anything for them."""


def vouches(given: Endorsements, tee: str) -> bool:
    """Whether anything is at hand by which signatures of that TEE's evidence are verified."""
    return bool(given.parts) or tee in SELF_CONTAINED


def read(source: fields.Fields) -> Endorsements:
    """Read the object form. Raises `Malformed`."""
    parts = named_parts.read(source.object("parts"), least=0, most=MAX_PARTS, max_bytes=MAX_BYTES)
    source.done()
    return Endorsements(parts=parts)


def parse(data: bytes) -> Endorsements:
    """Parse the JSON form. Raises `Malformed`."""
    value = canonical.loads(data, what="endorsements", max_bytes=2 * MAX_BYTES)
    return read(fields.Fields(value, "endorsements"))
