"""Certificates of rooms: short-lived, named by the contract alone, and only for `Accepted`.

Profile:
  subject     CN = the run's name; OU = SIMULATED when the evidence's root is software
  SAN         the contract's DNS names, and the URI spiffe://<contract id>.strongroom/room/<room>/run/<run>
  lifetime    from a minute before now (clocks differ) to the contract's lifetime, never past the verdict
  usage       digitalSignature; server and client authentication
  evidence    digest of the accepted evidence in a private extension (`crypto.pki.leaf`)

Nothing is taken from the certificate request but its key, which the evidence is bound to.
Not done here: name constraints on the authority. It serves every contract of its owner and so cannot
know their names beforehand; verifiers pin it together with the contract's names instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.crypto.pki.leaf import Leaf

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.crypto.pki import certificates
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.identifiers import ContractId, EvidenceDigest, RunId
    from strongroom.model.verdict import Accepted

SIMULATED = "SIMULATED"
BACKDATED = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate (DER), leaf and authority, and the leaf's digest."""

    leaf: bytes
    authority: bytes

    @property
    def digest(self) -> str:
        """The digest of the leaf, as records name it."""
        return digest.sha256(self.leaf)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Leaf first."""
        return (self.leaf, self.authority)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """An owner's own certificate authority."""

    signer: certificates.Signer = field(repr=False)
    random: Callable[[int], bytes]

    @property
    def digest(self) -> str:
        """The digest of the authority's certificate, as contracts name it."""
        return digest.sha256(self.signer.der)


def spiffe_id(contract_id: ContractId, room: str, run_id: RunId) -> str:
    """The SPIFFE ID of a run. room: the role that its evidence is bound to."""
    return f"spiffe://{contract_id}.strongroom/room/{room}/run/{run_id}"


def issue(
    accepted: Accepted,
    authority: Authority,
    *,
    contract_id: ContractId,
    terms: CertificateTerms,
    evidence_digest: EvidenceDigest,
    now: datetime,
) -> Issued:
    """Certify the TLS key that the accepted evidence is bound to.

    Raises `Malformed` when the key is of no known kind.
    """
    keys = accepted.binding.keys
    leaf = Leaf(
        common_name=keys.run_id,
        unit=SIMULATED if accepted.claims.simulated else "",
        dns_names=terms.names,
        uri=spiffe_id(contract_id, accepted.binding.role, keys.run_id),
        spki=keys.tls,
        evidence_digest=evidence_digest,
        not_before=now - BACKDATED,
        not_after=min(now + timedelta(seconds=terms.lifetime_seconds), accepted.expires),
    )
    signed = authority.signer.issue(leaf, random=authority.random)
    return Issued(leaf=signed, authority=authority.signer.der)
