"""AWS Nitro enclaves and NitroTPM: attestation document → Claims.

Specs: AWS Nitro Enclaves User Guide, "Verifying the root of trust" and "Cryptographic attestation" (fields,
bounds, chain); AWS NitroTPM attestation documents (EC2 User Guide); RFC 9052 (COSE), RFC 8949 (CBOR).

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        exactly the document, no endorsements, nothing over its size
  2 algorithm    COSE_Sign1 with ES384 in its protected header, and a payload with the fields of a document:
                 digest SHA384, PCRs of 48 bytes with indices 0 to 31, bounded certificates and user fields
  3 chain.*      certificate ← cabundle ← one of `roots`, valid at the document's own time
  4 signature    ECDSA P-384 over the document by the certificate's key; r and s in range
  5 time         the document is not from after `now`, and its certificate has not ended before `now`
                 (five minutes are granted to clocks that differ, either way)
  6 binding      each of user_data, nonce and public_key that `binding` states is what the document carries

Not checked here: PCRs, debug mode, age within the certificate's three hours, instance. Those are policy
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED below.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from strongroom.crypto import digest, public_key
from strongroom.crypto.pki import x509
from strongroom.encoding import cbor, unexpected
from strongroom.errors import EvidenceRefused, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import cose
from strongroom.model.claims import Claims
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "nitro"
PART = "document"
MAX_DOCUMENT = 32 * 1024
PCR_BYTES = 48
MAX_PCRS = 32
MAX_CERTIFICATE = 1024
MAX_USER_FIELD = 1024
CONTRACT_PCR = 16
SKEW = timedelta(minutes=5)
# Which names of a `Bound` speak of which field of the document.
BOUND = {"user_data": ("user_data", "report_data"), "nonce": ("nonce",), "public_key": ("public_key",)}

NOT_CHECKED = (
    "revocation: a document's certificates live for hours; lists exist only for the authorities above them",
    "age: how old a document may be within its certificate's life is for policy (facts: timestamp_ms)",
)
NOT_BOUND = "binding: the document carries no user data, nonce or key, and that is what was asked for"
NITROTPM_CONTRACT = "contract: a NitroTPM document has no register for it"

_PCR_FACTS = tuple(f"pcr_{index}" for index in range(MAX_PCRS))
_PCR_REGISTERS = tuple(f"pcr{index}" for index in range(MAX_PCRS))
_ZERO = bytes(PCR_BYTES)
_UNTOUCHED = b"\xff" * PCR_BYTES  # a TPM's dynamic PCRs before a dynamic launch
_MAX_TIME_MS = 253402300799999  # the end of the year 9999
_GUIDE = "AWS Nitro Enclaves User Guide, cryptographic attestation"
_CHAIN_CHECKS = {
    "untrusted-root": "chain.root",
    "expired": "chain.validity",
    "not-yet-valid": "chain.validity",
}


@dataclass(frozen=True, kw_only=True)
class AttestationDocument:
    """A parsed attestation document, nothing of it verified. Times are UTC."""

    signed: cose.Sign1
    module_id: str
    timestamp_ms: int
    pcrs: dict[int, bytes]
    nitrotpm: bool
    certificate: bytes
    cabundle: tuple[bytes, ...]
    fields: dict[str, bytes | None]

    @property
    def time(self) -> datetime:
        """When the document says that it was made."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)


def parse(data: bytes) -> AttestationDocument:
    """Parse an attestation document. Raises `Malformed`."""
    signed = cose.parse(data, "nitro document", max_bytes=MAX_DOCUMENT)
    source = cbor.Map(cbor.loads(signed.payload, "nitro payload", max_bytes=MAX_DOCUMENT), "nitro payload")
    module_id = source.text("module_id", high=256)
    if (named := source.text("digest", high=16)) != "SHA384":
        raise source.bad("digest", "SHA384", unexpected.quoted(named))
    nitrotpm = source.has("nitrotpm_pcrs")
    document = AttestationDocument(
        signed=signed,
        module_id=module_id,
        timestamp_ms=source.integer("timestamp", low=1, high=_MAX_TIME_MS),
        pcrs=_pcrs(source, "nitrotpm_pcrs" if nitrotpm else "pcrs"),
        nitrotpm=nitrotpm,
        certificate=source.data("certificate", low=1, high=MAX_CERTIFICATE),
        cabundle=_cabundle(source),
        fields={
            "public_key": source.data_or_null("public_key", low=1, high=MAX_USER_FIELD),
            "user_data": source.data_or_null("user_data", low=0, high=MAX_USER_FIELD),
            "nonce": source.data_or_null("nonce", low=0, high=MAX_USER_FIELD),
        },
    )
    source.done()
    return document


def _pcrs(source: cbor.Map, key: str) -> dict[int, bytes]:
    values = source.mapping(key, low=1, high=MAX_PCRS)
    out: dict[int, bytes] = {}
    for index, value in values.items():
        if not isinstance(index, int) or not 0 <= index < MAX_PCRS:
            raise source.bad(key, f"indices from 0 to {MAX_PCRS - 1}", unexpected.kind(index))
        if not isinstance(value, bytes) or len(value) != PCR_BYTES:
            raise source.bad(f"{key}.{index}", f"{PCR_BYTES} bytes", unexpected.kind(value))
        out[index] = value
    if not {0, 1, 2} <= out.keys():
        raise source.bad(key, "PCRs 0, 1 and 2 among them", ", ".join(str(index) for index in sorted(out)))
    return dict(sorted(out.items()))


def _cabundle(source: cbor.Map) -> tuple[bytes, ...]:
    out = []
    for certificate in source.items("cabundle", low=1, high=x509.MAX_PATH - 1):
        if not isinstance(certificate, bytes) or not 1 <= len(certificate) <= MAX_CERTIFICATE:
            raise source.bad(
                "cabundle", f"certificates of 1 to {MAX_CERTIFICATE} bytes", unexpected.kind(certificate)
            )
        out.append(certificate)
    return tuple(out)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of an enclave, or of an instance with a NitroTPM. Raises `EvidenceRefused`, or `Malformed`."""
    # 1 parts
    _check_parts(evidence, endorsements)
    # 2 algorithm
    document = parse(evidence.parts[PART])
    if document.signed.algorithm != cose.ES384:
        raise EvidenceRefused(
            "algorithm", expected="ES384 (-35)", got=str(document.signed.algorithm), source=_GUIDE
        )
    # 3 chain
    path = _chain(document, roots)
    # 4 signature
    _check_signature(document, path.leaf.key)
    # 5 time
    _check_time(document, path.leaf, now)
    # 6 binding
    bound = _check_binding(document, binding)
    return _claims(document, path, bound, binding)


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    if evidence.parts.keys() != {PART} or endorsements.parts:
        raise EvidenceRefused(
            "parts",
            expected=f"{PART}, and no endorsements",
            got=", ".join(sorted((*evidence.parts, *endorsements.parts)))[:400] or "nothing",
            hint="give the attestation document alone: it brings its certificates",
        )


def _chain(document: AttestationDocument, roots: frozenset[str]) -> x509.Path:
    """The cabundle begins with the root; the leaf's issuer is its last."""
    issuers = b"".join(reversed(document.cabundle))
    try:
        return x509.verify_path(document.certificate, issuers, roots=roots, purpose=None, now=document.time)
    except Refused as cause:
        raise EvidenceRefused(
            _CHAIN_CHECKS.get(cause.code, "chain.path"),
            expected="a certificate, valid when the document was made, that leads to one of "
            + ", ".join(sorted(roots)[:4]),
            got=cause.message,
            hint="a document of a mock service leads to another root than AWS's",
            source="AWS Nitro Enclaves User Guide, verifying the root of trust",
        ) from None


def _check_signature(document: AttestationDocument, key: public_key.PublicKey) -> None:
    try:
        cose.check(document.signed, key)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected="an ES384 signature over the document by its certificate's key",
            got=cause.message,
            source="RFC 9052, section 4.4",
        ) from None


def _check_time(document: AttestationDocument, leaf: x509.Certificate, now: datetime) -> None:
    moment = document.time
    if moment > now + SKEW:
        raise EvidenceRefused(
            "time",
            expected=f"a document from before {now:%Y-%m-%dT%H:%M:%SZ}",
            got=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            hint="one of the clocks is wrong",
            source=_GUIDE,
        )
    if now > leaf.not_after + SKEW:
        raise EvidenceRefused(
            "time",
            expected=f"a document whose certificate has not ended by {now:%Y-%m-%dT%H:%M:%SZ}",
            got=f"made {moment:%Y-%m-%dT%H:%M:%SZ}, its certificate ended {leaf.not_after:%Y-%m-%dT%H:%M:%SZ}",
            hint="ask for a new document; to judge a stored one, give the time at which it was received",
            source=_GUIDE,
        )


def _check_binding(document: AttestationDocument, binding: Bound) -> tuple[str, ...]:
    """The fields that `binding` states and the document carries. Expected empty bytes mean: empty, or null."""
    stated = False
    bound: list[str] = []
    for field, names in BOUND.items():
        got = document.fields[field] or b""
        for name in names:
            expected = _stated(binding, name)
            if expected is None:
                continue
            stated = True
            if got != expected:
                raise EvidenceRefused(
                    "binding",
                    expected=f"{field} {expected.hex() or 'empty'}",
                    got=got.hex() or "nothing",
                    hint="the document is for another nonce, contract, key or audience: it cannot be used again",
                    source="docs/verdicts.md, What evidence is bound to",
                )
            if expected and field not in bound:
                bound.append(field)
    if not stated:
        raise EvidenceRefused(
            "binding",
            expected="expected bytes for user_data, nonce or public_key",
            got="none given",
            hint="say what the document must be bound to; there is no unbound verification",
            source="docs/verdicts.md, What evidence is bound to",
        )
    return tuple(bound)


def _stated(binding: Bound, name: str) -> bytes | None:
    """What `binding` expects of `name`, or None where it states nothing."""
    try:
        return binding.value(name)
    except EvidenceRefused:
        return None


def _claims(document: AttestationDocument, path: x509.Path, bound: tuple[str, ...], binding: Bound) -> Claims:
    pcrs = document.pcrs
    root = path.root.spki_digest
    facts: dict[str, str | int | bool] = {
        "module_id": document.module_id,
        "timestamp_ms": document.timestamp_ms,
        "digest": "SHA384",
        "nitrotpm": document.nitrotpm,
        "bound": ", ".join(bound),
        "certificate_subject": path.leaf.subject,
        "certificate_serial": f"{path.leaf.serial:x}",
        "certificate_not_after": f"{path.leaf.not_after:%Y-%m-%dT%H:%M:%SZ}",
        "root_subject": path.root.subject,
        "pcr_count": len(pcrs),
    }
    for name, value in document.fields.items():
        if value is not None:
            facts[name] = value.hex()
    for index, value in pcrs.items():
        facts[_PCR_FACTS[index]] = value.hex()
    contract_digest = None if document.nitrotpm else _contract(pcrs, binding)
    not_checked = NOT_CHECKED + ((NITROTPM_CONTRACT,) if document.nitrotpm else ())
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root),
        root=root,
        machine=document.module_id.partition("-enc")[0].partition("-tpm")[0],
        contract_digest=contract_digest,
        registers=_registers(document, contract_digest),
        # AWS: an enclave in debug mode has PCRs of zeros. An instance with a NitroTPM has no such mode.
        debug=not document.nitrotpm and any(pcrs[index] == _ZERO for index in (0, 1, 2)),
        memory_guard=False,
        facts=facts,
        not_checked=not_checked if bound else (*not_checked, NOT_BOUND),
    )


def _contract(pcrs: dict[int, bytes], binding: Bound) -> ContractDigest | None:
    """The contract that PCR 16 was extended with, once and first: SHA-384(zeros ‖ its digest)."""
    expected = _stated(binding, "contract")
    if expected is None or CONTRACT_PCR not in pcrs:
        return None
    extended = hashlib.sha384(_ZERO + expected).digest()
    return ContractDigest(digest.text(expected)) if pcrs[CONTRACT_PCR] == extended else None


def _registers(document: AttestationDocument, contract_digest: ContractDigest | None) -> dict[str, str]:
    """PCRs that were extended, and always 0 to 2; not PCR 16 where it holds the contract and no more.

    A PCR that nobody extended measures nothing: a reference that names it finds nothing, and denies.
    """
    out = {}
    for index, value in document.pcrs.items():
        blank = value == _ZERO or (document.nitrotpm and value == _UNTOUCHED)
        if (index > 2 and blank) or (index == CONTRACT_PCR and contract_digest is not None):
            continue
        out[_PCR_REGISTERS[index]] = value.hex()
    return out
