"""Whether a statement is its vendor's and about what its key says, and until when it counts. The key's first word chooses."""

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


def judge(statement: Statement, *, roots: frozenset[str], now: datetime) -> StatementTerms:
    """The statement's terms. Raises `Malformed`, or `Refused`. The caller asks whether it is past its end."""
    vendor, *path = statement.key.split("/")
    judge_of = _JUDGES.get(vendor)
    if judge_of is None:
        raise Malformed(
            f"{statement.key[:100]!r}: no statement that this version knows",
            code="unknown-statement",
            hint=OTHER_VERSION,
        )
    return judge_of(statement, path, roots=roots, now=now)
