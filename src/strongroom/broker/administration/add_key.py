"""Use case: the owner gives the broker a disk, with its key if the disk is encrypted.

The manifest must carry the owner's own signature, and the key is proved to be that disk's: a room that got another one
would fail, and one of the contract's runs be spent. The key is stored encrypted under the master key, bound to the manifest's digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.broker.broker import DISK_KEY
from strongroom.broker.ports import KnownDisk
from strongroom.errors import Misuse, Refused
from strongroom.model import manifest as manifest_model
from strongroom.model import signatures
from strongroom.seal import disk as sealed_disk

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import Transaction

KEY_BYTES = 64  # AES-256-XTS: two keys of 32 bytes


async def add_key(
    broker: Broker, manifest: bytes, key: bytes | None, *, disk: Path | None = None
) -> manifest_model.Manifest:
    """Store the disk of a signed manifest. Adding it again replaces the key.

    disk: the sealed disk itself, for a manifest that has no check value of its key. Raises `Malformed`, `Misuse` when key
    and cipher are at odds or the key cannot be proved, `Refused` when it is not the owner's disk or not its key.
    """
    envelope, parsed = manifest_model.parse_envelope(manifest)
    if parsed.owner != broker.party.keyid:
        raise Refused(
            f"add-key: the disk {parsed.name!r} belongs to another identity: expected {broker.party.keyid}, got {parsed.owner}",
            code="not-ours",
            hint="add it to its owner's broker: each broker keeps the keys of one owner alone",
        )
    if not signatures.signed_by(envelope, broker.party.signing_key):
        raise Refused(
            "add-key: the owner has not signed this manifest",
            code="bad-signature",
            hint="give the manifest as `strongroom seal` or `convert` wrote it, unchanged",
        )
    if (parsed.cipher == manifest_model.NO_CIPHER) != (key is None):
        raise Misuse(
            f"add-key: the disk's cipher is {parsed.cipher}, and a key was {'' if key else 'not '}given",
            hint="give the .key.age file for an encrypted disk, and none for a public one",
        )
    sealed = None
    if key is not None:
        if len(key) != KEY_BYTES:
            raise Misuse(
                f"add-key: the key has {len(key)} bytes, expected {KEY_BYTES}",
                hint="give the NAME.key.age that `strongroom seal` or `convert` wrote beside the disk",
            )
        sealed_disk.prove_key(parsed, key, disk)
        sealed = broker.at_rest.seal(key, purpose=DISK_KEY, name=parsed.digest, random=broker.random)
    known = KnownDisk(manifest_digest=parsed.digest, cipher=parsed.cipher, sealed_key=sealed)

    def put(transaction: Transaction) -> None:
        transaction.disks.put(known)

    await broker.store.write(put)
    return parsed
