"""What evidence is bound to: this conversation, this contract, these keys, this audience.

binding = SHA-512(frame("strongroom/binding/1", nonce, contract digest, signing key, TLS key,
KEM key, role, audience)), every field after its length as 8 big-endian bytes (`encoding.framed`).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.crypto import digest
from strongroom.encoding import fields, framed
from strongroom.errors import EvidenceRefused
from strongroom.model.identifiers import ContractDigest, RunId

if TYPE_CHECKING:
    from collections.abc import Mapping


LABEL = "strongroom/binding/1"


class Bound(Protocol):
    """What a verifier asks: the exact bytes that a field of the evidence must carry."""

    def value(self, field: str) -> bytes:
        """The expected bytes of `field`. Raises `EvidenceRefused` when nothing is expected:
        an unbound field is never taken for a bound one. Fields:

          report_data  64 bytes: SNP and TDX and SGX reports, the CCA challenge, Nitro user_data
          extra_data   32 bytes: the qualifying data of a TPM quote
          contract     32 bytes: the digest that a TEE's contract register (PCR 12 of a local room) was extended with
          nonce        32 bytes: NVIDIA's SPDM nonce, the nonce of a Nitro document
          user_data    0 to 1024 bytes: the user_data of a Nitro document, where it is not the report_data
          public_key   0 to 1024 bytes: the public_key of a Nitro document
        """


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Expected bytes by field, for those who verify evidence that another protocol asked for."""

    values: Mapping[str, bytes]

    def value(self, field: str) -> bytes:
        """The bytes given for `field`; refused when there are none."""
        if field not in self.values:
            raise EvidenceRefused(
                "binding",
                expected=f"the bytes that {field} of the evidence must hold, given by the caller",
                got="none given",
                hint="say what the evidence must be bound to; there is no unbound verification",
            )
        return self.values[field]


@dataclass(frozen=True, kw_only=True)
class RoomKeys:
    """The public keys that a room makes for itself, in the TEE, before it attests.

    signing: Ed25519, 32 raw bytes (receipts). tls: SubjectPublicKeyInfo, DER. kem: X-Wing, 1216 bytes.
    """

    signing: bytes
    tls: bytes
    kem: bytes

    @functools.cached_property
    def run_id(self) -> RunId:
        """The run's name, the same at every broker: `run-` and 32 hexadecimal digits."""
        return RunId("run-" + digest.sha256(framed.join("strongroom/run/1", self.signing))[7:39])


@dataclass(frozen=True, kw_only=True)
class Binding:
    """The fields of a binding. `audience` is the pin of the broker's TLS key."""

    nonce: bytes
    contract_digest: ContractDigest
    keys: RoomKeys
    role: str
    audience: str

    def value(self, field: str) -> bytes:
        """What a field of the evidence must carry for this binding (see `Bound.value`)."""
        if field in {"report_data", "user_data"}:
            return self._digest
        if field == "contract":
            return digest.raw(self.contract_digest)
        if field in {"extra_data", "nonce"}:
            return hashlib.sha256(self._digest).digest()
        raise EvidenceRefused(
            "binding", expected="report_data, user_data, contract, extra_data or nonce", got=field
        )

    def to_json(self) -> dict[str, object]:
        """The object form, for records. Everything in it is public."""
        return {
            "nonce": fields.format_data(self.nonce),
            "contract": self.contract_digest,
            "signing": fields.format_data(self.keys.signing),
            "tls": fields.format_data(self.keys.tls),
            "kem": fields.format_data(self.keys.kem),
            "role": self.role,
            "audience": self.audience,
        }

    def digest(self) -> bytes:
        """64 bytes."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> bytes:
        # Asked for by the verifier, by the sealing of keys and by the record: the fields never change.
        return hashlib.sha512(
            framed.join(
                LABEL,
                self.nonce,
                digest.raw(self.contract_digest),
                self.keys.signing,
                self.keys.tls,
                self.keys.kem,
                self.role.encode(),
                self.audience.encode(),
            )
        ).digest()


def read(source: fields.Fields) -> Binding:
    """Read the object form. Raises `Malformed`."""
    keys = RoomKeys(
        signing=source.data("signing", max_bytes=32, exactly=32),
        tls=source.data("tls", max_bytes=1024),
        kem=source.data("kem", max_bytes=1216, exactly=1216),
    )
    binding = Binding(
        nonce=source.data("nonce", max_bytes=32, exactly=32),
        contract_digest=ContractDigest(source.digest("contract")),
        keys=keys,
        role=source.name("role"),
        audience=source.digest("audience"),
    )
    source.done()
    return binding
