"""What a broker hands out in ACME and knows again without having kept it: tokens, each with a MAC of the broker's own key.

    token = base64url(JSON) "." base64url(HMAC-SHA256(key, frame(LABEL, purpose, JSON))[:16])

A token for one purpose is none for another. Nothing in it is secret; the key of an external account is derived from its token.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.crypto import jws
from strongroom.encoding import canonical, fields, framed
from strongroom.errors import Malformed, Refused
from strongroom.model.contracts.certificate_terms import Usage
from strongroom.model.identifiers import ContractDigest, ContractId, RoomName, RunId

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL = "strongroom/acme/1"
_TAG = 16
MAX_BYTES = 8192
_MAX_NAMES = 32
# What tokens are for.
_BINDING, _ACCOUNT, _ORDER = "external-account", "account", "order"


@dataclass(frozen=True, kw_only=True)
class AccountRoom:
    """The room that an external account is of, as its contract and its accepted evidence say. names: that certificates of it may carry."""

    run_id: RunId
    contract_digest: ContractDigest
    contract_id: ContractId
    room: RoomName
    names: tuple[str, ...]
    usages: tuple[Usage, ...]
    lifetime_seconds: int

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "run": self.run_id,
            "contract": self.contract_digest,
            "id": self.contract_id,
            "room": self.room,
            "names": list(self.names),
            "usages": [usage.value for usage in self.usages],
            "lifetime_seconds": self.lifetime_seconds,
        }


@dataclass(frozen=True, kw_only=True)
class AcmeAccount:
    """An ACME account: a key that somebody in the room bound to it."""

    attested: AccountRoom
    jwk: jws.Jwk


@dataclass(frozen=True, kw_only=True)
class AcmeOrder:
    """An order of an account for a certificate with these names. id: of 16 random bytes."""

    id: str
    attested: AccountRoom
    thumbprint: str
    names: tuple[str, ...]


class TokenMaker:
    """Makes tokens and knows its own. Never shows the key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def external_account(self, attested: AccountRoom) -> tuple[str, bytes]:
        """(kid, key) that a room gets with a release or renewal."""
        kid = self._make(_BINDING, attested.to_json())
        return kid, self._account_key(kid)

    def read_external_account(self, kid: str) -> tuple[AccountRoom, bytes]:
        """The room that a kid is of, and its key. Raises `Refused`."""
        attested = _read_attested(self._read(_BINDING, kid))
        return attested, self._account_key(kid)

    def account(self, account: AcmeAccount) -> str:
        """The token in an account's URL."""
        return self._make(
            _ACCOUNT, {"attested": account.attested.to_json(), "jwk": dict(account.jwk.members)}
        )

    def read_account(self, token: str) -> AcmeAccount:
        """The account of an URL. Raises `Refused`."""
        source = self._read(_ACCOUNT, token)
        return AcmeAccount(
            attested=_read_attested(source.object("attested")), jwk=jws.read_jwk(source.raw_object("jwk"))
        )

    def order(self, order: AcmeOrder) -> str:
        """The token in an order's URLs."""
        return self._make(
            _ORDER,
            {
                "id": order.id,
                "attested": order.attested.to_json(),
                "thumbprint": order.thumbprint,
                "names": list(order.names),
            },
        )

    def read_order(self, token: str) -> AcmeOrder:
        """The order of an URL. Raises `Refused`."""
        source = self._read(_ORDER, token)
        return AcmeOrder(
            id=source.text("id", max_length=32),
            attested=_read_attested(source.object("attested")),
            thumbprint=source.text("thumbprint", max_length=64),
            names=source.texts("names", max_items=_MAX_NAMES, max_length=253),
        )

    def _make(self, purpose: str, value: Mapping[str, Any]) -> str:
        content = canonical.dumps(dict(value))
        return f"{jws.b64(content)}.{jws.b64(self._tag(purpose, content))}"

    def _read(self, purpose: str, token: str) -> fields.Fields:
        head, _, tag = token.partition(".")
        try:
            if len(token) > MAX_BYTES:
                raise Malformed("token: too long")
            content = jws.unb64(head, "token")
            good = hmac.compare_digest(self._tag(purpose, content), jws.unb64(tag, "token"))
        except Malformed:
            good, content = False, b""
        if not good:
            raise Refused(
                f"{purpose}: not one of this broker's",
                code="unknown-token",
                hint="take it as the broker gave it; after a rotation of the broker's keys, attest again and register anew",
            )
        return fields.Fields(canonical.loads(content, what=purpose, max_bytes=MAX_BYTES), purpose)

    def _tag(self, purpose: str, content: bytes) -> bytes:
        return hmac.new(self._key, framed.join(_LABEL, purpose.encode(), content), "sha256").digest()[:_TAG]

    def _account_key(self, kid: str) -> bytes:
        return hmac.new(self._key, framed.join(f"{_LABEL}/account-key", kid.encode()), "sha256").digest()


def _read_attested(source: fields.Fields) -> AccountRoom:
    return AccountRoom(
        run_id=RunId(source.name("run")),
        contract_digest=ContractDigest(source.digest("contract")),
        contract_id=ContractId(source.name("id")),
        room=RoomName(source.name("room")),
        names=source.texts("names", max_items=_MAX_NAMES, max_length=253),
        usages=tuple(Usage(usage) for usage in source.texts("usages", max_items=2, max_length=16)),
        lifetime_seconds=source.integer("lifetime_seconds", low=60, high=86_400),
    )
