from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.crypto import libcrypto, xts
from strongroom.errors import Malformed, Unavailable
from tests.unit.seal.trees import noise

KEY = noise(64, 7)
FAST = xts._fast


def by_the_standard(key: bytes, tweak: bytes, plain: bytes) -> bytes:
    """IEEE 1619 from single AES blocks: C = E1(P ⊕ T) ⊕ T, T doubling in GF(2^128)."""
    first = Cipher(algorithms.AES(key[:32]), modes.ECB()).encryptor()  # noqa: S305 - one block at a time
    second = Cipher(algorithms.AES(key[32:]), modes.ECB()).encryptor()  # noqa: S305 - one block at a time
    mask = int.from_bytes(second.update(tweak), "little")
    out = b""
    for at in range(0, len(plain), 16):
        block = int.from_bytes(plain[at : at + 16], "little") ^ mask
        out += (int.from_bytes(first.update(block.to_bytes(16, "little")), "little") ^ mask).to_bytes(
            16, "little"
        )
        mask = mask << 1 ^ (0x87 if mask >> 127 else 0)
        mask &= (1 << 128) - 1
    return out


@pytest.fixture(params=["openssl", "package"], autouse=True)
def _both_ways(request, monkeypatch):
    if request.param == "package":
        monkeypatch.setattr(xts, "_fast", lambda: None)
    elif xts._fast() is None:
        pytest.skip("there is no libcrypto.so.3 here")


def encrypt(key: bytes, plain: bytes, first: int) -> bytes:
    buffer = bytearray(plain + bytes(xts.SLACK))
    xts.SectorCipher(key).encrypt(memoryview(buffer), len(plain), first=first)
    assert buffer[len(plain) :] == bytes(xts.SLACK)
    return bytes(buffer[: len(plain)])


def test_the_test_s_own_xts_meets_ieee_1619_vector_10():
    key = bytes.fromhex(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    )
    expected = bytes.fromhex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")
    assert by_the_standard(key, (0xFF).to_bytes(16, "little"), bytes(range(32))) == expected


@pytest.mark.parametrize("first", [0, 1, 5, 1 << 40])
def test_sectors_count_in_units_of_512_bytes(first):
    plain = noise(3 * 4096, first % 1000)
    cipher = encrypt(KEY, plain, first)
    for index in range(3):
        tweak = (8 * (first + index)).to_bytes(16, "little")
        part = slice(index * 4096, (index + 1) * 4096)
        assert cipher[part] == by_the_standard(KEY, tweak, plain[part])


def test_decrypt_undoes_encrypt():
    plain = noise(4 * 4096)
    buffer = bytearray(encrypt(KEY, plain, 9) + bytes(xts.SLACK))
    xts.SectorCipher(KEY).decrypt(memoryview(buffer), len(plain), first=9)
    assert bytes(buffer[: len(plain)]) == plain


def test_slack_keeps_its_bytes():
    buffer = bytearray(noise(4096) + b"S" * xts.SLACK)
    xts.SectorCipher(KEY).encrypt(memoryview(buffer), 4096, first=0)
    assert buffer[4096:] == b"S" * xts.SLACK


@pytest.mark.parametrize("count", [1, 4095, 4097])
def test_parts_of_sectors_are_refused(count):
    with pytest.raises(Malformed, match=f"{count} bytes are not whole sectors"):
        xts.SectorCipher(KEY).encrypt(memoryview(bytearray(count + xts.SLACK)), count, first=0)


def test_a_buffer_without_slack_is_refused():
    with pytest.raises(Malformed, match="are not whole sectors with 15 bytes behind them"):
        xts.SectorCipher(KEY).encrypt(memoryview(bytearray(4096)), 4096, first=0)


@pytest.mark.parametrize("key", [b"", bytes(32), bytes(63), KEY + b"x", KEY[:32] * 2])
def test_bad_keys_are_refused(key):
    with pytest.raises(Malformed) as caught:
        xts.SectorCipher(key)
    assert key.hex()[:16] not in str(caught.value) or not key


def test_new_key_takes_64_bytes_and_shows_none():
    key = xts.new_key(os.urandom)
    assert len(key) == 64
    assert hashlib.sha256(key).hexdigest() != hashlib.sha256(xts.new_key(os.urandom)).hexdigest()
    assert key.hex()[:8] not in repr(xts.SectorCipher(key))
    with pytest.raises(Malformed, match="two halves are equal"):
        xts.new_key(bytes)


class Wrong:
    """A library that does not do what it says."""

    def __init__(self, flip: int = 0, *, failing: bool = False) -> None:
        self.flip, self.failing = flip, failing

    def xts(self, _key, view, _count, **_terms):
        if self.failing:
            raise Unavailable("no")
        view[self.flip] ^= 1


@pytest.mark.parametrize("library", [Wrong(), Wrong(4096), Wrong(failing=True), None])
def test_a_library_that_disagrees_is_not_used(library, monkeypatch):
    monkeypatch.setattr(libcrypto, "load", lambda: library)
    assert FAST.__wrapped__() is None


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(libcrypto, "_NAME", "libcrypto.so.nowhere")
    assert libcrypto.load.__wrapped__() is None


def test_no_sectors_are_no_work():
    buffer = bytearray(xts.SLACK)
    xts.SectorCipher(KEY).encrypt(memoryview(buffer), 0, first=0)
    assert buffer == bytes(xts.SLACK)
