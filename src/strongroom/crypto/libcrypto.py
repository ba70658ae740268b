"""AES-256-XTS by the system's own OpenSSL 3, called directly: many sectors with one prepared key.

The `cryptography` package can only start anew for each sector, which costs more than the sector itself. OpenSSL can
set the next tweak on a prepared key (EVP_CipherInit_ex with all but the IV left out). Where its library is not to be
had, or does not agree with the package on one sector, `load` says None and the package does the work: the same bytes,
at a third of the speed.
"""

from __future__ import annotations

import ctypes
import functools
import struct

from strongroom.errors import Unavailable

_NAME = "libcrypto.so.3"
_KEEP = -1  # as direction: the one that was set before
_POINTER = ctypes.c_void_p


class LibCrypto:
    """The functions that are needed, with their types. No state: each call prepares its own context."""

    def __init__(self, library: ctypes.PyDLL) -> None:
        # PyDLL keeps the interpreter's lock: calls are short, and giving it up for each would cost more.
        self._new = library.EVP_CIPHER_CTX_new
        self._new.restype, self._new.argtypes = _POINTER, ()
        self._free = library.EVP_CIPHER_CTX_free
        self._free.restype, self._free.argtypes = None, (_POINTER,)
        self._xts = library.EVP_aes_256_xts
        self._xts.restype, self._xts.argtypes = _POINTER, ()
        self._init = library.EVP_CipherInit_ex
        self._init.restype = ctypes.c_int
        self._init.argtypes = (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int)
        self._update = library.EVP_CipherUpdate
        self._update.restype = ctypes.c_int
        self._update.argtypes = (_POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int)

    def xts(
        self, key: bytes, view: memoryview, count: int, *, sector: int, tweak: int, step: int, encrypt: bool
    ) -> None:
        """Encrypt or decrypt the first `count` bytes of the writable `view` in place, in units of `sector` bytes.

        The first unit's tweak is the number `tweak`, each next one's is `step` more (little-endian, 128 bits).
        The caller has checked that the units are whole and the key is one.
        """
        units = count // sector
        if not units:
            return
        numbers = (word for unit in range(units) for word in (tweak + unit * step, 0))
        ivs = ctypes.create_string_buffer(struct.pack(f"<{2 * units}Q", *numbers), 16 * units)
        data = (ctypes.c_char * count).from_buffer(view)
        produced = ctypes.c_int()
        out, iv, at = ctypes.addressof(produced), ctypes.addressof(ivs), ctypes.addressof(data)
        init, update = self._init, self._update
        context = self._new()
        try:
            good = bool(context) and init(context, self._xts(), None, key, iv, int(encrypt)) == 1
            for place in range(at, at + count, sector):
                good = (
                    good
                    and init(context, None, None, None, iv, _KEEP) == 1
                    and update(context, place, out, place, sector) == 1
                )
                iv += 16
        finally:
            self._free(context)
        if not good:
            raise Unavailable("OpenSSL refused to run AES-XTS", code="openssl")


@functools.cache
def load() -> LibCrypto | None:
    """The library, or None where there is none. Whether it is right is for the caller to try."""
    try:
        return LibCrypto(ctypes.PyDLL(_NAME))
    except (OSError, AttributeError):
        return None
