"""Evidence as it travels: the kind of TEE and its named byte strings, not yet believed.

JSON form: {"tee": name, "parts": {name: BASE64}}, and where devices are attached to that TEE, their evidence in
the same form under "devices": [{"tee", "parts"}]. One digest names it all, so that records, certificates and proof
packs cannot tell of the processor without its devices. Each verifier names the parts that it reads and refuses
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model import parts as named_parts
from strongroom.model.identifiers import EvidenceDigest

MAX_BYTES = 1024 * 1024
MAX_PARTS = 32
MAX_DEVICES = 64


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Unverified evidence. devices: that of attached devices, which have none of their own."""

    tee: str
    parts: dict[str, bytes]
    devices: tuple[Evidence, ...] = ()

    def part(self, name: str) -> bytes:
        """The named part. Raises `Malformed` when it is missing."""
        if name not in self.parts:
            raise Malformed(
                f"{self.tee} evidence: part {name!r} is missing, given are: {', '.join(sorted(self.parts)) or 'none'}",
                code="missing-part",
            )
        return self.parts[name]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        document: dict[str, Any] = {"tee": self.tee, "parts": named_parts.to_json(self.parts)}
        if self.devices:
            document["devices"] = [device.to_json() for device in self.devices]
        return document

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.to_json())

    @property
    def digest(self) -> EvidenceDigest:
        """SHA-256 over the canonical bytes: this evidence's name in records and certificates."""
        return EvidenceDigest(digest.sha256(self.encode()))


def read(source: fields.Fields) -> Evidence:
    """Read the object form. Raises `Malformed`."""
    devices: tuple[Evidence, ...] = ()
    if "devices" in source.names():
        devices = tuple(_read(device) for device in source.objects("devices", max_items=MAX_DEVICES))
        if not devices:
            raise Malformed(f"{source.what}.devices: empty; leave it out where there is none", code="empty")
    cpu = _read(source)
    return Evidence(tee=cpu.tee, parts=cpu.parts, devices=devices)


def _read(source: fields.Fields) -> Evidence:
    tee = source.name("tee")
    parts = named_parts.read(source.object("parts"), least=1, most=MAX_PARTS, max_bytes=MAX_BYTES)
    source.done()
    return Evidence(tee=tee, parts=parts)


def parse(data: bytes) -> Evidence:
    """Parse the JSON form. Raises `Malformed`."""
    value = canonical.loads(data, what="evidence", max_bytes=2 * MAX_BYTES)
    return read(fields.Fields(value, "evidence"))
