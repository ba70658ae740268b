"""Ports for servers that are told theirs before they start."""

from __future__ import annotations

import random
import socket

# Below those that Linux gives to connections by itself (32768 and up), of which some test has one at any time.
_PLACES = range(10_000, 32_768)


def free() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no connection takes before its server does."""
    chance = random.SystemRandom()  # pytest gives `random` the same seed in each worker
    while True:
        port = chance.choice(_PLACES)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
