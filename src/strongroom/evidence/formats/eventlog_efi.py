"""Event logs of UEFI machines: parsed strictly, replayed into quoted registers, and read for what they then prove.

Specs: TCG PC Client Platform Firmware Profile (PFP) 1.06, section 10; UEFI 2.10, section 38 (confidential computing
event log, whose events carry a measurement register's index where a PCR's number stands); systemd, TPM2 PCR
measurements (PCR 11 of a unified kernel image); GRUB manual, measured boot.

The binary form is that of `eventlog`, with any banks of the five known and any event types. A log proves nothing by
itself: it counts only as far as its replay equals quoted registers, and then its digests alone are proved. What an
event says in its data is a fact only where the digest is that of the data (or of the part of the data that its
writer measures), and for firmware's configuration only before the separator that ends the firmware's say. Facts that
are digests (what was booted) carry a name that the log gives them: they are as good as the boot chain before them.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LOG = 256 * 1024
MAX_AREA = 1024 * 1024  # of a log and the padding behind it
MAX_EVENTS = 2048
MAX_DATA = 64 * 1024
MAX_TEXT = 4096

NO_ACTION = 0x3
SEPARATOR = 0x4
EVENT_TAG = 0x6
CRTM_VERSION = 0x8
IPL = 0xD
NONHOST_INFO = 0x11
VARIABLE_DRIVER_CONFIG = 0x80000001
BOOT_APPLICATION = 0x80000003

_BANKS = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512", 0x0012: "sm3_256"}
_SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sm3_256": 32}
_REGISTERS = 24
_HEADER = struct.Struct("<II20sI")
_EVENT = struct.Struct("<III")
_SIGNATURE = b"Spec ID Event03\0"
_SPEC = struct.Struct("<16sIBBBBI")
_LOCALITY = b"StartupLocality\0"
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_IMAGE_SECURITY = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
_VARIABLES = {
    (_GLOBAL_VARIABLE, "PK"): "secure_boot_pk",
    (_GLOBAL_VARIABLE, "KEK"): "secure_boot_kek",
    (_IMAGE_SECURITY, "db"): "secure_boot_db",
    (_IMAGE_SECURITY, "dbx"): "secure_boot_dbx",
}
_GCE = b"GCE NonHostInfo\0"
_GCE_TECHNOLOGY = ("none", "amd-sev", "amd-sev-es", "intel-tdx", "amd-sev-snp")
_CMDLINE = b"kernel_cmdline: "
# What Linux's EFI stub measures, by the name in its tagged events; what it measured is proved by digest alone.
_TAGGED = {b"LOADED_IMAGE::LoadOptions\0": "linux_load_options", b"Linux initrd\0": "linux_initrd"}
_FIRMWARE = range(8)
_UKI = 11
# What systemd extends PCR 11 with as the system comes up, one after the other (systemd-pcrphase.service).
_PHASES = (b"enter-initrd", b"leave-initrd", b"sysinit", b"ready", b"shutdown", b"final")
_SPEC_PFP = "TCG PC Client Platform Firmware Profile 1.06, section 10"

Fact = tuple[int, str, "str | int | bool"]


@dataclass(frozen=True, kw_only=True)
class EfiEvent:
    """One event: its PCR (or measurement register), its type, its digest by bank, its data, which prove nothing."""

    pcr: int
    type: int
    digests: dict[str, bytes]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Log:
    """A parsed log: its banks in their order, its events, and the locality that started the TPM."""

    banks: tuple[str, ...]
    events: tuple[EfiEvent, ...]
    locality: int = 0


def parse(log: bytes, *, padded: bool = False) -> Log:
    """Parse a whole log. Raises `Malformed`.

    padded: the log is a memory area of fixed size, as ACPI gives it, whose rest is all zero or all ff. The log itself is
    bounded as any; firmware hands out areas of 64 KiB, 256 KiB and 1 MiB for logs of a few.
    """
    most = MAX_AREA if padded else MAX_LOG
    if len(log) > most:
        raise Malformed(f"event log: {len(log)} bytes, at most {most} allowed", code="too-large")
    try:
        sizes, offset = _header(log)
        padding = _padding(log) if padded else len(log)
        events: list[EfiEvent] = []
        while offset < padding:
            if offset > MAX_LOG:
                raise Malformed(f"event log: more than {MAX_LOG} bytes before its padding", code="too-large")
            if len(events) == MAX_EVENTS:
                raise Malformed(f"event log: more than {MAX_EVENTS} events", code="too-many")
            event, offset = _event(log, offset, sizes)
            events.append(event)
    except struct.error:
        raise Malformed("event log: cut short", code="truncated") from None
    return Log(banks=tuple(sizes.values()), events=tuple(events), locality=_locality(events))


def replay(log: Log, bank: str, start: Mapping[int, bytes] | None = None) -> dict[int, bytes]:
    """The value of each register that `log` has events of, by number, in `bank`. Raises `Malformed`: no such bank.

    start: values that a register does not begin as zero; PCR 0 begins with the locality that the log states.
    """
    if bank not in log.banks or bank not in ("sha256", "sha384", "sha512"):
        raise Malformed(f"event log: no {bank} bank, only {', '.join(log.banks)}", code="bad-bank")
    size = _SIZES[bank]
    zero = bytes(size)
    values = {0: bytes(size - 1) + bytes([log.locality])} if log.locality else {}
    values.update(start or {})
    for event in log.events:
        if event.type != NO_ACTION:
            # Not the name of the algorithm but its class: this is what a long log's time goes into.
            values[event.pcr] = _HASH[bank](values.get(event.pcr, zero) + event.digests[bank]).digest()
    return values


def explain(log: bytes, bank: str, pcrs: Mapping[int, bytes]) -> dict[str, str | int | bool]:
    """What `log` says and `pcrs` (values by number, quoted in `bank`) prove. Raises `Malformed`, `EvidenceRefused`.

    Every PCR that both name must be what the log's replay gives: `event-log.pcr-<n>` is refused otherwise. PCR 11 may
    have been extended further by the phases that systemd passes through, in their order.
    """
    values, facts = _read(log, bank)
    out: dict[str, str | int | bool] = {}
    for index in sorted(values.keys() & pcrs.keys()):
        if values[index] == pcrs[index]:
            continue
        phases = _phases(values[index], pcrs[index], bank) if index == _UKI else None
        if phases is None:
            raise EvidenceRefused(
                f"event-log.pcr-{index}",
                expected=values[index].hex(),
                got=pcrs[index].hex(),
                hint="the event log does not explain what the TPM measured: an event is missing, added or changed",
                source=_SPEC_PFP,
            )
        out["boot_phases"] = phases
    out["event_log"] = " ".join(str(index) for index in sorted(values.keys() & pcrs.keys()))
    for index, name, value in facts:
        if index in pcrs:
            out.setdefault(name, value)  # the first counts: whoever comes later may measure what it likes
    return out


@functools.lru_cache(maxsize=16)
def _read(log: bytes, bank: str) -> tuple[dict[int, bytes], tuple[Fact, ...]]:
    """The replayed values and the facts of a log; machines of one image give the same bytes, hence kept."""
    parsed = parse(log)
    values = replay(parsed, bank)
    _check_separators(parsed)
    facts = [*firmware_facts(parsed, bank, config=7), *boot_facts(parsed, bank, uki=_UKI)]
    return values, tuple(facts)


def firmware_facts(log: Log, bank: str, *, config: int) -> Iterator[Fact]:
    """Facts of the firmware's own events, from before its separators. config: the register of secure boot's variables."""
    ended: set[int] = set()
    for event in log.events:
        if event.type == SEPARATOR:
            ended.add(event.pcr)
        if event.pcr in ended or not _measures(event, bank, event.data):
            continue
        if event.type == VARIABLE_DRIVER_CONFIG and event.pcr == config:
            yield from _variable(event)
        elif event.type == CRTM_VERSION and event.pcr == 0:
            yield 0, "firmware_version", _utf16(event.data)
        elif event.type == NONHOST_INFO and event.data.startswith(_GCE) and event.pcr == 0:
            code = event.data[len(_GCE)] if len(event.data) > len(_GCE) else len(_GCE_TECHNOLOGY)
            known = code < len(_GCE_TECHNOLOGY)
            yield 0, "gce_technology", _GCE_TECHNOLOGY[code] if known else f"unknown ({code})"


def boot_facts(log: Log, bank: str, *, uki: int) -> Iterator[Fact]:
    """Facts of what was booted: applications and Linux's initrd and options by digest, the command line that GRUB gave,
    the sections of a unified kernel image. uki: the register of its sections.
    """
    applications = [event for event in log.events if event.type == BOOT_APPLICATION]
    if applications:
        yield (
            applications[0].pcr,
            "boot_applications",
            " ".join(event.digests[bank].hex() for event in applications),
        )
    section = ""
    for event in log.events:
        if event.type == EVENT_TAG and event.data[8:] in _TAGGED:
            yield event.pcr, _TAGGED[event.data[8:]], event.digests[bank].hex()
        elif event.type == IPL and event.data.startswith(_CMDLINE):
            line = event.data[len(_CMDLINE) :].removesuffix(b"\0")
            if _measures(event, bank, line):
                yield event.pcr, "kernel_cmdline", _text(line)
        elif event.type == IPL and event.pcr == uki:
            # systemd-stub measures each section twice: its name with a NUL, then its contents.
            name = _section(event.data)
            if section and name == section:
                yield uki, f"uki.{section[1:]}", event.digests[bank].hex()
                section = ""
            elif name.startswith(".") and _measures(event, bank, name.encode() + b"\0"):
                section = name


def _check_separators(log: Log) -> None:
    """Each of PCRs 0 to 7 that has events has exactly one separator, and it is no error's."""
    for index in _FIRMWARE:
        mine = [event for event in log.events if event.pcr == index and event.type != NO_ACTION]
        separators = [event for event in mine if event.type == SEPARATOR]
        if mine and (len(separators) != 1 or separators[0].data not in (b"\0\0\0\0", b"\xff\xff\xff\xff")):
            raise EvidenceRefused(
                "event-log.separator",
                expected=f"one separator in PCR {index}, of zeros or ones",
                got=f"{len(separators)} among {len(mine)} events",
                hint="the firmware failed, or the log is not a whole one",
                source=_SPEC_PFP,
            )


def _variable(event: EfiEvent) -> Iterator[Fact]:
    """Facts of UEFI_VARIABLE_DATA: owner GUID, lengths of name (in characters) and of data, both."""
    data = event.data
    if len(data) < 32:
        return
    name_length, data_length = struct.unpack_from("<QQ", data, 16)
    if 32 + 2 * name_length + data_length != len(data):
        return
    name = data[32 : 32 + 2 * name_length].decode("utf-16-le", "replace")
    value = data[32 + 2 * name_length :]
    if (data[:16], name) == (_GLOBAL_VARIABLE, "SecureBoot"):
        yield event.pcr, "secure_boot", value == b"\x01"
    elif (data[:16], name) in _VARIABLES:
        yield event.pcr, _VARIABLES[data[:16], name], hashlib.sha256(value).hexdigest()


def _phases(value: bytes, quoted: bytes, bank: str) -> str | None:
    """The phases, joined by colons, after which `value` becomes `quoted`; None where it does not."""
    passed = []
    for phase in _PHASES:
        value = _HASH[bank](value + _HASH[bank](phase).digest()).digest()
        passed.append(phase.decode())
        if value == quoted:
            return ":".join(passed)
    return None


def _header(log: bytes) -> tuple[dict[int, str], int]:
    """The banks by algorithm, in the order of the log, and where the first event begins."""
    pcr, kind, digest, size = _HEADER.unpack_from(log)
    if pcr > 1 or kind != NO_ACTION or any(digest) or size > 512:
        raise Malformed("event log: expected a Spec ID event at its begin, got another", code="bad-header")
    spec = _take(log, _HEADER.size, size)
    signature, _, minor, major, _, word, count = _SPEC.unpack_from(spec)
    if signature != _SIGNATURE or (major, minor) != (2, 0) or word not in (1, 2):
        raise Malformed(
            "event log: expected a crypto-agile log of PFP, version 2.0, got another form", code="bad-header"
        )
    if not 0 < count <= len(_BANKS):
        raise Malformed(
            f"event log: expected a list of 1 to {len(_BANKS)} banks in the Spec ID event, got {count} in {len(spec)} bytes",
            code="bad-header",
        )
    banks: dict[int, str] = {}
    offset = _SPEC.size
    for _ in range(count):
        algorithm, length = struct.unpack_from("<HH", spec, offset)
        name = _BANKS.get(algorithm)
        if name is None or length != _SIZES[name] or algorithm in banks:
            raise Malformed(
                f"event log: a bank of algorithm {algorithm:#06x} with digests of {length} bytes, expected one of {', '.join(_SIZES)}, each once",
                code="bad-bank",
            )
        banks[algorithm] = name
        offset += 4
    (vendor,) = struct.unpack_from("<B", spec, offset)
    if len(spec) != offset + 1 + vendor:
        raise Malformed(
            f"event log: expected a list of 1 to {len(_BANKS)} banks in the Spec ID event, got {count} in {len(spec)} bytes",
            code="bad-header",
        )
    return banks, _HEADER.size + size


def _event(log: bytes, offset: int, banks: dict[int, str]) -> tuple[EfiEvent, int]:
    pcr, kind, count = _EVENT.unpack_from(log, offset)
    if pcr >= _REGISTERS:
        raise Malformed(
            f"event log: no register has the number {pcr}, expected 0 to {_REGISTERS - 1}", code="bad-pcr"
        )
    if count != len(banks):
        raise Malformed(
            f"event log: an event with {count} digests at byte {offset}, expected {len(banks)}, one of each bank",
            code="bad-bank",
        )
    offset += _EVENT.size
    digests: dict[str, bytes] = {}
    for _ in range(count):
        (algorithm,) = struct.unpack_from("<H", log, offset)
        name = banks.get(algorithm)
        if name is None or name in digests:
            raise Malformed(
                f"event log: a digest of algorithm {algorithm:#06x} at byte {offset}, expected one of each bank of the header",
                code="bad-bank",
            )
        digests[name] = _take(log, offset + 2, _SIZES[name])
        offset += 2 + _SIZES[name]
    (size,) = struct.unpack_from("<I", log, offset)
    if size > MAX_DATA:
        raise Malformed(f"event log: an event of {size} bytes, at most {MAX_DATA} allowed", code="too-large")
    data = _take(log, offset + 4, size)
    return EfiEvent(pcr=pcr, type=kind, digests=digests, data=data), offset + 4 + size


def _locality(events: list[EfiEvent]) -> int:
    """The locality of the TPM's start-up (PFP 10.4.5.3): 0, 3 or 4. Raises `Malformed`."""
    stated = {event.data[16:] for event in events if event.type == NO_ACTION and event.data[:16] == _LOCALITY}
    if not stated:
        return 0
    if len(stated) > 1 or stated & {b"\0", b"\x03", b"\x04"} != stated:
        raise Malformed(
            f"event log: expected one start-up locality, 0, 3 or 4, got {', '.join(sorted(locality.hex()[:8] or 'none' for locality in stated))}",
            code="bad-event",
        )
    return stated.pop()[0]


def _padding(log: bytes) -> int:
    """Where nothing but equal bytes follows, all zero or all ff. An event that ends in such bytes ends behind it."""
    return min(len(log.rstrip(b"\0")), len(log.rstrip(b"\xff")))


def _measures(event: EfiEvent, bank: str, content: bytes) -> bool:
    return _HASH[bank](content).digest() == event.digests[bank]


def _section(data: bytes) -> str:
    """The section's name in an event of systemd-stub: UTF-16 or ASCII, ended by NUL. Empty when it is not one."""
    raw = data[::2] if len(data) > 3 and not any(data[1::2]) else data
    name = raw.removesuffix(b"\0")
    return name.decode() if 0 < len(name) <= 16 and all(0x2E <= byte < 0x7F for byte in name) else ""


def _utf16(data: bytes) -> str:
    return _plain(data.decode("utf-16-le", "replace").split("\0")[0])


def _text(data: bytes) -> str:
    return _plain(data.decode("utf-8", "replace"))


def _plain(text: str) -> str:
    """Text of the guest's, fit for a terminal and a record."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:MAX_TEXT]


def _take(log: bytes, offset: int, count: int) -> bytes:
    run = log[offset : offset + count]
    if len(run) != count:
        raise Malformed("event log: cut short", code="truncated")
    return run


_HASH = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}
