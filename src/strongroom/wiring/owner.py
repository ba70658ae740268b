"""What a broker's owner does to its folder, by files: disks and keys, contracts, and the party's new keys. A broker that serves goes on.

Files are read before a passphrase is asked for, so that a wrong file is said first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.broker import admit_contract as admitting
from strongroom.broker.administration import add_key, pause, remove_key, series, withdraw
from strongroom.encoding import fields
from strongroom.model import manifest as manifest_model
from strongroom.model.identifiers import ContractDigest, ManifestDigest
from strongroom.parties import papers
from strongroom.seal import disk as sealed_disk
from strongroom.wiring import broker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import RoomName
    from strongroom.model.identity import Identity
    from strongroom.model.manifest import Manifest
    from strongroom.model.messages import LedgerProof
    from strongroom.wiring.broker import RotatedParty

    # Asked once all else is known to be right.
    Passphrase = Callable[[], bytes]

MAX_KEY_FILE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class RecordedContract:
    """A contract's version, and the proof that the ledger has its admission."""

    contract: Contract
    proof: LedgerProof


@dataclass(frozen=True, kw_only=True)
class RemovedDisk:
    """The disk that was taken away, and the proof that the ledger says so."""

    manifest_digest: ManifestDigest
    proof: LedgerProof


def add_disk(
    directory: Path,
    *,
    manifest: Path,
    key: Path | None,
    disk: Path | None = None,
    identity: Callable[[], Identity],
    passphrase: Passphrase,
) -> Manifest:
    """Give the broker of a folder a disk of its owner's, with the key that rooms will need; returns what its manifest says.

    key: a NAME.key.age; None for a public disk. disk: to try the key on where the manifest has no check value of it; the one beside the
    manifest by default. identity: the owner's, asked for where there is a key. Raises `Malformed`, `NotFound`, and like `broker.administration.add_key`.
    """
    envelope, _ = files.parsed(manifest, manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE)
    secret = None if key is None else files.parsed(key, identity().age.open, max_bytes=MAX_KEY_FILE)
    beside = manifest.with_name(manifest.name.removesuffix(sealed_disk.MANIFEST_SUFFIX) + sealed_disk.SUFFIX)
    tried_on = disk or (beside if beside.is_file() else None)
    with broker.open_broker(directory, passphrase()) as opened:
        return asyncio.run(add_key.add_key(opened.broker, envelope.encode(), secret, disk=tried_on))


def remove_disk(directory: Path, digest_or_path: str, *, passphrase: Passphrase) -> RemovedDisk:
    """Take a disk and its key from the broker of a folder, by the digest of its manifest or by that file's path. Raises `NotFound`, `Malformed`."""
    manifest_digest = ManifestDigest(digest_or_path)
    if fields.DIGEST.fullmatch(digest_or_path) is None:
        _, manifest = files.parsed(
            Path(digest_or_path), manifest_model.parse_envelope, max_bytes=manifest_model.MAX_ENVELOPE
        )
        manifest_digest = manifest.digest
    with broker.open_broker(directory, passphrase()) as opened:
        proof = asyncio.run(remove_key.remove_key(opened.broker, manifest_digest))
    return RemovedDisk(manifest_digest=manifest_digest, proof=proof)


def admit_contract(
    directory: Path, contract: Path, *, earlier: Sequence[Path] = (), passphrase: Passphrase
) -> RecordedContract:
    """Admit a contract's version, the next after the one that is known. earlier: files of versions that this broker does not know yet.

    Raises `Malformed`, `Misuse`, and like `broker.admit_contract`.
    """
    agreement, before = papers.load_agreement(contract), papers.load_earlier(earlier)
    with broker.open_broker(directory, passphrase()) as opened:
        proof = asyncio.run(admitting.admit(opened.broker, agreement.encode(), before))
    return RecordedContract(contract=agreement.contract, proof=proof)


def withdraw_contract(directory: Path, digest_or_path: str, *, passphrase: Passphrase) -> LedgerProof:
    """Withdraw a contract for good, every version of it: by the digest of a version that the broker knows, or by a file's path.

    Raises `Malformed`, `NotFound`, and like `broker.administration.withdraw`.
    """
    data = None
    if fields.DIGEST.fullmatch(digest_or_path) is None:
        data = papers.load_agreement(Path(digest_or_path)).encode()
    with broker.open_broker(directory, passphrase()) as opened:
        return asyncio.run(
            withdraw.withdraw_known(opened.broker, ContractDigest(digest_or_path))
            if data is None
            else withdraw.withdraw(opened.broker, data)
        )


def pause_contract(
    directory: Path, digest_or_path: str, *, room: RoomName | None, resume: bool, passphrase: Passphrase
) -> LedgerProof:
    """Pause a contract or that room of it, or with `resume` take that back: named as for `withdraw_contract`.

    Raises `Malformed`, `NotFound`, and like `broker.administration.pause`.
    """
    act, verb = (pause.resume, "resume") if resume else (pause.pause, "pause")
    data = None
    if fields.DIGEST.fullmatch(digest_or_path) is None:
        data = papers.load_agreement(Path(digest_or_path)).encode()
    with broker.open_broker(directory, passphrase()) as opened:
        find = (
            series.of_digest(ContractDigest(digest_or_path), verb=verb)
            if data is None
            else series.of_file(opened.broker, data, verb=verb, room=room)
        )
        return asyncio.run(act(opened.broker, find, room=room))


def rotate_keys(
    directory: Path, *, identity: Identity, party_file: Path, passphrase: Passphrase
) -> RotatedParty:
    """New keys for the broker of a folder, but for its ledger's, written into its owner's party file. It must not be serving.

    Raises `Misuse` for a party file of somebody else, and like `wiring.broker.rotate_broker_keys`.
    """
    papers.refuse_foreign(party_file, identity.party())
    rotated = broker.rotate_broker_keys(directory, passphrase(), identity.signing)
    files.write(party_file, rotated.party.encode(), replace=True)
    return rotated


def switch_root(
    directory: Path, *, identity: Identity, party_file: Path, passphrase: Passphrase
) -> RotatedParty:
    """Make the next root of the broker's authority the current one, written into its owner's party file. It must not be serving.

    Raises `Misuse` for a party file of somebody else, and like `wiring.broker.switch_root`.
    """
    papers.refuse_foreign(party_file, identity.party())
    rotated = broker.switch_root(directory, passphrase(), identity.signing)
    files.write(party_file, rotated.party.encode(), replace=True)
    return rotated
