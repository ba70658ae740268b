"""Use case: the owner takes a disk and its key from the broker: no contract that names the disk is released under again.

The removal counts from the transaction on in which it is recorded. `add_key` gives the disk back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.administration import own_changes
from strongroom.errors import NotFound
from strongroom.model import record

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction
    from strongroom.model import messages
    from strongroom.model.identifiers import ManifestDigest


async def remove_key(broker: Broker, manifest_digest: ManifestDigest) -> messages.LedgerProof:
    """Forget the disk of that manifest digest; return the proof. Raises `NotFound`."""

    def change(transaction: Transaction) -> own_changes.OwnChange:
        if transaction.disks.find(manifest_digest) is None:
            raise NotFound(
                f"remove-key: this broker has no disk {manifest_digest}",
                code="unknown-disk",
                hint="`strongroom broker status` lists its disks",
            )
        transaction.disks.remove(manifest_digest)
        return own_changes.OwnChange(kind=record.RecordKind.DISK_REMOVAL, body={"disk": manifest_digest})

    return await own_changes.make(broker, change)
