"""An ACME client (RFC 8555) for tests: its requests, each part of which can be bent."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An account's key. kind: the algorithm."""

    def __init__(self, kind: str = "ES256") -> None:
        self.alg = kind
        self.private: Any
        if kind == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
            numbers = self.private.public_key().public_numbers()
            point = {"x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}
            self.jwk = {"kty": "EC", "crv": "P-256", **point}
        elif kind == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            raw = self.private.public_key().public_bytes_raw()
            self.jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            n = self.private.public_key().public_numbers().n
            self.jwk = {"kty": "RSA", "n": b64(n.to_bytes(256, "big")), "e": b64(b"\1\0\1")}

    def sign(self, data: bytes) -> bytes:
        """As JWS has signatures."""
        if self.alg == "ES256":
            r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self.alg == "EdDSA":
            return bytes(self.private.sign(data))
        return bytes(self.private.sign(data, padding.PKCS1v15(), hashes.SHA256()))


def request(key: Key, where: str, payload: Any, *, nonce: str, kid: str = "", **changed: Any) -> bytes:
    """A request's bytes; payload None: POST-as-GET. kid: of the account; empty: the key stands there. changed: of its header."""
    who = {"kid": kid} if kid else {"jwk": key.jwk}
    header = {"alg": key.alg, "nonce": nonce, "url": where, **who, **changed}
    protected = b64(json.dumps({name: one for name, one in header.items() if one is not None}).encode())
    body = "" if payload is None else b64(json.dumps(payload).encode())
    signature = b64(key.sign(f"{protected}.{body}".encode()))
    return json.dumps({"protected": protected, "payload": body, "signature": signature}).encode()


def binding(jwk: Any, where: str, *, kid: str, key: bytes, **changed: Any) -> dict[str, str]:
    """An external account binding. changed: of its header."""
    header = {"alg": "HS256", "kid": kid, "url": where, **changed}
    protected = b64(json.dumps(header).encode())
    payload = b64(json.dumps(jwk).encode())
    mac = hmac.new(key, f"{protected}.{payload}".encode(), "sha256").digest()
    return {"protected": protected, "payload": payload, "signature": b64(mac)}
