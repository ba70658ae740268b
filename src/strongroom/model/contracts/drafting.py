"""Writing a contract down: from the parties' choices to canonical bytes that parse.

The only place that encodes a contract; everything else reads exact bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.model.contracts import contract as contract_model

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Contract


def encode(contract: Contract) -> bytes:
    """Canonical bytes for the fields of `contract` (its `raw` is not looked at)."""
    limits = contract.limits
    return canonical.dumps(
        {
            "format": contract_model.FORMAT,
            "id": contract.id,
            "version": contract.version,
            "replaces": contract.replaces,
            "parties": [{**member.party.to_json(), "role": member.role.value} for member in contract.members],
            "rooms": [room.to_json() for room in contract.rooms],
            "disclosure": {
                "output_sizes": contract.disclosure.output_sizes.value,
                "exit_status": contract.disclosure.exit_status.value,
            },
            "receipts": {"wait_seconds": contract.receipts.wait_seconds},
            "platforms": [
                {
                    "tee": platform.tee,
                    "simulated": platform.simulated,
                    "memory_guard": platform.memory_guard,
                    "roots": list(platform.roots),
                    "machines": list(platform.machines),
                    "references": [dict(registers) for registers in platform.references],
                    **({} if platform.policy is None else {"policy": platform.policy.to_json()}),
                }
                for platform in contract.platforms
            ],
            "limits": {
                "runs": limits.runs,
                "not_before": fields.format_time(limits.not_before),
                "not_after": fields.format_time(limits.not_after),
            },
            "approvals": {
                "parties": list(contract.approvals.parties),
                "threshold": contract.approvals.threshold,
            },
        }
    )


# Names that no two items of a list share. A reference may call a register `name`, and give it any value.
_LABELS = {"parties": "name", "rooms": "name", "rooms.datasets": "name", "rooms.outputs": "path"}
_LABEL = re.compile(r"\[[^\]]*\]")


def differences(old: bytes, new: bytes) -> list[tuple[str, str, str]]:
    """(place, before, after) for every value that differs between two contracts' bytes.

    A value that one side lacks is shown as "-". Parties, rooms and datasets are named by their name, outputs by their path, each
    of which stands there once; other list items by their position, so that none has another's place. Raises `Malformed`.
    """
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for data, flat in ((old, before), (new, after)):
        contract_model.parse(data)
        value = canonical.loads(data, what="contract", max_bytes=contract_model.MAX_BYTES)
        _flatten(value, "", flat)
    places = sorted({*before, *after})
    return [
        (place, before.get(place, "-"), after.get(place, "-"))
        for place in places
        if before.get(place) != after.get(place)
    ]


def _flatten(value: Any, place: str, out: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _flatten(item, f"{place}.{key}" if place else key, out)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            key = _LABELS.get(_LABEL.sub("", place))
            label = index if key is None else item[key]
            _flatten(item, f"{place}[{label}]", out)
    else:
        out[place] = canonical.dumps(value).decode()
