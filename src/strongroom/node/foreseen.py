"""What a room would be refused for, found out before it boots. Nothing is started, and no run is used.

Checked, in this order; what fails ends it:
  1 the contract's own words: could any room ever run under them                   (`appraisal.fitness`)
  2 what the room itself will ask first: signatures, manifests, a broker for each key            (`model.room.agreed`)
  3 base, node and memory guard are those that the parties signed for, in local rooms           (`appraise.check_launch`)
  4 the machine has the memory, and the run's folder room for what may leave
  5 every broker that the room needs answers, with its pinned key, and would not deny whatever room it were (`broker.standing`)

A broker that cannot be reached is a refusal: the room would reach it through this node as well, and without it nothing
runs. One that answers but cannot say (it is of another version, or busy) gives a note and decides nothing. All of this
serves the operator alone: nobody else relies on it, and brokers and rooms check all of it again.
Not known before: what evidence will prove on hardware, what is in the disks, what the program does.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.appraisal import appraise, fitness
from strongroom.errors import NotFound, PolicyDenied, Unavailable
from strongroom.evidence import roots
from strongroom.fetch import brokers
from strongroom.model import check_names
from strongroom.model.room import agreed, channel, launch
from strongroom.node import launch_record, relay, run_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import PartyName, RoomName
    from strongroom.model.messages import Standing
    from strongroom.model.party import BrokerAddress
    from strongroom.model.verdict import Check
    from strongroom.node.room import Order

_ANSWER_SECONDS = 15.0
_SLACK = 8 << 20  # receipts, evidence, the status
_UNREACHABLE = "broker-unreachable"


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """What could be found out. runs: those used so far, by party, where its broker said; notes: what nobody could say."""

    runs: dict[PartyName, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def ask(address: BrokerAddress, agreement: bytes, room: RoomName, earlier: tuple[bytes, ...]) -> Standing:
    """Ask one broker. Raises as `BrokerReader`."""
    reader = brokers.BrokerReader(address=address, total_seconds=_ANSWER_SECONDS)
    return reader.standing(agreement, room, earlier)


def foresee(
    order: Order,
    *,
    ask: Callable[[BrokerAddress, bytes, RoomName, tuple[bytes, ...]], Standing] = ask,
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    memory: Callable[[], int] = lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
) -> Foreseen:
    """Check all of the above. Raises `PolicyDenied` with the checks that fail, `Refused`, `Unavailable`, `NotFound`, `Malformed`."""
    contract = order.agreement.contract
    _require("no room could ever run under this contract", fitness.check_fitness(contract))  # 1
    agreed.check(  # 2
        order.agreement,
        channel.Start(
            agreement=b"",
            room=order.room,
            launch_record=b"",
            issuers=b"",
            manifests=order.manifests,
            earlier=order.earlier,
        ),
    )
    addresses = {
        party: address
        for party in contract.key_owners(order.room)
        if (address := contract.party(party).broker)
    }
    with ThreadPoolExecutor(len(addresses)) as pool:
        envelope = order.agreement.envelope.encode()
        answers = {
            name: pool.submit(ask, at, envelope, order.room, order.earlier) for name, at in addresses.items()
        }  # 5
        if order.node is not None:
            _require(  # 3
                "every broker would deny this room, which is not as the parties signed",
                _launch(order, contract, root=order.node.root, machine=order.node.machine),
            )
        _room_for(order, contract, free(order.out), memory())  # 4
        return _answers(answers)


def _answers(answers: dict[PartyName, Future[Standing]]) -> Foreseen:
    notes: list[str] = []
    runs: dict[PartyName, int] = {}
    for party, answer in answers.items():
        try:
            standing = answer.result()
        except NotFound:
            notes.append(f"the broker of {party} is of a version that says nothing before a room boots")
            continue
        except Unavailable as cause:
            if cause.code == _UNREACHABLE:
                raise _unreachable(party, cause) from None
            notes.append(f"the broker of {party} could not say whether it would serve this: {cause.message}")
            continue
        _require(f"the broker of {party} would deny every room under this contract", standing.checks)
        for check in standing.checks:
            if check.name == check_names.CONTRACT_RUNS and isinstance(check.got, int):
                runs[party] = check.got
    return Foreseen(runs=runs, notes=tuple(notes))


def _require(what: str, checks: tuple[Check, ...]) -> None:
    failed = tuple(check for check in checks if not check.ok)
    if failed:
        raise PolicyDenied(
            f"{what}: {', '.join(check.name for check in failed)}",
            verdict=relay.RoomRefusal(checks=failed),
            hint="mend what each check says; no room was started, and no run was used",
        )


def _launch(order: Order, contract: Contract, *, root: str, machine: str) -> tuple[Check, ...]:
    with launch_record.opened(order.base, firmware=order.firmware) as parts:
        record = parts.record(memory_guard=order.guarded)
    return appraise.check_launch(
        launch.Launch(
            tee="tpm",
            simulated=not roots.is_hardware("tpm", root),
            memory_guard=order.guarded,
            root=root,
            machine=machine,
            registers=record.reference(),
        ),
        contract.platforms,
    )


def _room_for(order: Order, contract: Contract, free: int, memory: int) -> None:
    """Raise `Unavailable` where memory or the run's folder is too small. Outputs are never larger than the room's memory."""
    room = contract.room(order.room).memory_mib << 20
    if room > memory:
        raise Unavailable(
            f"the contract gives the room {room >> 20} MiB, this machine has {memory >> 20}",
            code="no-memory",
            hint="run it on a larger machine, or let the parties sign less with `contract new --memory-mib`",
        )
    need = min(room, run_folder.most(contract, order.room)) + _SLACK
    if free < need:
        raise Unavailable(
            f"{order.out}: {free >> 20} MiB free, and up to {need >> 20} MiB may leave the room",
            code="disk-full",
            hint="make room there, or name a folder elsewhere with --out; no room was started, and no run was used",
        )


def _unreachable(party: PartyName, cause: Unavailable) -> Unavailable:
    return Unavailable(
        f"the broker of {party} does not answer: {cause.message}",
        code=_UNREACHABLE,
        hint=f"{party} starts it with `strongroom broker serve`; no room was started, and no run was used",
    )
