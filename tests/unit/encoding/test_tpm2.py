"""TPM commands against bytes that were worked out by hand from the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.encoding import tpm2
from strongroom.encoding.reader import Reader
from strongroom.errors import Malformed, Unavailable

SESSION = "00000009" + "40000009" + "0000" + "00" + "0000"
AK_PUBLIC = "0023000b0005007200000010" + "0018000b" + "0003" + "0010"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (tpm2.startup(), "80010000000c00000144" + "0000"),
        (tpm2.shutdown(), "80010000000c00000145" + "0000"),
        (tpm2.get_random(32), "80010000000c0000017b" + "0020"),
        (tpm2.pcr_read(12), "8001000000140000017e" + "00000001" + "000b" + "03" + "001000"),
        (
            tpm2.pcr_extend(12, b"\xaa" * 32),
            "8002000000410000018" + "2" + "0000000c" + SESSION + "00000001" + "000b" + "aa" * 32,
        ),
        (tpm2.flush_context(0x80000000), "80010000000e00000165" + "80000000"),
        (tpm2.read_public(0x81010020), "80010000000e00000173" + "81010020"),
        (tpm2.evict_control(0x80000000, 0x81010020), "80020000002300000120" + "40000001" + "80000000" + SESSION + "81010020"),
        (
            tpm2.quote(0x81010020, b"\xbb" * 2, (0, 1, 23)),
            "80020000002b00000158" + "81010020" + SESSION + "0002bbbb" + "0010" + "00000001" + "000b" + "03" + "030080",
        ),
        (tpm2.nv_read_public(0x01C10002), "80010000000e00000169" + "01c10002"),
        (tpm2.nv_read(0x01C10002, 1024, 7), "80020000002300000" + "14e" + "01c10002" + "01c10002" + SESSION + "0400" + "0007"),
        (tpm2.nv_write(0x01C10002, b"ab", 1), "80020000002500000137" + "40000001" + "01c10002" + SESSION + "0002" + "6162" + "0001"),
        (
            tpm2.nv_define(0x01C10002, 431, tpm2.NV_OWNERWRITE | tpm2.NV_AUTHREAD),
            "80020000002d0000012a" + "40000001" + SESSION + "0000" + "000e" + "01c10002" + "000b" + "00040002" + "0000" + "01af",
        ),
    ],
)  # fmt: skip
def test_commands(command, expected):
    assert command.hex() == expected
    assert int.from_bytes(command[2:6], "big") == len(command)


def test_the_attestation_key_is_restricted_and_stays():
    command = tpm2.create_ak(tpm2.ENDORSEMENT).hex()
    assert command.startswith("8002" + f"{len(command) // 2:08x}" + "00000131" + "4000000b" + SESSION)
    assert AK_PUBLIC in command
    # fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign; not decrypt
    assert 0x00050072 == 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 16 | 1 << 18


def area(x=b"\x01" * 32, y=b"\x02" * 32, head=AK_PUBLIC):
    return bytes.fromhex(head) + len(x).to_bytes(2, "big") + x + len(y).to_bytes(2, "big") + y


def test_points_are_padded_and_checked():
    assert tpm2.read_p256_point(area()) == (b"\x01" * 32, b"\x02" * 32)
    assert tpm2.read_p256_point(area(x=b"\x01" * 31))[0] == b"\x00" + b"\x01" * 31
    for bad, why in (
        (area(x=b"\x01" * 33), "a coordinate of the key is longer than 32 bytes"),
        (area() + b"\x00", "1 trailing bytes"),
        (area()[:-1], "32 bytes wanted at offset 56, 31 left"),
        (
            area(head=AK_PUBLIC.replace("00050072", "00040072")),
            "expected a restricted ECC signing key with SHA-256",
        ),  # not restricted
        (
            area(head=AK_PUBLIC.replace("00050072", "00070072")),
            "expected a restricted ECC signing key with SHA-256",
        ),  # may decrypt too
        (
            area(head=AK_PUBLIC.replace("0018000b0003", "0018000b0004")),
            "expected ECDSA on P-256 with SHA-256",
        ),  # P-384
        (
            area(head=AK_PUBLIC.replace("0023000b", "0001000b")),
            "expected a restricted ECC signing key with SHA-256",
        ),  # RSA
    ):
        with pytest.raises(Malformed, match=why):
            tpm2.read_p256_point(bad)


def answer(result, body=b"", tag=0x8001):
    return tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + result.to_bytes(4, "big") + body


def test_responses():
    assert tpm2.response(answer(0, b"xyz")).parameters.take(3) == b"xyz"
    with_session = tpm2.response(
        answer(0, b"\x80\x00\x00\x01" + b"\x00\x00\x00\x02ab" + b"the session", tag=0x8002), handles=1
    )
    assert with_session.handles == (0x80000001,)
    assert with_session.parameters.take(2) == b"ab"
    with_session.parameters.done()  # the authorisation area is no parameter


@pytest.mark.parametrize(
    ("result", "code"), [(0x922, "tpm-retry"), (0x101, "tpm-failed"), (0x18B, "tpm-failed")]
)
def test_refusals_of_the_tpm(result, code):
    with pytest.raises(Unavailable) as caught:
        tpm2.response(answer(result))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "2 bytes wanted at offset 0, 0 left"),
        (answer(0)[:9], "4 bytes wanted at offset 6, 3 left"),
        (answer(0) + b"x", "its length field says 10 bytes, it has 11"),
        (answer(0, tag=0x8003), "tag 0x8003, expected 0x8001 or 0x8002"),
        (answer(0, b"\x00\x00\x00\x09ab", tag=0x8002), "9 bytes wanted at offset 14, 2 left"),
        (bytes(tpm2.MAX_RESPONSE + 1), "8193 bytes, at most 8192 allowed"),
    ],
)
def test_responses_that_are_none(data, why):
    with pytest.raises(Malformed, match=why):
        tpm2.response(data)


def test_a_pcr_of_another_bank_or_number_is_no_answer():
    def value(selection, size=32, count=1):
        data = (
            bytes(4)
            + bytes.fromhex(selection)
            + count.to_bytes(4, "big")
            + size.to_bytes(2, "big")
            + bytes(size)
        )
        return Reader(data, "test")

    good = "00000001000b03001000"
    assert tpm2.read_pcr(value(good), 12) == bytes(32)
    for bad, why in (
        (value(good.replace("001000", "002000")), "PCR 12 is not in the sha256 bank"),
        (value(good.replace("000b", "0004")), "PCR 12 is not in the sha256 bank"),
        (value(good, count=0), "PCR 12 is not in the sha256 bank"),
        (value(good, size=20), "PCR 12: expected a value of 32 bytes, got 20"),
        (value("00000000"), "PCR 12 is not in the sha256 bank"),
    ):
        with pytest.raises(Malformed, match=why):
            tpm2.read_pcr(bad, 12)


def test_limits():
    for bad, why in (
        (lambda: tpm2.selection((24,)), "no PCR has the number (24|-1): there are 24, numbered from 0"),
        (lambda: tpm2.selection((-1,)), "no PCR has the number (24|-1): there are 24, numbered from 0"),
        (lambda: tpm2.pcr_extend(0, b"short"), "a PCR is extended by 32 bytes"),
    ):
        with pytest.raises(Malformed, match=why):
            bad()
    large = "0010" + "01c10002" + "000b" + "00040002" + "0000" + "4001"
    with pytest.raises(Malformed, match="16385"):
        tpm2.read_nv_size(Reader(bytes.fromhex("000e" + large[4:]), "test"))


@given(st.binary(max_size=300), st.integers(0, 3))
def test_whatever_the_tpm_says(data, handles):
    try:
        reader = tpm2.response(data, handles=handles).parameters
    except (Malformed, Unavailable):
        return
    rest = reader.take(reader.remaining)
    for read in (
        lambda r: tpm2.read_pcr(r, 0),
        tpm2.read_quote,
        tpm2.read_nv_size,
        tpm2.read_sized,
        lambda r: tpm2.read_p256_point(tpm2.read_sized(r)),
    ):
        try:
            read(Reader(rest, "test"))
        except Malformed:
            continue
