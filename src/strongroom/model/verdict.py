"""A verdict: `Accepted` or `Denied`, with every check, in order, explained.

`issue()` and `release()` take `Accepted`, so that code which forgets to decide does not type-check.
Only `appraisal` makes one (an architecture test holds that).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import fields

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Binding
    from strongroom.model.claims import Claims


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. `name` is stable (`contract.approvals`); `hint` says what to do when it fails.

    `source` names the specification section or document that demands it.
    """

    name: str
    expected: str
    got: str
    ok: bool
    hint: str = ""
    source: str = ""

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "name": self.name,
            "expected": self.expected,
            "got": self.got,
            "ok": self.ok,
            "hint": self.hint,
            "source": self.source,
        }


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Everything held. Valid until `expires`; for exactly this binding."""

    contract: str
    binding: Binding
    claims: Claims
    checks: tuple[Check, ...]
    decided: datetime
    expires: datetime

    def to_json(self) -> dict[str, object]:
        """The object form, as the ledger and the proof pack keep it."""
        return {
            "result": "accepted",
            "contract": self.contract,
            "decided": fields.format_time(self.decided),
            "expires": fields.format_time(self.expires),
            "claims": self.claims.to_record(),
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True, kw_only=True)
class Denied:
    """At least one check failed. `claims` is None when the evidence itself did not verify."""

    contract: str
    claims: Claims | None
    checks: tuple[Check, ...]
    decided: datetime

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in order."""
        return tuple(check for check in self.checks if not check.ok)

    def to_json(self) -> dict[str, object]:
        """The object form, as the ledger and the proof pack keep it."""
        return {
            "result": "denied",
            "contract": self.contract,
            "decided": fields.format_time(self.decided),
            "claims": None if self.claims is None else self.claims.to_record(),
            "checks": [check.to_json() for check in self.checks],
        }


Verdict = Accepted | Denied


def read_checks(source: fields.Fields) -> tuple[Check, ...]:
    """Read the `checks` list of a verdict's object form. Raises `Malformed`."""
    checks = []
    for item in source.objects("checks", max_items=256):
        texts = item.text_map_of(("name", "expected", "got", "hint", "source"), max_length=4096)
        checks.append(Check(ok=item.boolean("ok"), **texts))
        item.done()
    return tuple(checks)
