"""A verdict as an EAT attestation result (EAR) for other relying parties: what it says.

Specs: draft-ietf-rats-ear (claims), draft-ietf-rats-ar4si (trustworthiness vector), RFC 9711 (EAT). The claims have
the names and labels under which deployed relying parties read them (profile `PROFILE`). Tokens are in ear_token.py.

Each check of a verdict speaks for one claim of the vector; a claim is affirming when all of its checks are ok:

  instance-identity  evidence.*, binding.*, platform.root, platform.machine      2, else 97 (not recognised)
  executables        platform.reference*                                        3, else 33 (not recognised)
  hardware           platform.simulated, .status, .advisory.*, .tcb.*, .product,
                     .revocation, .tee                                          2, else 32; 97 where simulated
  configuration      every other check (contract, debug, facts, devices, age…)  2, else 32; 96 with debug
  runtime-opaque     debug, for TEEs that encrypt memory                        2, else 96

Checks of attached devices speak for the claim that the room's own of that name speaks for. A claim without any check
is not made. The status is the worst of them; of a denial never better than
contraindicated. Software that stands in for hardware is contraindicated even where a contract accepts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused
from strongroom.model import check_names
from strongroom.model.identifiers import EvidenceDigest
from strongroom.model.record import RecordKind
from strongroom.model.verdict import Accepted, Denied, read_checks

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.appraisal.evaluate import Appraisal
    from strongroom.model.evidence import Evidence
    from strongroom.model.record import Record
    from strongroom.model.verdict import Check

PROFILE = "tag:github.com,2023:veraison/ear"
DEVELOPER = "https://strongroom.invalid"
NONE, AFFIRMING, WARNING, CONTRAINDICATED = 0, 2, 32, 96
TIERS = {NONE: "none", AFFIRMING: "affirming", WARNING: "warning", CONTRAINDICATED: "contraindicated"}
VECTOR = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""The claims of a vector; the index is the label in CBOR."""

_APPROVED, _APPROVED_BOOT = 2, 3
_UNSAFE, _UNRECOGNISED_RUNTIME = 32, 33
_CONTRAINDICATED, _UNRECOGNISED = 96, 97
_ENCRYPTED = frozenset({"azure", "cca", "sgx", "snp", "tdx"})
_HARDWARE = (
    check_names.PLATFORM_SIMULATED,
    check_names.PLATFORM_STATUS,
    check_names.PLATFORM_ADVISORY,
    check_names.PLATFORM_TCB,
    check_names.PLATFORM_PRODUCT,
    check_names.PROFILE_PRODUCT,
    check_names.PLATFORM_REVOCATION,
    check_names.PLATFORM_TEE,
)
_INSTANCE = (
    check_names.EVIDENCE,
    check_names.BINDING_CONTRACT,
    check_names.PLATFORM_ROOT,
    check_names.PLATFORM_MACHINE,
)


@dataclass(frozen=True, kw_only=True)
class AttestationResult:
    """The claims of an EAR about one attester.

    policy_digest: of the contract or policy. vector: claim → AR4SI value. evidence_digest, verdict_digest: of their
    canonical bytes, by which they are found in records. Times are whole seconds.
    """

    issuer: str
    audience: str
    issued: datetime
    expires: datetime
    nonce: bytes
    verifier: str
    attester: str
    status: int
    vector: dict[str, int]
    policy_digest: str
    evidence_digest: EvidenceDigest
    verdict_digest: str

    def to_json(self) -> dict[str, object]:
        """The object form, for people's programs; what is signed has the names of the EAT profile."""
        return {
            "issuer": self.issuer,
            "audience": self.audience,
            "issued": fields.format_time(self.issued),
            "expires": fields.format_time(self.expires),
            "nonce": self.nonce.hex(),
            "verifier": self.verifier,
            "attester": self.attester,
            "status": TIERS[self.status],
            "vector": dict(self.vector),
            "policy": self.policy_digest,
            "evidence": self.evidence_digest,
            "verdict": self.verdict_digest,
        }


def tier(value: int) -> int:
    """The tier of a value of the vector, or of a status: AR4SI, section 2.3.2. What is not known is the worst."""
    if 2 <= value < 32:
        return AFFIRMING
    if 32 <= value < 96:
        return WARNING
    return NONE if -1 <= value <= 1 else CONTRAINDICATED


def result(
    verdict: Accepted | Denied | Appraisal,
    *,
    evidence: Evidence,
    nonce: bytes,
    issuer: str,
    audience: str,
    verifier: str,
    expires: datetime,
) -> AttestationResult:
    """What `verdict` says, for one audience. An `Accepted` never counts longer than itself.

    nonce: 8 to 64 bytes of the relying party's. verifier: the build that judged.
    """
    claims = verdict.claims
    vector = trust_vector(
        verdict.checks,
        evidence.tee,
        simulated=claims is not None and claims.simulated,
        debug=claims is not None and any(part.debug for part in (claims, *claims.devices)),
    )
    accepted = isinstance(verdict, Accepted) or getattr(verdict, "accepted", False)
    return AttestationResult(
        issuer=issuer,
        audience=audience,
        issued=verdict.decided.replace(microsecond=0),
        expires=min(expires, verdict.expires) if isinstance(verdict, Accepted) else expires,
        nonce=nonce,
        verifier=verifier,
        attester=evidence.tee,
        status=_worst(vector) if accepted else CONTRAINDICATED,
        vector=vector,
        policy_digest=verdict.contract_digest if isinstance(verdict, Accepted | Denied) else verdict.policy,
        evidence_digest=evidence.digest,
        verdict_digest=digest.sha256(canonical.dumps(verdict.to_json())),
    )


def of_release(
    entry: Record,
    *,
    nonce: bytes,
    issuer: str,
    audience: str,
    verifier: str,
    issued: datetime,
    expires: datetime,
) -> AttestationResult:
    """What the verdict of a recorded release says, for one audience and no longer than that verdict counts.

    Raises `Malformed` for an entry that records no release, `Refused` once its verdict has ended.
    """
    body = fields.Fields(dict(entry.body), "ledger entry")
    raw = body.raw_object("verdict")
    verdict = fields.Fields(raw, "verdict")
    if entry.kind is not RecordKind.RELEASE or verdict.text("result", max_length=16) != "accepted":
        raise Malformed(
            f"ledger entry: expected an accepted release, got a {entry.kind.value}", code="no-release"
        )
    ends = min(expires, verdict.time("expires"))
    if ends <= issued:
        raise Refused(
            f"the verdict counted until {fields.format_time(ends)}",
            code="verdict-ended",
            hint="a room whose verdict has ended proves itself anew, under a new nonce",
        )
    claims = verdict.object("claims")
    tee = claims.name("tee")
    vector = trust_vector(
        read_checks(verdict), tee, simulated=claims.boolean("simulated"), debug=claims.boolean("debug")
    )
    return AttestationResult(
        issuer=issuer,
        audience=audience,
        issued=issued.replace(microsecond=0),
        expires=ends.replace(microsecond=0),
        nonce=nonce,
        verifier=verifier,
        attester=tee,
        status=_worst(vector),
        vector=vector,
        policy_digest=entry.contract_digest,
        evidence_digest=EvidenceDigest(body.digest("evidence")),
        verdict_digest=digest.sha256(canonical.dumps(raw)),
    )


def trust_vector(checks: tuple[Check, ...], tee: str, *, simulated: bool, debug: bool) -> dict[str, int]:
    """The claims that these checks amount to; see above. simulated, debug: what the claims say, or their devices'."""
    good: dict[str, bool] = {}
    for check in checks:
        claim = _claim(check.name)
        good[claim] = good.get(claim, True) and check.ok
    bad = {
        "instance-identity": _UNRECOGNISED,
        "executables": _UNRECOGNISED_RUNTIME,
        "hardware": _UNSAFE,
        "configuration": _UNSAFE,
    }
    vector = {
        claim: (_APPROVED_BOOT if claim == "executables" else _APPROVED) if held else bad[claim]
        for claim, held in good.items()
    }
    looked = [
        check for check in checks if check.name.startswith("platform.") and check.name.endswith(".debug")
    ]
    debug = debug or not all(check.ok for check in looked)
    if simulated:
        vector["hardware"] = _UNRECOGNISED
    if debug:
        vector["configuration"] = _CONTRAINDICATED
    if looked and tee in _ENCRYPTED and not simulated:
        vector["runtime-opaque"] = _CONTRAINDICATED if debug else _APPROVED
    return {claim: vector[claim] for claim in VECTOR if claim in vector}


def _worst(vector: dict[str, int]) -> int:
    return max((tier(value) for value in vector.values()), default=NONE)


def _claim(name: str) -> str:
    name = name.replace("platform.devices.", "platform.")
    if name.startswith(_INSTANCE):
        return "instance-identity"
    if name.startswith(check_names.PLATFORM_REFERENCE):
        return "executables"
    return "hardware" if name.startswith(_HARDWARE) else "configuration"
