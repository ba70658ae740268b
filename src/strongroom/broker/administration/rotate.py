"""Use case: a broker's new keys, or its party's, are recorded; from that entry on the old ones count for nothing here.

Keys live in two places: the broker's file and its database. The database is the truth: in one transaction with the ledger
entry it takes the new file too, and whoever opens the folder next puts it in its place (`wiring`). So there is no moment at
which one half is rotated, whenever the process dies.

Where the party's own keys change, its disks go: their manifests are of the old key, and no contract of the new one can
name them. The owner adds them again under manifests of the new key. Where the broker's keys change the disks' keys stay, under
the new master key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.administration import own_changes
from strongroom.broker.broker import DISK_KEY
from strongroom.broker.ports import KnownDisk
from strongroom.encoding import fields
from strongroom.errors import Refused
from strongroom.model import record
from strongroom.model import rotation as rotation_model

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.broker.settings import Settings
    from strongroom.crypto.aead import AtRest
    from strongroom.model import messages
    from strongroom.model.rotation import Rotation


async def rotate(
    broker: Broker, rotation: Rotation, settings: Settings, at_rest: AtRest
) -> messages.LedgerProof:
    """Record the rotation, with the new `settings`; return the proof. at_rest: of the new master key and owner.

    Raises `Refused` unless it leads from this broker's party to that of `settings`, signed by both.
    """
    # `settings` is the broker's new file; `broker` is what runs, with the old keys.
    new = rotation_model.verify(rotation, broker.party)
    if new != settings.party:
        raise Refused(
            "rotation: it says another address of the broker than the broker's own",
            code="other-party",
            hint="make it from the party file that `strongroom broker init` or `rotate-keys` wrote",
        )

    def change(transaction: Transaction) -> own_changes.OwnChange:
        for disk in transaction.disks.every():
            if rotation.of_identity:  # the party's own keys change
                transaction.disks.remove(disk.manifest_digest)
            elif disk.sealed_key is not None:
                transaction.disks.put(_under(broker, disk, disk.sealed_key, at_rest))
        transaction.staged.put(settings.encode())
        transaction.staged.belong(settings.keys)
        return own_changes.OwnChange(
            kind=record.RecordKind.ROTATION, body={"statement": fields.format_data(rotation.encode())}
        )

    return await own_changes.make(broker, change)


def _under(broker: Broker, disk: KnownDisk, sealed: bytes, at_rest: AtRest) -> KnownDisk:
    """The disk with its key, which `sealed` holds under the old master key, sealed under the new one."""
    key = broker.at_rest.open(sealed, purpose=DISK_KEY, name=disk.manifest_digest)
    resealed = at_rest.seal(key, purpose=DISK_KEY, name=disk.manifest_digest, random=broker.random)
    return KnownDisk(manifest_digest=disk.manifest_digest, cipher=disk.cipher, sealed_key=resealed)
