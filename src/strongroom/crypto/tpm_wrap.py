"""What a credential for a TPM is wrapped with: OAEP or ECDH to its endorsement key, then AES-CFB.

Specs: TCG TPM 2.0 Library, Part 1, annexes B.4 (OAEP with a label), C.6 (one-pass ECDH), 11.4.10 (KDFs).
The randomness is the operating system's.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from strongroom.errors import Refused

if TYPE_CHECKING:
    from strongroom.crypto.public_key import PublicKey

_HASHES: dict[str, hashes.HashAlgorithm] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}
_BLOCK = 16


def oaep(key: PublicKey, secret: bytes, *, label: bytes, hash: str) -> bytes:
    """`secret` encrypted to an RSA key. Raises `Refused` for another kind of key."""
    if not isinstance(key.library, rsa.RSAPublicKey):
        raise Refused(f"the key is {key.kind}, not RSA", code="wrong-key")
    over = _HASHES[hash]
    return key.library.encrypt(secret, padding.OAEP(mgf=padding.MGF1(over), algorithm=over, label=label))


def ecdh(key: PublicKey) -> tuple[bytes, bytes, bytes, bytes]:
    """A fresh point's x and y, the shared x, and the key's own x, each as long as a coordinate.

    Raises `Refused` for a key that is not on P-256 or P-384.
    """
    if not isinstance(key.library, ec.EllipticCurvePublicKey) or key.kind not in ("secp256r1", "secp384r1"):
        raise Refused(f"the key is {key.kind}, not on P-256 or P-384", code="wrong-key")
    size = (key.library.curve.key_size + 7) // 8
    fresh = ec.generate_private_key(key.library.curve)
    shared = fresh.exchange(ec.ECDH(), key.library)
    mine, theirs = fresh.public_key().public_numbers(), key.library.public_numbers()
    return mine.x.to_bytes(size, "big"), mine.y.to_bytes(size, "big"), shared, theirs.x.to_bytes(size, "big")


def kdf_a(hash: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa: HMAC in counter mode (SP 800-108). label without its NUL; context: both parties' parts joined."""
    out, counter = b"", 0
    while 8 * len(out) < bits:
        counter += 1
        block = counter.to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
        out += hmac.digest(key, block, hash)
    return out[: bits // 8]


def kdf_e(hash: str, shared: bytes, label: bytes, parties: bytes, bits: int) -> bytes:
    """KDFe: the hash of counter, shared secret, label and both parties' x (SP 800-56A)."""
    out, counter = b"", 0
    while 8 * len(out) < bits:
        counter += 1
        out += hashlib.new(hash, counter.to_bytes(4, "big") + shared + label + b"\0" + parties).digest()
    return out[: bits // 8]


def aes_cfb(key: bytes, plaintext: bytes) -> bytes:
    """`plaintext` under AES-CFB from a zero vector: right only for a key that is used once, as here."""
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(_BLOCK))).encryptor()
    return encryptor.update(plaintext) + encryptor.finalize()
