"""A broker with a clock of its own over a real database, and rooms that speak to it.

The owner is alice of `contracts.scene`; her dataset is encrypted, its key known to the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from strongroom.broker import settings as settings_model
from strongroom.broker.administration.add_key import add_key
from strongroom.broker.broker import Broker
from strongroom.broker.budgets import Budgets
from strongroom.broker.challenge import challenge
from strongroom.broker.log_signer import Notary
from strongroom.broker.release import release
from strongroom.crypto import digest, hpke, sign, tls, xts
from strongroom.encoding import canonical, dsse, fields
from strongroom.model import manifest as manifest_model
from strongroom.model import messages
from strongroom.model import receipt as receipt_model
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.contracts import certificate_terms, room_terms
from strongroom.model.contracts.room_terms import DEFAULT_NAME
from strongroom.store import sqlite
from strongroom.wiring import broker as wiring
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_nvidia, fake_tpm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom.broker.ports import Store
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import ManifestDigest, RoomName
    from strongroom.model.identity import Identity

PASSPHRASE = b"correct horse"
NAMES = ("room.flights.example", "query.flights.example")
DISK_KEY = hashlib.sha512(b"alice's disk key").digest()  # no bytes that stand anywhere by chance


class Clock:
    """A clock that tests move."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@lru_cache(maxsize=1)
def owner() -> tuple[contracts.Scene, settings_model.Settings, settings_model.Secrets]:
    """The scene and alice's broker keys; made once, since scrypt is slow by design."""
    scene = contracts.scene()
    settings = settings_model.make(
        scene.alice.party(),
        listen="127.0.0.1:8443",
        url="https://127.0.0.1:8443",
        passphrase=PASSPHRASE,
        now=contracts.NOW,
        random=secrets.token_bytes,
    )
    return scene, settings, settings_model.unlock(settings, PASSPHRASE)


def manifest(
    signer: Identity,
    *,
    name: str = "flights",
    cipher: str = "aes-xts-plain64",
    key: bytes | None = DISK_KEY,
) -> bytes:
    """A signed manifest of a small dataset of `signer`. key: None for one without a check value of the key."""
    root_hash = fake_tpm.digest("root of " + name)
    checked = key is not None and cipher != "none"
    made = manifest_model.Manifest(
        raw=b"",
        kind="dataset",
        name=name,
        owner=signer.party().keyid,
        cipher=cipher,
        data_bytes=8192,
        hash_offset=8192,
        disk_bytes=16384,
        root_hash=root_hash,
        salt=bytes(32),
        image=None,
        key_check=xts.check_value(key, root_hash) if checked and key is not None else None,
    )
    payload = manifest_model.encode(made)
    bare = dsse.Envelope(payload_type=manifest_model.PAYLOAD_TYPE, payload=payload, signatures=())
    signature = dsse.DsseSignature(keyid=signer.party().keyid, sig=signer.signing.sign(bare.pae()))
    return replace(bare, signatures=(signature,)).encode()


def manifest_digest(envelope: bytes) -> ManifestDigest:
    """The digest by which contracts name the disk."""
    return manifest_model.parse_envelope(envelope)[1].digest


@dataclass(frozen=True, kw_only=True)
class World:
    """One broker and everything around it."""

    scene: contracts.Scene
    clock: Clock
    store: sqlite.SqliteStore
    broker: Broker
    settings: settings_model.Settings
    directory: Path
    disk: bytes = field(default=b"")

    def agreement(
        self,
        change: Callable[[Contract], Contract] | None = None,
        *,
        signers: tuple[str, ...] = ("alice", "bob"),
        runs: int = 1_000_000,
    ) -> Agreement:
        """A signed contract over alice's dataset, released by this broker."""

        def ours(one: Contract) -> Contract:
            made = contract_over(one, self.settings, manifest_digest(self.disk), runs=runs)
            return made if change is None else change(made)

        return self.scene.agreement(ours, signers=signers)

    def challenge(self, agreement: Agreement) -> messages.Challenge:
        """A nonce for that contract."""
        body = messages.encode_challenge_request(agreement.contract.digest)
        return asyncio.run(challenge(self.broker, body))

    def release(self, body: bytes) -> messages.ReleaseAnswer | messages.DenialAnswer:
        """What the broker says to a release request."""
        return asyncio.run(release(self.broker, body))

    def room(
        self,
        agreement: Agreement,
        *,
        gpus: tuple[fake_nvidia.FakeGpu, ...] = (),
        role: RoomName = DEFAULT_NAME,
    ) -> Room:
        """A fresh room under that contract. gpus: what is attached to it. role: which of the contract's rooms it says to be."""
        return Room(
            tpm=self.scene.tpm, agreement=agreement, audience=self.broker.audience, gpus=gpus, role=role
        )

    def ask(self, agreement: Agreement, **changes: Any) -> messages.ReleaseAnswer | messages.DenialAnswer:
        """Challenge and release of a fresh room."""
        room = self.room(agreement)
        return self.release(room.request(self.challenge(agreement).nonce, **changes))


def contract_over(
    one: Contract, settings: settings_model.Settings, manifest: ManifestDigest, *, runs: int
) -> Contract:
    """The scene's contract, with alice's broker, her dataset, and certificates."""
    members = tuple(
        replace(member, party=settings.party) if member.party.keyid == settings.party.keyid else member
        for member in one.members
    )
    return contracts.changed(
        one,
        members=members,
        datasets=(room_terms.Dataset(name="flights", owner=settings.party.name, manifest_digest=manifest),),
        certificate=certificate_terms.CertificateTerms(names=NAMES, lifetime_seconds=600),
        limits=replace(one.limits, runs=runs),
    )


@contextlib.contextmanager
def world(
    directory: Path,
    *,
    budgets: Budgets | None = None,
    wrap: Callable[[sqlite.SqliteStore], Store] = lambda store: store,
    busy_seconds: float = 10,
) -> Iterator[World]:
    """A broker over the database in `directory`, which is made when it is not there."""
    scene, settings, keys = owner()
    path = directory / wiring.DATABASE
    if not path.exists():
        sqlite.create(path)
    store = sqlite.open_store(path, busy_seconds=busy_seconds)
    limits = budgets or Budgets()
    clock = Clock(scene.now)
    broker = Broker(
        party=settings.party,
        audience=settings.address.pin,
        store=wrap(store),
        clock=clock,
        random=secrets.token_bytes,
        at_rest=keys.at_rest,
        authority=keys.authority,
        notary=Notary(keys.ledger),
        budgets=limits,
    )
    disk = manifest(scene.alice)
    try:
        made = World(
            scene=scene,
            clock=clock,
            store=store,
            broker=broker,
            settings=settings,
            directory=directory,
            disk=disk,
        )
        asyncio.run(add_key(replace(broker, store=store), disk, DISK_KEY))
        yield made
    finally:
        store.close()


class Room:
    """A room's side: its keys, its evidence by a fake TPM and fake GPUs, its messages."""

    def __init__(
        self,
        *,
        tpm: fake_tpm.FakeTpm,
        agreement: Agreement,
        audience: str,
        tls_key: tls.TlsKey | None = None,
        kem: hpke.KemPrivateKey | None = None,
        gpus: tuple[fake_nvidia.FakeGpu, ...] = (),
        role: RoomName = DEFAULT_NAME,
    ) -> None:
        self.tpm = tpm
        self.role = role
        self.gpus = gpus
        self.agreement = agreement
        self.audience = audience
        self.signing = sign.generate()
        self.tls = tls_key or tls.generate()
        self.kem = kem or hpke.generate()
        self.keys = RoomKeys(signing=self.signing.public.raw, tls=self.tls.spki, kem=self.kem.public)

    def binding(self, nonce: bytes, *, role: str | None = None) -> Binding:
        """What this room's evidence is bound to."""
        return Binding(
            nonce=nonce,
            contract_digest=self.agreement.contract.digest,
            keys=self.keys,
            role=role or self.role,
            audience=self.audience,
        )

    def ask(self, nonce: bytes, *, csr: bytes | None = None, **evidence: Any) -> messages.ReleaseRequest:
        """A release request; `evidence` goes to the fake TPM."""
        binding = self.binding(nonce)
        devices = tuple(gpu.evidence(binding) for gpu in self.gpus)
        return messages.ReleaseRequest(
            nonce=nonce,
            contract_digest=self.agreement.contract.digest,
            agreement=self.agreement.encode(),
            evidence=replace(self.tpm.evidence(binding, **evidence), devices=devices),
            keys=self.keys,
            role=self.role,
            csr=csr,
            endorsements=fake_nvidia.endorsements(zip(self.gpus, devices, strict=True)),
        )

    def request(self, nonce: bytes, *, names: tuple[str, ...] | None = None, **evidence: Any) -> bytes:
        """The request's bytes; `names` asks for a certificate with these DNS names."""
        wanted = None if names is None else self.csr(names)
        return self.ask(nonce, csr=wanted, **evidence).encode()

    def csr(self, names: tuple[str, ...], *, common_name: str = "") -> bytes:
        """A certificate request (DER) by the TLS key."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
            builder = builder.add_extension(alternatives, critical=False)
        key = serialization.load_der_private_key(self.tls.der, None)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)  # type: ignore[arg-type]

    def open(self, answer: messages.ReleaseAnswer, nonce: bytes) -> dict[ManifestDigest, bytes]:
        """The disk keys that were released."""
        plain = self.kem.open(answer.sealed, info=messages.release_info(self.binding(nonce)))
        return messages.parse_disk_keys(plain)

    def receipt(self, now: datetime, *, key: sign.SigningKey | None = None, **changes: Any) -> bytes:
        """A signed receipt."""
        contract = self.agreement.contract
        disk = receipt_model.Disk(
            manifest_digest=contract.rooms[0].image.manifest_digest, root_hash=fake_tpm.digest("root")
        )
        made = receipt_model.Receipt(
            run_id=self.keys.run_id,
            contract_digest=contract.digest,
            room=self.role,
            signing_key=self.keys.signing,
            image=disk,
            datasets=(),
            outputs=(),
            outcome=receipt_model.Outcome.EXITED,
            exit_status=0,
            details=(),
            started=now,
            ended=now + timedelta(seconds=1),
        )
        bare = dsse.Envelope(
            payload_type=receipt_model.PAYLOAD_TYPE, payload=replace(made, **changes).encode(), signatures=()
        )
        signer = key or self.signing
        signature = dsse.DsseSignature(keyid=digest.sha256(signer.public.raw), sig=signer.sign(bare.pae()))
        return replace(bare, signatures=(signature,)).encode()


def parse_denial(data: bytes) -> messages.DenialAnswer:
    """A denied release, whole, as whoever asked for it reads it. Raises `Malformed`."""
    top = fields.Fields(
        canonical.loads(data, what="denial answer", max_bytes=messages.MAX_ANSWER), "denial answer"
    )
    top.raw_object("error")
    answer = messages.read_denial(top)
    top.done()
    return answer
