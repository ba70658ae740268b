"""EAR tokens: signed as JWT (RFC 7519, 7515) or CWT (RFC 8392, 9052) with Ed25519, and read by relying parties.

Reading checks, in this order, and refuses what does not hold:

  1 size and form    canonical base64url, JSON without duplicate keys; deterministic limits for CBOR
  2 header           exactly algorithm, type and maybe key id. The algorithm is EdDSA, pinned here and by the key:
                     `none`, HS256 and others are refused, and so is a header with jku, jwk, x5u, x5c, crit or
                     anything else. The key id is a hint that nothing looks at.
  3 signature        by the one key that the relying party expects
  4 claims           every one is known, and of its type
  5 profile, issuer, audience, policy, nonce     exactly the expected ones
  6 time             issued not after now, now before the end, no longer alive than `MAX_LIFETIME`
  7 status, vector   the status is affirming, so is every claim that is made, and every demanded claim is made:
                     0 ("no claim") affirms nothing
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from strongroom.appraisal import ear
from strongroom.crypto import sign
from strongroom.encoding import canonical, cbor, cbor_writer, fields, sign1, unexpected
from strongroom.errors import Malformed, Refused
from strongroom.model.identifiers import EvidenceDigest

if TYPE_CHECKING:
    from strongroom.appraisal.ear import AttestationResult
    from strongroom.crypto.sign import SigningKey, VerifyingKey

MAX_TOKEN = 16 * 1024
MAX_LIFETIME = timedelta(days=1)
JWT_TYPE, CWT_TYPE = "eat+jwt", "application/eat+cwt"
_COSE_TYPE = 16  # RFC 9596
_ALGORITHM = "EdDSA"
_TAGGED = b"\xd2"  # COSE_Sign1's tag, 18
_NONCE = (8, 64)
_MAX_SECONDS = 253402300799
DEMANDED = ("instance-identity", "configuration", "executables", "hardware")

# CWT labels: RFC 8392, RFC 9711, draft-ietf-rats-ear.
_ISS, _AUD, _EXP, _IAT, _EAT_NONCE, _EAT_PROFILE, _SUBMODS = 1, 3, 4, 6, 10, 265, 266
_STATUS, _VECTOR, _POLICY, _VERIFIER = 1000, 1001, 1003, 1004
_EVIDENCE, _VERDICT = "strongroom.evidence", "strongroom.verdict"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a relying party expects of a token; nothing of it can be left out. policy: a contract's or policy's digest."""

    key: VerifyingKey
    issuer: str
    audience: str
    policy: str
    nonce: bytes
    demanded: tuple[str, ...] = DEMANDED


def to_jwt(result: AttestationResult, key: SigningKey) -> str:
    """The signed JWT, compact form."""
    _check_nonce(result.nonce)
    header = {"alg": _ALGORITHM, "typ": JWT_TYPE}
    appraisal = {
        "ear.status": ear.TIERS[result.status],
        "ear.trustworthiness-vector": dict(result.vector),
        "ear.appraisal-policy-id": result.policy_digest,
        _EVIDENCE: result.evidence_digest,
        _VERDICT: result.verdict_digest,
    }
    claims = {
        "iss": result.issuer,
        "aud": result.audience,
        "iat": int(result.issued.timestamp()),
        "exp": int(result.expires.timestamp()),
        "eat_profile": ear.PROFILE,
        "eat_nonce": _base64url(result.nonce),
        "ear.verifier-id": {"developer": ear.DEVELOPER, "build": result.verifier},
        "submods": {result.attester: appraisal},
    }
    signed = f"{_base64url(canonical.dumps(header))}.{_base64url(canonical.dumps(claims))}"
    return f"{signed}.{_base64url(key.sign(signed.encode()))}"


def to_cwt(result: AttestationResult, key: SigningKey) -> bytes:
    """The signed CWT: a tagged COSE_Sign1."""
    _check_nonce(result.nonce)
    vector: dict[int | str, cbor.Value] = {
        ear.VECTOR.index(claim): value for claim, value in result.vector.items()
    }
    appraisal: dict[int | str, cbor.Value] = {
        _STATUS: result.status,
        _VECTOR: vector,
        _POLICY: result.policy_digest,
        _EVIDENCE: result.evidence_digest,
        _VERDICT: result.verdict_digest,
    }
    claims: dict[int | str, cbor.Value] = {
        _ISS: result.issuer,
        _AUD: result.audience,
        _EXP: int(result.expires.timestamp()),
        _IAT: int(result.issued.timestamp()),
        _EAT_NONCE: result.nonce,
        _EAT_PROFILE: ear.PROFILE,
        _SUBMODS: {result.attester: appraisal},
        _VERIFIER: {0: ear.DEVELOPER, 1: result.verifier},
    }
    bare = sign1.make({sign1.ALGORITHM: sign1.EDDSA, _COSE_TYPE: CWT_TYPE}, cbor_writer.dumps(claims))
    return sign1.Message(
        protected=bare.protected, header=bare.header, payload=bare.payload, signature=key.sign(bare.signed())
    ).encode()


def read(token: bytes, expected: Expected, *, now: datetime) -> AttestationResult:
    """The result that a token of either form affirms; line ends around a JWT do not count.

    Raises `Refused`, or `Malformed`.
    """
    if token[:1] == _TAGGED:  # its last byte may be that of a line end
        return read_cwt(token, expected, now=now)
    try:
        return read_jwt(token.decode("ascii").strip("\r\n"), expected, now=now)
    except UnicodeDecodeError:
        raise Malformed("token: neither a JWT nor a CWT", code="not-a-token") from None


def read_jwt(token: str, expected: Expected, *, now: datetime) -> AttestationResult:
    """The result that a JWT affirms. Raises `Refused`, or `Malformed`."""
    # 1 size and form
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3:
        raise Malformed(
            f"token: expected a JWT of three parts and at most {MAX_TOKEN} characters, got {len(parts)} parts, {len(token)} characters",
            code="not-jwt",
        )
    head, body, tail = (_from_base64url(part) for part in parts)
    # 2 header
    header = canonical.loads(head, what="token header", max_bytes=1024)
    _check_header(header, {"alg": _ALGORITHM, "typ": JWT_TYPE}, optional="kid")
    # 3 signature
    _check_signature(expected, tail, f"{parts[0]}.{parts[1]}".encode())
    # 4 claims
    return _checked(_jwt_result(body), expected, now)


def read_cwt(token: bytes, expected: Expected, *, now: datetime) -> AttestationResult:
    """The result that a CWT affirms. Raises `Refused`, or `Malformed`."""
    # 1 size and form
    message = sign1.parse(token, "token", max_bytes=MAX_TOKEN)
    # 2 header
    _check_header(
        message.header,
        {sign1.ALGORITHM: sign1.EDDSA, _COSE_TYPE: CWT_TYPE},
        optional=sign1.KEY_ID,
    )
    # 3 signature
    _check_signature(expected, message.signature, message.signed())
    # 4 claims
    return _checked(_cwt_result(message.payload), expected, now)


def _check_header(header: object, wanted: dict[Any, Any], *, optional: int | str) -> None:
    parameters = dict(header) if isinstance(header, dict) else {}
    parameters.pop(optional, None)
    if parameters != wanted or any(type(parameters[key]) is not type(wanted[key]) for key in wanted):
        entries = ", ".join(f"{key}: {value}" for key, value in wanted.items())
        raise Refused(
            f"token header: expected {entries} and no other entry",
            code="token-header",
            hint="only EdDSA counts, by a key that you hold: no token brings its own key or algorithm",
        )


def _check_signature(expected: Expected, signature: bytes, message: bytes) -> None:
    if not sign.holds(expected.key.verify, signature, message):
        raise Refused(
            "token: not signed by the verifier's key",
            code="token-signature",
            hint="take the key from the party file of the verifier that you asked; nothing in a token makes it trusted",
        )


def _jwt_result(body: bytes) -> AttestationResult:
    top = fields.Fields(canonical.loads(body, what="token", max_bytes=MAX_TOKEN), "token")
    verifier = top.object("ear.verifier-id")
    submods = top.object("submods")
    attester = _single(submods.names())
    appraisal = submods.object(attester)
    profile, developer = top.text("eat_profile", max_length=128), verifier.text("developer", max_length=256)
    names = {name: value for value, name in ear.TIERS.items()}
    status = appraisal.text("ear.status", max_length=16)
    vector = appraisal.object("ear.trustworthiness-vector")
    claims = {name: vector.integer(name, low=-128, high=127) for name in vector.names()}
    unknown = sorted(claims.keys() - set(ear.VECTOR))
    if status not in names or unknown:
        raise Malformed(
            f"token: expected a status among {', '.join(names)} and claims of AR4SI alone, got {unexpected.quoted(status)} and "
            + (", ".join(unexpected.quoted(claim) for claim in unknown[:3]) or "no other claim"),
            code="bad-value",
        )
    result = ear.AttestationResult(
        issuer=top.text("iss", max_length=256),
        audience=top.text("aud", max_length=256),
        issued=_moment(top.integer("iat", low=0, high=_MAX_SECONDS)),
        expires=_moment(top.integer("exp", low=0, high=_MAX_SECONDS)),
        nonce=_from_base64url(top.text("eat_nonce", max_length=100)),
        verifier=verifier.text("build", max_length=256),
        attester=attester,
        status=names[status],
        vector=claims,
        policy_digest=appraisal.digest("ear.appraisal-policy-id"),
        evidence_digest=EvidenceDigest(appraisal.digest(_EVIDENCE)),
        verdict_digest=appraisal.digest(_VERDICT),
    )
    for source in (top, verifier, submods, appraisal):
        source.done()
    _check_profile(profile, developer)
    return result


def _cwt_result(body: bytes) -> AttestationResult:
    top = cbor.Map(cbor.loads(body, "token", max_bytes=MAX_TOKEN), "token")
    verifier = cbor.Map(top.value(_VERIFIER), "token verifier")
    submods = top.mapping(_SUBMODS, low=1, high=1)
    attester = _single(tuple(submods))
    appraisal = cbor.Map(submods[attester], "token submod")
    profile, developer = top.text(_EAT_PROFILE, high=128), verifier.text(0, high=256)
    status = appraisal.integer(_STATUS, low=0, high=127)
    claims: dict[str, int] = {}
    for label, value in appraisal.mapping(_VECTOR, low=0, high=len(ear.VECTOR)).items():
        if type(label) is not int or not 0 <= label < len(ear.VECTOR) or type(value) is not int:
            raise Malformed(
                f"token: expected claims of AR4SI, 0 to {len(ear.VECTOR) - 1}, with integers, got claim {unexpected.kind(label)}",
                code="bad-value",
            )
        claims[ear.VECTOR[label]] = value
    if status not in ear.TIERS:
        raise Malformed(
            f"token: expected a status among {', '.join(str(tier) for tier in ear.TIERS)}, got {status}",
            code="bad-value",
        )
    result = ear.AttestationResult(
        issuer=top.text(_ISS, high=256),
        audience=top.text(_AUD, high=256),
        issued=_moment(top.integer(_IAT, low=0, high=_MAX_SECONDS)),
        expires=_moment(top.integer(_EXP, low=0, high=_MAX_SECONDS)),
        nonce=top.data(_EAT_NONCE, low=_NONCE[0], high=_NONCE[1]),
        verifier=verifier.text(1, high=256),
        attester=attester,
        status=status,
        vector=claims,
        policy_digest=_digest(appraisal, _POLICY),
        evidence_digest=EvidenceDigest(_digest(appraisal, _EVIDENCE)),
        verdict_digest=_digest(appraisal, _VERDICT),
    )
    for source in (top, verifier, appraisal):
        source.done()
    _check_profile(profile, developer)
    return result


def _single(names: tuple[object, ...]) -> str:
    if len(names) != 1 or not isinstance(names[0], str):
        raise Malformed(
            f"token: expected exactly one attester among the submods, got {len(names)}", code="bad-value"
        )
    return names[0]


def _digest(source: cbor.Map, key: int | str) -> str:
    text = source.text(key, high=71)
    if fields.DIGEST.fullmatch(text) is None:
        raise source.bad(key, fields.DIGEST_LIKE, unexpected.kind(text))
    return text


def _check_profile(profile: str, developer: str) -> None:
    # 5 profile
    if profile != ear.PROFILE or developer != ear.DEVELOPER:
        raise Refused(
            f"token: expected the profile {ear.PROFILE} by {ear.DEVELOPER}, got {unexpected.quoted(profile)} by {unexpected.quoted(developer)}",
            code="token-profile",
            hint="ask a broker or verifier of Strongroom, of this version",
        )


def _checked(result: AttestationResult, expected: Expected, now: datetime) -> AttestationResult:
    _check_nonce(expected.nonce)
    # 5 issuer, audience, policy, nonce
    for what, got, wanted in (
        ("issuer", result.issuer, expected.issuer),
        ("audience", result.audience, expected.audience),
        ("policy", result.policy_digest, expected.policy),
        ("nonce", result.nonce, expected.nonce),
    ):
        if not wanted or got != wanted:
            raise Refused(
                f"token: expected the {what} {_shown(wanted)}, got {_shown(got)}",
                code=f"token-{what}",
                hint="it answers somebody else, or another question or policy: ask again with a nonce of your own",
            )
    # 6 time
    if not result.issued <= now < result.expires or result.expires - result.issued > MAX_LIFETIME:
        raise Refused(
            f"token: from {fields.format_time(result.issued)} to {fields.format_time(result.expires)}, "
            f"used at {fields.format_time(now)}",
            code="token-time",
            hint="ask the verifier again",
        )
    # 7 status, vector
    tiers = {claim: ear.tier(value) for claim, value in result.vector.items()}
    weak = [claim for claim, reached in tiers.items() if reached != ear.AFFIRMING]
    missing = [claim for claim in expected.demanded if claim not in tiers]
    if result.status != ear.AFFIRMING or weak or missing:
        raise Refused(
            f"token: {ear.TIERS[result.status]}; not affirmed: {', '.join([*weak, *missing]) or 'the whole'}",
            code="token-not-affirming",
            hint="no claim, or one of 0, affirms nothing",
        )
    return result


def _shown(value: str | bytes) -> str:
    return (value.hex() if isinstance(value, bytes) else unexpected.quoted(value)) or "nothing"


def _check_nonce(nonce: bytes) -> None:
    if not _NONCE[0] <= len(nonce) <= _NONCE[1]:
        raise Malformed(f"nonce: {len(nonce)} bytes, expected {_NONCE[0]} to {_NONCE[1]}", code="bad-length")


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64url(text: str) -> bytes:
    """Without padding, and in the one form of those bytes."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("token: not base64url", code="not-base64url") from None
    if _base64url(data) != text:
        raise Malformed("token: not in the one form of base64url", code="not-canonical")
    return data
