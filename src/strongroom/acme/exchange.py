"""What ACME's resources answer (RFC 8555, section 7), as far as they need no storage.

An account counts only with an external account binding whose kid and key a room got with its release: so every account is of an
attested room, and each authorisation is valid from the start; attestation took the challenge's place. What a room may be called is
in its kid, from the contract: an order for another name is refused.

  1 the request is for this URL, and its nonce is one of ours
  2 its account is one of ours (or, for a new one, the binding is), and its signature is by the account's key
  3 only then its nonce is used up, and its payload read
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.acme.tokens import AcmeAccount, AcmeOrder
from strongroom.crypto import jws as jws_model
from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed, NotFound, Refused, StrongroomError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.acme.nonces import ReplayNonces
    from strongroom.acme.tokens import AccountRoom, TokenMaker

JSON = "application/json"
CHAIN = "application/pem-certificate-chain"
PROBLEM = "application/problem+json"
_MAX_IDENTIFIERS = 32
_MAX_CSR = 8192
# Codes of this project's errors as ACME's types (RFC 8555, section 6.7); `malformed` for what does not parse.
_TYPES = {
    "bad-nonce": "badNonce",
    "bad-signature": "unauthorized",
    "bad-signature-algorithm": "badSignatureAlgorithm",
    "bad-binding": "unauthorized",
    "unknown-token": "accountDoesNotExist",
    "no-binding": "externalAccountRequired",
    "other-name": "rejectedIdentifier",
    "bad-request": "badCSR",
    "not-standing": "unauthorized",
    "too-many-certificates": "rateLimited",
}
_STATUS = {"rateLimited": 429, "badNonce": 400, "malformed": 400, "badSignatureAlgorithm": 400, "badCSR": 400}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer. location: a resource's URL, where one was made or is meant."""

    body: bytes
    status: int = 200
    media_type: str = JSON
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """The resources below `base`, an URL without a slash at its end. random: from the operating system."""

    base: str
    tokens: TokenMaker
    nonces: ReplayNonces
    random: Callable[[int], bytes]

    def directory(self) -> Answer:
        """Where everything is (section 7.1.1)."""
        names = {
            "newNonce": "new-nonce",
            "newAccount": "new-account",
            "newOrder": "new-order",
            "revokeCert": "revoke-certificate",
            "keyChange": "key-change",
        }
        document: dict[str, object] = {name: f"{self.base}/{path}" for name, path in names.items()}
        return _answer({**document, "meta": {"externalAccountRequired": True}})

    def new_account(self, body: bytes, now: datetime) -> Answer:
        """Section 7.3: an account for the key that signed, bound to a room's external account (7.3.4)."""
        request = self._fresh(body, "new-account", now)
        jwk = jws_model.read_jwk(request.protected.get("jwk"))
        if "kid" in request.protected:
            raise Malformed("request's header: has jwk and kid, expected one of them")
        jws_model.verify(request, jwk)
        payload = _payload(request)
        if payload.get("onlyReturnExisting") is True:
            raise Refused(
                "account: none is kept here",
                code="unknown-token",
                hint="register again: it makes the same account",
            )
        binding = payload.get("externalAccountBinding")
        if binding is None:
            raise Refused(
                "account: no external account binding",
                code="no-binding",
                hint="give the kid and the key that the room got when it attested (certbot: --eab-kid, --eab-hmac-key)",
            )
        inner = jws_model.parse(canonical.dumps(binding), what="external account binding")
        attested, key = self.tokens.read_external_account(inner.text("kid"))
        jws_model.verify_hmac(inner, key)
        if inner.text("url") != f"{self.base}/new-account":
            raise Malformed("external account binding: made for another URL")
        bound = jws_model.read_jwk(
            canonical.loads(inner.payload, what="external account binding", max_bytes=jws_model.MAX_BYTES)
        )
        if bound.thumbprint != jwk.thumbprint:
            raise Refused(
                "external account binding: is of another key than the account's",
                code="bad-binding",
                hint="the binding's payload is the key that signs the request",
            )
        self._use(request, attested, now)
        account = AcmeAccount(attested=attested, jwk=jwk)
        where = f"{self.base}/account/{self.tokens.account(account)}"
        return _answer({"status": "valid", "orders": f"{where}/orders"}, status=201, location=where)

    def account(self, token: str, body: bytes, now: datetime) -> Answer:
        """Section 7.3.2: an account can be asked for; nothing of it is there to be changed."""
        self._authenticated(body, f"account/{token}", now)
        where = f"{self.base}/account/{token}"
        return _answer({"status": "valid", "orders": f"{where}/orders"}, location=where)

    def new_order(self, body: bytes, now: datetime) -> Answer:
        """Section 7.4: ready at once, for names that the room may carry."""
        account, payload = self._authenticated(body, "new-order", now)
        names = _identifiers(payload)
        if strangers := sorted(set(names) - set(account.attested.names)):
            raise Refused(
                f"order: the contract gives the room {account.attested.room} no name {unexpected.quoted(strangers[0])}",
                code="other-name",
                hint=f"it may be called {', '.join(account.attested.names)}",
            )
        order = AcmeOrder(
            id=jws_model.b64(self.random(16)),
            attested=account.attested,
            thumbprint=account.jwk.thumbprint,
            names=names,
        )
        return self.order_answer(order, status=201)

    def authorization(self, token: str, number: str, body: bytes, now: datetime) -> Answer:
        """Section 7.5: valid, by attestation; the challenge is there for clients that look for one."""
        order = self._ordered(token, body, f"authorization/{token}/{number}", now)
        name = order.names[_index(number, len(order.names))]
        challenge = {**_CHALLENGE, "url": f"{self.base}/challenge/{token}/{number}"}
        identifier = {"type": "dns", "value": name}
        return _answer(
            {"status": "valid", "identifier": identifier, "challenges": [challenge], "expires": _NEVER}
        )

    def challenge(self, token: str, number: str, body: bytes, now: datetime) -> Answer:
        """Section 7.5.1: it was met before."""
        order = self._ordered(token, body, f"challenge/{token}/{number}", now)
        _index(number, len(order.names))
        return _answer({**_CHALLENGE, "url": f"{self.base}/challenge/{token}/{number}"})

    def finalize(self, token: str, body: bytes, now: datetime) -> tuple[AcmeOrder, bytes]:
        """Section 7.4: the order and the certificate request (DER), which its use case looks at."""
        order, payload = self._ordered_with(token, body, f"finalize/{token}", now)
        csr = jws_model.unb64(payload.get("csr"), "request.csr")
        if not 0 < len(csr) <= _MAX_CSR:
            raise Malformed(f"request.csr: {len(csr)} bytes, at most {_MAX_CSR} allowed")
        return order, csr

    def order(self, token: str, body: bytes, now: datetime) -> AcmeOrder:
        """Section 7.4: the order that is asked for."""
        return self._ordered(token, body, f"order/{token}", now)

    def certificate(self, token: str, body: bytes, now: datetime) -> AcmeOrder:
        """Section 7.4.2: the order whose certificate is asked for."""
        return self._ordered(token, body, f"certificate/{token}", now)

    def order_answer(self, order: AcmeOrder, *, issued: bool = False, status: int = 200) -> Answer:
        """The order's document. issued: whether its certificate is there."""
        token = self.tokens.order(order)
        document: dict[str, object] = {
            "status": "valid" if issued else "ready",
            "expires": _NEVER,
            "identifiers": [{"type": "dns", "value": name} for name in order.names],
            "authorizations": [
                f"{self.base}/authorization/{token}/{number}" for number in range(len(order.names))
            ],
            "finalize": f"{self.base}/finalize/{token}",
        }
        if issued:
            document["certificate"] = f"{self.base}/certificate/{token}"
        return _answer(document, status=status, location=f"{self.base}/order/{token}")

    def _fresh(self, body: bytes, path: str, now: datetime) -> jws_model.Jws:
        request = jws_model.parse(body)
        wanted = f"{self.base}/{path}"
        if request.text("url") != wanted:
            raise Malformed(f"request's header: url: expected {wanted[:200]}, where it was sent, got another")
        if not self.nonces.good(request.text("nonce"), now):
            raise _bad_nonce()
        return request

    def _use(self, request: jws_model.Jws, attested: AccountRoom, now: datetime) -> None:
        """Use up the nonce of a request that is authenticated."""
        if not self.nonces.use(request.text("nonce"), now, run=attested.run_id):
            raise _bad_nonce()

    def _authenticated(self, body: bytes, path: str, now: datetime) -> tuple[AcmeAccount, dict[str, Any]]:
        request = self._fresh(body, path, now)
        if "jwk" in request.protected:
            raise Malformed("request's header: has a jwk, expected the kid of an account")
        kid, prefix = request.text("kid"), f"{self.base}/account/"
        account = self.tokens.read_account(kid.removeprefix(prefix) if kid.startswith(prefix) else "")
        jws_model.verify(request, account.jwk)
        self._use(request, account.attested, now)
        return account, _payload(request)

    def _ordered_with(
        self, token: str, body: bytes, path: str, now: datetime
    ) -> tuple[AcmeOrder, dict[str, Any]]:
        account, payload = self._authenticated(body, path, now)
        order = self.tokens.read_order(token)
        if (order.thumbprint, order.attested) != (account.jwk.thumbprint, account.attested):
            raise Refused(
                "order: is another account's",
                code="unknown-token",
                hint="ask with the account that ordered",
            )
        return order, payload

    def _ordered(self, token: str, body: bytes, path: str, now: datetime) -> AcmeOrder:
        return self._ordered_with(token, body, path, now)[0]


# Clients want a time; what ends an authorisation is the room's verdict, which is asked when a certificate is issued.
_NEVER = "9999-12-31T23:59:59Z"
_CHALLENGE = {
    "type": "http-01",
    "status": "valid",
    "token": jws_model.b64(b"attested, not challenged"),
    "validated": "1970-01-01T00:00:00Z",
}


def _bad_nonce() -> Refused:
    return Refused(
        "request: its nonce is not one of this broker's, or is used or too old",
        code="bad-nonce",
        hint="take the nonce of this answer, and send the request again",
    )


def problem(failure: StrongroomError) -> Answer:
    """An error as a problem document (RFC 7807; RFC 8555, section 6.7)."""
    kind, status = "serverInternal", 500
    if isinstance(failure, NotFound):
        kind, status = "malformed", 404
    elif isinstance(failure, (Malformed, Refused)):
        kind = _TYPES.get(failure.code, "malformed")
        status = _STATUS.get(kind, 403)
    detail = failure.message + (f" ({failure.hint})" if failure.hint else "")
    return _answer(
        {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status},
        status=status,
        media_type=PROBLEM,
    )


def _answer(
    document: dict[str, Any], *, status: int = 200, location: str = "", media_type: str = JSON
) -> Answer:
    return Answer(body=canonical.dumps(document), status=status, location=location, media_type=media_type)


def _payload(request: jws_model.Jws) -> dict[str, Any]:
    """The payload as an object; an empty one for POST-as-GET (section 6.3)."""
    if not request.payload:
        return {}
    value = canonical.loads(request.payload, what="request.payload", max_bytes=jws_model.MAX_BYTES)
    if not isinstance(value, dict):
        raise Malformed(f"request.payload: expected an object, got {unexpected.kind(value)}")
    return value


def _identifiers(payload: dict[str, Any]) -> tuple[str, ...]:
    top = fields.Fields({"identifiers": payload.get("identifiers")}, "order")
    names = []
    for item in top.objects("identifiers", max_items=_MAX_IDENTIFIERS):
        kind = item.text("type", max_length=16)
        if kind != "dns":
            raise Refused(
                f"order: an identifier of type {unexpected.quoted(kind)}",
                code="other-name",
                hint="rooms have DNS names",
            )
        names.append(item.text("value", max_length=253))
    if not names:
        raise Malformed("order: no identifiers")
    return tuple(dict.fromkeys(names))


def _index(number: str, count: int) -> int:
    if not (number.isascii() and number.isdigit() and len(number) <= 2 and int(number) < count):
        raise Malformed(f"authorization: expected a number below {count}")
    return int(number)
