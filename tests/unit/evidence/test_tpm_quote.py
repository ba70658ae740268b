"""TPMS_ATTEST and TPMT_SIGNATURE, field by field."""

from __future__ import annotations

import struct

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.evidence.formats import tpm_quote


def attest(
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    name: bytes = b"\0\x0b" + bytes(32),
    extra: bytes = b"e" * 32,
    safe: int = 1,
    count: int = 1,
    bank: int = 0xB,
    select: bytes = b"\xff\x1f\0",
    digest: bytes = bytes(32),
    tail: bytes = b"",
) -> bytes:
    return b"".join(
        (
            struct.pack(">IH", magic, kind),
            struct.pack(">H", len(name)) + name,
            struct.pack(">H", len(extra)) + extra,
            struct.pack(">QIIBQ", 5000, 7, 2, safe, 0x1234),
            struct.pack(">IHB", count, bank, len(select)) + select,
            struct.pack(">H", len(digest)) + digest,
            tail,
        )
    )


def test_a_quote_is_read_field_by_field():
    quote = tpm_quote.parse_quote(attest())
    assert quote.raw == attest()
    assert quote.extra_data == b"e" * 32
    assert (quote.clock, quote.reset_count, quote.restart_count, quote.safe) == (5000, 7, 2, True)
    assert quote.firmware == 0x1234
    assert quote.selection == tuple(range(13))
    assert quote.pcr_digest == bytes(32)
    assert tpm_quote.parse_quote(attest(select=b"\x01\x80\x80")).selection == (0, 15, 23)
    assert not tpm_quote.parse_quote(attest(safe=0)).safe
    assert quote.bank == "sha256"


def test_the_sha384_bank_is_read_whatever_its_scheme_digests_with():
    for size in (32, 48):
        quote = tpm_quote.parse_quote(attest(bank=0xC, digest=bytes(size)))
        assert (quote.bank, len(quote.pcr_digest)) == ("sha384", size)


def test_banks_of_which_nothing_is_selected_are_passed_over():
    two = attest().replace(
        struct.pack(">IHB", 1, 0xB, 3), struct.pack(">IHB3sHB", 2, 0x4, 3, b"\0\0\0", 0xB, 3)
    )
    assert tpm_quote.parse_quote(two) == tpm_quote.parse_quote(attest())._replace(raw=two)
    both = attest().replace(
        struct.pack(">IHB", 1, 0xB, 3), struct.pack(">IHB3sHB", 2, 0xC, 3, b"\1\0\0", 0xB, 3)
    )
    with pytest.raises(Malformed, match="expected PCRs of one bank, SHA-256 or SHA-384"):
        tpm_quote.parse_quote(both)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (attest(magic=0xFF544346), "magic .*, expected 0xff544347"),
        (attest(kind=0x8017), "an attestation of type .*, expected 0x8018"),  # TPM_ST_ATTEST_CERTIFY
        (attest(name=bytes(69)), "a signer of 69 bytes and extra data of 32, at most 68"),
        (attest(extra=bytes(65)), "a signer of 34 bytes and extra data of 65, at most 68"),
        (attest(safe=2), "the clock's safe flag: expected 0 or 1, got"),
        (attest(count=0), "0 PCR selections, expected 1 to 16"),
        (attest(count=2), "a PCR selection of .* bytes, expected 3, for 24 PCRs"),
        (attest(bank=0x4), "expected PCRs of one bank, SHA-256 or SHA-384"),  # SHA-1
        (attest(bank=0xD), "expected PCRs of one bank, SHA-256 or SHA-384"),  # SHA-512
        (attest(select=b"\0\0\0"), "expected PCRs of one bank, SHA-256 or SHA-384"),  # nothing selected
        (attest(select=b"\xff\x1f"), "a PCR selection of .* bytes, expected 3, for 24 PCRs"),
        (attest(select=b"\xff\x1f\0\0"), "a PCR selection of .* bytes, expected 3, for 24 PCRs"),
        (attest(digest=bytes(31)), "a PCR digest of .* bytes, expected 32 or 48"),
        (attest(digest=bytes(33)), "a PCR digest of .* bytes, expected 32 or 48"),
        (attest(tail=b"\0"), "a PCR digest of .* bytes announced"),
        (attest()[:-1], "a PCR digest of .* bytes announced"),
        (b"", "cut short"),
        (bytes(tpm_quote.MAX_QUOTE + 1), "1025 bytes, at most 1024 allowed"),
    ],
)
def test_bad_quotes_are_malformed(bad, why):
    with pytest.raises(Malformed, match=why):
        tpm_quote.parse_quote(bad)


def signature(scheme: int, bank: int, *sized: bytes) -> bytes:
    return struct.pack(">HH", scheme, bank) + b"".join(struct.pack(">H", len(one)) + one for one in sized)


def test_signatures_are_read():
    parsed = tpm_quote.parse_signature(signature(0x18, 0xB, b"\x01\x00", bytes(31) + b"\x05"))
    assert parsed == tpm_quote.EcdsaSignature(r=256, s=5)
    assert tpm_quote.parse_signature(signature(0x14, 0xB, b"abc")) == tpm_quote.RsaSignature(raw=b"abc")
    assert tpm_quote.parse_signature(signature(0x16, 0xC, b"abc")) == tpm_quote.RsaSignature(
        raw=b"abc", hash="sha384", pss=True
    )
    wide = tpm_quote.parse_signature(signature(0x18, 0xC, bytes(47) + b"\x02", bytes(47) + b"\x05"))
    assert wide == tpm_quote.EcdsaSignature(r=2, s=5, hash="sha384")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "cut short"),
        (
            signature(0x18, 0x4, bytes(32), bytes(32)),
            "expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384",
        ),  # SHA-1
        (signature(0x14, 0x4, bytes(256)), "expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384"),
        (signature(0x16, 0x4, bytes(256)), "expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384"),
        (
            signature(0x1A, 0xB, bytes(32), bytes(32)),
            "expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384",
        ),  # ECDAA
        (signature(0x10, 0xB), "cut short"),
        (
            signature(0x10, 0xB, bytes(32), bytes(32)),
            "expected ECDSA, RSASSA or RSAPSS with",
        ),  # TPM_ALG_NULL: no signature at all
        (signature(0x5, 0xB, bytes(32)), "expected ECDSA, RSASSA or RSAPSS with SHA-256 or SHA-384"),  # HMAC
        (signature(0x18, 0xB, bytes(49), bytes(32)), "49 bytes, at most 48 allowed"),
        (signature(0x18, 0xB, bytes(32)), "cut short"),
        (signature(0x18, 0xB, bytes(32), bytes(32), b""), "2 trailing bytes"),
        (signature(0x14, 0xB, bytes(1025)), "1025 bytes, at most 1024 allowed"),
        (bytes(tpm_quote.MAX_SIGNATURE + 1), "2049 bytes, at most 2048 allowed"),
    ],
)
def test_bad_signatures_are_malformed(bad, why):
    with pytest.raises(Malformed, match=why):
        tpm_quote.parse_signature(bad)


def test_pcr_values_are_cut_in_the_order_of_the_selection():
    assert tpm_quote.split_pcrs(b"a" * 32 + b"b" * 32, (3, 9)) == {3: b"a" * 32, 9: b"b" * 32}
    for wrong, why in (
        (b"", "0 bytes, expected 64 for 2 PCRs"),
        (b"a" * 32, "32 bytes, expected 64 for 2 PCRs"),
        (b"a" * 65, "65 bytes, expected 64 for 2 PCRs"),
        (b"a" * 96, "96 bytes, expected 64 for 2 PCRs"),
    ):
        with pytest.raises(Malformed, match=why):
            tpm_quote.split_pcrs(wrong, (3, 9))


def test_pcrs_are_extended_by_32_bytes_only():
    assert tpm_quote.extend(bytes(32), bytes(32)).hex().startswith("f5a5fd42")
    with pytest.raises(Refused, match="expected 32 bytes each"):
        tpm_quote.extend(bytes(32), b"short")
    with pytest.raises(Refused, match="expected 32 bytes each"):
        tpm_quote.extend(bytes(20), bytes(32))
