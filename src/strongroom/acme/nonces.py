"""Replay nonces (RFC 8555, section 6.5): made without being stored, and used once in each process that serves.

A nonce is base64url of: when it ends (6 bytes, seconds since 1970) ‖ random (10) ‖ MAC (16). What is remembered are used ones until they
end. Beside another replica, or after a restart, a request could be replayed while its nonce lasts: by whoever can read
inside the client's TLS, and it would be answered as it was before, since an order has one certificate.
"""

from __future__ import annotations

import hmac
import threading
from typing import TYPE_CHECKING

from strongroom.crypto import jws
from strongroom.encoding import framed
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

SECONDS = 300
MOST_USED = 10_000
_LABEL = "strongroom/acme-nonce/1"
_END, _RANDOM, _TAG = 6, 10, 16


class ReplayNonces:
    """Makes nonces and knows its own. random: from the operating system. Safe among threads."""

    def __init__(self, key: bytes, *, random: Callable[[int], bytes]) -> None:
        self._key = key
        self._random = random
        self._used: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def make(self, now: datetime) -> str:
        """A nonce that is good for `SECONDS`."""
        head = (int(now.timestamp()) + SECONDS).to_bytes(_END, "big") + self._random(_RANDOM)
        return jws.b64(head + self._tag(head))

    def use(self, nonce: str, now: datetime) -> bool:
        """Whether the nonce was good; from now on it is not. When too many were used, none is good: the oldest is never forgotten early."""
        try:
            data = jws.unb64(nonce, "nonce")
        except Malformed:
            return False
        head, tag = data[: _END + _RANDOM], data[_END + _RANDOM :]
        seconds = now.timestamp()
        ends = int.from_bytes(head[:_END], "big")
        if not hmac.compare_digest(tag, self._tag(head)) or seconds >= ends:
            return False
        with self._lock:
            if len(self._used) >= MOST_USED:
                self._used = {used: end for used, end in self._used.items() if end > seconds}
            if data in self._used or len(self._used) >= MOST_USED:
                return False
            self._used[data] = ends
        return True

    def _tag(self, head: bytes) -> bytes:
        return hmac.new(self._key, framed.join(_LABEL, head), "sha256").digest()[:_TAG]
