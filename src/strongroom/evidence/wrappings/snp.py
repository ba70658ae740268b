"""An SNP report written field by field, as Rust's `sev` writes it in JSON (Trustee's evidence), put together again.

Both forms that this library has had: with every reserved field (until its version 5), and without (since), where the
reserved bytes are zero by AMD's word. A signature is over bits: what leaves out a field that its version of the
report has, or names one that is not known, cannot be put together bit for bit and is refused, never guessed.
Layout: AMD 56860, ATTESTATION_REPORT; the TCB of Turin and later has an FMC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1184
_TCBS = {"current_tcb": 0x38, "reported_tcb": 0x180, "committed_tcb": 0x1E0, "launch_tcb": 0x1F0}
_NUMBERS = {
    "version": (0x00, 4),
    "guest_svn": (0x04, 4),
    "policy": (0x08, 8),
    "vmpl": (0x30, 4),
    "sig_algo": (0x34, 4),
    "plat_info": (0x40, 8),
}
_BYTES = {
    "family_id": (0x10, 16),
    "image_id": (0x20, 16),
    "report_data": (0x50, 64),
    "measurement": (0x90, 48),
    "host_data": (0xC0, 32),
    "id_key_digest": (0xE0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "chip_id": (0x1A0, 64),
}
# Of the older form alone.
_OLD_NUMBERS = {
    "_author_key_en": (0x48, 4),
    "_reserved_0": (0x4C, 4),
    "current_build": (0x1E8, 1),
    "current_minor": (0x1E9, 1),
    "current_major": (0x1EA, 1),
    "_reserved_2": (0x1EB, 1),
    "committed_build": (0x1EC, 1),
    "committed_minor": (0x1ED, 1),
    "committed_major": (0x1EE, 1),
    "_reserved_3": (0x1EF, 1),
}
_OLD_BYTES = {"_reserved_1": (0x188, 24), "_reserved_4": (0x1F8, 168)}
# Of the newer form: from which version of the report on a field is in it.
_CPUID = {"cpuid_fam_id": 0x188, "cpuid_mod_id": 0x189, "cpuid_step": 0x18A}
_VECTORS = {"launch_mit_vector": 0x1F8, "current_mit_vector": 0x200}
_VERSIONS = {"current": 0x1E8, "committed": 0x1EC}
_SIGNATURE, _SCALAR, _SIGNATURE_REST = 0x2A0, 72, 368
_TELLING = frozenset({"guest_svn", "measurement", "report_data", "reported_tcb", "signature"})
_CPUID_SINCE, _VECTORS_SINCE = 3, 5


def is_fields(value: dict[str, Any]) -> bool:
    """Whether this is a report written field by field."""
    return value.keys() >= _TELLING and isinstance(value["signature"], dict)


def report(value: dict[str, Any], as_bytes: Callable[[object], bytes]) -> bytes:
    """The report's bytes. as_bytes: reads a list, hexadecimal or base64. Raises `Malformed`."""
    writer = _Made(left=dict(value), as_bytes=as_bytes)
    for name, (at, size) in _NUMBERS.items():
        writer.number(name, at, size)
    for name, (at, size) in _BYTES.items():
        writer.run(name, at, size)
    for name, at in _TCBS.items():
        _tcb(writer, name, at)
    if "_author_key_en" in value:
        for name, (at, size) in _OLD_NUMBERS.items():
            writer.number(name, at, size)
        for name, (at, size) in _OLD_BYTES.items():
            writer.run(name, at, size)
    else:
        _newer(writer, value)
    signature = writer.inner("signature")
    signature.run("r", _SIGNATURE, _SCALAR)
    signature.run("s", _SIGNATURE + _SCALAR, _SCALAR)
    if "_reserved" in signature.left:
        signature.run("_reserved", _SIGNATURE + 2 * _SCALAR, _SIGNATURE_REST)
    signature.done()
    writer.done()
    return bytes(writer.out)


def _newer(writer: _Made, value: dict[str, Any]) -> None:
    version = value["version"]
    writer.number("key_info", 0x48, 4)
    for name, at in _VERSIONS.items():
        inner = writer.inner(name)
        for offset, part in enumerate(("build", "minor", "major")):
            inner.number(part, at + offset, 1)
        inner.done()
    for name, at in _CPUID.items():
        writer.number_since(name, at, 1, there=version >= _CPUID_SINCE)
    for name, at in _VECTORS.items():
        writer.number_since(name, at, 8, there=version >= _VECTORS_SINCE)


def _tcb(writer: _Made, name: str, at: int) -> None:
    inner = writer.inner(name)
    turin = inner.left.pop("fmc", None)
    if turin is not None:
        inner.left["fmc"] = turin
        places = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
    else:
        places = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
        if "_reserved" in inner.left:
            inner.run("_reserved", at + 2, 4)
    for part, offset in places.items():
        inner.number(part, at + offset, 1)
    inner.done()


@dataclass(kw_only=True)
class _Made:
    """The report while it is put together. left: the fields not yet read."""

    left: dict[str, Any]
    as_bytes: Callable[[object], bytes]
    out: bytearray = field(default_factory=lambda: bytearray(SIZE))

    def _take(self, name: str) -> Any:
        if name not in self.left:
            raise _not_whole(f"{name} is missing")
        return self.left.pop(name)

    def number(self, name: str, at: int, size: int) -> None:
        """A number, little-endian."""
        value = self._take(name)
        if type(value) is not int or not 0 <= value < 1 << (8 * size):
            raise _not_whole(f"{name} is no number of {size} byte(s)")
        self.out[at : at + size] = value.to_bytes(size, "little")

    def number_since(self, name: str, at: int, size: int, *, there: bool) -> None:
        """A field that only later versions of the report have: there, or absent (or null)."""
        if there:
            self.number(name, at, size)
        elif self.left.pop(name, None) is not None:
            raise _not_whole(f"{name} has no place in this version of the report")

    def run(self, name: str, at: int, size: int) -> None:
        """A run of bytes."""
        try:
            value = self.as_bytes(self._take(name))
        except (TypeError, ValueError):
            value = b""
        if len(value) != size:
            raise _not_whole(f"{name} is not {size} bytes")
        self.out[at : at + size] = value

    def inner(self, name: str) -> _Made:
        """The fields of a field, put into the same report."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise _not_whole(f"{name} has no fields")
        return _Made(left=dict(value), as_bytes=self.as_bytes, out=self.out)

    def done(self) -> None:
        """Refuse fields that nobody asked for."""
        if self.left:
            raise _not_whole(f"{next(iter(self.left))[:40]!r} is no field that is known")


def _not_whole(why: str) -> Malformed:
    return Malformed(
        f"SNP report as fields: {why}",
        code="not-whole",
        hint="AMD's signature is over the report's bits, which cannot be put together again from this; "
        "give the report itself (1184 bytes)",
    )
