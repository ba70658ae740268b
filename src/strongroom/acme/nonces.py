"""Replay nonces (RFC 8555, section 6.5): made without being stored, and used once in each process that serves.

A nonce is base64url of: when it ends (6 bytes, seconds since 1970) ‖ random (10) ‖ MAC (16). What is remembered are used ones until they
end. Beside another replica, or after a restart, a request could be replayed while its nonce lasts: by whoever can read
inside the client's TLS, and it would be answered as it was before, since an order has one certificate.

Anybody gets nonces, so that only what an account or a room's binding has authenticated uses one up (`exchange`): strangers would else
fill the memory of them, and nobody's request would count.
"""

from __future__ import annotations

import hmac
import threading
from collections import Counter
from typing import TYPE_CHECKING

from strongroom.crypto import jws
from strongroom.encoding import framed
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

SECONDS = 300
MOST_USED = 10_000
MOST_USED_EACH = 500  # by one run
_LABEL = "strongroom/acme-nonce/1"
_END, _RANDOM, _TAG = 6, 10, 16


class ReplayNonces:
    """Makes nonces and knows its own. random: from the operating system. Safe among threads."""

    def __init__(self, key: bytes, *, random: Callable[[int], bytes]) -> None:
        self._key = key
        self._random = random
        self._used: dict[bytes, tuple[float, str]] = {}
        self._each: Counter[str] = Counter()
        self._lock = threading.Lock()

    def make(self, now: datetime) -> str:
        """A nonce that is good for `SECONDS`."""
        head = (int(now.timestamp()) + SECONDS).to_bytes(_END, "big") + self._random(_RANDOM)
        return jws.b64(head + self._tag(head))

    def good(self, nonce: str, now: datetime) -> bool:
        """Whether that nonce was made here, and has not ended. Nothing is remembered."""
        return self._read(nonce, now) is not None

    def use(self, nonce: str, now: datetime, *, run: str) -> bool:
        """Whether the nonce was good; from now on it is not. run: whose request it is. When too many were used, by that run or by all, none is good: the oldest is never
        forgotten early.
        """
        known = self._read(nonce, now)
        if known is None:
            return False
        data, ends = known
        with self._lock:
            if len(self._used) >= MOST_USED or self._each[run] >= MOST_USED_EACH:
                self._forget(now.timestamp())
            if data in self._used or len(self._used) >= MOST_USED or self._each[run] >= MOST_USED_EACH:
                return False
            self._used[data] = (ends, run)
            self._each[run] += 1
        return True

    def _forget(self, seconds: float) -> None:
        self._used = {used: known for used, known in self._used.items() if known[0] > seconds}
        self._each = Counter(run for _, run in self._used.values())

    def _read(self, nonce: str, now: datetime) -> tuple[bytes, float] | None:
        """Its bytes, and when it ends."""
        try:
            data = jws.unb64(nonce, "nonce")
        except Malformed:
            return None
        head, tag = data[: _END + _RANDOM], data[_END + _RANDOM :]
        ends = int.from_bytes(head[:_END], "big")
        if not hmac.compare_digest(tag, self._tag(head)) or now.timestamp() >= ends:
            return None
        return data, float(ends)

    def _tag(self, head: bytes) -> bytes:
        return hmac.new(self._key, framed.join(_LABEL, head), "sha256").digest()[:_TAG]
