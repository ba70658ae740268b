"""TCG event logs: what firmware says it measured, parsed strictly and replayed.

Spec: TCG PC Client Platform Firmware Profile (PFP) 1.06, section 10: the crypto-agile log, as Linux
shows it in `binary_bios_measurements`. A log proves nothing by itself: it counts only as far as its
replay equals quoted PCRs, and then only its digests are proved. So `parse` also demands that the data
of each event that it knows hash to its digest; an event of any other type is refused, since nobody
could say what its data mean.

header  pcr u32 = 0  type u32 = 3 (EV_NO_ACTION)  SHA-1 digest = 0 (20 bytes)  size u32  Spec ID structure
event   pcr u32  type u32  count u32  count × (algorithm u16, digest)  size u32  data      little-endian
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LOG = 128 * 1024
MAX_EVENTS = 1024
MAX_DATA = 4096
SEPARATOR = 4
ACTION = 5
EVENT_TAG = 6

_BANKS = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
_SHA256 = 0x000B
_PCRS = 24
_HEADER = struct.Struct("<II20sI")
# Spec ID Event03: signature, platform class (0: client), version 2.0 errata 2, two 32-bit words a UINTN.
_SPEC_ID = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 2, 2)
_EVENT = struct.Struct("<III")
_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff")
_TAG_HEADER = 8


@dataclass(frozen=True, kw_only=True)
class Event:
    """One measurement: into which PCR, of what type (PFP 10.4.1), its SHA-256 digest and its data."""

    pcr: int
    type: int
    digest: bytes
    data: bytes


def parse(log: bytes) -> tuple[Event, ...]:
    """Parse a whole log: every event is of a known type and its data hash to its digests.

    Raises `Malformed`, also for a log of SHA-1 or of unknown banks, and for trailing bytes.
    """
    if len(log) > MAX_LOG:
        raise Malformed(f"event log: {len(log)} bytes, at most {MAX_LOG} allowed", code="too-large")
    try:
        banks, offset = _header(log)
        events: list[Event] = []
        while offset < len(log):
            if len(events) == MAX_EVENTS:
                raise Malformed(f"event log: more than {MAX_EVENTS} events", code="too-many")
            event, offset = _event(log, offset, banks)
            events.append(event)
    except struct.error:
        raise Malformed("event log: cut short", code="truncated") from None
    return tuple(events)


def replay(events: tuple[Event, ...], start: Mapping[int, bytes]) -> dict[int, bytes]:
    """The value of each PCR in `start` (32 bytes each) after `events`. Events of other PCRs are left out."""
    values = dict(start)
    for event in events:
        if event.pcr in values:
            values[event.pcr] = hashlib.sha256(values[event.pcr] + event.digest).digest()
    return values


def _header(log: bytes) -> tuple[dict[int, int], int]:
    """The digest sizes by algorithm, in the order of the log, and where the first event begins."""
    pcr, kind, digest, size = _HEADER.unpack_from(log)
    if pcr != 0 or kind != 3 or any(digest) or size > 256:
        raise Malformed("event log: expected a Spec ID event at its begin, got another", code="bad-header")
    spec = _take(log, _HEADER.size, size)
    if spec[: len(_SPEC_ID)] != _SPEC_ID:
        raise Malformed(
            "event log: expected a crypto-agile log of PFP, version 2.0 errata 2, got another form",
            code="bad-header",
        )
    (count,) = struct.unpack_from("<I", spec, len(_SPEC_ID))
    if not 0 < count <= len(_BANKS) or len(spec) != len(_SPEC_ID) + 4 + 4 * count + 1 or spec[-1]:
        raise Malformed(
            f"event log: expected a list of 1 to {len(_BANKS)} banks in the Spec ID event, got {count} in {len(spec)} bytes",
            code="bad-header",
        )
    banks = {}
    for index in range(count):
        algorithm, length = struct.unpack_from("<HH", spec, len(_SPEC_ID) + 4 + 4 * index)
        name = _BANKS.get(algorithm)
        if name is None or length != hashlib.new(name).digest_size or algorithm in banks:
            raise Malformed(
                f"event log: a bank of algorithm {algorithm:#06x} with digests of {length} bytes, expected SHA-256, SHA-384 or SHA-512, each once",
                code="bad-bank",
            )
        banks[algorithm] = length
    if _SHA256 not in banks:
        raise Malformed("event log: no SHA-256 bank", code="bad-bank")
    return banks, _HEADER.size + size


def _event(log: bytes, offset: int, banks: dict[int, int]) -> tuple[Event, int]:
    pcr, kind, count = _EVENT.unpack_from(log, offset)
    if pcr >= _PCRS:
        raise Malformed(f"event log: no PCR has the number {pcr}, expected 0 to {_PCRS - 1}", code="bad-pcr")
    if count != len(banks):
        raise Malformed(
            f"event log: an event with {count} digests at byte {offset}, expected {len(banks)}, one of each bank",
            code="bad-bank",
        )
    offset += _EVENT.size
    digests = {}
    for algorithm, length in banks.items():
        (logged,) = struct.unpack_from("<H", log, offset)
        if logged != algorithm:
            raise Malformed(
                f"event log: a digest of algorithm {logged:#06x} at byte {offset}, expected {algorithm:#06x}, as in the header",
                code="bad-bank",
            )
        digests[algorithm] = _take(log, offset + 2, length)
        offset += 2 + length
    (size,) = struct.unpack_from("<I", log, offset)
    if size > MAX_DATA:
        raise Malformed(f"event log: an event of {size} bytes, at most {MAX_DATA} allowed", code="too-large")
    data = _take(log, offset + 4, size)
    _check_data(kind, data)
    for algorithm, digest in digests.items():
        if hashlib.new(_BANKS[algorithm], data).digest() != digest:
            raise Malformed(
                f"event log: the data of an event of type {kind:#x} in PCR {pcr} do not hash to its digest",
                code="bad-digest",
            )
    event = Event(pcr=pcr, type=kind, digest=digests[_SHA256], data=data)
    return event, offset + 4 + size


def _check_data(kind: int, data: bytes) -> None:
    """Refuse data that are not what events of that type hold (PFP 10.4.1)."""
    if kind == SEPARATOR:
        sound = data in _SEPARATORS
    elif kind == ACTION:
        sound = bool(data) and all(0x20 <= byte < 0x7F for byte in data)
    elif kind == EVENT_TAG:
        sound = len(data) >= _TAG_HEADER and int.from_bytes(data[4:8], "little") == len(data) - _TAG_HEADER
    else:
        raise Malformed(
            f"event log: an event of type {kind:#x}, expected EV_SEPARATOR, EV_ACTION or EV_EVENT_TAG",
            code="bad-event",
        )
    if not sound:
        raise Malformed(f"event log: data that an event of type {kind:#x} cannot have", code="bad-event")


def _take(log: bytes, offset: int, count: int) -> bytes:
    run = log[offset : offset + count]
    if len(run) != count:
        raise Malformed("event log: cut short", code="truncated")
    return run
