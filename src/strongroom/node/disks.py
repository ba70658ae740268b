"""Which disk file is which of the contract's disks: matched by the digest of its signed manifest.

Every manifest must be signed by the party that the contract calls the disk's owner, and the file must
have the manifest's size. The blocks themselves are for the room's kernel to verify as it reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Misuse, NotFound, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model import signatures
from strongroom.model.room import channel
from strongroom.node.qemu import machine
from strongroom.seal import disk as seal_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.contracts.room_terms import RoomTerms
    from strongroom.model.identifiers import PartyName


@dataclass(frozen=True, kw_only=True)
class SealedDisk:
    """A disk file with the manifest that came beside it. `signed` is the manifest file's bytes."""

    path: Path
    signed: bytes
    manifest: manifest_model.Manifest


def load(disk: Path, manifest: Path | None = None) -> SealedDisk:
    """Read a disk's manifest (beside it, as `NAME.manifest.json`, unless named) and check the sizes.

    Raises `Misuse` for a name that is no disk's, `NotFound`, `Malformed`, or `Refused` when the file cannot be that disk.
    """
    beside = manifest or seal_disk.beside(disk, seal_disk.MANIFEST_SUFFIX)
    try:
        with beside.open("rb") as source:
            signed = source.read(manifest_model.MAX_ENVELOPE + 1)
        size = disk.stat().st_size
    except FileNotFoundError as cause:
        raise NotFound(
            f"{cause.filename}: not there",
            code="no-disk" if str(cause.filename) == str(disk) else "no-manifest",
            hint="is the path right? --disk names the file that `seal` or `convert` wrote, NAME.disk"
            if str(cause.filename) == str(disk)
            else "a disk's manifest is expected beside it; `--manifest` names another place",
        ) from None
    _, parsed = manifest_model.parse_envelope(signed)
    if size != parsed.disk_bytes:
        raise Refused(
            f"{disk}: {size} bytes, its manifest says {parsed.disk_bytes}",
            code="wrong-size",
            hint="the file was cut short or exchanged; copy the disk again, and `strongroom verify` it",
        )
    return SealedDisk(path=disk, signed=signed, manifest=parsed)


def match(
    contract: Contract, room: RoomTerms, disks: Sequence[SealedDisk]
) -> tuple[tuple[machine.Drive, ...], dict[str, bytes]]:
    """The disks of a room in the contract's order as drives, and their signed manifests by serial.

    Raises `Refused` when one is missing or not signed by its owner, `Misuse` when one is superfluous.
    """
    by_digest = {sealed.manifest.digest: sealed for sealed in disks}
    wanted = [(channel.SERIAL_IMAGE, "the image", room.image.owner, room.image.manifest_digest)]
    for index, dataset in enumerate(room.datasets):
        wanted.append(
            (channel.data_serial(index), f"dataset {dataset.name}", dataset.owner, dataset.manifest_digest)
        )
    drives = []
    manifests = {}
    for serial, what, owner, manifest_digest in wanted:
        sealed = by_digest.get(manifest_digest)
        if sealed is None:
            names = ", ".join(f"{disk.path.name} ({disk.manifest.digest})" for disk in disks) or "none"
            raise Refused(
                f"{what} of {owner}: no disk with the contract's manifest {manifest_digest}; given: {names}",
                code="missing-disk",
                hint="give it with --disk, and the manifest that the contract names beside it or with --manifest: after a rotation of "
                "keys that is its owner's new one; a disk that was sealed anew needs a new contract",
            )
        _check_signature(sealed, contract, what, owner)
        drives.append(machine.Drive(serial=serial, path=sealed.path.absolute()))
        manifests[serial] = sealed.signed
    named = {manifest_digest for _, _, _, manifest_digest in wanted}
    for manifest_digest, sealed in by_digest.items():
        if manifest_digest not in named:
            raise Misuse(
                f"{sealed.path}: the contract does not name this disk",
                code="extra-disk",
                hint="leave it out; `strongroom contract show` lists the disks",
            )
    return tuple(drives), manifests


def _check_signature(sealed: SealedDisk, contract: Contract, what: str, owner: PartyName) -> None:
    envelope, _ = manifest_model.parse_envelope(sealed.signed)
    if not signatures.signed_by(envelope, contract.party(owner).signing_key):
        raise Refused(
            f"{what}: its manifest is not signed by {owner}",
            code="unsigned-manifest",
            hint="ask the owner for the manifest as `seal` or `convert` wrote it",
        )
