"""AMD's lines of processors: how each is recognised, lays out its TCB version, and is named in certificates.

Specs: AMD 56860 rev 1.58, section 2.2 (TCB_VERSION, one layout before Turin and one from Turin on) and table 23
(CPUID fields); AMD 57230, sections 3.1 and 3.2 (extensions of VCEK and VLEK certificates).
A processor that is in no row here is refused: another line may have another layout.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from strongroom.crypto.pki import vek
from strongroom.encoding import unexpected
from strongroom.errors import Malformed

# The components of a TCB version by the extension that certifies each; one byte each, in the report's order.
_COMPONENTS = {
    "bootloader": "3.1", "tee": "3.2", "snp": "3.3", "spl_4": "3.4", "spl_5": "3.5", "spl_6": "3.6",
    "spl_7": "3.7", "microcode": "3.8", "fmc": "3.9",
}  # fmt: skip
_BEFORE_TURIN = ("bootloader", "tee", "spl_4", "spl_5", "spl_6", "spl_7", "snp", "microcode")
_FROM_TURIN = ("fmc", "bootloader", "tee", "snp", "spl_5", "spl_6", "spl_7", "microcode")
_STRUCT_VERSION, _PRODUCT_NAME, _HWID, _CSP_ID = "1", "2", "4", "5"
_IA5, _OCTETS, _INTEGER = 0x16, 0x04, 0x02
_CHIP_ID = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A line of processors with one AMD root key. There is one object for each, compared by identity.

    models: (family, first model, last model), extended parts included. names: how productName may begin.
    layout: the component in each byte of a TCB version. hwid: bytes of the chip's identity in certificates.
    without_cpuid: whether its firmware ever wrote version 2 reports, which do not say their processor.
    """

    name: str
    models: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...]
    layout: tuple[str, ...]
    hwid: int
    without_cpuid: bool

    def tcb(self, raw: bytes) -> dict[str, int]:
        """The components of a TCB version by name. Raises `Malformed` when a reserved byte is not zero."""
        out = {}
        for component, value in zip(self.layout, raw, strict=True):
            if not component.startswith("spl_"):
                out[component] = value
            elif value:
                raise Malformed(
                    f"SNP report: TCB version {raw.hex()}: reserved bytes are not zero", code="reserved"
                )
        return out


LINES = {
    "Milan": Line(
        name="Milan", models=((0x19, 0x00, 0x0F),), names=("Milan",), layout=_BEFORE_TURIN, hwid=64, without_cpuid=True
    ),
    # Bergamo and Siena are Genoa's: same root key, same layout.
    "Genoa": Line(
        name="Genoa",
        models=((0x19, 0x10, 0x1F), (0x19, 0xA0, 0xAF)),
        names=("Genoa", "Bergamo", "Siena"),
        layout=_BEFORE_TURIN,
        hwid=64,
        without_cpuid=True,
    ),
    "Turin": Line(
        name="Turin", models=((0x1A, 0x00, 0x11),), names=("Turin",), layout=_FROM_TURIN, hwid=8, without_cpuid=False
    ),
}  # fmt: skip


def line_of_cpuid(family: int, model: int) -> Line | None:
    """The line of a processor, or None for one that is not known."""
    for line in LINES.values():
        for of_family, first, last in line.models:
            if family == of_family and first <= model <= last:
                return line
    return None


def line_of_name(product: str) -> Line | None:
    """The line that a certificate's productName ("Milan-B0") names, or None."""
    begins = product.partition("-")[0]
    return next((line for line in LINES.values() if begins in line.names), None)


@functools.lru_cache(maxsize=1024)
def claimed_tcb(line: Line, raw: bytes, which: str) -> tuple[tuple[str, int], ...]:
    """`Line.tcb`, as claims name it: "reported.snp" and so on. Kept, since a fleet has few TCB versions."""
    return tuple((f"{which}.{component}", value) for component, value in line.tcb(raw).items())


@dataclass(frozen=True, kw_only=True)
class Vek:
    """A VEK certificate with AMD's extensions read. tcb: 8 bytes in the report's order.

    ends: the certificate's end, as text. provider: the CSP id of a VLEK, "" for a VCEK. hwid: the chip's identity as certified, b"" for a VLEK.
    """

    certificate: vek.VekCertificate
    ends: str
    product: str
    line: Line
    struct_version: int
    tcb: bytes
    hwid: bytes
    provider: str


@functools.lru_cache(maxsize=256)
def read(der: bytes) -> Vek | None:
    """Parse a VEK certificate with its extensions; None when it names no known product. Raises `Malformed`."""
    certificate = vek.parse(der)
    extensions = dict(certificate.extensions)
    struct_version = _integer(extensions, _STRUCT_VERSION)
    product = _text(extensions, _PRODUCT_NAME)
    line = line_of_name(product)
    if line is None:
        return None
    tcb = bytes(_integer(extensions, _COMPONENTS[component]) for component in line.layout)
    provider, hwid = "", b""
    if certificate.kind == "SEV-VLEK":
        provider = _text(extensions, _CSP_ID)
    else:
        hwid = _octets(extensions, _HWID, line.hwid)
    if extensions:
        raise Malformed(
            "VEK certificate: extensions that this product does not have: "
            + ", ".join(sorted(extensions))[:200]
        )
    return Vek(
        certificate=certificate,
        ends=f"{certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
        product=product,
        line=line,
        struct_version=struct_version,
        tcb=tcb,
        hwid=hwid,
        provider=provider,
    )


def chip_id(hwid: bytes) -> bytes:
    """What CHIP_ID of a report is for a certified chip: its identity, with zeros after it."""
    return hwid.ljust(_CHIP_ID, b"\0")


def _take(extensions: dict[str, bytes], name: str) -> bytes:
    value = extensions.pop(name, None)
    if value is None:
        raise Malformed(f"VEK certificate: extension {vek.ARC}.{name} is missing", code="missing-extension")
    return value


def _integer(extensions: dict[str, bytes], name: str) -> int:
    """An INTEGER from 0 to 255, in its shortest form."""
    value = _take(extensions, name)
    if len(value) == 3 and value[:2] == bytes((_INTEGER, 1)) and value[2] < 0x80:
        return value[2]
    if len(value) == 4 and value[:3] == bytes((_INTEGER, 2, 0)) and value[3] >= 0x80:
        return value[3]
    raise Malformed(
        f"VEK certificate: extension {vek.ARC}.{name}: expected an INTEGER from 0 to 255, got {value.hex()[:16] or 'none'}"
    )


def _text(extensions: dict[str, bytes], name: str) -> str:
    """An IA5String of 1 to 100 printable characters."""
    value = _take(extensions, name)
    if (
        not 3 <= len(value) <= 102
        or value[0] != _IA5
        or value[1] != len(value) - 2
        or not value[2:].isascii()
    ):
        raise Malformed(
            f"VEK certificate: extension {vek.ARC}.{name}: expected an IA5String of 1 to 100 characters, got {len(value)} bytes"
        )
    text = value[2:].decode("ascii")
    if not text.isprintable():
        raise Malformed(
            f"VEK certificate: extension {vek.ARC}.{name}: expected printable characters, got {unexpected.quoted(text)}"
        )
    return text


def _octets(extensions: dict[str, bytes], name: str, size: int) -> bytes:
    """`size` bytes, bare as AMD began with, or as an OCTET STRING as its specification now says."""
    value = _take(extensions, name)
    if len(value) == size + 2 and value[:2] == bytes((_OCTETS, size)):
        return value[2:]
    if len(value) != size:
        raise Malformed(
            f"VEK certificate: extension {vek.ARC}.{name}: expected {size} bytes, got {len(value)}"
        )
    return value
