"""Certificates of rooms: short-lived, named by the contract alone, and only for `Accepted`.

Profile:
  subject     CN = the run's name; OU = SIMULATED when the evidence's root is software
  SAN         the contract's DNS names, and the room's SPIFFE ID (`spiffe_id`)
  lifetime    from a minute before now (clocks differ) to the contract's lifetime, never past the verdict nor the contract
  usage       digitalSignature; server authentication, client authentication, or both, as the contract says
  evidence    digest of the accepted evidence in a private extension (`crypto.pki.leaf`)

Nothing is taken from the certificate request but its key, which the evidence is bound to. The issuer is the contract's own
(`authority.roots`), below the root that the contract names; its names are constrained to the contract's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.crypto import digest, tls
from strongroom.crypto.pki.leaf import Leaf
from strongroom.model.contracts.certificate_terms import Usage, spiffe_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from strongroom.authority.roots import ContractIssuer
    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.identifiers import ContractId, EvidenceDigest, RunId
    from strongroom.model.verdict import Accepted

SIMULATED = "SIMULATED"
BACKDATED = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate (DER) with the contract's issuer and the root above it. serial, not_after: the leaf's own."""

    leaf: bytes
    issuer: ContractIssuer
    serial: int
    not_after: datetime

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Leaf first, root last."""
        return (self.leaf, self.issuer.certificate, self.issuer.root)

    @property
    def digests(self) -> tuple[str, str]:
        """The digests of leaf and issuer, as records name them."""
        return digest.sha256(self.leaf), digest.sha256(self.issuer.certificate)


def issue(
    accepted: Accepted,
    issuer: ContractIssuer,
    *,
    contract_id: ContractId,
    terms: CertificateTerms,
    evidence_digest: EvidenceDigest,
    now: datetime,
    random: Callable[[int], bytes],
) -> Issued:
    """Certify the TLS key that the accepted evidence is bound to.

    Raises `Malformed` when the key is of no known kind.
    """
    keys = accepted.binding.keys
    ends = min(now + timedelta(seconds=terms.lifetime_seconds), accepted.expires, issuer.not_after)
    leaf = Leaf(
        common_name=keys.run_id,
        unit=SIMULATED if accepted.claims.simulated else "",
        dns_names=terms.names,
        uri=spiffe_id(contract_id, accepted.binding.role, keys.run_id, terms.trust_domain),
        spki=keys.tls,
        evidence_digest=evidence_digest,
        not_before=now - BACKDATED,
        not_after=ends,
        server=Usage.SERVER in terms.usages,
        client=Usage.CLIENT in terms.usages,
    )
    serial = tls.serial(random)
    return Issued(leaf=issuer.signer.issue(leaf, serial=serial), issuer=issuer, serial=serial, not_after=ends)


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """A room whose newest accepted verdict is in the ledger, and goes on until `expires`."""

    run_id: RunId
    simulated: bool
    expires: datetime


def issue_to_account(
    vouched: Vouched,
    issuer: ContractIssuer,
    *,
    names: Sequence[str],
    usages: Sequence[Usage],
    lifetime_seconds: int,
    spki: bytes,
    now: datetime,
    random: Callable[[int], bytes],
) -> Issued:
    """Certify a key that somebody in the room holds (ACME): no evidence is bound to it, and so it gets no SPIFFE ID and no digest of evidence.

    names: of the contract's, for that room. Raises `Malformed` when the key is of no known kind.
    """
    ends = min(now + timedelta(seconds=lifetime_seconds), vouched.expires, issuer.not_after)
    leaf = Leaf(
        common_name=vouched.run_id,
        unit=SIMULATED if vouched.simulated else "",
        dns_names=tuple(names),
        uri="",
        spki=spki,
        evidence_digest="",
        not_before=now - BACKDATED,
        not_after=ends,
        server=Usage.SERVER in usages,
        client=Usage.CLIENT in usages,
    )
    serial = tls.serial(random)
    return Issued(leaf=issuer.signer.issue(leaf, serial=serial), issuer=issuer, serial=serial, not_after=ends)
