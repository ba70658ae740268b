"""What an adapter makes of a case folder: everything that one verification takes.

Each adapter is `adapters/<tee folder>.py` with `load(folder: Path, case: dict) -> Loaded`. It goes by what case.json
says (`evidence_files`, `collateral_files`, `expected.fields`), never by a case's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.evidence import roots as pinned
from strongroom.model.binding import Bound, Preset
from strongroom.model.endorsements import NONE, Endorsements

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.model.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One case, ready to be verified.

    evidence, endorsements, binding, roots, now: the arguments of `registry.verify`. roots: the pinned ones, or
    those of a synthetic vendor, whose claims are then `simulated`. binding: what the case's evidence carries.
    signed: whether `partial` verifies a signature; where it does not, nothing is known of the case ("cannot tell").
    partial: for cases that are no whole evidence (a chain without a quote, a report whose certificates are
    lost): verifies what is there, raises as a verifier does; `evidence` is None then. others: further evidence of the
    same case, all of which must be accepted for the case to be. notes: shown beside the case.
    """

    now: datetime
    evidence: Evidence | None = None
    endorsements: Endorsements = NONE
    binding: Bound = field(default_factory=lambda: Preset(values={}))
    roots: frozenset[str] = pinned.PINNED
    partial: Callable[[], object] | None = None
    signed: bool = True
    others: tuple[Loaded, ...] = ()
    notes: tuple[str, ...] = ()
