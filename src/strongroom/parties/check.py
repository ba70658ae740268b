"""Would a contract run today, and who must still sign? By its words, and by what the parties' brokers say where they are asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.appraisal import fitness, terms
from strongroom.appraisal.wording import sentences
from strongroom.errors import Refused, StrongroomError, Unavailable
from strongroom.model import check_names
from strongroom.model.contracts import signing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.identifiers import PartyName, RoomName
    from strongroom.model.party import BrokerAddress, Party
    from strongroom.model.verdict import Check, Explained

    # A broker's address, the contract with its signatures, and a room of it → what it says.
    Ask = Callable[[BrokerAddress, bytes, RoomName], tuple[Check, ...]]
    # Called before a broker is asked: whose it is, where, and whether that address is by a file of the caller's.
    OnAsk = Callable[[str, BrokerAddress, bool], None]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What speaks for and against a run now. brokers: by party and room, what its broker says, or why it said nothing."""

    checks: tuple[Explained, ...]
    brokers: Mapping[tuple[PartyName, RoomName], tuple[Explained, ...] | StrongroomError] = field(
        default_factory=dict
    )

    @property
    def failed(self) -> tuple[Explained, ...]:
        """The checks that do not hold, the brokers' among them."""
        said = [row for row in self.brokers.values() if not isinstance(row, StrongroomError)]
        return tuple(check for row in (self.checks, *said) for check in row if not check.ok)

    @property
    def silent(self) -> dict[PartyName, StrongroomError]:
        """The parties whose brokers said nothing, and why."""
        return {party: row for (party, _), row in self.brokers.items() if isinstance(row, StrongroomError)}

    @property
    def rooms(self) -> dict[RoomName, bool]:
        """Whether brokers let each room run that they were asked about."""
        rows = self.brokers.items()
        return {
            room: all(
                not isinstance(row, StrongroomError) and all(check.ok for check in row)
                for (_, other), row in rows
                if other == room
            )
            for (_, room), _ in rows
        }

    @property
    def would_run(self) -> bool:
        """Whether nothing speaks against it, and everybody who was asked has said so."""
        return not self.failed and not self.silent

    def require(self) -> None:
        """Raise `Refused` where the contract would not run, `Unavailable` where nobody can say."""
        if self.failed:
            raise Refused(
                self._which(),
                code="would-not-run",
                hint="; ".join(_hints(self.failed)),
            )
        for party, row in self.silent.items():
            if isinstance(row, Refused):
                raise Refused(
                    f"it would not run now: the broker of {party}: {row.message}",
                    code=row.code,
                    hint=row.hint,
                )
            raise Unavailable(
                f"nobody can say whether it would run: the broker of {party}: {row.message}",
                code=row.code,
                hint=f"{party} starts it with `strongroom broker serve`; without it no room gets keys"
                if row.code == "broker-unreachable"
                else row.hint,
            )

    def _which(self) -> str:
        """What would not run: all of it, or the rooms that brokers deny."""
        rooms = self.rooms if all(check.ok for check in self.checks) else {}
        running = ", ".join(room for room, good in rooms.items() if good)
        denied = ", ".join(room for room, good in rooms.items() if not good)
        return f"{denied} would not run now; {running} would" if running else "it would not run now"


def _hints(failed: Sequence[Explained]) -> tuple[str, ...]:
    """What to do, each said once: the approvals' hint names the parties that are still to sign."""
    approvals = next((check.hint for check in failed if check.name == check_names.CONTRACT_APPROVALS), "")
    named = {f"{check_names.CONTRACT_APPROVAL_BY}{word}" for word in re.findall(r"[a-z0-9-]+", approvals)}
    return tuple(dict.fromkeys(check.hint for check in failed if check.hint and check.name not in named))


def check_contract(
    agreement: Agreement,
    *,
    now: datetime,
    room: RoomName | None = None,
    runs_used: int | None = None,
    ask: Ask | None = None,
    trust: Sequence[Party] = (),
    on_ask: OnAsk = lambda _party, _address, _by_file: None,
) -> Outlook:
    """What speaks for and against a run at `now`. room: of that room alone, for its brokers; None for each of the contract's. runs_used: those that have happened already, where that is known.

    ask: the network; None asks no broker. trust: party files that the caller has, which the contract has to agree with, and by whose addresses their brokers are asked.
    """
    signing.check_others(agreement.contract, trust)
    checks = [
        *fitness.check_fitness(agreement.contract),
        *terms.check_terms(agreement, now=now, runs_used=runs_used or 0),
    ]
    if runs_used is None:
        checks = [check for check in checks if check.name != check_names.CONTRACT_RUNS]
    return Outlook(
        checks=tuple(sentences.explain(check) for check in checks),
        brokers={} if ask is None else _asked(agreement, room, trust, ask, on_ask),
    )


def _asked(
    agreement: Agreement, only: RoomName | None, trust: Sequence[Party], ask: Ask, on_ask: OnAsk
) -> dict[tuple[PartyName, RoomName], tuple[Explained, ...] | StrongroomError]:
    """What each broker says of each room that it has a part in, or why it said nothing.

    Whoever drafts a contract writes addresses into it. A broker is asked only where its owner has signed the contract, and so
    its address, or by a party file that the caller has. `on_ask` says before to whom the contract goes.
    """
    moved = {
        file.name: file.broker for file in trust
    }  # a broker may move; what it is known by may not differ
    answers: dict[tuple[PartyName, RoomName], tuple[Explained, ...] | StrongroomError] = {}
    contract = agreement.contract
    asked = [room.name for room in contract.rooms] if only is None else [contract.room(only).name]
    for party in contract.key_owners(only):
        address = moved.get(party) or contract.party(party).broker
        rooms = [room for room in asked if party in contract.key_owners(room)]
        if address is None:
            continue
        if party not in moved and party not in agreement.signers():
            answers[party, rooms[0]] = Refused(
                f"not asked: {party} has not signed the contract, so that {address.url} is the word of whoever drafted it",
                code="address-not-vouched",
                hint=f"give the file that you have of {party}: --trust {party}.party.json; or ask once {party} has signed",
            )
            continue
        on_ask(party, address, party in moved)
        for room in rooms:
            try:
                answers[party, room] = tuple(
                    sentences.explain(check) for check in ask(address, agreement.envelope.encode(), room)
                )
            except StrongroomError as cause:
                answers[party, room] = cause
                break  # nor will it say more of another
    return answers
