"""From a TEE's name to its verifier: the table that names them all.

`verify` is pure: no network, no clock, no argument changed, no optional check. It raises or returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from strongroom.errors import EvidenceRefused
from strongroom.evidence import azure, cca, gcp, nitro, nvgpu, sgx, snp, tdx, tpm

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence


class Verifier(Protocol):
    """What each TEE's file offers as `verify`."""

    def __call__(
        self,
        evidence: Evidence,
        endorsements: Endorsements,
        *,
        binding: Bound,
        roots: frozenset[str],
        now: datetime,
    ) -> Claims:
        """Claims, or `EvidenceRefused` or `Malformed`."""


VERIFIERS: dict[str, Verifier] = {
    "azure": azure.verify,
    "cca": cca.verify,
    "gcp": gcp.verify,
    "nitro": nitro.verify,
    "nvgpu": nvgpu.verify,
    "sgx": sgx.verify,
    "snp": snp.verify,
    "tdx": tdx.verify,
    "tpm": tpm.verify,
}


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Verify `evidence` by the verifier of its TEE and return its claims.

    binding: what the evidence must be bound to; there is no way to ask without one.
    roots: digests of the roots that count (see `roots`); an empty set accepts nothing.
    Raises `EvidenceRefused` with the failed check's name, or `Malformed` when a part does not parse.
    """
    verifier = VERIFIERS.get(evidence.tee)
    if verifier is None:
        raise EvidenceRefused(
            "tee",
            expected="one of " + ", ".join(sorted(VERIFIERS)),
            got=repr(evidence.tee[:64]),
            hint="this version cannot verify that kind of TEE; an unknown kind never counts",
        )
    if not roots:
        raise EvidenceRefused(
            "root",
            expected="at least one trusted root",
            got="none",
            hint=f"the contract has no platform for {evidence.tee}; an empty set of roots accepts nothing",
        )
    return verifier(evidence, endorsements, binding=binding, roots=roots, now=now)
