"""From a TEE's name to its verifier: the table that names them all.

`verify` is pure: no network, no clock, no argument changed, no optional check. It raises or returns.
A verifier's file is loaded when its TEE is first asked for, so that nobody waits for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import EvidenceRefused
from strongroom.evidence.load import verifier

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence


# Each name is a file beside this one that offers `verify`.
VERIFIERS = ("azure", "cca", "gcp", "nitro", "nvgpu", "sgx", "snp", "tdx", "tpm")


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Verify `evidence` by the verifier of its TEE and return its claims. Of one TEE: `attached` verifies that of attached devices.

    binding: what the evidence must be bound to; there is no way to ask without one.
    roots: digests of the roots that count (see `roots`); an empty set accepts nothing.
    Raises `EvidenceRefused` with the failed check's name, or `Malformed` when a part does not parse.
    """
    if evidence.tee not in VERIFIERS:
        raise EvidenceRefused(
            "tee",
            expected="one of " + ", ".join(sorted(VERIFIERS)),
            got=repr(evidence.tee[:64]),
            hint="this version cannot verify that kind of TEE; an unknown kind never counts",
        )
    if evidence.devices:
        raise EvidenceRefused(
            "devices",
            expected="evidence without attached devices",
            got=f"evidence of {len(evidence.devices)}",
            hint="give the evidence of the machine and that of its devices apart, or judge both under one contract or policy",
        )
    if not roots:
        raise EvidenceRefused(
            "root",
            expected="at least one trusted root",
            got="none",
            hint=f"the contract has no platform for {evidence.tee}; an empty set of roots accepts nothing",
        )
    return verifier(evidence.tee)(evidence, endorsements, binding=binding, roots=roots, now=now)
