"""Attestation results (EAR): signed by whoever judged evidence, and read by whoever relies on that verifier's word."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.appraisal import ear, ear_token
from strongroom.crypto import sign
from strongroom.errors import Refused, of_file

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from strongroom.appraisal.ear import AttestationResult
    from strongroom.crypto.sign import VerifyingKey
    from strongroom.model.identity import Identity
    from strongroom.model.party import Party
    from strongroom.parties.evidence import JudgedEvidence

LIFETIME = timedelta(hours=1)
_VERIFIER = "strongroom"


def form(path: Path) -> str:
    """The form of the token that a file is to hold, by its name: `cwt` where it ends in .cwt, else `jwt`."""
    return "cwt" if path.suffix == ".cwt" else "jwt"


def write_result(judged: JudgedEvidence, *, audience: str, signer: Identity, out: Path) -> None:
    """Write what `judged` says for one audience into the new file `out`, signed by `signer`, accepted or not; a CWT where its name ends in .cwt.

    It answers `judged.nonce`, and counts for an hour from when it was decided. Raises `Malformed` for a nonce that is not 8 to 64 bytes,
    `Misuse` for a file that exists.
    """
    result = ear.result(
        judged.verdict,
        evidence=judged.evidence,
        nonce=judged.nonce,
        issuer=signer.name,
        audience=audience,
        verifier=_VERIFIER,
        expires=judged.verdict.decided + LIFETIME,
    )
    if form(out) == "cwt":
        files.write(out, ear_token.to_cwt(result, signer.signing))
    else:
        files.write(out, ear_token.to_jwt(result, signer.signing).encode())


def verify_result(
    path: Path, *, verifier: Party, audience: str, policy: str, nonce: bytes, now: datetime
) -> AttestationResult:
    """The result in a file, affirmed by `verifier` itself (`write_result`) or by its broker. Nobody else's signature counts.

    policy: the digest of the contract or policy that is relied on. Raises `Refused` unless it affirms everything, to `audience`,
    under `policy` and `nonce`, at `now`; `Malformed`.
    """

    def affirmed(token: bytes, key: VerifyingKey) -> AttestationResult:
        expected = ear_token.Expected(
            key=key, issuer=verifier.name, audience=audience, policy=policy, nonce=nonce
        )
        return ear_token.read(token, expected, now=now)

    with of_file(path):
        token = files.read(path, max_bytes=ear_token.MAX_TOKEN + 1)
        try:
            return affirmed(token, verifier.signing_key)
        except Refused as cause:
            if verifier.broker is None or cause.code != "token-signature":
                raise
        return affirmed(token, sign.VerifyingKey(verifier.broker.ledger_key))
