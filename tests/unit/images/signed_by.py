"""Signatures of images as cosign and Sigstore make them."""

from __future__ import annotations

import copy
import functools
import json
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from strongroom.crypto import pinned_key
from strongroom.images import keyless as image_keyless
from strongroom.images.signatures import Bundle, Simple, Trust
from strongroom_testing.vendors import fake_sigstore
from strongroom_testing.vendors.fake_sigstore import IDENTITY, ISSUER, FakeSigstore, statement

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64

CURVES = {
    "ECDSA P-256": (ec.SECP256R1(), hashes.SHA256()),
    "ECDSA P-384": (ec.SECP384R1(), hashes.SHA384()),
    "ECDSA P-521": (ec.SECP521R1(), hashes.SHA512()),
}


@functools.cache
def private(kind, number=0):
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind][0])
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.split()[1]))


def public_pem(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(kind, message, number=0):
    key = private(kind, number)
    if kind in CURVES:
        return key.sign(message, ec.ECDSA(CURVES[kind][1]))
    return key.sign(message) if kind == "Ed25519" else key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def trust(kind, number=0):
    return Trust(keys=(pinned_key.load(public_pem(private(kind, number))),))


def payload(digest=MINE, **changes):
    """As cosign writes it: keys in this order, no white space."""
    critical = {
        "identity": {"docker-reference": "registry.example/team/it"},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": {**critical, **changes}, "optional": {"by": "ci", "n": 1}}).encode()


def simple(kind="ECDSA P-256", digest=MINE, number=0, **changes):
    data = payload(digest, **changes)
    return Simple(payload=data, signature=sign(kind, data, number))


def keyed(kind="ECDSA P-256", data=None):
    made = fake_sigstore.keyed_bundle(data or statement(MINE), lambda message: sign(kind, message))
    return Bundle(data=json.dumps(made).encode())


@functools.cache
def sigstore(number=0):
    return FakeSigstore(now=NOW)


def who(name=IDENTITY, issuer=ISSUER, root=None):
    data = json.dumps(root or sigstore().trusted_root()).encode()
    return Trust(identity=image_keyless.KeylessIdentity(name=name, issuer=issuer, trusted_root=data))


@functools.cache
def good():
    return sigstore().sign(statement(MINE))


def keyless(change=None, **options):
    made = copy.deepcopy(sigstore().sign(statement(MINE), **options) if options else good())
    if change is not None:
        change(made)
    return Bundle(data=json.dumps(made).encode())
