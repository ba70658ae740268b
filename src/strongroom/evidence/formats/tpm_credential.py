"""Credentials for TPMs: whoever recovers one proves that an attestation key lives beside an endorsement key.

Specs: TCG TPM 2.0 Library, Part 1, 24 (credential protection); Part 2, 12.2 (public areas), 11.4.4 and 12.4.2
(the blobs); Part 3, 12.5 and 12.6 (ActivateCredential, MakeCredential); TCG EK Credential Profile.
An endorsement key (EK) is certified by a TPM's maker and only decrypts; an attestation key (AK) only signs what its TPM
made. `make` seals a random credential so that TPM2_ActivateCredential opens it only in the TPM that holds the EK, and
only beside the object of that very name: digest of the AK's public area. So the name is taken from a public area that
was parsed and judged here, never from who asks, and the EK from the one certificate that was verified.

Checked here of an AK (`check_attestation_key`): fixed to its TPM and parent, made inside it, restricted, signs and
does not decrypt. Of an EK (`check_endorsement_key`): fixed likewise, restricted, decrypts and does not sign, and its
key is the certified one. `enrol` holds that one machine's name never moves to another EK.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import public_key, tpm_wrap
from strongroom.encoding.reader import Reader
from strongroom.errors import Conflict, Malformed, Misuse, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.crypto.public_key import PublicKey

MAX_PUBLIC = 1024
MAX_CREDENTIAL = 32

FIXED_TPM = 1 << 1
FIXED_PARENT = 1 << 4
SENSITIVE_DATA_ORIGIN = 1 << 5
RESTRICTED = 1 << 16
DECRYPT = 1 << 17
SIGN = 1 << 18

_RSA, _ECC, _NULL, _AES, _CFB = 0x0001, 0x0023, 0x0010, 0x0006, 0x0043
_HASHES = {0x000B: "sha256", 0x000C: "sha384"}
_SIGNING = {0x0014: "rsassa", 0x0016: "rsapss", 0x0018: "ecdsa"}
_CURVES = {0x0003: "secp256r1", 0x0004: "secp384r1"}
_COORDINATES = {"secp256r1": 32, "secp384r1": 48}
_RSA_BITS = range(2048, 4097)
_NATIVE = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN


@dataclass(frozen=True, kw_only=True)
class Public:
    """A parsed TPMT_PUBLIC. symmetric: bits of the AES key of a storage key, 0 for none. scheme: of a signing key.

    name: what the TPM calls the object: the hash's number and the digest of `raw`.
    """

    raw: bytes
    hash: str
    attributes: int
    symmetric: int
    scheme: str
    key: PublicKey

    @property
    def name(self) -> bytes:
        """The object's name, 34 or 50 bytes."""
        number = next(code for code, name in _HASHES.items() if name == self.hash)
        return number.to_bytes(2, "big") + hashlib.new(self.hash, self.raw).digest()


@dataclass(frozen=True, kw_only=True)
class CredentialChallenge:
    """What a TPM is sent: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, sizes included."""

    credential_blob: bytes
    secret: bytes


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """A machine whose AK was proved to live beside its EK; both by the digest of the SubjectPublicKeyInfo."""

    endorsement_key: str
    attestation_key: str


def parse_public(data: bytes) -> Public:
    """Parse TPMT_PUBLIC bytes of an RSA or ECC key. Raises `Malformed`."""
    if len(data) > MAX_PUBLIC:
        raise Malformed(f"TPM public area: {len(data)} bytes, at most {MAX_PUBLIC} allowed", code="too-large")
    reader = Reader(data, "TPM public area")
    kind, hash_name, attributes = reader.u16(), _HASHES.get(reader.u16()), reader.u32()
    if kind not in (_RSA, _ECC) or hash_name is None:
        raise Malformed(
            "TPM public area: expected an RSA or ECC key named by SHA-256 or SHA-384, got another",
            code="unknown-algorithm",
        )
    _sized(reader, 64)  # the policy by which the key may be used: part of its name, judged by the TPM
    symmetric = _symmetric(reader)
    scheme = _scheme(reader)
    key = _rsa(reader) if kind == _RSA else _ecc(reader)
    reader.done()
    return Public(
        raw=data, hash=hash_name, attributes=attributes, symmetric=symmetric, scheme=scheme, key=key
    )


_RESTRICTED = "an attestation key is restricted and signs, an endorsement key is restricted and decrypts; both are made in the TPM"


def check_attestation_key(public: Public) -> None:
    """Raise `Refused` unless `public` is a key that signs only what its own TPM made."""
    _check(public, has=_NATIVE | RESTRICTED | SIGN, lacks=DECRYPT, what="attestation")
    if not public.scheme:
        raise Refused(
            "the attestation key has no signing scheme of its own", code="wrong-key", hint=_RESTRICTED
        )


def check_endorsement_key(public: Public, certified: PublicKey) -> None:
    """Raise `Refused` unless `public` is a storage key of its TPM's and its key is the `certified` one."""
    _check(public, has=_NATIVE | RESTRICTED | DECRYPT, lacks=SIGN, what="endorsement")
    if not public.symmetric:
        raise Refused(
            "the endorsement key protects nothing: it has no symmetric algorithm",
            code="wrong-key",
            hint="make it from a template of the TCG EK Credential Profile",
        )
    if public.key.spki != certified.spki:
        raise Refused(
            "the endorsement key is not the one in its certificate",
            code="wrong-key",
            hint="give the EK certificate of this very TPM",
        )


def make(
    endorsement: Public, certified: PublicKey, attestation: Public, credential: bytes, *, seed: bytes
) -> CredentialChallenge:
    """Seal `credential` so that only `endorsement`'s TPM opens it, and only for `attestation`.

    certified: the key of the EK certificate that the caller verified. credential: 16 to 32 random bytes, at most as
    long as the EK's hash. seed: fresh random bytes, as long as the EK's hash (not used with an ECC key, which brings
    its own). Raises `Refused` for keys that are not what they should be, `Misuse` for lengths.
    """
    check_endorsement_key(endorsement, certified)
    check_attestation_key(attestation)
    size = hashlib.new(endorsement.hash).digest_size
    if not 16 <= len(credential) <= min(size, MAX_CREDENTIAL) or len(seed) != size:
        raise Misuse(
            f"credential: expected 16 to {min(size, MAX_CREDENTIAL)} bytes and a seed of {size}, "
            f"got {len(credential)} and {len(seed)}",
            hint="draw both anew, at random, for each challenge",
        )
    hash_name, name = endorsement.hash, attestation.name
    if endorsement.key.kind == "rsa":
        wrapped = tpm_wrap.oaep(endorsement.key, seed, label=b"IDENTITY\0", hash=hash_name)
    else:
        x, y, shared, theirs = tpm_wrap.ecdh(endorsement.key)
        seed = tpm_wrap.kdf_e(hash_name, shared, b"IDENTITY", x + theirs, 8 * size)
        wrapped = _tpm2b(x) + _tpm2b(y)
    storage = tpm_wrap.kdf_a(hash_name, seed, b"STORAGE", name, endorsement.symmetric)
    sealed = tpm_wrap.aes_cfb(storage, _tpm2b(credential))
    integrity = tpm_wrap.kdf_a(hash_name, seed, b"INTEGRITY", b"", 8 * size)
    outer = hmac.digest(integrity, sealed + name, hash_name)
    return CredentialChallenge(credential_blob=_tpm2b(_tpm2b(outer) + sealed), secret=_tpm2b(wrapped))


def enrol(
    known: Mapping[str, Enrolment],
    machine: str,
    *,
    endorsement: Public,
    attestation: Public,
    credential: bytes,
    answer: bytes,
) -> Enrolment:
    """The enrolment of `machine` when `answer` is the `credential` that was made for exactly these keys.

    known: enrolments so far. Raises `Refused` for another answer, `Conflict` when the machine's name belongs to
    another EK, or the EK to another name: a name is never taken over.
    """
    if len(credential) < 16 or not hmac.compare_digest(credential, answer):
        raise Refused(
            "the credential was not recovered: these keys are not of one TPM",
            code="not-activated",
            hint="activate the credential in the TPM that both keys were read from",
        )
    enrolment = Enrolment(
        endorsement_key=public_key.key_digest(endorsement.key),
        attestation_key=public_key.key_digest(attestation.key),
    )
    for name, other in known.items():
        if (name == machine) != (other.endorsement_key == enrolment.endorsement_key):
            raise Conflict(
                f"{name} is enrolled with {other.endorsement_key}: neither name nor key moves",
                code="enrolled-otherwise",
                hint="a machine with another TPM is another machine: enrol it under a name of its own",
            )
    return enrolment


def _check(public: Public, *, has: int, lacks: int, what: str) -> None:
    if public.attributes & has != has or public.attributes & lacks:
        raise Refused(
            f"object attributes {public.attributes:#010x} are not those of an {what} key: expected {has:#x} set, {lacks:#x} not",
            code="wrong-key",
            hint=_RESTRICTED,
        )


def _symmetric(reader: Reader) -> int:
    algorithm = reader.u16()
    if algorithm == _NULL:
        return 0
    bits, mode = reader.u16(), reader.u16()
    if algorithm != _AES or bits not in (128, 256) or mode != _CFB:
        raise Malformed(
            "TPM public area: expected AES of 128 or 256 bits in CFB mode, got another cipher",
            code="unknown-algorithm",
        )
    return bits


def _scheme(reader: Reader) -> str:
    code = reader.u16()
    if code == _NULL:
        return ""
    if code not in _SIGNING or reader.u16() not in _HASHES:
        raise Malformed(
            f"TPM public area: signing scheme {code:#06x}, expected {', '.join(_SIGNING.values())} with SHA-256 or SHA-384",
            code="unknown-algorithm",
        )
    return _SIGNING[code]


def _rsa(reader: Reader) -> PublicKey:
    bits, exponent = reader.u16(), reader.u32()
    modulus = int.from_bytes(_sized(reader, 512), "big")
    if bits not in _RSA_BITS or modulus.bit_length() != bits:
        raise Malformed(
            f"TPM public area: expected an RSA key of 2048 to 4096 bits, got {bits} and a modulus of {modulus.bit_length()}",
            code="unknown-key",
        )
    return public_key.key_of_modulus(modulus, exponent or 65537)


def _ecc(reader: Reader) -> PublicKey:
    curve = _CURVES.get(reader.u16())
    if curve is None or reader.u16() != _NULL:
        raise Malformed(
            "TPM public area: expected a key on P-256 or P-384 without a key derivation", code="unknown-key"
        )
    size = _COORDINATES[curve]
    x, y = (_sized(reader, size).rjust(size, b"\0") for _ in range(2))
    return public_key.key_of_point(curve, x, y)


def _sized(reader: Reader, limit: int) -> bytes:
    size = reader.u16()
    if size > limit:
        raise Malformed(
            f"TPM public area: a field of {size} bytes, at most {limit} allowed", code="too-large"
        )
    return reader.take(size)


def _tpm2b(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
