"""Event logs: a recorded boot replays to its PCRs; whatever is not understood is refused."""

from __future__ import annotations

import hashlib
import itertools
import struct
from pathlib import Path

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence import tpm
from strongroom.evidence.formats import eventlog, tpm_quote
from strongroom_testing.vendors import fake_tpm

VECTORS = Path(__file__).parents[2] / "vectors" / "tpm"
LOG = (VECTORS / "seabios-1.16.2-q35.log").read_bytes()
PCRS = [bytes.fromhex(line) for line in (VECTORS / "seabios-1.16.2-q35.pcrs").read_text().split()]
RECORD = b'{"x":1}'


def start() -> dict[int, bytes]:
    values = dict.fromkeys(range(10), bytes(32))
    values[0] = tpm_quote.extend(tpm_quote.H_CRTM_START, hashlib.sha256(RECORD).digest())
    return values


def test_a_recorded_boot_replays_to_its_pcrs():
    replayed = eventlog.replay(eventlog.parse(LOG), start())
    assert [replayed[index] for index in range(10)] == PCRS[:10]


def test_the_kernels_boot_aggregate_of_a_recorded_boot_is_predicted():
    replayed = eventlog.replay(eventlog.parse(LOG), start())
    assert PCRS[10] in tpm._boot_aggregates(replayed)


def test_the_firmwares_log_does_not_hold_the_launch_measurement():
    # It was made before the firmware's first instruction; PCR 0 has the separator alone.
    in_pcr_0 = [event for event in eventlog.parse(LOG) if event.pcr == 0]
    assert [event.type for event in in_pcr_0] == [eventlog.SEPARATOR]
    without = eventlog.replay(eventlog.parse(LOG), dict.fromkeys(range(10), bytes(32)))
    assert without[0] != PCRS[0]


def test_the_fake_writes_logs_as_the_firmware_does():
    real = eventlog.parse(LOG)
    events = [(event.pcr, event.type, event.data) for event in real]
    assert fake_tpm.encode_log(events) == LOG
    faked = eventlog.parse(fake_tpm.encode_log(fake_tpm.FIRMWARE_EVENTS))
    shape = lambda log: {(event.pcr, event.type) for event in log}  # noqa: E731
    assert shape(faked) == shape(real)


def test_the_whole_record_is_explained_by_the_verifier(monkeypatch):
    class Record:
        @staticmethod
        def encode():
            return RECORD

    monkeypatch.setattr(tpm.launch, "parse", lambda data: Record)
    tpm._predict.cache_clear()
    try:
        tpm._check_launch(RECORD, LOG, dict(enumerate(PCRS)))
        for index in range(12):
            spoiled = {**dict(enumerate(PCRS)), index: bytes(31) + b"\1"}
            with pytest.raises(EvidenceRefused) as caught:
                tpm._check_launch(RECORD, LOG, spoiled)
            assert caught.value.check == f"launch.pcr-{index}"
    finally:
        tpm._predict.cache_clear()


@pytest.mark.parametrize(
    "masks", [tuple(1 << bit for bit in range(8)), pytest.param(range(1, 256), marks=pytest.mark.soak)]
)
def test_every_other_value_of_every_byte_is_malformed_or_replays_otherwise(masks):
    """Each bit of each byte; by `make soak`, each value."""
    good = eventlog.replay(eventlog.parse(LOG), start())
    for place, mask in itertools.product(range(len(LOG)), masks):
        value = LOG[place] ^ mask
        flipped = LOG[:place] + bytes([value]) + LOG[place + 1 :]
        try:
            events = eventlog.parse(flipped)
        except Malformed:
            continue
        assert eventlog.replay(events, start()) != good, f"byte {place} as {value:#x}"


def event(pcr: int, kind: int, data: bytes, *, digest: bytes | None = None, count: int = 1) -> bytes:
    measured = hashlib.sha256(data).digest() if digest is None else digest
    return struct.pack("<IIIH", pcr, kind, count, 0xB) + measured + struct.pack("<I", len(data)) + data


HEADER = fake_tpm.encode_log([])


@pytest.mark.parametrize(
    ("tail", "what", "why"),
    [
        (
            event(0, 1, b"POST CODE"),
            "a type that is not understood",
            "event of type 0x1, expected EV_SEPARATOR, EV_ACTION or EV_EVENT_TAG",
        ),
        (
            event(0, 3, b"StartupLocality\0\3"),
            "an event that is not measured",
            "event of type 0x3, expected EV_SEPARATOR, EV_ACTION or EV_EVENT_TAG",
        ),
        (
            event(0, 0x80000008, b"blob"),
            "an EFI event",
            "event of type 0x80000008, expected EV_SEPARATOR, EV_ACTION or EV_EVENT_TAG",
        ),
        (event(24, 4, b"\0\0\0\0"), "no such PCR", "no PCR has the number 24"),
        (event(0, 4, b"\0\0\0\1"), "a separator that reports an error", "data that an event of type 0x4 "),
        (event(0, 4, b""), "an empty separator", "data that an event of type 0x4 "),
        (event(0, 5, b"line\n"), "an action with control characters", "data that an event of type 0x5 "),
        (event(0, 5, b""), "an empty action", "data that an event of type 0x5 "),
        (
            event(0, 6, struct.pack("<II", 1, 9) + b"x"),
            "a tag with a wrong size",
            "data that an event of type 0x6 ",
        ),
        (event(0, 6, b"1234567"), "a tag without a header", "data that an event of type 0x6 "),
        (
            event(0, 5, b"action", digest=bytes(32)),
            "data that do not hash to the digest",
            "the data of an event of type 0x5 in PCR 0 do not hash",
        ),
        (
            event(0, 4, b"\0\0\0\0", count=2),
            "a bank too many",
            "digests at byte .*, expected .*, one of each bank",
        ),
        (event(0, 4, b"\0\0\0\0", count=0), "no bank", "digests at byte .*, expected .*, one of each bank"),
        (event(0, 5, b"a" * 4097), "too much data", "an event of 4097 bytes, at most 4096 allowed"),
        (event(0, 5, b"action")[:-1], "cut short", "cut short"),
        (b"\0", "a trailing byte", "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_understood_is_malformed(tail, what, why):
    assert eventlog.parse(HEADER) == ()
    with pytest.raises(Malformed, match=why):
        eventlog.parse(HEADER + tail)


def header(banks: list[tuple[int, int]], *, vendor: bytes = b"\0", pcr: int = 0, kind: int = 3) -> bytes:
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 2, 2, len(banks))
    spec += b"".join(struct.pack("<HH", *bank) for bank in banks) + vendor
    return struct.pack("<II20sI", pcr, kind, b"", len(spec)) + spec


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "cut short"),
        (header([]), "expected a list of 1 to .* banks in the Spec ID event, got"),
        (header([(4, 20)]), "a bank of algorithm .* bytes, expected SHA-256, SHA-384 or SHA-512, each once"),
        (
            header([(4, 20), (0xB, 32)]),
            "a bank of algorithm .* bytes, expected SHA-256, SHA-384 or SHA-512, each once",
        ),
        (header([(0xC, 48)]), "no SHA-256 bank"),
        (
            header([(0xB, 32), (0xB, 32)]),
            "a bank of algorithm .* bytes, expected SHA-256, SHA-384 or SHA-512, each once",
        ),
        (
            header([(0xB, 20)]),
            "a bank of algorithm .* bytes, expected SHA-256, SHA-384 or SHA-512, each once",
        ),
        (header([(0xB, 32)], vendor=b"\1x"), "expected a list of 1 to .* banks in the Spec ID event, got"),
        (header([(0xB, 32)], vendor=b""), "expected a list of 1 to .* banks in the Spec ID event, got"),
        (header([(0xB, 32)], pcr=1), "expected a Spec ID event at its begin"),
        (header([(0xB, 32)], kind=4), "expected a Spec ID event at its begin"),
        (header([(0xB, 32)] * 9), "expected a list of 1 to .* banks in the Spec ID event, got"),
        (struct.pack("<II20sI", 0, 3, b"", 1 << 31), "expected a Spec ID event at its begin"),
    ],
)
def test_bad_headers_are_malformed(bad, why):
    assert eventlog.parse(header([(0xB, 32)])) == ()
    with pytest.raises(Malformed, match=why):
        eventlog.parse(bad)


def test_every_bank_is_checked():
    data = b"\0\0\0\0"
    sound = (
        struct.pack("<IIIH", 0, 4, 2, 0xB)
        + hashlib.sha256(data).digest()
        + struct.pack("<H", 0xC)
        + hashlib.sha384(data).digest()
        + struct.pack("<I", 4)
        + data
    )
    both = header([(0xB, 32), (0xC, 48)])
    assert len(eventlog.parse(both + sound)) == 1
    with pytest.raises(
        Malformed, match=r"the data of an event of type .* in PCR .* do not hash to its digest"
    ):
        eventlog.parse(both + sound.replace(hashlib.sha384(data).digest(), bytes(48)))
    with pytest.raises(Malformed, match=r"a digest of algorithm .*, expected .*, as in the header"):
        eventlog.parse(header([(0xC, 48), (0xB, 32)]) + sound)


def test_rule_15_logs_are_bounded():
    many = [(0, eventlog.ACTION, b"a")] * (eventlog.MAX_EVENTS + 1)
    assert len(eventlog.parse(fake_tpm.encode_log(many[1:]))) == eventlog.MAX_EVENTS
    with pytest.raises(Malformed) as caught:
        eventlog.parse(fake_tpm.encode_log(many))
    assert caught.value.code == "too-many"
    with pytest.raises(Malformed) as caught:
        eventlog.parse(bytes(eventlog.MAX_LOG + 1))
    assert caught.value.code == "too-large"
