"""What somebody verified, as one document: each step with its outcome, and the command that does all of it again.

Four outcomes: verified; refused; cannot tell, where nothing that was given could say; simulated, where all holds and no hardware
stands behind it. The same document is shown, printed as JSON, and carried by the error of what is refused.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from strongroom.model.verdict import Explained


class StepStatus(enum.StrEnum):
    """How a step ended."""

    VERIFIED = "verified"
    REFUSED = "refused"
    CANNOT_TELL = "cannot tell"
    SIMULATED = "simulated"


@dataclass(frozen=True, kw_only=True)
class VerificationStep(Explained):
    """One step. `ok` is whether it does not refuse. status: see above."""

    status: StepStatus

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "name": self.name,
            "status": self.status.value,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }


def step(name: str, status: StepStatus, *, expected: str, got: str, hint: str = "") -> VerificationStep:
    """A step with that outcome."""
    return VerificationStep(
        name=name, status=status, ok=status is not StepStatus.REFUSED, expected=expected, got=got, hint=hint
    )


def of_check(check: Explained, *, simulated: bool = False) -> VerificationStep:
    """A check as a step. simulated: of a verdict that holds, behind which no hardware stands."""
    passed = StepStatus.SIMULATED if simulated else StepStatus.VERIFIED
    return step(
        check.name,
        passed if check.ok else StepStatus.REFUSED,
        expected=check.expected,
        got=check.got,
        hint=check.hint,
    )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The document. subject: what was verified, in words. command: what to type to do it again."""

    subject: str
    steps: tuple[VerificationStep, ...]
    command: str

    @property
    def status(self) -> StepStatus:
        """Refused where any step is; simulated where any is; cannot tell where no step says anything."""
        seen = {each.status for each in self.steps}
        for status in (StepStatus.REFUSED, StepStatus.SIMULATED, StepStatus.VERIFIED):
            if status in seen:
                return status
        return StepStatus.CANNOT_TELL

    @property
    def failed(self) -> tuple[Explained, ...]:
        """The steps that refuse, in order."""
        return tuple(each for each in self.steps if not each.ok)

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "subject": self.subject,
            "status": self.status.value,
            "steps": [each.to_json() for each in self.steps],
            "command": self.command,
        }
