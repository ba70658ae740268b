"""A party: somebody who signs contracts, and where that party's broker is.

The public part is one small JSON file to hand around (`strongroom identity show`)::

    {"format": "strongroom-party/1", "name": "alice", "signing_key": BASE64(32 bytes),
     "recipient": "age1…", "broker": null | {"url", "pin", "ledger_key", "authority"}}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from strongroom.crypto import age, digest, sign
from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model.identifiers import KeyId, PartyName

FORMAT = "strongroom-party/1"
MAX_BYTES = 64 * 1024
BROKER_URL = re.compile(
    r"https://(?P<host>(?=[A-Za-z0-9.-]{1,253}:)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*|\[[0-9a-f:]{2,39}\])"
    r":(?P<port>[0-9]{1,5})",
    re.ASCII,
)


URL_LIKE = "https://HOST:PORT, with a port from 1 to 65535"


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """How to reach a broker and to know it again.

    `pin` is the digest of its TLS key (SubjectPublicKeyInfo, DER); `ledger_key` the 32-byte Ed25519
    key of its checkpoints; `authority` the digest of its certificate authority's certificate (DER).
    """

    url: str
    pin: str
    ledger_key: bytes
    authority: str

    @property
    def host(self) -> str:
        """Host name or address, without brackets."""
        match = BROKER_URL.fullmatch(self.url)
        if match is None:
            raise self._bad_url()
        return match["host"].strip("[]")

    @property
    def port(self) -> int:
        """TCP port, 1 to 65535."""
        match = BROKER_URL.fullmatch(self.url)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise self._bad_url()
        return int(match["port"])

    def _bad_url(self) -> Malformed:
        return Malformed(f"broker.url: expected {URL_LIKE}, got {unexpected.quoted(self.url)}")

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "url": self.url,
            "pin": self.pin,
            "ledger_key": fields.format_data(self.ledger_key),
            "authority": self.authority,
        }


@dataclass(frozen=True, kw_only=True)
class Party:
    """The public half of an identity."""

    name: PartyName
    signing_key: sign.VerifyingKey
    recipient: str
    broker: BrokerAddress | None

    @cached_property
    def keyid(self) -> KeyId:
        """The digest of the signing key, by which signatures name it."""
        return keyid(self.signing_key)

    def to_json(self) -> dict[str, object]:
        """The object form, without the format line."""
        return {
            "name": self.name,
            "signing_key": fields.format_data(self.signing_key.raw),
            "recipient": self.recipient,
            "broker": None if self.broker is None else self.broker.to_json(),
        }

    def encode(self) -> bytes:
        """The file form."""
        return canonical.dumps({"format": FORMAT, **self.to_json()}) + b"\n"


def keyid(key: sign.VerifyingKey) -> KeyId:
    """The digest of a signing key."""
    return KeyId(digest.sha256(key.raw))


def differences(entry: Party, file: Party) -> tuple[tuple[str, str, str], ...]:
    """(field, entry's, file's) wherever a contract's entry for a party is not that party's file.

    All fields count, each key of the broker too. Where the broker listens alone may differ: a broker may move under
    a standing contract, and what it is known by does not change with that.
    """
    pairs = [
        ("name", entry.name, file.name),
        ("signing_key", entry.keyid, file.keyid),
        ("recipient", entry.recipient, file.recipient),
    ]
    named, held = entry.broker, file.broker
    if named is None or held is None:
        pairs.append(
            ("broker", "none" if named is None else named.url, "none" if held is None else held.url),
        )
    else:
        pairs += [
            ("broker.pin", named.pin, held.pin),
            (
                "broker.ledger_key",
                fields.format_data(named.ledger_key),
                fields.format_data(held.ledger_key),
            ),
            ("broker.authority", named.authority, held.authority),
        ]
    return tuple(pair for pair in pairs if pair[1] != pair[2])


def parse(data: bytes) -> Party:
    """Parse the file form. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="party", max_bytes=MAX_BYTES), "party", quoting=True)
    top.constant("format", FORMAT)
    party = read(top)
    top.done()
    return party


def read(source: fields.Fields) -> Party:
    """Read a party's own keys out of `source`; the caller checks that nothing is left."""
    name = PartyName(source.name("name"))
    key = source.data("signing_key", max_bytes=32, exactly=32)
    recipient = age.check_recipient(source.text("recipient", max_length=100))
    inner = source.object_or_null("broker")
    return Party(
        name=name,
        signing_key=sign.VerifyingKey(key),
        recipient=recipient,
        broker=None if inner is None else _read_broker(inner),
    )


def _read_broker(source: fields.Fields) -> BrokerAddress:
    address = BrokerAddress(
        url=source.text("url", max_length=300, pattern=BROKER_URL, like=URL_LIKE),
        pin=source.digest("pin"),
        ledger_key=source.data("ledger_key", max_bytes=32, exactly=32),
        authority=source.digest("authority"),
    )
    source.done()
    _ = address.port  # raises where the pattern lets through what is none
    return address
