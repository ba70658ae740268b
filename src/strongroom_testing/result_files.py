"""A folder of attestation results for the command line: by a party, by its broker, by others, sound and not.

`python -m strongroom_testing.result_files DIR` writes them as of `NOW`, for `AUDIENCE` under `POLICY`, answering
`NONCE`, with the party files of who signed: `judge` (itself) and `alice` (her broker).
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from strongroom.appraisal import ear, ear_token
from strongroom.crypto import sign
from strongroom.model import identity
from strongroom.model.identifiers import EvidenceDigest
from strongroom.model.party import BrokerAddress

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
AUDIENCE = "database"
POLICY = "sha256:" + "33" * 32
NONCE = b"\xab" * 16
DIGEST = "sha256:" + "44" * 32


def result(issuer: str) -> ear.AttestationResult:
    """What affirms everything."""
    return ear.AttestationResult(
        issuer=issuer,
        audience=AUDIENCE,
        issued=NOW,
        expires=NOW + timedelta(hours=1),
        nonce=NONCE,
        verifier="strongroom",
        attester="snp",
        status=ear.AFFIRMING,
        vector={"instance-identity": 2, "configuration": 2, "executables": 3, "hardware": 2},
        policy_digest=POLICY,
        evidence_digest=EvidenceDigest(DIGEST),
        verdict_digest=DIGEST,
    )


def write(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    judge, alice, ledger = identity.generate("judge"), identity.generate("alice"), _ends_in_a_line_end()
    address = BrokerAddress(
        url="https://127.0.0.1:1", pin=DIGEST, ledger_key=ledger.public.raw, authority=DIGEST
    )
    (folder / "judge.party.json").write_bytes(judge.party().encode())
    (folder / "alice.party.json").write_bytes(alice.party(address).encode())
    good = result("judge")
    tokens = {
        "good.jwt": ear_token.to_jwt(good, judge.signing),
        "stranger.jwt": ear_token.to_jwt(good, sign.generate()),
        "simulated.jwt": ear_token.to_jwt(
            replace(good, status=ear.CONTRAINDICATED, vector={**good.vector, "hardware": 97}), judge.signing
        ),
        "silent.jwt": ear_token.to_jwt(replace(good, vector={"hardware": 2}), judge.signing),
        "unsigned.jwt": _unsigned(good),
        "broker.jwt": ear_token.to_jwt(result("alice"), ledger),
    }
    for name, token in tokens.items():
        (folder / name).write_text(token + "\n")
    (folder / "good.cwt").write_bytes(ear_token.to_cwt(good, judge.signing))
    (folder / "broker.cwt").write_bytes(ear_token.to_cwt(result("alice"), ledger))


def _ends_in_a_line_end() -> sign.SigningKey:
    """A key under which `broker.cwt` ends in the byte of a line end, which is no line end there."""
    keys = (sign.generate() for _ in range(100_000))
    return next(key for key in keys if ear_token.to_cwt(result("alice"), key).endswith(b"\n"))


def _unsigned(one: ear.AttestationResult) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "eat+jwt"}).encode()).rstrip(b"=")
    body = ear_token.to_jwt(one, sign.generate()).split(".")[1]
    return f"{head.decode()}.{body}."


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("expected one argument: the folder to write")
    write(Path(sys.argv[1]))
