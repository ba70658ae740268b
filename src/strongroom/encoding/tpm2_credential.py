"""TPM 2.0 commands around endorsement keys: make one, and open a credential with it. No I/O.

Specs: TCG TPM 2.0 Library, part 3, 11.1, 12.5, 23.4; TCG EK Credential Profile 2.0, annex B (templates L-1, L-2).
An endorsement key is used under its template's policy: PolicySecret of the endorsement hierarchy. `tpm2` has the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.encoding import tpm2
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from strongroom.encoding.reader import Reader

NONCE_BYTES = 16

_RSA, _ECC, _SHA256, _AES, _CFB, _NULL, _P256 = 0x0001, 0x0023, 0x000B, 0x0006, 0x0043, 0x0010, 0x0003
_RH_NULL = 0x40000007
_POLICY = 0x01
_CONTINUE = b"\x01"  # the session stays, for its owner to flush, whether or not the command succeeds
# fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
_EK_ATTRIBUTES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 16 | 1 << 17
# PolicySecret(TPM_RH_ENDORSEMENT), as the profile gives it.
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")


def ek_template(kind: str) -> bytes:
    """The public area that TPM2_CreatePrimary makes the EK from: `rsa` (2048 bits) or `secp256r1`."""
    head = tpm2.u16(_SHA256) + tpm2.u32(_EK_ATTRIBUTES) + tpm2.sized(_EK_POLICY)
    symmetric = tpm2.u16(_AES) + tpm2.u16(128) + tpm2.u16(_CFB)
    if kind == "rsa":
        unique = tpm2.u16(_NULL) + tpm2.u16(2048) + tpm2.u32(0) + tpm2.sized(bytes(256))
        return tpm2.u16(_RSA) + head + symmetric + unique
    if kind == "secp256r1":
        point = tpm2.sized(bytes(32)) + tpm2.sized(bytes(32))
        return tpm2.u16(_ECC) + head + symmetric + tpm2.u16(_NULL) + tpm2.u16(_P256) + tpm2.u16(_NULL) + point
    raise Malformed(f"TPM: an endorsement key of kind {kind[:40]!r}, expected rsa or secp256r1")


def create_primary(hierarchy: int, public: bytes) -> bytes:
    """TPM2_CreatePrimary of an object with that public area, without a secret. Answers (handle), public area."""
    sensitive = tpm2.sized(tpm2.sized(b"") + tpm2.sized(b""))
    return tpm2.command(
        0x131, (hierarchy,), sensitive + tpm2.sized(public) + tpm2.sized(b"") + tpm2.u32(0), authorised=1
    )


def start_policy_session(nonce: bytes) -> bytes:
    """TPM2_StartAuthSession for a policy, neither salted nor bound. nonce: 16 random bytes. Answers (handle)."""
    if len(nonce) != NONCE_BYTES:
        raise Malformed(f"TPM: expected a nonce of {NONCE_BYTES} bytes, got {len(nonce)}")
    parameters = tpm2.sized(nonce) + tpm2.sized(b"") + bytes([_POLICY]) + tpm2.u16(_NULL) + tpm2.u16(_SHA256)
    return tpm2.command(0x176, (_RH_NULL, _RH_NULL), parameters)


def policy_secret(session: int) -> bytes:
    """TPM2_PolicySecret: the endorsement hierarchy's (empty) password goes into the session's policy."""
    parameters = tpm2.sized(b"") * 3 + tpm2.u32(0)
    return tpm2.command(0x151, (tpm2.ENDORSEMENT, session), parameters, authorised=1)


def activate_credential(ak: int, ek: int, session: int, blob: bytes, secret: bytes) -> bytes:
    """TPM2_ActivateCredential, the AK under its empty password, the EK under the policy session.

    blob, secret: TPM2B structures as a challenge brings them. `read_credential` opens the answer.
    """
    password = tpm2.u32(tpm2.PASSWORD_SESSION) + tpm2.sized(b"") + b"\x00" + tpm2.sized(b"")
    policy = tpm2.u32(session) + tpm2.sized(b"") + _CONTINUE + tpm2.sized(b"")
    return tpm2.command(0x147, (ak, ek), blob + secret, sessions=password + policy)


def read_credential(parameters: Reader) -> bytes:
    """The credential that the TPM recovered."""
    credential = tpm2.read_sized(parameters)
    parameters.done()
    return credential
