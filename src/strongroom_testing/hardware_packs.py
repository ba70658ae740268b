"""Proof packs of rooms on simulated machines of every TEE, each with two GPUs: `packs` over other hardware.

`python -m strongroom_testing.hardware_packs DIR` records one pack of each, with the party files that it is verified by:
tests hold that packs which were once recorded verify for ever. After a release, packs are added there, never replaced.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.model import messages
from strongroom.model.contracts.policy import DEFAULT
from strongroom_testing import brokers, contracts, packs, simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.model.contracts.agreement import Agreement

PACK = "proof.json"
# Rules and allowances of the policy language, so that packs hold their checks.
ASKED: dict[str, dict[str, Any]] = {
    "snp": {
        "facts": {"product": ("Milan", "Turin")},
        "products_denied": ("Genoa",),
        "waived": ("policy.migrate_ma",),
    },
    "tdx": {
        "facts": {"td_attributes.debug": (False,)},
        "status": {"UpToDate": None, "SWHardeningNeeded": contracts.NOW},
        "revocation": "checked",
    },
    "nitro": {"profile": "strict", "max_age_seconds": 600},
}


class Room(brokers.Room):
    """A room on a simulated machine."""

    def __init__(self, machine: Any, agreement: Agreement) -> None:
        super().__init__(tpm=None, agreement=agreement, audience="")  # type: ignore[arg-type]
        self.launched = machine.launch(agreement.contract.digest)
        self.launched.hardware.bind_contract(agreement.contract.digest)

    def ask(self, nonce: bytes, *, csr: bytes | None = None, **_: Any) -> messages.ReleaseRequest:
        """Its request for the disk keys."""
        evidence = self.launched.evidence(self.binding(nonce))
        return messages.ReleaseRequest(
            nonce=nonce,
            contract_digest=self.agreement.contract.digest,
            agreement=self.agreement.encode(),
            evidence=evidence,
            keys=self.keys,
            role=self.agreement.contract.rooms[0].name,
            csr=csr,
            endorsements=self.launched.brought(evidence),
        )


@dataclass(frozen=True, kw_only=True)
class World(packs.World):
    """The packs' world, its rooms on one machine."""

    machine: Any

    def room(self, agreement: Agreement | None = None, *, gpus: tuple[Any, ...] = ()) -> Room:  # noqa: ARG002 - this machine has its own
        """A fresh room."""
        return Room(self.machine, agreement or self.agreement)


@contextlib.contextmanager
def world(tee: str, directory: Path) -> Iterator[World]:
    """Both owners, whose brokers ask the vendors of a machine of that TEE; databases in `directory`."""
    machine = simulated.machine(tee, now=contracts.NOW, gpu=True)
    with packs.world(directory) as made:
        owners = {
            name: replace(one, broker=replace(one.broker, endorser=machine))
            for name, one in made.owners.items()
        }
        policy = replace(machine.platform.policy or DEFAULT, **ASKED[tee])
        platform = replace(machine.platform, policy=policy)
        agreement = made.scene.agreement(
            lambda one: replace(made.agreement.contract, platforms=(platform,), raw=one.raw)
        )
        yield World(scene=made.scene, owners=owners, agreement=agreement, machine=machine)


def record(made: packs.World, folder: Path) -> None:
    """A pack, and both party files."""
    folder.mkdir(parents=True)
    (folder / PACK).write_bytes(made.pack().encode())
    for party in made.anchors:
        (folder / f"{party.name}.party.json").write_bytes(party.encode())


def main(out: Path) -> None:
    """One pack of each kind of room, in the folder `out`."""
    for tee in simulated.TEES:
        with tempfile.TemporaryDirectory() as scratch, world(tee, Path(scratch)) as made:
            record(made, out / tee)
    with tempfile.TemporaryDirectory() as scratch, packs.world(Path(scratch)) as plain:
        record(plain, out / "tpm")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("expected one argument: the folder to write")
    main(Path(sys.argv[1]))
