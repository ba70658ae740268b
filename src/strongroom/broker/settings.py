"""The broker's own file: what it is called, where it listens, and its secrets under the passphrase.

Canonical JSON, mode 0600::

    {"format": "strongroom-broker/2", "listen": "HOST:PORT", "party": the owner's public part with
     the broker's address, "certificate": BASE64(DER),
     "roots": [{"state": "current" | "next" | "previous", "certificate": BASE64(DER), "key": BASE64(sealed)}],
     "master": BASE64(vault), "secrets": {"tls", "ledger": BASE64(sealed)}}

The master key is random; the passphrase opens the vault (scrypt, AES-256-GCM) that holds it. Every
other secret, disk keys too, is encrypted under a key derived from it (`crypto.aead`).
"""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from strongroom.authority.roots import PURPOSE as ISSUERS
from strongroom.authority.roots import Authority, Root, RootState
from strongroom.crypto import aead, digest, sign, vault
from strongroom.crypto import tls as tls_keys
from strongroom.crypto.pki import certificates, issuers, key_signer
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Misuse
from strongroom.model import party as party_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.crypto.pki.key_signer import KeySigner

FORMAT = "strongroom-broker/2"
MAX_BYTES = 256 * 1024
LISTEN = re.compile(r"(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9a-f:]{2,39}\]):(?P<port>[0-9]{1,5})", re.ASCII)
_PURPOSE = "strongroom/broker-master/1"
_SECRET = "broker-secret"  # noqa: S105 - a purpose, not a secret
_ROOT = "authority-root"
_NAMES = ("tls", "ledger")


@dataclass(frozen=True, kw_only=True)
class SealedRoot:
    """A root of the broker's authority: its certificate (DER), and its key under the master key."""

    state: RootState
    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """The digest of its certificate, by which contracts name it."""
        return digest.sha256(self.certificate)

    def to_json(self) -> dict[str, str]:
        """The object form."""
        return {
            "state": self.state.value,
            "certificate": fields.format_data(self.certificate),
            "key": fields.format_data(self.key),
        }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The file, parsed; its secrets are still closed. roots: one is current, and of each other state there is one at most."""

    listen: str
    party: party_model.Party
    certificate: bytes
    roots: tuple[SealedRoot, ...]
    master: bytes = field(repr=False)
    secrets: dict[str, bytes] = field(repr=False)

    @property
    def address(self) -> party_model.BrokerAddress:
        """How the broker is reached and known; parsing has made sure that there is one."""
        if self.party.broker is None:
            raise Malformed("broker settings: the party has no broker", hint=_RESTORE)
        return self.party.broker

    def root(self, state: RootState) -> SealedRoot | None:
        """The root of that state, if there is one."""
        return next((root for root in self.roots if root.state is state), None)

    @property
    def keys(self) -> str:
        """What a rotation changes, in one line: the party's key and the key that rooms know the broker by."""
        return f"{self.party.keyid} {self.address.pin}"

    @property
    def host(self) -> str:
        """Where to listen: host or address, without brackets."""
        return listen_parts(self.listen)[0]

    @property
    def port(self) -> int:
        """Where to listen: TCP port."""
        return listen_parts(self.listen)[1]

    def encode(self) -> bytes:
        """The file's bytes; write them with mode 0600."""
        return (
            canonical.dumps(
                {
                    "format": FORMAT,
                    "listen": self.listen,
                    "party": self.party.to_json(),
                    "certificate": fields.format_data(self.certificate),
                    "roots": [root.to_json() for root in self.roots],
                    "master": fields.format_data(self.master),
                    "secrets": {name: fields.format_data(secret) for name, secret in self.secrets.items()},
                }
            )
            + b"\n"
        )


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """The broker's keys, open. `repr` shows none."""

    at_rest: aead.AtRest = field(repr=False)
    tls: tls_keys.TlsKey = field(repr=False)
    roots: tuple[Root, ...] = field(repr=False)
    ledger: sign.SigningKey = field(repr=False)

    @property
    def authority(self) -> Authority:
        """The owner's certificate authority."""
        return Authority(self.roots, secret=self.at_rest.mac_key(ISSUERS))


_RESTORE = "the file was altered, or is of another broker: restore the whole folder from one backup"


def listen_parts(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises `Misuse`."""
    match = LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:
        raise Misuse(
            f"--listen {listen[:80]!r}: expected HOST:PORT, the port at most 65535",
            hint="for example --listen 127.0.0.1:8443",
        )
    return match["host"].strip("[]"), int(match["port"])


def url_of(host: str, port: int, url: str | None) -> str:
    """How rooms reach a broker that listens there: `url`, else where it listens. Raises `Misuse`."""
    shown = f"[{host}]" if ":" in host else host
    reached = url or f"https://{shown}:{port}"
    match = party_model.BROKER_URL.fullmatch(reached)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise Misuse(
            f"broker url {reached[:80]!r}: expected https://HOST:PORT, the port from 1 to 65535",
            hint="for example --url https://broker.example:8443",
        )
    if _everywhere(match["host"].strip("[]")):
        raise Misuse(
            f"broker url {reached}: stands for every address of this machine, and rooms can reach none by it",
            code="no-address",
            hint="listen there, and say by which name or address rooms reach it: --url https://HOST:PORT",
        )
    return reached


def of_this_machine(url: str) -> bool:
    """Whether nobody but this machine can reach a broker by `url`."""
    match = party_model.BROKER_URL.fullmatch(url)
    host = "" if match is None else match["host"].strip("[]")
    return host in {"localhost", "::1"} or host.startswith("127.")


def _everywhere(host: str) -> bool:
    """Whether `host` is no address but stands for all (0.0.0.0, ::), however it is written."""
    for family, nowhere in ((socket.AF_INET6, bytes(16)), (socket.AF_INET, bytes(4))):
        with contextlib.suppress(OSError):
            packed = socket.inet_aton(host) if family == socket.AF_INET else socket.inet_pton(family, host)
            return packed == nowhere or packed == bytes(10) + b"\xff\xff" + bytes(4)
    return False


def relock(settings: Settings, old: bytes, new: bytes, *, random: Callable[[int], bytes]) -> Settings:
    """The same under another passphrase. Raises `Refused` for a wrong old one."""
    master = vault.unlock(old, settings.master, purpose=_PURPOSE)
    return replace(settings, master=vault.lock(new, master, purpose=_PURPOSE, random=random))


@dataclass(frozen=True, kw_only=True)
class RotatedSettings:
    """Settings with other keys, and what encrypts secrets under them."""

    settings: Settings
    at_rest: aead.AtRest = field(repr=False)


def adopt(
    settings: Settings, passphrase: bytes, party: party_model.Party, *, random: Callable[[int], bytes]
) -> RotatedSettings:
    """The same broker for its party's new keys. Raises `Refused` for a wrong passphrase."""
    master = vault.unlock(passphrase, settings.master, purpose=_PURPOSE)
    before, after = (aead.AtRest(master, owner=owner.keyid) for owner in (settings.party, party))
    secrets = {
        name: after.seal(
            before.open(secret, purpose=_SECRET, name=name), purpose=_SECRET, name=name, random=random
        )
        for name, secret in settings.secrets.items()
    }
    roots = tuple(
        replace(root, key=_seal_root(after, _open_root(before, root), digest=root.digest, random=random))
        for root in settings.roots
    )
    return RotatedSettings(
        settings=replace(settings, party=party, secrets=secrets, roots=roots), at_rest=after
    )


def renew(
    settings: Settings, passphrase: bytes, *, now: datetime, random: Callable[[int], bytes]
) -> RotatedSettings:
    """The same broker with a new master key, TLS key and authority; the ledger's key stays. Raises as `adopt`."""
    ledger = unlock(settings, passphrase).ledger
    fresh = make(
        settings.party,
        listen=settings.listen,
        url=settings.address.url,
        passphrase=passphrase,
        now=now,
        random=random,
        ledger=ledger,
    )
    return RotatedSettings(settings=fresh, at_rest=unlock(fresh, passphrase).at_rest)


def make(
    owner: party_model.Party,
    *,
    listen: str,
    url: str,
    passphrase: bytes,
    now: datetime,
    random: Callable[[int], bytes],
    ledger: sign.SigningKey | None = None,
) -> Settings:
    """Fresh keys for the broker of `owner`; `ledger` where that one stays."""
    master = random(aead.MASTER_BYTES)
    at_rest = aead.AtRest(master, owner=owner.keyid)
    server, ledger = tls_keys.generate(), ledger or sign.generate()
    root = make_root(at_rest, RootState.CURRENT, name=owner.name, now=now, random=random)
    address = party_model.BrokerAddress(
        url=url, pin=server.pin, ledger_key=ledger.public.raw, authority=root.digest
    )
    raw = {"tls": server.der, "ledger": ledger.raw}
    return Settings(
        listen=listen,
        party=party_model.Party(
            name=owner.name, signing_key=owner.signing_key, recipient=owner.recipient, broker=address
        ),
        certificate=tls_keys.self_signed(
            server,
            name=f"{owner.name} strongroom broker",
            host=urlsplit(url).hostname or "",
            now=now,
            random=random,
        ),
        roots=(root,),
        master=vault.lock(passphrase, master, purpose=_PURPOSE, random=random),
        secrets={
            name: at_rest.seal(secret, purpose=_SECRET, name=name, random=random)
            for name, secret in raw.items()
        },
    )


@dataclass(frozen=True, kw_only=True)
class RootKey:
    """A root's key. secret: what is sealed of it, by which it is opened again: the key itself, or where it is."""

    signer: KeySigner = field(repr=False)
    secret: bytes = field(repr=False)


def make_root(
    at_rest: aead.AtRest,
    state: RootState,
    *,
    name: str,
    now: datetime,
    random: Callable[[int], bytes],
    key: RootKey | None = None,
) -> SealedRoot:
    """A fresh root of the authority of the owner called `name`. key: None for one that is made here."""
    if key is None:
        fresh = tls_keys.generate()
        key = RootKey(signer=key_signer.held(fresh), secret=fresh.der)
    certificate = issuers.make_root(key.signer, name=f"{name} strongroom authority", now=now, random=random)
    sealed = _seal_root(at_rest, key.secret, digest=digest.sha256(certificate), random=random)
    return SealedRoot(state=state, certificate=certificate, key=sealed)


def _seal_root(at_rest: aead.AtRest, key: bytes, *, digest: str, random: Callable[[int], bytes]) -> bytes:
    return at_rest.seal(key, purpose=_ROOT, name=digest, random=random)


def _open_root(at_rest: aead.AtRest, root: SealedRoot) -> bytes:
    return at_rest.open(root.key, purpose=_ROOT, name=root.digest)


def parse(data: bytes) -> Settings:
    """Parse the file. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="broker settings", max_bytes=MAX_BYTES), "broker settings")
    top.constant("format", FORMAT)
    owner = top.object("party")
    party = party_model.read(owner)
    owner.done()
    sealed = top.object("secrets")
    secrets = {name: sealed.data(name, max_bytes=4096) for name in _NAMES}
    sealed.done()
    settings = Settings(
        listen=top.text("listen", max_length=300, pattern=LISTEN),
        party=party,
        certificate=top.data("certificate", max_bytes=64 * 1024),
        roots=tuple(_root(item) for item in top.objects("roots", max_items=len(RootState))),
        master=top.data("master", max_bytes=4096),
        secrets=secrets,
    )
    top.done()
    if len({root.state for root in settings.roots}) != len(settings.roots):
        raise Malformed("broker settings.roots: two roots of one state", code="duplicate", hint=_RESTORE)
    current = settings.root(RootState.CURRENT)
    if current is None or settings.address.authority != current.digest:
        raise Malformed(
            "broker settings: the authority's root is not the one of the broker's address", hint=_RESTORE
        )
    return settings


def _root(source: fields.Fields) -> SealedRoot:
    root = SealedRoot(
        state=RootState(source.choice("state", RootState)),
        certificate=source.data("certificate", max_bytes=16 * 1024),
        key=source.data("key", max_bytes=4096),
    )
    source.done()
    return root


def _held(secret: bytes) -> KeySigner:
    return key_signer.held(tls_keys.TlsKey(secret))


def unlock(
    settings: Settings, passphrase: bytes, *, open_root_key: Callable[[bytes], KeySigner] = _held
) -> Secrets:
    """Open the secrets. Raises `Refused` for a wrong passphrase, `Malformed` when they do not belong.

    open_root_key: what signs for a root, by its secret; raises `Unavailable` for a key that is out of reach.
    """
    master = vault.unlock(passphrase, settings.master, purpose=_PURPOSE)
    at_rest = aead.AtRest(master, owner=settings.party.keyid)
    raw = {
        name: at_rest.open(secret, purpose=_SECRET, name=name) for name, secret in settings.secrets.items()
    }
    secrets = Secrets(
        at_rest=at_rest,
        tls=tls_keys.TlsKey(raw["tls"]),
        roots=tuple(
            Root(
                state=root.state,
                signer=certificates.Signer(open_root_key(_open_root(at_rest, root)), root.certificate),
            )
            for root in settings.roots
        ),
        ledger=sign.SigningKey(raw["ledger"]),
    )
    if secrets.tls.pin != settings.address.pin or secrets.ledger.public.raw != settings.address.ledger_key:
        raise Malformed(
            "broker settings: the keys are not those of the broker's address", code="mismatch", hint=_RESTORE
        )
    return secrets
