"""Google's certificate extension that names the instance whose virtual TPM holds a key (1.3.6.1.4.1.11129.2.1.21).

Google describes it in the sources of its tools (google/go-tpm-tools, server/verify.go; google/go-attestation):

SEQUENCE   zone UTF8String, project number INTEGER, project id UTF8String, instance id INTEGER,
           instance name UTF8String, [0] EXPLICIT SEQUENCE of security properties, optional:
           [0] version INTEGER  [1] is production  [2] TPM data always encrypted  [3] suspend and resume
           always disabled  [4] VM trace and debug always disabled  [5] always in yarn; BOOLEAN each, optional
"""

from __future__ import annotations

from dataclasses import dataclass, field

from strongroom.crypto import der
from strongroom.encoding import unexpected
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed

OID = "1.3.6.1.4.1.11129.2.1.21"
MAX_BYTES = 1024
MAX_TEXT = 256

_BOOLEAN = 0x01
_UTF8 = 0x0C
_EXPLICIT = der.CONTEXT | der.CONSTRUCTED
_FLAGS = {
    1: "is_production",
    2: "tpm_data_always_encrypted",
    3: "suspend_resume_always_disabled",
    4: "vmtd_always_disabled",
    5: "always_in_yarn",
}


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One Compute Engine instance. flags: the security properties that the certificate states, by name."""

    zone: str
    project_number: int
    project_id: str
    instance_id: int
    instance_name: str
    security_version: int = 0
    flags: dict[str, bool] = field(default_factory=dict)

    @property
    def production(self) -> bool:
        """Whether Google says that the machine is of its production fleet. Not said: no."""
        return self.flags.get("is_production", False)


def parse(data: bytes) -> Instance:
    """Parse the extension's value. Raises `Malformed`."""
    if len(data) > MAX_BYTES:
        raise Malformed(
            f"instance extension: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large"
        )
    outer = Reader(data, "instance extension")
    body, _ = der.expect(outer, der.SEQUENCE)
    outer.done()
    reader = Reader(body, "instance extension")
    zone, project_number, project_id = _text(reader), _integer(reader), _text(reader)
    instance_id, instance_name = _integer(reader), _text(reader)
    version = 0
    flags: dict[str, bool] = {}
    if reader.remaining:
        explicit, _ = der.expect(reader, _EXPLICIT)
        inner = Reader(explicit, "security properties")
        properties, _ = der.expect(inner, der.SEQUENCE)
        inner.done()
        version, flags = _properties(Reader(properties, "security properties"))
    reader.done()
    return Instance(
        zone=zone,
        project_number=project_number,
        project_id=project_id,
        instance_id=instance_id,
        instance_name=instance_name,
        security_version=version,
        flags=flags,
    )


def _properties(reader: Reader) -> tuple[int, dict[str, bool]]:
    version, last = 0, -1
    flags: dict[str, bool] = {}
    while reader.remaining:
        tag, body, _ = der.read(reader)
        number = tag & 0x1F
        if tag & ~0x1F != _EXPLICIT or number <= last:
            raise Malformed(
                f"security properties: expected explicit tags in ascending order, got tag {tag:#04x} after number {last}"
            )
        last = number
        inner = Reader(body, "security properties")
        if number == 0:
            version = _integer(inner)
        elif number in _FLAGS:
            value, _ = der.expect(inner, _BOOLEAN)
            if value not in (b"\x00", b"\xff"):
                raise Malformed(
                    f"security properties: {_FLAGS[number]}: expected a BOOLEAN of 00 or ff, got {value.hex()[:16] or 'none'}"
                )
            flags[_FLAGS[number]] = value == b"\xff"
        else:
            der.read(inner)  # a property of a later version, which nobody here asks for
        inner.done()
    return version, flags


def _text(reader: Reader) -> str:
    body, _ = der.expect(reader, _UTF8)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Malformed("instance extension: a text that is not UTF-8") from None
    if len(text) > MAX_TEXT or not text.isprintable():
        raise Malformed(
            f"instance extension: expected printable text of at most {MAX_TEXT} characters, got {unexpected.quoted(text)}"
        )
    return text


def _integer(reader: Reader) -> int:
    body, _ = der.expect(reader, der.INTEGER)
    if not 0 < len(body) <= 9 or body[0] & 0x80 or (len(body) > 1 and body[0] == 0 and not body[1] & 0x80):
        raise Malformed(
            f"instance extension: expected an INTEGER in DER, of 64 bits without sign, got {body.hex()[:40] or 'none'}"
        )
    return int.from_bytes(body, "big")
