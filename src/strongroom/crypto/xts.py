"""AES-256-XTS over 4096-byte sectors, as dm-crypt's `aes-xts-plain64` does it (IEEE 1619, Linux dm-crypt).

Sector n (counted in 4096 bytes from 0) has as tweak the 128-bit little-endian number 8 * n: with the option
`sector_size:4096` alone, dm-crypt keeps counting in units of 512 bytes. The option `iv_large_sectors`, which
would make it n, is not used; `cryptsetup --type plain --sector-size 4096` means the same.

XTS hides content and is no seal: what was changed decrypts to noise. Integrity is dm-verity's, over the ciphertext.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable

SECTOR = 4096
KEY_BYTES = 64
IV_UNITS = SECTOR // 512
CIPHER = "aes-xts-plain64"
DM_CRYPT_OPTIONS = ("sector_size:4096",)
SLACK = 15  # bytes that the cipher may want behind the last sector of a buffer; they keep their values


def new_key(random: Callable[[int], bytes]) -> bytes:
    """A fresh key: 64 bytes, the two halves different."""
    key = random(KEY_BYTES)
    check_key(key)
    return key


def check_key(key: bytes) -> None:
    """Raise `Malformed` unless `key` is 64 bytes whose halves differ (equal halves would undo the tweak)."""
    if len(key) != KEY_BYTES:
        raise Malformed(f"disk key: expected {KEY_BYTES} bytes, got {len(key)}")
    if hmac.compare_digest(key[: KEY_BYTES // 2], key[KEY_BYTES // 2 :]):
        raise Malformed("disk key: its two halves are equal")


class SectorCipher:
    """Encrypts and decrypts whole sectors in place."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        check_key(key)
        self._key = algorithms.AES(key)

    def encrypt(self, buffer: memoryview, count: int, *, first: int) -> None:
        """Encrypt `count` bytes (whole sectors) from the start of `buffer`, the first being sector `first`.

        `buffer` is writable and `SLACK` bytes longer than `count`.
        """
        _check_buffer(buffer, count)
        aes, xts, step = self._key, modes.XTS, IV_UNITS
        tweak = first * step
        for at in range(0, count, SECTOR):
            # One context per sector: the library has no way to set another tweak on the same one.
            run = Cipher(aes, xts(tweak.to_bytes(16, "little"))).encryptor()
            run.update_into(buffer[at : at + SECTOR], buffer[at : at + SECTOR + SLACK])
            tweak += step

    def decrypt(self, buffer: memoryview, count: int, *, first: int) -> None:
        """The reverse of `encrypt`, on the same terms."""
        _check_buffer(buffer, count)
        aes, xts, step = self._key, modes.XTS, IV_UNITS
        tweak = first * step
        for at in range(0, count, SECTOR):
            run = Cipher(aes, xts(tweak.to_bytes(16, "little"))).decryptor()
            run.update_into(buffer[at : at + SECTOR], buffer[at : at + SECTOR + SLACK])
            tweak += step


def _check_buffer(buffer: memoryview, count: int) -> None:
    if count % SECTOR or len(buffer) < count + SLACK:
        raise Malformed(f"sectors: {count} bytes are not whole sectors with {SLACK} bytes behind them")
