"""A TEE's verifier, whose file is loaded when it is first asked for, so that nobody waits for the others.

The table of the names that there are is `verify`'s. Clouds, whose evidence may hold a hardware TEE's, ask here too.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence


class Verifier(Protocol):
    """What each TEE's file offers as `verify`."""

    def __call__(
        self,
        evidence: Evidence,
        endorsements: Endorsements,
        *,
        binding: Bound,
        roots: frozenset[str],
        now: datetime,
    ) -> Claims:
        """Claims, or `EvidenceRefused` or `Malformed`."""


@functools.cache
def verifier(tee: str) -> Verifier:
    """`verify` of the file of that name beside this one. tee: a name from a table in this package, never from outside."""
    return cast("Verifier", importlib.import_module(f"strongroom.evidence.{tee}").verify)
