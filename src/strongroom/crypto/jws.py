"""Signed requests of ACME: JWS in flattened JSON (RFC 7515, section 7.2.2; RFC 8555, section 6.2) and their keys (RFC 7517, 7518, 8037).

The algorithm is decided by the key, never by the request alone: a key of one kind has one algorithm, and symmetric ones are
for external account binding, where the key is looked up and never read from the request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from strongroom.encoding import canonical, unexpected
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

MAX_BYTES = 32 * 1024
_CURVES: dict[str, tuple[type[ec.EllipticCurve], int, str]] = {
    "P-256": (ec.SECP256R1, 32, "ES256"),
    "P-384": (ec.SECP384R1, 48, "ES384"),
}
_HASHES = {"ES256": hashes.SHA256, "ES384": hashes.SHA384}
_RSA_BITS = (2048, 4096)
_EXPONENT = 65537


@dataclass(frozen=True, kw_only=True)
class Jws:
    """A parsed request, which nobody has verified. protected: its header. payload: decoded; empty for POST-as-GET."""

    protected: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    def text(self, name: str) -> str:
        """A text of the header. Raises `Malformed`."""
        value = self.protected.get(name)
        if not isinstance(value, str):
            raise Malformed(f"request's header: {name}: expected text, got {unexpected.kind(value)}")
        return value


@dataclass(frozen=True, kw_only=True)
class Jwk:
    """A public key: its required members alone, sorted, of which the thumbprint is made (RFC 7638)."""

    members: Mapping[str, str]
    algorithm: str
    key: PublicKey

    @property
    def thumbprint(self) -> str:
        """base64url of SHA-256 over the members."""
        return b64(hashlib.sha256(canonical.dumps(dict(self.members))).digest())


def b64(data: bytes) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: object, what: str) -> bytes:
    """Decode base64url without padding, in its one spelling. Raises `Malformed`."""
    if not isinstance(text, str):
        raise Malformed(f"{what}: expected base64url, got {unexpected.kind(text)}")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Malformed(f"{what}: expected base64url without padding") from None
    if b64(data) != text:
        raise Malformed(f"{what}: expected base64url without padding, in its one spelling")
    return data


def parse(data: bytes, *, what: str = "request") -> Jws:
    """Parse a flattened JWS. Raises `Malformed`."""
    top = _object(canonical.loads(data, what=what, max_bytes=MAX_BYTES), what)
    if set(top) != {"protected", "payload", "signature"}:
        raise Malformed(
            f"{what}: expected protected, payload and signature, got {', '.join(sorted(top))[:100] or 'nothing'}"
        )
    header = unb64(top["protected"], f"{what}.protected")
    protected = _object(
        canonical.loads(header, what=f"{what}'s header", max_bytes=MAX_BYTES), f"{what}'s header"
    )
    if "crit" in protected or "b64" in protected:
        raise Malformed(f"{what}'s header: crit and b64 are extensions that nothing here understands")
    return Jws(
        protected=protected,
        payload=unb64(top["payload"], f"{what}.payload"),
        signing_input=f"{top['protected']}.{top['payload']}".encode("ascii"),
        signature=unb64(top["signature"], f"{what}.signature"),
    )


def read_jwk(value: object) -> Jwk:
    """Read a public key. Members beyond the required are left out; a private one is refused. Raises `Malformed`."""
    source = _object(value, "jwk")
    kind = source.get("kty")
    if "d" in source or kind == "oct":
        raise Malformed("jwk: holds a private or a shared key")
    try:
        if kind == "EC":
            return _curve_key(source)
        if kind == "OKP" and source.get("crv") == "Ed25519":
            x = unb64(source.get("x"), "jwk.x")
            key = ed25519.Ed25519PublicKey.from_public_bytes(x)
            return Jwk(members={"crv": "Ed25519", "kty": "OKP", "x": b64(x)}, algorithm="EdDSA", key=key)
        if kind == "RSA":
            return _rsa_key(source)
    except ValueError:
        raise Malformed("jwk: no point of its curve, or no key of its kind") from None
    raise Malformed(
        f"jwk: expected a key of kind EC, OKP (Ed25519) or RSA, got {unexpected.quoted(str(kind))}"
    )


def verify(jws: Jws, jwk: Jwk) -> None:
    """Raise `Refused` unless the request is signed by that key, with the key's own algorithm."""
    if jws.protected.get("alg") != jwk.algorithm:
        raise Refused(
            f"request: expected the algorithm {jwk.algorithm} of its key, got {unexpected.quoted(str(jws.protected.get('alg')))}",
            code="bad-signature-algorithm",
            hint="an account's key decides the algorithm of its requests",
        )
    try:
        _check(jwk, jws.signature, jws.signing_input)
    except (InvalidSignature, ValueError):
        raise Refused(
            "request: its signature does not verify by the account's key",
            code="bad-signature",
            hint="sign with the key of the account that `kid` names",
        ) from None


def verify_hmac(jws: Jws, key: bytes) -> None:
    """Raise `Refused` unless it is authenticated by that key, with HS256."""
    expected = hmac.new(key, jws.signing_input, "sha256").digest()
    if jws.protected.get("alg") != "HS256" or not hmac.compare_digest(expected, jws.signature):
        raise Refused(
            "external account binding: not made with the key that goes with its kid",
            code="bad-binding",
            hint="use kid and key as the room got them, of one generation",
        )


def _check(jwk: Jwk, signature: bytes, signed: bytes) -> None:
    key = jwk.key
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = key.key_size // 8
        if len(signature) != 2 * size:
            raise ValueError
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(_HASHES[jwk.algorithm]()))
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, signed)
    else:
        key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())


def _curve_key(source: Mapping[str, Any]) -> Jwk:
    name = source.get("crv")
    if name not in _CURVES:
        raise Malformed(f"jwk.crv: expected {' or '.join(_CURVES)}, got {unexpected.quoted(str(name))}")
    curve, size, algorithm = _CURVES[name]
    x, y = unb64(source.get("x"), "jwk.x"), unb64(source.get("y"), "jwk.y")
    if (len(x), len(y)) != (size, size):
        raise Malformed(f"jwk: expected coordinates of {size} bytes")
    key = ec.EllipticCurvePublicKey.from_encoded_point(curve(), b"\x04" + x + y)
    return Jwk(members={"crv": name, "kty": "EC", "x": b64(x), "y": b64(y)}, algorithm=algorithm, key=key)


def _rsa_key(source: Mapping[str, Any]) -> Jwk:
    n, e = unb64(source.get("n"), "jwk.n"), unb64(source.get("e"), "jwk.e")
    if n[:1] == b"\0" or e[:1] == b"\0":
        raise Malformed("jwk: a number with leading zeros has two spellings")
    modulus, exponent = int.from_bytes(n, "big"), int.from_bytes(e, "big")
    if not _RSA_BITS[0] <= modulus.bit_length() <= _RSA_BITS[1] or exponent != _EXPONENT:
        raise Malformed(
            f"jwk: expected an RSA key of {_RSA_BITS[0]} to {_RSA_BITS[1]} bits with the exponent {_EXPONENT}"
        )
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return Jwk(members={"e": b64(e), "kty": "RSA", "n": b64(n)}, algorithm="RS256", key=key)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object, got {unexpected.kind(value)}")
    return value
