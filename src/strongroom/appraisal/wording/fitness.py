"""The sentences of what a contract's words alone say (`fitness`); no broker asks it, and no record holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.wording.form import Wording, plain
from strongroom.model import check_names

if TYPE_CHECKING:
    from strongroom.model.verdict import Data

FITNESS = "docs/contracts.md, What can never run"


def _misfits(value: Data) -> str:
    """{party: {"role", "image": whether it owns that, "data": whether it owns any}}."""
    if not isinstance(value, dict):
        return plain(value)
    return "; ".join(f"{name} {_misfit(misfit)}" for name, misfit in value.items())


def _misfit(value: Data) -> str:
    if not isinstance(value, dict):
        return plain(value)
    owned = [what for key, what in (("image", "the image"), ("data", "data")) if value.get(key) is True]
    return f"is called {plain(value.get('role'))} and owns {' and '.join(owned) or 'no disk'}"


TABLE: dict[str, Wording] = {
    check_names.CONTRACT_BROKER: Wording(
        expected={None: "an owner of a disk", "": "a broker of {it}, or of one of them"},
        got={None: "no broker", "": "brokers of {it}"},
        hint="an owner makes one with `strongroom broker init`, which completes the party file; draft the contract with that file",
        source=FITNESS,
    ),
    check_names.CONTRACT_SIMULATED: Wording(
        expected={"possible": "platforms that some room can meet"},
        got={
            "possible": "platforms that some room can meet",
            "": "{it}: the roots are no vendor's, and software standing in is not accepted",
        },
        hint="`contract new … --simulated` accepts rooms without TEE hardware; every party signs that",
        source=FITNESS,
    ),
    check_names.CONTRACT_OUTPUTS: Wording(
        expected={"": "outputs of at most {it} bytes together, the room's memory"},
        got={"": "outputs of up to {it} bytes"},
        hint="outputs are held in memory: lower --max-output, or give more with --memory-mib (three times the outputs is enough)",
        source=FITNESS,
    ),
    check_names.CONTRACT_ROLES: Wording(
        expected={"fitting": "roles that fit what each party owns"},
        got={"fitting": "roles that fit what each party owns", "": _misfits},
        hint="--party ROLE=FILE: data-owner owns a dataset, program-owner the image, recipient and auditor own no disk",
        source=FITNESS,
    ),
}
