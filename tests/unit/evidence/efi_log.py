"""A measured boot's event log, as UEFI writes it."""

from __future__ import annotations

from strongroom_testing.vendors import fake_google

EVENTS = fake_google.boot()
LOG = fake_google.encode_log(EVENTS)

# Measurement registers of a trust domain: RTMR n has the index n + 1.
CCEL_EVENTS = [
    fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\x01", pcr=1),
    fake_google.said(1, 4, bytes(4)),
    (2, 0x80000003, b"boot loader", b"where it was loaded"),
    *fake_google.uki(".linux", b"kernel", pcr=3),
]

CCEL = fake_google.encode_log(CCEL_EVENTS, ("sha384",))


def rtmrs(events=CCEL_EVENTS) -> tuple[bytes, ...]:
    values = fake_google.replay(events, "sha384")
    return tuple(values[index] for index in range(1, 5))
