"""An identity: a party's two private keys, in one file under a passphrase.

File: canonical JSON {"format", "party": the public part, "vault": BASE64}. The vault (scrypt,
AES-256-GCM) holds {"signing": BASE64(32), "age": "AGE-SECRET-KEY-1…"}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.crypto import age, sign, vault
from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model import party as party_model
from strongroom.model.identifiers import PartyName

if TYPE_CHECKING:
    from collections.abc import Callable


FORMAT = "strongroom-identity/1"
MAX_BYTES = 64 * 1024
_PURPOSE = "strongroom/identity/1"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """An opened identity. `repr` shows no key."""

    name: PartyName
    signing: sign.SigningKey = field(repr=False)
    age: age.AgeIdentity = field(repr=False)

    def party(self, broker: party_model.BrokerAddress | None = None) -> party_model.Party:
        """The public part."""
        return party_model.Party(
            name=self.name,
            signing_key=self.signing.public,
            recipient=self.age.recipient,
            broker=broker,
        )


def generate(name: str) -> Identity:
    """Fresh keys under `name` (lower-case name rules of `fields`)."""
    if fields.NAME.fullmatch(name) is None:
        raise Malformed(
            f"identity name: expected {fields.NAME_LIKE}, got {unexpected.quoted(name)}",
            code="bad-name",
            hint="choose a plain name, like alice or team-7",
        )
    return Identity(name=PartyName(name), signing=sign.generate(), age=age.generate())


def lock(identity: Identity, passphrase: bytes, *, random: Callable[[int], bytes]) -> bytes:
    """The file's bytes; write them with mode 0600."""
    secret = canonical.dumps({"signing": fields.format_data(identity.signing.raw), "age": identity.age.text})
    return (
        canonical.dumps(
            {
                "format": FORMAT,
                "party": identity.party().to_json(),
                "vault": fields.format_data(vault.lock(passphrase, secret, purpose=_PURPOSE, random=random)),
            }
        )
        + b"\n"
    )


def read_public(data: bytes) -> party_model.Party:
    """The public part of an identity file, without the passphrase. Raises `Malformed`."""
    return _parse(data)[0]


def unlock(data: bytes, passphrase: bytes) -> Identity:
    """Open an identity file. Raises `Malformed`, or `Refused` for a wrong passphrase."""
    party, sealed = _parse(data)
    secret = fields.Fields(
        canonical.loads(
            vault.unlock(passphrase, sealed, purpose=_PURPOSE), what="identity", max_bytes=MAX_BYTES
        ),
        "identity",
    )
    identity = Identity(
        name=party.name,
        signing=sign.SigningKey(secret.data("signing", max_bytes=32, exactly=32)),
        age=age.AgeIdentity(secret.text("age", max_length=200)),
    )
    secret.done()
    if identity.party() != party:
        raise Malformed(
            "identity: its public part is not that of its secret keys",
            code="mismatch",
            hint="the file was changed: take it from a backup",
        )
    return identity


def _parse(data: bytes) -> tuple[party_model.Party, bytes]:
    top = fields.Fields(canonical.loads(data, what="identity", max_bytes=MAX_BYTES), "identity")
    top.constant("format", FORMAT)
    inner = top.object("party")
    party = party_model.read(inner)
    inner.done()
    sealed = top.data("vault", max_bytes=MAX_BYTES)
    top.done()
    return party, sealed
