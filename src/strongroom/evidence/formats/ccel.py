"""CCEL: the event log behind a trust domain's RTMRs, replayed into those that a TDX quote holds.

Specs: UEFI 2.10, section 38.4.1 (confidential computing event log; for TDX the measurement register's index 0 is MRTD,
1 to 4 are RTMR 0 to 3); ACPI 6.5, table CCEL; Linux EFI stub (`LOADED_IMAGE::LoadOptions`, `Linux initrd`).
Shared by the verifiers of evidence with a TDX quote. The log is the log area's bytes, padding and all, as Linux gives
them in /sys/firmware/acpi/tables/data/CCEL. What is not the log of these very RTMRs is refused:

  ccel.mrtd        an event of MRTD, which no event after the build can have extended
  ccel.rtmr-<n>    an RTMR that the log has events of and that its replay does not give

An RTMR without events in the log is not explained by it (programs may extend RTMR 3 as they please): `event_log` in the
facts tells which are.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import eventlog_efi

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LOG = eventlog_efi.MAX_AREA

_BANK = "sha384"
_MRTD = 0
_RTMRS = range(1, 5)
_SPEC = "UEFI 2.10, section 38.4.1"


def explain(log: bytes, rtmrs: Sequence[bytes]) -> dict[str, str | int | bool]:
    """Facts that `log` states and `rtmrs` (RTMR 0 to 3, 48 bytes each, of a verified quote) prove.

    Raises `Malformed`, or `EvidenceRefused` where the replay does not give an RTMR.
    """
    values, facts = _read(log)
    for index in sorted(values):
        if index == _MRTD:
            raise EvidenceRefused(
                "ccel.mrtd",
                expected="no event of MRTD",
                got="an event of measurement register 0",
                hint="the firmware logs what it cannot have measured: the log is not of this machine's kind",
                source=_SPEC,
            )
        if values[index] != rtmrs[index - 1]:
            raise EvidenceRefused(
                f"ccel.rtmr-{index - 1}",
                expected=values[index].hex(),
                got=rtmrs[index - 1].hex(),
                hint="the log does not explain what was measured: an event is missing, added or changed",
                source=_SPEC,
            )
    return {"event_log": " ".join(f"rtmr{index - 1}" for index in sorted(values)), **facts}


@functools.lru_cache(maxsize=16)
def _read(log: bytes) -> tuple[dict[int, bytes], dict[str, str | int | bool]]:
    """The replayed registers by index and the facts; machines of one image give the same bytes, hence kept."""
    parsed = eventlog_efi.parse(log, padded=True)
    for event in parsed.events:
        if event.pcr != _MRTD and event.pcr not in _RTMRS:
            raise Malformed(
                f"CCEL: measurement register {event.pcr}, expected 1 to {len(_RTMRS)}", code="bad-pcr"
            )
    values = eventlog_efi.replay(parsed, _BANK)
    config = eventlog_efi.firmware_facts(parsed, _BANK, config=_RTMRS[0])
    booted = eventlog_efi.boot_facts(parsed, _BANK, uki=_RTMRS[2])
    facts: dict[str, str | int | bool] = {}
    for _, name, value in (*config, *booted):
        facts.setdefault(name, value)  # the first counts: whoever comes later may measure what it likes
    return values, facts
