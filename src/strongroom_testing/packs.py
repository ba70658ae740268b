"""A whole proof pack without a room: two owners with real brokers over real databases, a fake TPM's evidence.

alice owns the dataset, bob the program; both disks are encrypted, so that both brokers have a part.
`python -m strongroom_testing.packs DIR` writes one, as a run's folder, with the party files.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.broker import settings as settings_model
from strongroom.broker.administration.add_key import add_key
from strongroom.broker.broker import Broker
from strongroom.broker.budgets import Budgets
from strongroom.broker.challenge import challenge
from strongroom.broker.log_signer import Notary
from strongroom.broker.release import release
from strongroom.broker.running.receipt import receipt
from strongroom.encoding import canonical, dsse, fields
from strongroom.ledger import checkpoint, merkle, proofpack
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model import receipt as receipt_model
from strongroom.model.contracts import certificate_terms
from strongroom.model.identifiers import PartyName
from strongroom.store import sqlite
from strongroom.wiring import broker as wiring
from strongroom_testing import brokers, contracts
from strongroom_testing.vendors import fake_nvidia, fake_tpm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.crypto import sign
    from strongroom.crypto import tls as tls_keys
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identity import Identity
    from strongroom.model.party import Party

DISKS = {"alice": brokers.DISK_KEY, "bob": brokers.DISK_KEY[::-1]}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """One owner and that owner's broker. `ledger` is the broker's key: for forging what it might sign; `tls` its server's."""

    identity: Identity
    party: Party
    broker: Broker
    ledger: sign.SigningKey
    tls: tls_keys.TlsKey
    manifest: bytes


@dataclass(frozen=True, kw_only=True)
class World:
    """Two owners, a machine, and their contract."""

    scene: contracts.Scene
    owners: dict[str, Owner]
    agreement: Agreement

    @property
    def anchors(self) -> tuple[Party, ...]:
        """Both owners' party files."""
        return tuple(one.party for one in self.owners.values())

    def room(
        self, agreement: Agreement | None = None, *, gpus: tuple[fake_nvidia.FakeGpu, ...] = ()
    ) -> brokers.Room:
        """A fresh room. gpus: what is attached to it."""
        return brokers.Room(tpm=self.scene.tpm, agreement=agreement or self.agreement, audience="", gpus=gpus)

    def ask(
        self, room: brokers.Room, name: str, **evidence: Any
    ) -> tuple[messages.ReleaseRequest, messages.ReleaseAnswer | messages.DenialAnswer]:
        """What that owner's broker says to the room."""
        broker = self.owners[name].broker
        room.audience = broker.audience
        body = messages.encode_challenge_request(room.agreement.contract.digest)
        nonce = asyncio.run(challenge(broker, body)).nonce
        terms = room.agreement.contract.rooms[0].certificate
        request = room.ask(nonce, csr=None if terms is None else room.csr(terms.names), **evidence)
        return request, asyncio.run(release(broker, request.encode()))

    def part(self, room: brokers.Room, name: str, **evidence: Any) -> proofpack.PackedRelease:
        """That broker's part of a pack, whatever it decided."""
        request, answer = self.ask(room, name, **evidence)
        if answer.ledger is None:
            raise AssertionError("not recorded")
        return proofpack.PackedRelease(
            party=PartyName(name),
            binding=room.binding(request.nonce),
            evidence=request.evidence,
            endorsements=answer.endorsements
            if isinstance(answer, messages.ReleaseAnswer)
            else request.endorsements,
            certificates=answer.certificates if isinstance(answer, messages.ReleaseAnswer) else (),
            ledger=answer.ledger,
        )

    def receipt(self, room: brokers.Room, **changes: Any) -> bytes:
        """The room's receipt over the disks of the contract."""
        manifests = [manifest_model.parse_envelope(one.manifest)[1] for one in self.owners.values()]
        disks = {
            one.digest: receipt_model.Disk(manifest_digest=one.digest, root_hash=one.root_hash)
            for one in manifests
        }
        terms = room.agreement.contract.rooms[0]
        made: dict[str, Any] = {
            "image": disks[terms.image.manifest_digest],
            "datasets": tuple(disks[one.manifest_digest] for one in terms.datasets),
        }
        return room.receipt(self.scene.now, **{**made, **changes})

    def post(self, name: str, envelope: bytes) -> proofpack.ReceiptEntry:
        """The receipt, recorded by that broker."""
        return proofpack.ReceiptEntry(
            party=PartyName(name), ledger=asyncio.run(receipt(self.owners[name].broker, envelope))
        )

    def pack(self, room: brokers.Room | None = None) -> proofpack.ProofPack:
        """A whole pack of a fresh room, or of that one."""
        room = room or self.room()
        releases = tuple(self.part(room, name) for name in self.owners)
        envelope = self.receipt(room)
        parsed, claimed = receipt_model.parse_envelope(envelope)
        return proofpack.ProofPack(
            agreement=room.agreement,
            manifests=tuple(manifest_model.parse_envelope(one.manifest) for one in self.owners.values()),
            releases=releases,
            receipt_envelope=parsed,
            receipt=claimed,
            receipts=tuple(self.post(name, envelope) for name in self.owners),
        )

    def forge(self, name: str, value: dict[str, Any]) -> messages.LedgerProof:
        """What a broker that lies could sign: a ledger whose one entry is `value`."""
        entry = canonical.dumps(value)
        note = checkpoint.issue(self.owners[name].ledger, size=1, root=merkle.leaf_hash(entry))
        return messages.LedgerProof(entry=entry, index=0, hashes=(), checkpoint=note)


def image_manifest(signer: Identity) -> bytes:
    """The signed manifest of an encrypted program of `signer`."""
    plain = manifest_model.parse_envelope(brokers.manifest(signer, name="query", key=DISKS[signer.name]))[1]
    settings = manifest_model.ImageSettings(
        source=fake_tpm.digest("oci"),
        entrypoint=("/bin/query",),
        command=(),
        environment={},
        working_directory="/",
        uid=1000,
        gid=1000,
        groups=(),
    )
    return signed_manifest(replace(plain, kind="image", image=settings), signer)


def signed_manifest(manifest: manifest_model.Manifest, signer: Identity) -> bytes:
    """The manifest in an envelope signed by `signer`."""
    bare = dsse.Envelope(
        payload_type=manifest_model.PAYLOAD_TYPE, payload=manifest_model.encode(manifest), signatures=()
    )
    signature = dsse.DsseSignature(keyid=signer.party().keyid, sig=signer.signing.sign(bare.pae()))
    return replace(bare, signatures=(signature,)).encode()


@contextlib.contextmanager
def world(directory: Path) -> Iterator[World]:
    """Both owners, with databases in `directory`."""
    scene = contracts.scene()
    with contextlib.ExitStack() as stack:
        owners = {
            "alice": _owner(scene, scene.alice, brokers.manifest(scene.alice), directory, stack),
            "bob": _owner(scene, scene.bob, image_manifest(scene.bob), directory, stack),
        }

        def over(one: Contract) -> Contract:
            members = tuple(replace(member, party=owners[member.party.name].party) for member in one.members)
            image, data = (brokers.manifest_digest(owners[name].manifest) for name in ("bob", "alice"))
            terms = one.rooms[0]
            return contracts.changed(
                one,
                members=members,
                image=replace(terms.image, manifest_digest=image),
                datasets=(replace(terms.datasets[0], manifest_digest=data),),
                certificate=certificate_terms.CertificateTerms(names=brokers.NAMES, lifetime_seconds=600),
                limits=replace(one.limits, runs=1_000_000),
            )

        yield World(scene=scene, owners=owners, agreement=scene.agreement(over))


def _owner(
    scene: contracts.Scene, one: Identity, manifest: bytes, directory: Path, stack: contextlib.ExitStack
) -> Owner:
    settings = settings_model.make(
        one.party(),
        listen="127.0.0.1:1",
        url="https://127.0.0.1:1",  # where nobody listens
        passphrase=brokers.PASSPHRASE,
        now=contracts.NOW,
        random=secrets.token_bytes,
    )
    keys = settings_model.unlock(settings, brokers.PASSPHRASE)
    path = directory / f"{one.name}-{wiring.DATABASE}"
    sqlite.create(path)
    store = sqlite.open_store(path, busy_seconds=10)
    stack.callback(store.close)
    limits = Budgets()
    broker = Broker(
        party=settings.party,
        audience=settings.address.pin,
        store=store,
        clock=brokers.Clock(scene.now.replace(microsecond=987_654)),
        random=secrets.token_bytes,
        at_rest=keys.at_rest,
        authority=keys.authority,
        notary=Notary(keys.ledger),
        budgets=limits,
    )
    asyncio.run(add_key(broker, manifest, DISKS[one.name]))
    return Owner(
        identity=one,
        party=settings.party,
        broker=broker,
        ledger=keys.ledger,
        tls=keys.tls,
        manifest=manifest,
    )


def write_run(made: World, folder: Path) -> None:
    """What `strongroom run` and the room in it would have left, and the party files beside."""
    run, pack = folder / "run", made.pack()
    (run / "manifests").mkdir(parents=True)
    for party in made.anchors:
        (folder / f"{party.name}.party.json").write_bytes(party.encode())
    (run / "agreement.json").write_bytes(pack.agreement.encode())
    for number, (envelope, _) in enumerate(pack.manifests):
        (run / f"manifests/{number}.json").write_bytes(envelope.encode())
    for one in pack.releases:
        answer = {
            "binding": one.binding.to_json(),
            "verdict": canonical.loads(one.ledger.entry, what="entry", max_bytes=1 << 20)["body"]["verdict"],
            "certificates": [fields.format_data(der) for der in one.certificates],
            "ledger": one.ledger.to_json(),
            "endorsements": one.endorsements.to_json(),
        }
        (run / f"release-{one.party}.json").write_bytes(canonical.dumps(answer))
        (run / f"evidence-{one.party}.json").write_bytes(one.evidence.encode())
    (run / "receipt.json").write_bytes(pack.receipt_envelope.encode())
    for entry in pack.receipts:
        (run / f"receipt-{entry.party}.json").write_bytes(entry.ledger.encode())


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("expected one argument: the folder to write")
    with tempfile.TemporaryDirectory() as scratch, world(Path(scratch)) as there:
        write_run(there, Path(sys.argv[1]))
