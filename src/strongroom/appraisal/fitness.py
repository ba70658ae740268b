"""Could a room ever run under a contract, going by its words alone? Asked when it is drafted, before it is signed and before a room boots.

  contract.broker     of each room an owner of a disk has a broker: nobody else judges a room
  contract.simulated  each platform trusts a vendor's root, or says that it accepts software standing in
  contract.outputs    what may leave fits into the room's memory, where outputs are held
  contract.roles      who is called an owner owns such a disk, and who owns one is called so

Each is a `Check`. A broker asks none of them: it decides by what is signed and proved. Whoever asks here wants to know before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.evidence import roots
from strongroom.model import check_names
from strongroom.model.contracts.contract import Role
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Contract, Platform
    from strongroom.model.verdict import Data


def check_fitness(contract: Contract) -> tuple[Check, ...]:
    """All of the above."""
    return (_broker(contract), _simulated(contract), _outputs(contract), _roles(contract))


def _broker(contract: Contract) -> Check:
    alone = next((room for room in contract.rooms if not contract.key_owners(room.name)), None)
    if alone is not None:
        owners = dict.fromkeys(owner for owner, _ in alone.disks())
        return Check.judged(check_names.CONTRACT_BROKER, expected=list(owners), got=[], ok=False)
    have = list(contract.key_owners())
    return Check.judged(check_names.CONTRACT_BROKER, expected=list(contract.owners()), got=have, ok=True)


def _simulated(contract: Contract) -> Check:
    vain: Data = [platform.tee for platform in contract.platforms if not _possible(platform)]
    return Check.judged(
        check_names.CONTRACT_SIMULATED, expected="possible", got=vain or "possible", ok=not vain
    )


def _possible(platform: Platform) -> bool:
    return platform.simulated or any(roots.is_hardware(platform.tee, root) for root in platform.roots)


def _outputs(contract: Contract) -> Check:
    sizes = [
        (room.memory_mib << 20, sum(output.max_bytes for output in room.outputs)) for room in contract.rooms
    ]
    memory, most = next((size for size in sizes if size[1] > size[0]), sizes[0])
    return Check.judged(check_names.CONTRACT_OUTPUTS, expected=memory, got=most, ok=most <= memory)


def _roles(contract: Contract) -> Check:
    wrong: dict[str, Data] = {}
    for member in contract.members:
        name = member.party.name
        image = any(room.image.owner == name for room in contract.rooms)
        data = any(dataset.owner == name for room in contract.rooms for dataset in room.datasets)
        fits = {
            Role.DATA_OWNER: data,
            Role.PROGRAM_OWNER: image,
            Role.RECIPIENT: not (image or data),
            Role.AUDITOR: not (image or data),
        }
        if not fits[member.role]:
            wrong[name] = {"role": member.role.value, "image": image, "data": data}
    return Check.judged(check_names.CONTRACT_ROLES, expected="fitting", got=wrong or "fitting", ok=not wrong)
