"""When a service attests again, and how long it may go on without. Pure: time is an argument, in monotonic seconds.

A renewal is due when half of the certificate's life (or of the verdict's) is over, or `renewal_seconds` after the last one, whichever is sooner, also when the room is idle. One
that fails is tried again, ever later, up to `LONGEST_RETRY`. When a verdict ends before one succeeds, the room ends.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_RETRY = 2.0
LONGEST_RETRY = 60.0


@dataclass(frozen=True, kw_only=True)
class VerdictSpan:
    """What the room has of all its brokers together: since when, and until when at the soonest. certificate_end: as verdict_end where there is none."""

    since: float
    verdict_end: float
    certificate_end: float


class Renewals:
    """When the next attestation is due, and when the room ends without it."""

    def __init__(self, span: VerdictSpan, *, renewal_seconds: float) -> None:
        self._seconds = renewal_seconds
        self.renewed(span)

    def renewed(self, span: VerdictSpan) -> None:
        """All brokers have renewed."""
        self._failures = 0
        self.end = span.verdict_end
        half = (min(span.verdict_end, span.certificate_end) - span.since) / 2
        self.due = span.since + min(self._seconds, half)

    def failed(self, now: float) -> None:
        """A try has failed at `now`, for a reason that may pass."""
        self.due = now + min(FIRST_RETRY * 2.0**self._failures, LONGEST_RETRY)
        self._failures += 1
