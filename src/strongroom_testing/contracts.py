"""Parties and signed contracts for tests: one data owner, one program owner, one platform."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.model import identity
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model
from strongroom.model.contracts import drafting, room_terms
from strongroom.model.identifiers import ContractId, ManifestDigest, PartyName
from strongroom_testing.vendors import fake_tpm

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def platform(tpm: fake_tpm.FakeTpm, **changes: object) -> contract_model.Platform:
    """A platform that accepts rooms of `tpm` launched with `fake_tpm.RECORD`."""
    made = contract_model.Platform(
        tee="tpm",
        simulated=True,
        memory_guard=True,
        roots=(tpm.root,),
        machines=("any",),
        references=(fake_tpm.RECORD.reference(),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests' own choice of fields


_OF_ROOMS = frozenset(each.name for each in fields(room_terms.RoomTerms)) - {"name"}


def changed(contract: Contract, **changes: object) -> Contract:
    """The contract with other fields. Those of a room are its first room's; its bytes stay as they were."""
    inner = {name: value for name, value in changes.items() if name in _OF_ROOMS}
    outer = {name: value for name, value in changes.items() if name not in _OF_ROOMS}
    if inner:
        outer["rooms"] = (replace(contract.rooms[0], **inner), *contract.rooms[1:])  # type: ignore[arg-type]  # as above
    return replace(contract, **outer)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """alice owns the data, bob the program; both approve. `contract` is unsigned."""

    tpm: fake_tpm.FakeTpm
    alice: identity.Identity
    bob: identity.Identity
    now: datetime
    platforms: tuple[contract_model.Platform, ...] = field(default=())

    def contract(self, change: Callable[[Contract], Contract] | None = None) -> Contract:
        """The contract, after `change`, as parsed from its bytes."""
        made = contract_model.Contract(
            raw=b"",
            id=ContractId("flights"),
            version=1,
            replaces=None,
            members=(
                contract_model.Member(party=self.alice.party(), role=contract_model.Role.DATA_OWNER),
                contract_model.Member(party=self.bob.party(), role=contract_model.Role.PROGRAM_OWNER),
            ),
            rooms=(
                room_terms.RoomTerms(
                    name=room_terms.DEFAULT_NAME,
                    image=room_terms.Image(
                        owner=PartyName("bob"),
                        manifest_digest=ManifestDigest(fake_tpm.digest("image")),
                        arguments=None,
                        environment={},
                    ),
                    datasets=(
                        room_terms.Dataset(
                            name="flights",
                            owner=PartyName("alice"),
                            manifest_digest=ManifestDigest(fake_tpm.digest("data")),
                        ),
                    ),
                    outputs=(
                        room_terms.Output(path="/out", recipients=(PartyName("bob"),), max_bytes=1 << 20),
                    ),
                    logs=None,
                    certificate=None,
                    wall_seconds=60,
                    memory_mib=512,
                ),
            ),
            disclosure=contract_model.Disclosure(
                output_sizes=contract_model.OutputSizes.EXACT, exit_status=contract_model.ExitStatus.EXACT
            ),
            receipts=contract_model.ReceiptTerms(wait_seconds=0),
            platforms=self.platforms or (platform(self.tpm),),
            limits=contract_model.RunLimits(
                runs=2,
                not_before=self.now - timedelta(days=1),
                not_after=self.now + timedelta(days=1),
            ),
            approvals=contract_model.Approvals(parties=(PartyName("alice"), PartyName("bob")), threshold=2),
        )
        return contract_model.parse(drafting.encode(made if change is None else change(made)))

    def agreement(
        self,
        change: Callable[[Contract], Contract] | None = None,
        *,
        signers: tuple[str, ...] = ("alice", "bob"),
    ) -> Agreement:
        """The contract, after `change`, signed by `signers`."""
        made = agreement_model.draft(self.contract(change))
        for one in (self.alice, self.bob):
            if one.name in signers:
                made = agreement_model.add_signature(made, one.signing)
        return made


def scene(*, now: datetime = NOW, tpm: fake_tpm.FakeTpm | None = None) -> Scene:
    """Fresh identities, and a fresh machine unless `tpm` is given."""
    return Scene(
        tpm=tpm or fake_tpm.FakeTpm(now=now),
        alice=identity.generate("alice"),
        bob=identity.generate("bob"),
        now=now,
    )
