"""A rotation: a party's public part before and after, signed by the key of each. Whoever knew the old one can follow.

A DSSE envelope over canonical JSON: {"format": "strongroom-rotation/1", "time", "old": party, "new": party}. The name stays, and
so does the ledger's key: one key, one ledger, one name. The old key's signature says who comes after it; the new key's, that
its holder agrees. Nothing that the old key signed counts for the new one: contracts name keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Malformed, Refused
from strongroom.model import party as party_model
from strongroom.model import signatures

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from strongroom.crypto import sign
    from strongroom.model.party import Party

FORMAT = "strongroom-rotation/1"
PAYLOAD_TYPE = "application/vnd.strongroom.rotation+json"
MAX_BYTES = 16 * 1024
MAX_ENVELOPE = 4 * MAX_BYTES  # signed: in base64, which takes a third more, with signatures


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A parsed statement; who signed it is for `verify`."""

    envelope: dsse.Envelope
    old: Party
    new: Party
    time: datetime

    @property
    def of_identity(self) -> bool:
        """Whether the party's own keys change; else they are those of its broker alone."""
        return (self.old.signing_key, self.old.recipient) != (self.new.signing_key, self.new.recipient)

    def encode(self) -> bytes:
        """The file form."""
        return self.envelope.encode() + b"\n"


def make(old: Party, new: Party, *, time: datetime, keys: Iterable[sign.SigningKey]) -> Rotation:
    """The statement, signed with `keys`: those of `old` and of `new`. Raises `Malformed` for one that is none."""
    payload = canonical.dumps(
        {"format": FORMAT, "time": fields.format_time(time), "old": old.to_json(), "new": new.to_json()}
    )
    bare = dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=())
    by_keyid = {party_model.keyid(key.public): key for key in keys}
    signatures = tuple(
        dsse.DsseSignature(keyid=keyid, sig=key.sign(bare.pae())) for keyid, key in by_keyid.items()
    )
    return read(dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=signatures).encode())


def read(data: bytes) -> Rotation:
    """Parse a statement. Raises `Malformed`."""
    envelope = dsse.parse(data, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    top = fields.Fields(
        canonical.loads(envelope.payload, what="rotation", max_bytes=MAX_BYTES), "rotation", quoting=True
    )
    top.constant("format", FORMAT)
    time = top.time("time")
    old, new = (_party(top.object(key)) for key in ("old", "new"))
    top.done()
    if old.name != new.name:
        raise Malformed(
            f"rotation.new.name: expected {old.name!r}, as a party keeps its name, got {new.name!r}",
            code="bad-value",
        )
    if not party_model.differences(old, new):
        raise Malformed(
            "rotation.new: expected another key than in rotation.old, got the same ones", code="bad-value"
        )
    if _ledger(old) != _ledger(new):
        raise Malformed(
            "rotation.new.broker.ledger_key: expected the one in rotation.old, as a ledger keeps its key, got another",
            code="bad-value",
            hint="a broker with another ledger is made with `strongroom broker init`",
        )
    return Rotation(envelope=envelope, old=old, new=new, time=time)


def verify(rotation: Rotation, held: Party) -> Party:
    """The party's new public part, where `held` is its old one and both keys signed. Raises `Refused`."""
    _check_held(rotation.old, held, "begin")
    keys = {"old": held.signing_key, "new": rotation.new.signing_key}
    signed = signatures.by_key(rotation.envelope, keys.values())
    for which, key in keys.items():
        if key not in signed:
            raise Refused(
                f"rotation: expected a signature by the {which} key {party_model.keyid(key)}, got none that verifies",
                code="bad-signature",
                hint="get the statement from the party itself; `strongroom identity rotate` writes it",
            )
    return rotation.new


def former(rotation: Rotation, held: Party) -> Party:
    """The party's old public part, where `held` is its new one and both keys signed. Raises `Refused`."""
    _check_held(rotation.new, held, "end")
    verify(rotation, rotation.old)
    return rotation.old


def _check_held(stated: Party, held: Party, where: str) -> None:
    differing = party_model.differences(stated, held)
    if differing:
        differences = "; ".join(f"{field} is {theirs}, not {mine}" for field, theirs, mine in differing)
        raise Refused(
            f"rotation: it does not {where} at the keys that are held of {held.name}: {differences}",
            code="other-party",
            hint="rotations are followed one after the other, from the party file that you have",
        )


def _party(source: fields.Fields) -> Party:
    party = party_model.read(source)
    source.done()
    return party


def _ledger(party: Party) -> bytes:
    return b"" if party.broker is None else party.broker.ledger_key
