"""An authority's root key that stays in a token: PKCS#11 (v2.40), named by a URI of RFC 7512.

    pkcs11:token=LABEL;object=LABEL?module-path=/path/of/the/module.so

The key is ECDSA P-256, made in the token by its owner; private and public part have one label. The token signs the root itself, each
contract's issuer once, and the root's list: certificates of rooms are signed by issuers, whose keys are the broker's. With the PIN as
`pin-value` the URI is the root's secret in the broker's file, sealed as the keys are that lie there.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from strongroom.crypto import digest, tls
from strongroom.crypto.pki import certificates, key_signer
from strongroom.errors import Misuse, Unavailable

if TYPE_CHECKING:
    from strongroom.crypto.pki.key_signer import KeySigner

SCHEME = "pkcs11:"
_ATTRIBUTE = re.compile(r"([a-z-]{1,32})=((?:[A-Za-z0-9._~/ -]|%[0-9A-Fa-f]{2}){1,512})", re.ASCII)
_HINT = "for example 'pkcs11:token=broker;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so'"


@dataclass(frozen=True, kw_only=True)
class TokenUri:
    """Where a key is. pin: empty where the URI has none; it is never shown."""

    token: str
    object: str
    module: str
    pin: str = field(default="", repr=False)

    def encode(self) -> str:
        """The URI, with its PIN if it has one."""
        path = f"token={quote(self.token, safe='')};object={quote(self.object, safe='')}"
        query = f"module-path={quote(self.module)}"
        if self.pin:
            query += f"&pin-value={quote(self.pin, safe='')}"
        return f"{SCHEME}{path}?{query}"


def parse(uri: str) -> TokenUri:
    """Parse a URI. Raises `Misuse`."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    parts = [*path.split(";"), *(query.split("&") if query else ())]
    matches = [_ATTRIBUTE.fullmatch(part) for part in parts]
    values = {match[1]: unquote(match[2]) for match in matches if match is not None}
    wanted = {"token", "object", "module-path"}
    if (
        not uri.startswith(SCHEME)
        or len(values) != len(parts)
        or values.keys() - {"pin-value"} != wanted
        or not values["module-path"].startswith("/")
    ):
        raise Misuse(
            "--key: expected pkcs11:token=LABEL;object=LABEL?module-path=/PATH, and nothing else in it",
            hint=_HINT,
        )
    return TokenUri(
        token=values["token"],
        object=values["object"],
        module=values["module-path"],
        pin=values.get("pin-value", ""),
    )


def open_root_key(secret: bytes) -> KeySigner:
    """What signs for a root: the key in `secret`, or the one in the token that it names. Raises `Malformed`, `Misuse`, `Unavailable`."""
    if secret.startswith(SCHEME.encode()):
        return TokenKey(parse(secret.decode()))
    return key_signer.held(tls.TlsKey(secret))


def with_pin(uri: str, pin: bytes) -> bytes:
    """The secret for the broker's file. Raises `Misuse` for a URI that has a PIN in it already: arguments are seen by others."""
    parsed = parse(uri)
    if parsed.pin:
        raise Misuse(
            "--key: the PIN stands in the URI, where other users of this machine read it",
            hint="leave pin-value out: the PIN is asked for, or read from --pin-fd",
        )
    return replace(parsed, pin=pin.decode("utf-8", "replace")).encode().encode()


class TokenKey:
    """A key in a token. One session for each process, made at the first use; safe among threads."""

    def __init__(self, uri: TokenUri) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._process = 0
        self._session: Any = None
        self._private: Any = None
        self._spki = b""

    @property
    def spki(self) -> bytes:
        """The public key: SubjectPublicKeyInfo, DER. Raises `Unavailable`."""
        with self._lock:
            self._opened()
            return self._spki

    def sign(self, data: bytes) -> bytes:
        """ECDSA over the SHA-256 of `data` (DER). Raises `Unavailable`."""
        import pkcs11  # noqa: PLC0415 - of brokers, those with a token alone need it

        with self._lock:
            try:
                raw = self._opened().sign(digest.raw(digest.sha256(data)), mechanism=pkcs11.Mechanism.ECDSA)
            except pkcs11.PKCS11Error as cause:
                self._process = 0  # the next use opens anew: a token that was pulled and is back
                raise self._out_of_reach(cause) from None
        return key_signer.ecdsa_der(bytes(raw))

    def _opened(self) -> Any:
        import pkcs11  # noqa: PLC0415 - as above
        from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415 - as above

        if self._process == os.getpid():
            return self._private
        try:
            library = pkcs11.lib(self._uri.module)
            if self._process:  # forked since: the module's state is the parent's
                library.reinitialize()
            token = library.get_token(token_label=self._uri.token)
            try:
                self._session = token.open(user_pin=self._uri.pin)
            except pkcs11.exceptions.UserAlreadyLoggedIn:
                self._session = token.open()  # a login is the whole process's, by whichever session
            kind = {"key_type": pkcs11.KeyType.EC, "label": self._uri.object}
            self._private = self._session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, **kind)
            public = self._session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **kind)
            self._spki = bytes(encode_ec_public_key(public))
        except (pkcs11.PKCS11Error, RuntimeError, OSError) as cause:
            raise self._out_of_reach(cause) from None
        if certificates.key_kind(self._spki) != "ecdsa-p256":
            raise Misuse(
                f"token {self._uri.token!r}: {self._uri.object!r}: expected a key on P-256",
                hint="make one in the token: `pkcs11-tool --keypairgen --key-type EC:prime256v1 …`",
            )
        self._process = os.getpid()
        return self._private

    def _out_of_reach(self, cause: Exception) -> Unavailable:
        return Unavailable(
            f"token {self._uri.token!r}: the key {self._uri.object!r} is out of reach: {type(cause).__name__}",
            code="token",
            hint=f"is the token there, with an EC key pair of that label and that PIN? The module is {self._uri.module}",
        )
