"""Pieces of evidence as tools write them: quotes, reports, registers."""

from __future__ import annotations

from strongroom_testing.evidence_folder import BINDING, NOW
from strongroom_testing.vendors.fake_amd import FakeAmd
from strongroom_testing.vendors.fake_intel import FakeIntel

INTEL = FakeIntel(now=NOW)

QUOTES = {
    (tee, version): INTEL.evidence(BINDING, tee=tee, version=version).parts["quote"]
    for tee, version in (("sgx", 3), ("tdx", 4), ("tdx", 5))
}

QUOTE = QUOTES["tdx", 4]
REPORT = FakeAmd(now=NOW).evidence(BINDING).parts["report"]
TPM_QUOTE = b"\xff\x54\x43\x47\x80\x18" + bytes(100)
NITRO = b"\x84\x44\xa1\x01\x38\x22\xa0\x59\x10\x00\xa9\x69module_id" + bytes(600)
CCA = b"\xd9\x01\x8f\xa2\x19\xac\xca\x58\x40" + bytes(200) + b"\x19\xac\xd1" + bytes(200)
SPDM = b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60" + bytes(200)


def number(tag, value):
    return varint(tag << 3) + varint(value)


def run(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


PCRS = {index: bytes([index]) * 32 for index in range(24)}
