"""What `preflight` has to say: one finding each, for people and for programs."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How bad a finding is, from worst to best."""

    BLOCKS = "blocks"
    """It will not run as it is."""
    WARNS = "warns"
    """It will run, and may not do what its maker thinks."""
    FINE = "fine"
    """Looked at, and nothing to do; said so that nobody need wonder."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `check` is its stable name; `where` the file, key or variable that it is about; `fix` what to do (may be
    empty where there is nothing to do); `line` the line of the compose file that says it, 0 for other things.
    Texts may quote an image's own words: whoever prints them makes them safe.
    """

    severity: Severity
    check: str
    where: str
    what: str
    fix: str = ""
    line: int = 0

    def to_json(self) -> dict[str, object]:
        """As an object: texts, and the line where there is one."""
        return {
            "severity": self.severity.value,
            "check": self.check,
            "where": self.where,
            "what": self.what,
            "fix": self.fix,
            **({"line": self.line} if self.line else {}),
        }


def blocks(check: str, where: str, what: str, fix: str) -> Finding:
    """It will not run."""
    return Finding(severity=Severity.BLOCKS, check=check, where=where, what=what, fix=fix)


def warns(check: str, where: str, what: str, fix: str) -> Finding:
    """It may not do what is expected."""
    return Finding(severity=Severity.WARNS, check=check, where=where, what=what, fix=fix)


def fine(check: str, where: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(severity=Severity.FINE, check=check, where=where, what=what)
