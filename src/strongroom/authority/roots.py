"""An owner's roots, and the issuers of contracts below them.

A contract names the root by its digest, so that a root is changed without an outage: `next` may be named before it is anybody's,
`current` is what the party's file names, `previous` serves the contracts that named it until they end. Each contract gets its
certificates below the root that it names, for as long as that is one of the three.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.crypto.pki import issuers
from strongroom.crypto.pki.certificates import Signer

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.crypto.pki.key_signer import HeldKey
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import ContractDigest

PURPOSE = "contract-issuers"
"""The purpose of the secret that issuers' keys come of (`crypto.aead.AtRest.mac_key`)."""
_EARLIER = timedelta(days=1)  # clocks of who verifies may be behind
_MOST = 256


class RootState(enum.StrEnum):
    """Which of an owner's roots it is."""

    NEXT = "next"
    CURRENT = "current"
    PREVIOUS = "previous"


@dataclass(frozen=True, kw_only=True)
class Root:
    """A root certificate with what signs for it."""

    state: RootState
    signer: Signer = field(repr=False)

    @property
    def digest(self) -> str:
        """The digest of its certificate, by which contracts name it."""
        return digest.sha256(self.signer.der)


@dataclass(frozen=True, kw_only=True)
class ContractIssuer:
    """What signs the certificates of one contract's rooms. certificate, root: DER."""

    signer: Signer = field(repr=False)
    root: bytes
    root_digest: str
    serial: int
    not_after: datetime

    @property
    def certificate(self) -> bytes:
        """The issuer's own certificate."""
        return self.signer.der


class Authority:
    """An owner's own certificate authority. secret: 32 bytes that issuers' keys come of. Safe among threads."""

    def __init__(self, roots: tuple[Root, ...], *, secret: bytes) -> None:
        self.roots = roots
        self._by_digest = {root.digest: root for root in roots}
        self._secret = secret
        self._kept: OrderedDict[tuple[str, str], ContractIssuer] = OrderedDict()

    @property
    def digests(self) -> frozenset[str]:
        """The digests of the roots that contracts may name."""
        return frozenset(self._by_digest)

    def root(self, root_digest: str) -> Root | None:
        """The root of that digest, where it is one of the owner's."""
        return self._by_digest.get(root_digest)

    def issuer(self, contract: Contract, root_digest: str) -> ContractIssuer | None:
        """The issuer of `contract` below the root that it names; None where that is none of the owner's. The same each time."""
        root = self.root(root_digest)
        if root is None:
            return None
        kept = self._kept.get((root_digest, contract.digest))
        if kept is not None:
            return kept
        names = constraints(contract)
        key = issuers.issuer_key(self._secret, root.signer.der, contract.digest)
        issuer = ContractIssuer(
            signer=Signer(key, issuers.make_issuer(root.signer, key, names)),
            root=root.signer.der,
            root_digest=root_digest,
            serial=issuers.issuer_serial(root.signer.der, key),
            not_after=names.not_after,
        )
        self._kept[root_digest, contract.digest] = issuer
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return issuer

    def issuer_key(self, root_digest: str, contract_digest: ContractDigest) -> HeldKey | None:
        """The key of a contract's issuer below that root; None where the root is none of the owner's."""
        root = self.root(root_digest)
        return None if root is None else issuers.issuer_key(self._secret, root.signer.der, contract_digest)

    def stored_issuer(
        self, certificate: bytes, *, root_digest: str, contract_digest: ContractDigest
    ) -> ContractIssuer | None:
        """An issuer that was made before; None where the root above it is none of the owner's. Raises `Malformed` where it is another's."""
        root, key = self.root(root_digest), self.issuer_key(root_digest, contract_digest)
        if root is None or key is None:
            return None
        signer = Signer(key, certificate)
        return ContractIssuer(
            signer=signer,
            root=root.signer.der,
            root_digest=root_digest,
            serial=issuers.issuer_serial(root.signer.der, key),
            not_after=signer.not_after,
        )


def constraints(contract: Contract) -> issuers.ContractNames:
    """What a contract's issuer may name: what the contract gives its rooms, and nothing else."""
    certified = [room.certificate for room in contract.rooms if room.certificate is not None]
    own = f"{contract.id}.strongroom"
    return issuers.ContractNames(
        contract_id=contract.id,
        digest=contract.digest,
        dns_names=tuple(sorted({name for terms in certified for name in terms.names})),
        domains=tuple(
            sorted({own if terms.trust_domain is None else terms.trust_domain for terms in certified})
        ),
        not_before=contract.limits.not_before - _EARLIER,
        not_after=contract.limits.not_after,
    )
