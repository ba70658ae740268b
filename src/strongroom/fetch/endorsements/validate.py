"""Whether a statement is its vendor's, about what its key says, and until when it counts: by its key's first words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Malformed
from strongroom.fetch.endorsements import amd, intel, issuers, nvidia
from strongroom.fetch.endorsements.statement import OTHER_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.fetch.endorsements.statement import Statement, StatementTerms

_JUDGES: dict[str, Callable[..., StatementTerms]] = {
    "amd": amd.judge,
    "intel": intel.judge,
    "issuer": issuers.judge,
    "nvidia": nvidia.judge,
}


def judge(one: Statement, *, roots: frozenset[str], now: datetime) -> StatementTerms:
    """The statement's terms. Raises `Malformed`, or `Refused`. That it is past its end is for the caller to ask."""
    vendor, *path = one.key.split("/")
    found = _JUDGES.get(vendor)
    if found is None:
        raise Malformed(
            f"{one.key[:100]!r}: no statement that this version knows",
            code="unknown-statement",
            hint=OTHER_VERSION,
        )
    return found(one, path, roots=roots, now=now)
