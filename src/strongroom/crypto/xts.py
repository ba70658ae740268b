"""AES-256-XTS over 4096-byte sectors, as dm-crypt's `aes-xts-plain64` does it (IEEE 1619, Linux dm-crypt).

Sector n (counted in 4096 bytes from 0) has as tweak the 128-bit little-endian number 8 * n: with the option
`sector_size:4096` alone, dm-crypt keeps counting in units of 512 bytes. The option `iv_large_sectors`, which
would make it n, is not used; `cryptsetup --type plain --sector-size 4096` means the same.

XTS hides content and is no seal: what was changed decrypts to noise. Integrity is dm-verity's, over the ciphertext.
"""

from __future__ import annotations

import functools
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from strongroom.crypto import libcrypto
from strongroom.encoding import framed
from strongroom.errors import Malformed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

SECTOR = 4096
KEY_BYTES = 64
IV_UNITS = SECTOR // 512
CIPHER = "aes-xts-plain64"
CHECK_LABEL = "strongroom/disk-key-check/1"
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
        raise Malformed("disk key: its two halves are equal, as in no key that `strongroom seal` made")


def check_value(key: bytes, root_hash: str) -> bytes:
    """What a disk's manifest says of the disk's key, so that another key is noticed: 32 bytes, other ones for each disk.

    HMAC-SHA256(key, frame(CHECK_LABEL, root hash)). A key is 64 random bytes: nobody finds it from this by trying.
    """
    check_key(key)
    return hmac.digest(key, framed.join(CHECK_LABEL, root_hash.encode()), "sha256")


class SectorCipher:
    """Encrypts and decrypts whole sectors in place."""

    __slots__ = ("_fast", "_key")

    def __init__(self, key: bytes) -> None:
        check_key(key)
        self._key = key
        self._fast = _fast()

    def encrypt(self, buffer: memoryview, count: int, *, first: int) -> None:
        """Encrypt `count` bytes (whole sectors) from the start of `buffer`, the first being sector `first`.

        `buffer` is writable and `SLACK` bytes longer than `count`.
        """
        self._run(buffer, count, first, encrypt=True)

    def decrypt(self, buffer: memoryview, count: int, *, first: int) -> None:
        """The reverse of `encrypt`, on the same terms."""
        self._run(buffer, count, first, encrypt=False)

    def _run(self, buffer: memoryview, count: int, first: int, *, encrypt: bool) -> None:
        if count % SECTOR or len(buffer) < count + SLACK:
            raise Malformed(f"sectors: {count} bytes are not whole sectors with {SLACK} bytes behind them")
        if self._fast is None:
            _run(self._key, buffer, count, first, encrypt=encrypt)
        else:
            self._fast.xts(
                *(self._key, buffer, count),
                sector=SECTOR,
                tweak=first * IV_UNITS,
                step=IV_UNITS,
                encrypt=encrypt,
            )


def _run(key: bytes, buffer: memoryview, count: int, first: int, *, encrypt: bool) -> None:
    """Sector by sector with the `cryptography` package, which needs a context for each."""
    aes = algorithms.AES(key)
    for at in range(0, count, SECTOR):
        tweak = (first + at // SECTOR) * IV_UNITS
        cipher = Cipher(aes, modes.XTS(tweak.to_bytes(16, "little")))
        context = cipher.encryptor() if encrypt else cipher.decryptor()
        context.update_into(buffer[at : at + SECTOR], buffer[at : at + SECTOR + SLACK])


@functools.cache
def _fast() -> libcrypto.LibCrypto | None:
    """The system's OpenSSL, if it is there and agrees with the package on two sectors, both ways."""
    library = libcrypto.load()
    if library is None:
        return None
    key = bytes(range(KEY_BYTES))
    count, first = 2 * SECTOR, 1 << 33
    expected = bytearray(count + SLACK)
    _run(key, memoryview(expected), count, first, encrypt=True)
    tried = bytearray(count + SLACK)
    terms = {"sector": SECTOR, "tweak": first * IV_UNITS, "step": IV_UNITS}
    try:
        library.xts(key, memoryview(tried), count, **terms, encrypt=True)
        agrees = tried == expected
        library.xts(key, memoryview(tried), count, **terms, encrypt=False)
    except Unavailable:
        return None
    return library if agrees and not any(tried) else None
