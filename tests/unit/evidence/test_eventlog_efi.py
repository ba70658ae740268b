"""UEFI event logs: replayed into registers, read for facts that the registers prove, refused when they do not parse."""

from __future__ import annotations

import hashlib
import struct

import pytest

from strongroom.errors import EvidenceRefused, Malformed
from strongroom.evidence.formats import ccel, eventlog, eventlog_efi
from strongroom_testing.vendors import fake_google, fake_tpm
from tests.unit.evidence.efi_log import CCEL, CCEL_EVENTS, EVENTS, LOG, rtmrs
from tests.vectors import runner

TDX_CASE = runner.folder() / "tdx" / "v4-attestation-rs-tdx-quote-live-3ab56d67"


def pcrs(events=EVENTS, bank="sha256", **kwargs):
    return fake_google.replay(events, bank, **kwargs)


def explain(log=LOG, bank="sha256", values=None):
    return eventlog_efi.explain(log, bank, pcrs(bank=bank) if values is None else values)


@pytest.mark.parametrize("bank", ["sha256", "sha384"])
def test_a_log_replays_in_each_of_its_banks(bank):
    parsed = eventlog_efi.parse(LOG)
    assert parsed.banks == ("sha1", "sha256", "sha384")
    replayed = eventlog_efi.replay(parsed, bank)
    assert replayed == {index: value for index, value in pcrs(bank=bank).items() if index in replayed}
    assert set(replayed) == {*range(10), 11}


def test_banks_that_are_not_in_the_log_or_count_for_nothing_are_refused():
    for bank, why in (("sha1", "no sha1 bank"), ("sha512", "no sha512 bank"), ("md5", "no md5 bank")):
        with pytest.raises(Malformed, match=why):
            eventlog_efi.replay(eventlog_efi.parse(LOG), bank)


def test_it_reads_what_the_strict_parser_of_local_rooms_reads():
    log = fake_tpm.encode_log(fake_tpm.FIRMWARE_EVENTS)
    strict = eventlog.replay(eventlog.parse(log), dict.fromkeys(range(8), bytes(32)))
    assert eventlog_efi.replay(eventlog_efi.parse(log), "sha256") == strict


def test_the_startup_locality_is_where_pcr_0_begins():
    events = [(0, 3, b"", b"StartupLocality\0\x03"), *EVENTS]
    facts = explain(fake_google.encode_log(events), values=pcrs(events, locality=3))
    assert facts["secure_boot"] is True
    with pytest.raises(EvidenceRefused, match=r"event-log\.pcr-0"):
        explain(fake_google.encode_log(events))
    for bad in (b"\x01", b"\x05", b"", b"\x03\0"):
        with pytest.raises(Malformed, match="expected one start-up locality, 0, 3 or 4, got"):
            eventlog_efi.parse(fake_google.encode_log([(0, 3, b"", b"StartupLocality\0" + bad), *EVENTS]))
    twice = [(0, 3, b"", b"StartupLocality\0\x03"), (0, 3, b"", b"StartupLocality\0\x04"), *EVENTS]
    with pytest.raises(Malformed, match="expected one start-up locality, 0, 3 or 4, got"):
        eventlog_efi.parse(fake_google.encode_log(twice))


def test_events_that_are_not_measured_change_no_register_and_give_no_fact():
    told = fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\0")
    events = [(7, 3, told[2], told[3]), *EVENTS]
    assert explain(fake_google.encode_log(events))["secure_boot"] is True


def test_secure_boot_is_what_was_measured_before_the_separator():
    off = fake_google.boot(secure=False)
    # The guest measures the variable that it would have liked, after the firmware has handed over.
    wish = fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\x01")
    events = [*off, wish]
    assert explain(fake_google.encode_log(events), values=pcrs(events))["secure_boot"] is False
    without = [event for event in off if b"S\0e\0c\0u\0r\0e\0B" not in event[2]]
    events = [*without, wish]
    assert "secure_boot" not in explain(fake_google.encode_log(events), values=pcrs(events))


def test_what_an_event_says_counts_only_where_its_digest_is_of_that():
    lie = fake_google.variable(fake_google._GLOBAL, "SecureBoot", b"\x01")[3]
    events = [
        (pcr, kind, measured, lie) if b"S\0e\0c\0u\0r\0e\0B" in measured else (pcr, kind, measured, data)
        for pcr, kind, measured, data in fake_google.boot(secure=False)
    ]
    facts = explain(fake_google.encode_log(events), values=pcrs(events))
    assert "secure_boot" not in facts
    grub = (8, 0xD, b"init=/bin/sh", b"kernel_cmdline: quiet\0")
    assert "kernel_cmdline" not in explain(fake_google.encode_log([grub]), values=pcrs([grub]))


def test_the_first_of_two_says_it():
    first, second = (
        (8, 0xD, line, b"kernel_cmdline: " + line + b"\0") for line in (b"quiet", b"init=/bin/sh")
    )
    facts = explain(fake_google.encode_log([first, second]), values=pcrs([first, second]))
    assert facts["kernel_cmdline"] == "quiet"


def test_sections_of_a_unified_kernel_image_are_told_by_digest():
    facts = explain()
    assert facts["uki.linux"] == hashlib.sha256(fake_google.KERNEL).hexdigest()
    assert facts["uki.cmdline"] == hashlib.sha256(fake_google.CMDLINE).hexdigest()
    unnamed = [fake_google.uki(".linux", b"kernel")[1]]
    assert "uki.linux" not in explain(fake_google.encode_log(unnamed), values=pcrs(unnamed))


def test_linux_says_what_initrd_and_options_its_stub_measured():
    event = (9, 6, b"the initrd", struct.pack("<II", 0x8F3B22EC, 13) + b"Linux initrd\0")
    facts = explain(fake_google.encode_log([event]), values=pcrs([event]))
    assert facts["linux_initrd"] == hashlib.sha256(b"the initrd").hexdigest()


def test_guests_texts_are_fit_for_a_terminal():
    line = b"quiet \x1b[2J\n" + b"\xff" + b"x" * 9000
    event = (8, 0xD, line, b"kernel_cmdline: " + line + b"\0")
    told = explain(fake_google.encode_log([event]), values=pcrs([event]))["kernel_cmdline"]
    assert told.startswith("quiet ?[2J?\N{REPLACEMENT CHARACTER}x")
    assert len(told) == eventlog_efi.MAX_TEXT


@pytest.mark.parametrize(
    "value", [b"", b"\x01", b"\0" * 31, fake_google._GLOBAL + struct.pack("<QQ", 10, 2**63) + b"SecureBoot"]
)
def test_variables_that_do_not_parse_give_no_fact(value):
    event = fake_google.said(7, 0x80000001, value)
    assert "secure_boot" not in explain(
        fake_google.encode_log([event, fake_google.said(7, 4, bytes(4))]),
        values=pcrs([event, fake_google.said(7, 4, bytes(4))]),
    )


def test_rule_15_what_is_not_a_log_is_malformed():
    for cut in (*range(80), len(LOG) - 1, len(LOG) - 30):
        if cut != 32 + int.from_bytes(LOG[28:32], "little"):
            with pytest.raises(Malformed, match="cut short"):
                eventlog_efi.parse(LOG[:cut])
    header = 32 + int.from_bytes(LOG[28:32], "little")
    event = LOG[header:]
    twice = (struct.pack("<H", 0xB) + bytes(32)) * 9  # one bank again and again
    for bad, why in (
        (LOG + b"\0", "cut short"),
        (
            LOG[:header] + struct.pack("<I", 24) + event[4:],
            "no register has the number 24",
        ),  # a PCR that is none
        (
            LOG[:header] + event[:8] + struct.pack("<I", 2) + event[12:],
            "an event with .* digests at byte .*, expected .*, one of each bank",
        ),  # a bank too few
        (
            LOG[:header] + event[:12] + twice,
            "a digest of algorithm .*, expected one of each bank of the header",
        ),
        (
            LOG[:header] + event[:12] + struct.pack("<H", 0x77) + event[14:],
            "a digest of algorithm .*, expected one of each bank of the header",
        ),
        (
            LOG[:56] + struct.pack("<I", 0) + LOG[60:],
            "expected a list of 1 to .* banks in the Spec ID event, got",
        ),
        (
            LOG[:56] + struct.pack("<I", 200) + LOG[60:],
            "expected a list of 1 to .* banks in the Spec ID event, got",
        ),
        (bytes(eventlog_efi.MAX_LOG + 1), "at most"),
        (
            LOG[:header]
            + (fake_google.encode_events([(0, 3, b"", b"")], ("sha1", "sha256", "sha384"))) * 2049,
            "more than 2048 events",
        ),
        (fake_google.encode_log([(0, 3, b"", bytes(eventlog_efi.MAX_DATA + 1))]), "an event of"),
    ):
        with pytest.raises(Malformed, match=why):
            eventlog_efi.parse(bad)
        with pytest.raises(Malformed, match=why):
            explain(bad)


def test_ccel_replays_into_rtmrs_and_its_facts_are_told():
    for padding in (b"", b"\xff" * 300, bytes(300)):
        facts = ccel.explain(CCEL + padding, rtmrs())
        assert facts["event_log"] == "rtmr0 rtmr1 rtmr2"
        assert facts["secure_boot"] is True
        assert facts["uki.linux"] == hashlib.sha384(b"kernel").hexdigest()
        assert facts["boot_applications"] == hashlib.sha384(b"boot loader").hexdigest()


@pytest.mark.parametrize("padding", [b"\0", b"\xff"])
@pytest.mark.parametrize("area", [64 * 1024, 256 * 1024, 1024 * 1024])
def test_a_log_is_read_out_of_an_area_of_any_size_that_firmware_hands_out(area, padding):
    facts = ccel.explain(CCEL.ljust(area, padding), rtmrs())
    assert facts["event_log"] == "rtmr0 rtmr1 rtmr2"
    # What ends in the byte that pads is read to its own end.
    zeros = fake_google.encode_log([fake_google.said(1, 4, bytes(40))], ("sha384",))
    assert len(eventlog_efi.parse(zeros.ljust(area, padding), padded=True).events) == 1


def test_a_log_is_bounded_whatever_pads_it():
    with pytest.raises(Malformed, match="1048577 bytes, at most 1048576 allowed"):
        eventlog_efi.parse(CCEL.ljust(1024 * 1024 + 1, b"\0"), padded=True)
    with pytest.raises(Malformed, match="262145 bytes, at most 262144 allowed"):
        eventlog_efi.parse(CCEL.ljust(256 * 1024 + 1, b"\0"))
    long = fake_google.encode_log([fake_google.said(1, 4, b"x" * 60_000)] * 6, ("sha384",))
    with pytest.raises(Malformed, match="more than 262144 bytes before its padding"):
        eventlog_efi.parse(long.ljust(1024 * 1024, b"\0"), padded=True)
    for mixed in (bytes(9) + b"\xff" * 9, b"\xff" * 9 + bytes(9), bytes(9) + b"\1"):
        with pytest.raises(Malformed, match=r"no register has the number|one of each bank|cut short"):
            eventlog_efi.parse(CCEL + mixed, padded=True)


def test_an_rtmr_that_the_log_does_not_explain_is_refused_by_its_number():
    for number in range(3):
        wrong = list(rtmrs())
        wrong[number] = bytes(48)
        with pytest.raises(EvidenceRefused) as refused:
            ccel.explain(CCEL, wrong)
        assert refused.value.check == f"ccel.rtmr-{number}"
    # Programs extend RTMR 3 as they please; a log without events of it says nothing of it.
    assert ccel.explain(CCEL, (*rtmrs()[:3], b"\x07" * 48))["event_log"] == "rtmr0 rtmr1 rtmr2"


def test_registers_that_no_event_can_have_extended_are_refused():
    with pytest.raises(EvidenceRefused, match=r"ccel\.mrtd"):
        ccel.explain(fake_google.encode_log([fake_google.said(0, 4, bytes(4))], ("sha384",)), rtmrs())
    with pytest.raises(Malformed, match=r"measurement register .*, expected 1 to 4"):
        ccel.explain(fake_google.encode_log([fake_google.said(5, 4, bytes(4))], ("sha384",)), rtmrs())
    with pytest.raises(Malformed, match="no sha384 bank"):
        ccel.explain(fake_google.encode_log(CCEL_EVENTS, ("sha256",)), rtmrs())
    with pytest.raises(Malformed, match="no register has the number"):
        ccel.explain(CCEL + b"\xff" * 30 + b"\0", rtmrs())


def test_a_recorded_ccel_replays_into_the_rtmrs_of_its_quote():
    if not TDX_CASE.is_dir():
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    body = (TDX_CASE / "quote.bin").read_bytes()[48:632]
    quoted = [body[328 + 48 * number : 376 + 48 * number] for number in range(4)]
    log = (TDX_CASE / "ccel_data.bin").read_bytes()
    facts = ccel.explain(log, quoted)
    assert facts["event_log"] == "rtmr0 rtmr1 rtmr2"
    assert facts["secure_boot"] is False
    for event in eventlog_efi.parse(log, padded=True).events:
        place = log.index(event.digests["sha384"]) + 40
        with pytest.raises(EvidenceRefused, match=r"ccel\.rtmr-"):
            ccel.explain(log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :], quoted)
    for place in range(len(log.rstrip(b"\xff"))):
        flipped = log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :]
        try:
            facts = ccel.explain(flipped, quoted)
        except (EvidenceRefused, Malformed):
            continue
        assert facts.get("secure_boot", False) is False, place


def test_the_recorded_log_of_a_google_instance_replays_in_two_banks():
    case = runner.folder() / "gcp" / "go-tpm-tools-gce-cos-85-no-nonce"
    if not case.is_dir():
        pytest.skip("the recorded evidence is not beside the project (STRONGROOM_VECTORS names its folder)")
    import json

    log = (case / "event_log.bin").read_bytes()
    for bank in ("sha256", "sha384"):
        told = json.loads((case / f"pcrs_{bank}.json").read_bytes())
        facts = eventlog_efi.explain(
            log, bank, {int(index): bytes.fromhex(one) for index, one in told.items()}
        )
        assert facts["secure_boot"] is True
        assert facts["gce_technology"] == "amd-sev"
        assert facts["kernel_cmdline"].startswith("/syslinux/vmlinuz.A init=")
