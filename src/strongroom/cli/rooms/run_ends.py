"""How a run ended, in words: what happened, what it cost, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.model.identifiers import PartyName, RoomName
from strongroom.model.room import run_files
from strongroom.node.run_cost import Cost, End

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract
    from strongroom.node.run_folder import UnwrittenFiles

_NO_RUN_LEFT = "no run is left: the parties sign a version with more (`strongroom contract new … --replaces FILE --runs N`)"


def tell(
    end: End, *, phase: str, interrupted: bool, contract: Contract, before: Mapping[PartyName, int]
) -> Iterator[str]:
    """The lines for people. phase: how far the room was; empty: none was started. before: runs used before, by party, as far as known."""
    where = f"while the room was at {phase}" if phase else "before a room was started"
    if interrupted:
        yield f"ended      you stopped it {where}; the room is gone, and nothing of it is left"
    else:
        yield f"ended      {where}"
    if end.run_id:
        yield f"run        {end.run_id}" + ("" if end.receipt else ", without a receipt")
    if end.worst is Cost.UNUSED:
        yield "cost       no run was used"
    for party, cost in end.costs.items():
        if cost is Cost.USED:
            yield _used(party, contract, before)
        elif cost is Cost.UNKNOWN:
            yield f"cost       the broker of {party} was asked and its answer did not arrive: it may have counted a run"
    yield f"next       {_next(end, contract, before, interrupted=interrupted)}"


def tell_done(
    out: Path,
    *,
    room: RoomName,
    good: bool,
    outputs: bool,
    contract: Contract,
    before: Mapping[PartyName, int],
) -> Iterator[str]:
    """The same for a run that brought its receipt home: keys were released for it, whatever its program made of them.

    good: whether the program ended well. outputs: whether any left.
    """
    parties = contract.key_owners(room)
    for party in parties:
        yield _used(party, contract, before)
    if not good:
        yield f"next       mend what the log tells; then {_another(parties, contract, before)}"
    elif outputs:
        opened = out / run_files.output(0)
        yield f"next       who may read it: `strongroom open {opened} --identity NAME.identity`"
    else:
        yield f"next       `strongroom proof export {out} --out run.proof` keeps the proof of what was done"


def tell_held(out: Path, held: UnwrittenFiles, seconds: float) -> Iterator[str]:
    """The lines for files that are in memory alone, for so long at most: 0 when the run has ended. Nothing held: no more are."""
    names, mib = ", ".join(held.names), f"{held.size / (1 << 20):.1f} MiB"
    if not held.names:
        yield f"{out} has room again: everything is in it"
    elif not seconds:
        yield f"LOST: {names} ({mib}): in memory alone, since {out} had no room for it"
    else:
        yield f"NO ROOM in {out}: {names} ({mib}) is in memory alone, and lost when this command ends"
        yield f"  free {mib} there and do not stop this command: it tries every few seconds, for {seconds / 60:.0f} more minutes"


def _used(party: PartyName, contract: Contract, before: Mapping[PartyName, int]) -> str:
    used = f": {before[party] + 1} of {contract.limits.runs}" if party in before else ""
    return f"cost       a run was used at the broker of {party}{used}"


def _another(parties: Sequence[PartyName], contract: Contract, before: Mapping[PartyName, int]) -> str:
    if any(before.get(party, 0) + 1 >= contract.limits.runs for party in parties):
        return _NO_RUN_LEFT
    return "the same command with another --out, since this folder holds a result"


def _next(end: End, contract: Contract, before: Mapping[PartyName, int], *, interrupted: bool) -> str:
    mended = "" if interrupted else ", once what the error names is mended"
    retry = f"the same command again{mended}; what is in the folder goes into attempt-N there"
    if any(
        cost is Cost.USED and before.get(party, 0) + 1 >= contract.limits.runs
        for party, cost in end.costs.items()
    ):
        return _NO_RUN_LEFT
    if end.worst is Cost.UNKNOWN:
        return f"`strongroom contract check FILE --ask` says how many runs are used; then {retry}"
    return retry
