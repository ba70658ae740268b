"""Unified kernel images: one UEFI program that holds kernel, initrd and command line.

Spec: UAPI Group, "Unified Kernel Image (UKI)". The stub is systemd's `linuxx64.efi.stub`; what it does with the sections
and which of them it measures depends on its version, which it carries (`.sdmagic`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases.formats import pe
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order of the file. The kernel comes last: stubs that start it in place need the room behind it.
SECTIONS = (".osrel", ".cmdline", ".uname", ".initrd", ".linux")
# What stubs act on and this writer never writes: an image with one of them does more than its files say.
_FOREIGN = frozenset(
    (".ucode", ".splash", ".dtb", ".dtbauto", ".hwids", ".efifw", ".pcrsig", ".pcrpkey", ".profile")
)
_MAGIC = re.compile(rb"#### LoaderInfo: systemd-stub ([0-9]{3})[0-9A-Za-z.+~-]{0,48} ####\0*")
_MAX_TEXT = 4096


@dataclass(frozen=True, kw_only=True)
class Uki:
    """A parsed image. sections: those of `SECTIONS`, and the stub's own `.sbat`, by name. stub: systemd's version."""

    sections: Mapping[str, bytes]
    stub: int


def build(*, stub: bytes, kernel: bytes, initrd: bytes, cmdline: bytes, osrel: bytes, uname: bytes) -> bytes:
    """The image; same input, same bytes. Raises `Malformed` for parts that no image can carry."""
    for name, text in ((".cmdline", cmdline), (".uname", uname)):
        check_text(name, text)
    pe.parse(kernel)  # the stub hands it to the firmware's loader
    bare = _parse(stub, wanted=())
    if bare.sections.keys() - {".sbat"}:
        raise Malformed("UKI: the stub is an image already", code="bad-stub")
    contents = {".osrel": osrel, ".cmdline": cmdline, ".uname": uname, ".initrd": initrd, ".linux": kernel}
    return pe.append(stub, [(name, contents[name]) for name in SECTIONS])


def parse(data: bytes) -> Uki:
    """Parse an image that has every one of `SECTIONS` and no other that a stub acts on. Raises `Malformed`."""
    return _parse(data, wanted=SECTIONS)


def _parse(data: bytes, *, wanted: tuple[str, ...]) -> Uki:
    image = pe.parse(data)
    names = pe.names(image)
    if foreign := _FOREIGN.intersection(names):
        raise Malformed(f"UKI: section {min(foreign)} is not understood", code="bad-section")
    if missing := [name for name in (*wanted, ".sdmagic") if name not in names]:
        raise Malformed(f"UKI: no section {missing[0]}", code="bad-section")
    sections = {
        section.name: image.content(section)
        for section in image.sections
        if section.name in (*SECTIONS, ".sbat", ".sdmagic")
    }
    for name in (".cmdline", ".uname"):
        if name in sections:
            check_text(name, sections[name])
    magic = _MAGIC.fullmatch(sections.pop(".sdmagic"))
    if magic is None:
        raise Malformed("UKI: not a stub of systemd", code="bad-stub")
    return Uki(sections=sections, stub=int(magic[1]))


def check_text(name: str, text: bytes) -> None:
    """Raise `Malformed` unless `text` is one line that every loader takes for the same."""
    if not 0 < len(text) <= _MAX_TEXT or not all(0x20 <= byte < 0x7F for byte in text):
        raise Malformed(f"{name}: expected one line of printable ASCII", code="bad-text")
