"""Good bytes with a run cut out, put in or overwritten; or any bytes."""

from __future__ import annotations

from hypothesis import HealthCheck
from hypothesis import strategies as st

from tests.effort import examples

often = examples(400, suppress_health_check=[HealthCheck.too_slow])


def mutations(good: bytes, *, most: int = 64) -> st.SearchStrategy[bytes]:
    def mutate(start: int, length: int, put: bytes) -> bytes:
        return good[:start] + put + good[start + length :]

    place = st.integers(0, len(good))
    return st.binary(max_size=300) | st.builds(mutate, place, st.integers(0, most), st.binary(max_size=most))
