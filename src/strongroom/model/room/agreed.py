"""What the node handed over, held against what the parties signed. Nothing of it is believed before.

1 the contract has all the signatures that it needs, and the room that the node names
2 every disk of that room has a manifest: the one whose digest the contract names, of the right kind,
  signed by the disk's owner
3 every encrypted disk's owner has a broker, and there is a broker at all
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model import signatures
from strongroom.model.room import channel as wire

if TYPE_CHECKING:
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import ManifestDigest, PartyName
    from strongroom.model.manifest import ImageSettings, Manifest
    from strongroom.model.party import Party


@dataclass(frozen=True, kw_only=True)
class Terms:
    """An approved contract, the room that this is, and that room's manifests. `datasets` is in the contract's order."""

    contract: Contract
    room: RoomTerms
    image: Manifest
    settings: ImageSettings
    datasets: tuple[Manifest, ...]

    def disks(self) -> tuple[tuple[str, PartyName, Manifest], ...]:
        """(serial, owner's name, manifest) of every disk, the image first."""
        rows = [(wire.SERIAL_IMAGE, self.room.image.owner, self.image)]
        for index, (dataset, manifest) in enumerate(zip(self.room.datasets, self.datasets, strict=True)):
            rows.append((wire.data_serial(index), dataset.owner, manifest))
        return tuple(rows)

    def keys_from(self, party: PartyName) -> set[ManifestDigest]:
        """Digests of the manifests of the encrypted disks that `party` owns."""
        return {
            manifest.digest
            for _, owner, manifest in self.disks()
            if owner == party and manifest.cipher != manifest_model.NO_CIPHER
        }


def check(agreement: Agreement, start: wire.Start) -> Terms:
    """Check all of the above. Raises `Refused` or `Malformed`."""
    contract = agreement.contract
    if not agreement.approved():  # 1
        raise Refused(
            f"contract {contract.id}: signatures are missing, of {', '.join(agreement.missing()) or 'nobody'}",
            code="not-approved",
            hint="each of the approvers signs with `strongroom contract sign`",
        )
    room = contract.room(start.room)
    image = _manifest(  # 2
        start.manifests.get(wire.SERIAL_IMAGE),
        f"image {room.image.manifest_digest}",
        contract.party(room.image.owner),
        "the image",
    )
    datasets = tuple(
        _manifest(
            start.manifests.get(wire.data_serial(index)),
            f"dataset {dataset.manifest_digest}",
            contract.party(dataset.owner),
            f"the dataset {dataset.name}",
        )
        for index, dataset in enumerate(room.datasets)
    )
    if image.image is None:
        raise Malformed(f"manifest {image.name}: an image without settings")
    terms = Terms(contract=contract, room=room, image=image, settings=image.image, datasets=datasets)
    brokers = contract.key_owners(room.name)  # 3
    if not brokers:
        raise Refused(
            "the contract names no broker for this room: nobody would judge it",
            code="no-broker",
            hint="an owner of its image or of a dataset needs a broker in the contract",
        )
    for _, owner, manifest in terms.disks():
        if manifest.cipher != manifest_model.NO_CIPHER and owner not in brokers:
            raise Refused(
                f"the disk of {manifest.name} is encrypted, and its owner {owner} has no broker",
                code="no-broker",
                hint="name the owner's broker in the contract, or seal the disk without encryption",
            )
    return terms


def _manifest(data: bytes | None, expected: str, owner: Party, disk: str) -> Manifest:
    """The signed manifest `data` of `disk`, which is of the kind and digest `expected` and by its owner."""
    if data is None:
        raise Refused(
            f"no manifest came for {disk}",
            code="no-manifest",
            hint=f"give the manifest that {owner.name} made when sealing it",
        )
    envelope, manifest = manifest_model.parse_envelope(data)
    if (got := f"{manifest.kind} {manifest.digest}") != expected:
        raise Refused(
            f"the manifest of {disk}: expected the {expected}, got the {got}",
            code="wrong-manifest",
            hint="the contract was signed for another disk, or for another sealing of it",
        )
    if manifest.owner != owner.keyid or not signatures.signed_by(envelope, owner.signing_key):
        raise Refused(
            f"the manifest of {disk} is not signed by its owner {owner.name}",
            code="unsigned-manifest",
            hint=f"get the signed manifest from {owner.name}",
        )
    return manifest
