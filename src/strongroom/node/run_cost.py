"""What a run cost, where it ended without a receipt.

A broker counts a run when it releases keys. Whether it did is seen by what came through this node: `release-PARTY.json` is its word,
`evidence-PARTY.json` alone means that it was asked and that no answer came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, PolicyDenied
from strongroom.model import binding as binding_model
from strongroom.model import messages
from strongroom.model.identifiers import NO_RUN, PartyName, RoomName, RunId
from strongroom.model.room import run_files

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract


class Cost(enum.StrEnum):
    """Whether a broker has counted a run."""

    UNUSED = "unused"
    USED = "used"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class End:
    """What a run came to, as far as this node saw it. run_id: empty where no broker released anything.

    receipt: whether the room handed out its receipt, which some broker may not have recorded.
    """

    run_id: RunId
    costs: dict[PartyName, Cost]
    receipt: bool = False

    @property
    def worst(self) -> Cost:
        """The dearest of all brokers'."""
        costs = self.costs.values()
        return next((cost for cost in (Cost.USED, Cost.UNKNOWN) if cost in costs), Cost.UNUSED)


def read(out: Path, contract: Contract, room: RoomName, failure: BaseException) -> End:
    """Look at what the room handed out before it ended."""
    run_id = NO_RUN
    costs = {}
    for party in contract.key_owners(room):
        costs[party] = Cost.UNUSED
        if (out / run_files.release(party)).is_file():
            costs[party] = Cost.USED
            run_id = run_id or _run_id(out / run_files.release(party))
        elif (out / run_files.evidence(party)).is_file() and not isinstance(failure, PolicyDenied):
            costs[party] = Cost.UNKNOWN
    return End(run_id=run_id, costs=costs, receipt=(out / run_files.RECEIPT).is_file())


def _run_id(path: Path) -> RunId:
    try:
        with path.open("rb") as source:
            data = source.read(2 * messages.MAX_ANSWER)
        top = fields.Fields(canonical.loads(data, what=path.name, max_bytes=len(data)), path.name)
        return binding_model.read(top.object("binding")).keys.run_id
    except (OSError, Malformed):
        return NO_RUN
