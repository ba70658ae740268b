"""What the certificate of an NVIDIA device's key says of the firmware that holds it: TCG DICE, in either of two forms.

Specs: TCG DICE Attestation Architecture 1.1, section 6.1 (TcbInfo; Blackwell, under 2.23.133.5.4.1.1); RIoT composite
device identifier (Hopper and LS10, under 2.23.133.5.4.1).

    TcbInfo   ::= SEQUENCE { …, [6] SEQUENCE OF FWID, [7] flags BIT STRING, … }   every field optional, in order
    Composite ::= SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }
    FWID      ::= SEQUENCE { OBJECT IDENTIFIER, OCTET STRING }
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.crypto import der
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed

OIDS = ("2.23.133.5.4.1", "2.23.133.5.4.1.1")
_SHA384 = bytes.fromhex("608648016503040202")
_FWIDS = der.CONTEXT | der.CONSTRUCTED | 6
_FLAGS = der.CONTEXT | 7
_DEBUG = 0x10  # the fourth bit: notConfigured, notSecure, recovery, debug


@dataclass(frozen=True, kw_only=True)
class Dice:
    """fwid: SHA-384 of the firmware, the first where several are named; maybe empty. flags: empty where there are none."""

    fwid: bytes
    flags: bytes

    @property
    def debug(self) -> bool:
        """Whether the flags say debug. False where there are none."""
        return bool(self.flags) and bool(self.flags[0] & _DEBUG)


NONE = Dice(fwid=b"", flags=b"")


def parse(value: bytes) -> Dice:
    """Parse the extension's value, of either form. Raises `Malformed`."""
    what = "dice extension"
    outer = Reader(value, what)
    body, _ = der.expect(outer, der.SEQUENCE)
    outer.done()
    reader = Reader(body, what)
    if body[:1] == bytes((der.INTEGER,)):
        der.expect(reader, der.INTEGER)
        der.expect(reader, der.SEQUENCE)
        contents, _ = der.expect(reader, der.SEQUENCE)
        reader.done()
        return Dice(fwid=_fwid(contents), flags=b"")
    fwid, flags, last = b"", b"", -1
    while reader.remaining:
        tag, contents, _ = der.read(reader)
        number = tag & 0x1F
        if not tag & der.CONTEXT or number <= last:
            raise Malformed(
                f"{what}: expected the fields of DiceTcbInfo in ascending order, got tag {tag:#04x} after number {last}"
            )
        last = number
        if tag == _FWIDS:
            first, _ = der.expect(Reader(contents, what), der.SEQUENCE)
            fwid = _fwid(first)
        elif tag == _FLAGS:
            if len(contents) < 2 or contents[0] > 7:
                raise Malformed(
                    f"{what}: expected flags as a BIT STRING, got {contents.hex()[:16] or 'nothing'}"
                )
            flags = contents[1:]
    return Dice(fwid=fwid, flags=flags)


def _fwid(contents: bytes) -> bytes:
    reader = Reader(contents, "dice fwid")
    algorithm, _ = der.expect(reader, der.OBJECT_IDENTIFIER)
    digest, _ = der.expect(reader, der.OCTET_STRING)
    reader.done()
    if algorithm != _SHA384 or len(digest) != 48:
        raise Malformed(
            f"dice fwid: expected a SHA-384 digest of 48 bytes, got {len(digest)} bytes of algorithm {algorithm.hex()[:40]}"
        )
    return digest
