"""AMD SEV-SNP (`snp`): attestation report → Claims.

Specs: AMD 56860 rev 1.58, SEV-SNP Firmware ABI (report; `snp_report.py`); AMD 57230, VCEK Certificate and KDS
Interface (certificates and CRLs; `snp_product.py`, `crypto/pki/vek.py`); RFC 5280.

Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        exactly the report; endorsements vek, issuers and crl, and no others
  2 report       version 2 to 5, reserved bytes and bits zero, signed with ECDSA P-384 by a VCEK or VLEK
                 (signing_key), not with the chip's key masked
  3 chain.*      VEK ← ASK or ASVK ← ARK, one of `roots`, in date; RSASSA-PSS with SHA-384 and 4096-bit keys;
                 a VCEK below the ASK, a VLEK below the ASVK, of one product line all the way
  4 product      the report's processor (CPUID; version 2: the certificate's product) is of that line
  5 vek          the certificate's TCB is the report's REPORTED_TCB in each byte, a VCEK's chip is CHIP_ID
  6 signature    ECDSA P-384 over the report by the VEK; r and s in range
  7 binding      REPORT_DATA is what `binding` states
  8 revocation   a CRL, signed by that ARK and current, that names neither the ASK or ASVK nor the ARK

Not checked here: measurement, debug, VMPL, guest policy, TCB minimums, product, chip, provider. Those are policy
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED below.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.crypto.pki import crl, vek, x509
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence.formats import snp_product, snp_report
from strongroom.evidence.roots import amd
from strongroom.model.claims import Claims
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "snp"
REPORT = "report"
VEK, ISSUERS, CRL = "vek", "issuers", "crl"
# Bytes of each endorsement. Issuers: room for more than the two, whose number check 3 refuses.
LIMITS = {VEK: vek.MAX_BYTES, ISSUERS: 4 * x509.MAX_CERTIFICATE, CRL: crl.MAX_BYTES}

NOT_CHECKED = (
    "revocation of one chip's VCEK: AMD's lists name its authorities' certificates alone; a lower TCB is for minimums",
    "what the host gave at launch beyond the measurement: ID block and author key are in the facts",
)
NO_MACHINE = "which machine: the report is signed with a provider's VLEK and its chip id is masked"

_SPEC = "AMD 56860 rev 1.58, section 7.3"
_SPEC_KDS = "AMD 57230"
# By SIGNING_KEY: the certificate's subject, and the name of its issuer before the product line's.
_KINDS = {snp_report.VCEK: ("SEV-VCEK", "SEV-"), snp_report.VLEK: ("SEV-VLEK", "SEV-VLEK-")}
_CHAIN_CHECKS = {
    "untrusted-root": "chain.root",
    "expired": "chain.validity",
    "not-yet-valid": "chain.validity",
}


@dataclass(frozen=True, kw_only=True)
class Attested:
    """A report that the chip signed and that is bound (checks 1 to 7); nobody asked yet what AMD revoked.

    Not `Claims`: nothing is to be decided on it. issuers: the ASK or ASVK, and the ARK.
    """

    report: snp_report.SnpReport
    vek: snp_product.Vek
    issuers: x509.Path


def attest(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Attested:
    """Checks 1 to 7, for who has a report and certificates without AMD's CRL. Raises as `verify`."""
    # 1 parts
    _check_parts(evidence, endorsements)
    # 2 report
    report = snp_report.parse(evidence.parts[REPORT])
    kind, issuer_prefix = _check_keys(report)
    # 3 chain
    issuers = _issuers(endorsements.part(ISSUERS), roots, now)
    key = _vek(endorsements.part(VEK), kind, issuers, now)
    line = _line(issuers.leaf.subject, issuers.root.subject, issuers.root.spki_digest, issuer_prefix)
    # 4 product
    _check_product(report, key, line)
    # 5 vek
    _check_vek(report, key)
    # 6 signature
    try:
        key.certificate.key.verify_ecdsa(report.signature, report.signed)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected=f"a signature over the report by the certified {kind}",
            got=cause.message,
            source=f"{_SPEC}; section 10",
        ) from None
    # 7 binding
    expected = binding.value("report_data")
    if report.report_data != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex() or "nothing",
            got=report.report_data.hex(),
            hint="the report is for another nonce, contract, key or audience: evidence cannot be used again",
            source="docs/verdicts.md, What evidence is bound to",
        )
    return Attested(report=report, vek=key, issuers=issuers)


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of a guest. Raises `EvidenceRefused`, or `Malformed` when a part does not parse."""
    attested = attest(evidence, endorsements, binding=binding, roots=roots, now=now)
    # 8 revocation
    return _claims(attested, *_check_revocation(endorsements, attested.issuers, now))


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    names = endorsements.parts.keys()
    if evidence.parts.keys() != {REPORT} or not {VEK, ISSUERS} <= names <= LIMITS.keys():
        raise EvidenceRefused(
            "parts",
            expected=f"evidence {REPORT}; endorsements {VEK}, {ISSUERS} and {CRL}",
            got=f"evidence {', '.join(sorted(evidence.parts))[:200] or 'nothing'}; "
            f"endorsements {', '.join(sorted(names))[:200] or 'nothing'}",
            hint="fetch the endorsements of this chip or provider from AMD's Key Distribution Service",
            source=_SPEC_KDS,
        )
    for name, data in endorsements.parts.items():
        if len(data) > LIMITS[name]:
            raise Malformed(
                f"{TEE} endorsements: {name}: {len(data)} bytes, at most {LIMITS[name]} allowed",
                code="too-large",
            )


def _check_keys(report: snp_report.SnpReport) -> tuple[str, str]:
    """What signed the report: the kind of its certificate, and how its issuer's common name begins."""
    if report.signature_algo != snp_report.ECDSA_P384_SHA384:
        raise EvidenceRefused(
            "report.signature_algo",
            expected="1 (ECDSA P-384 with SHA-384)",
            got=str(report.signature_algo),
            source=_SPEC,
        )
    if report.mask_chip_key or report.signing_key not in _KINDS:
        raise EvidenceRefused(
            "report.signing_key",
            expected="0 (VCEK) or 1 (VLEK), and MASK_CHIP_KEY 0",
            got=f"{report.signing_key}, MASK_CHIP_KEY {int(report.mask_chip_key)}",
            hint="the host lets no key sign: it must allow the chip's or its provider's",
            source=_SPEC,
        )
    return _KINDS[report.signing_key]


def _issuers(data: bytes, roots: frozenset[str], now: datetime) -> x509.Path:
    try:
        path = x509.verify_ca_path(_split(data), roots=roots, now=now)
        _check_authorities(*(certificate.der for certificate in path.certificates))
    except Refused as cause:
        raise _chain_refused(
            cause, "ASK or ASVK and ARK, in date, of which the ARK is one of ", roots
        ) from None
    if len(path.certificates) != 2:
        raise EvidenceRefused(
            "chain.path",
            expected="two certificates: ASK or ASVK, then ARK",
            got=str(len(path.certificates)),
            source=_SPEC_KDS,
        )
    return path


# Remembered, as the authorities above all chips of a product line are the same.
_split = functools.lru_cache(maxsize=64)(x509.split)


@functools.lru_cache(maxsize=64)
def _check_authorities(*ders: bytes) -> None:
    for der in ders:
        vek.check_authority(x509.parse_cached(der))


def _vek(data: bytes, kind: str, issuers: x509.Path, now: datetime) -> snp_product.Vek:
    key = snp_product.read(data)
    if key is None:
        raise EvidenceRefused(
            "product",
            expected="a certificate for one of " + ", ".join(snp_product.LINES),
            got="another product",
            hint="this version does not know that line of processors; an unknown one never counts",
            source=_SPEC_KDS,
        )
    certificate = key.certificate
    if certificate.kind != kind:
        raise EvidenceRefused(
            "chain.path", expected=f"a certificate of a {kind}", got=certificate.kind, source=_SPEC_KDS
        )
    try:
        _check_issued(data, issuers.leaf.der)
    except Refused as cause:
        raise _chain_refused(
            cause, f"a {kind} certificate that was issued by {issuers.leaf.subject}"
        ) from None
    if not certificate.not_before <= now <= certificate.not_after:
        raise EvidenceRefused(
            "chain.validity",
            expected=f"a {kind} certificate that counts at {now:%Y-%m-%dT%H:%M:%SZ}",
            got=f"valid from {certificate.not_before:%Y-%m-%dT%H:%M:%SZ} to {certificate.not_after:%Y-%m-%dT%H:%M:%SZ}",
            source="RFC 5280, section 4.1.2.5",
        )
    return key


@functools.lru_cache(maxsize=256)
def _check_issued(leaf: bytes, issuer: bytes) -> None:
    """Raise `Refused` unless one certificate (DER) was issued by another. That does not change, so that it is asked once."""
    key = snp_product.read(leaf)
    if key is None:
        raise Refused("a certificate of no known product", code="bad-chain")
    vek.check_issued(key.certificate, x509.parse_cached(issuer))


@functools.lru_cache(maxsize=64)
def _line(issuer_subject: str, root_subject: str, root_key: str, issuer_prefix: str) -> snp_product.Line:
    """The product line that both authorities name. A pinned key speaks for its own line alone.

    issuer_subject: of the ASK or ASVK. root_subject, root_key: of the ARK; the key by its digest. issuer_prefix: what
    stands before the line's name in the ASK's or ASVK's common name.
    """
    for line in snp_product.LINES.values():
        if root_subject.startswith(f"CN=ARK-{line.name},"):
            break
    else:
        raise EvidenceRefused(
            "product",
            expected="one of " + ", ".join(f"ARK-{name}" for name in snp_product.LINES),
            got=root_subject,
            hint="this version does not know that line of processors; an unknown one never counts",
            source=_SPEC_KDS,
        )
    if root_key in amd.ARKS.values() and amd.ARKS[line.name] != root_key:
        raise EvidenceRefused(
            "chain.root",
            expected=f"ARK-{line.name} {amd.ARKS[line.name]}",
            got=root_key,
            source="docs/tee/snp.md, AMD's certificates",
        )
    if not issuer_subject.startswith(f"CN={issuer_prefix}{line.name},"):
        raise EvidenceRefused(
            "chain.path", expected=f"issuer {issuer_prefix}{line.name}", got=issuer_subject, source=_SPEC_KDS
        )
    return line


def _check_product(report: snp_report.SnpReport, key: snp_product.Vek, line: snp_product.Line) -> None:
    if report.version > 2:
        stated_line = snp_product.line_of_cpuid(report.family, report.model)
        got = f"family {report.family:#x} model {report.model:#x}"
    else:
        stated_line = key.line if key.line.without_cpuid else None
        got = f"a version 2 report with a certificate for {key.product}"
    if stated_line is None or stated_line is not line or key.line is not line:
        raise EvidenceRefused(
            "product",
            expected=f"a processor and a certificate of {line.name}, whose root this is",
            got=f"{got}, a certificate for {key.product}",
            hint="this version does not know that processor; an unknown one never counts"
            if stated_line is None
            else "the certificates are another processor's",
            source=f"{_SPEC}; {_SPEC_KDS}",
        )


def _check_vek(report: snp_report.SnpReport, key: snp_product.Vek) -> None:
    if key.tcb != report.reported_tcb:
        raise EvidenceRefused(
            "vek.tcb",
            expected=f"a certificate for REPORTED_TCB {report.reported_tcb.hex()}",
            got=key.tcb.hex(),
            hint="the firmware was updated since: fetch the certificate for the TCB that the report names",
            source=_SPEC_KDS,
        )
    if key.hwid and snp_product.chip_id(key.hwid) != report.chip_id:
        raise EvidenceRefused(
            "vek.chip",
            expected=f"a certificate for CHIP_ID {report.chip_id.hex()}",
            got=key.hwid.hex(),
            hint="a masked CHIP_ID is all zeros: the host must not mask it",
            source=_SPEC_KDS,
        )


def _check_revocation(
    endorsements: Endorsements, issuers: x509.Path, now: datetime
) -> tuple[crl.RevocationList, str]:
    """The list, and when the next one is due, as text."""
    data = endorsements.parts.get(CRL)
    if data is None:
        raise EvidenceRefused(
            "revocation",
            expected=f"AMD's revocation list of {issuers.root.subject}",
            got="none given",
            hint="fetch it from AMD's Key Distribution Service; a list that is missing is not an empty one",
            source=_SPEC_KDS,
        )
    try:
        listed, next_update = _list(data, issuers.root.der)
    except Refused as cause:
        raise EvidenceRefused(
            "revocation",
            expected=f"a list signed by {issuers.root.subject}",
            got=cause.message,
            source=_SPEC_KDS,
        ) from None
    if not listed.this_update <= now <= listed.next_update:
        raise EvidenceRefused(
            "revocation",
            expected=f"a list that counts at {now:%Y-%m-%dT%H:%M:%SZ}",
            got=f"from {listed.this_update:%Y-%m-%dT%H:%M:%SZ}, the next by {next_update}",
            hint="fetch the current list",
            source="RFC 5280, section 6.3.3",
        )
    for certificate in issuers.certificates:
        if listed.revokes(certificate):
            raise EvidenceRefused(
                "revocation",
                expected="authorities that AMD did not revoke",
                got=f"{certificate.subject}, serial {certificate.serial}, is revoked",
                hint="nothing that this authority certified counts any more",
                source=_SPEC_KDS,
            )
    return listed, next_update


@functools.lru_cache(maxsize=64)
def _list(data: bytes, root: bytes) -> tuple[crl.RevocationList, str]:
    """The list in `data`, issued by the root (DER), and when the next one is due, as text. Remembered, as every chip asks for it."""
    parsed = crl.parse(data)
    crl.check_issued(parsed, x509.parse_cached(root))
    return parsed, f"{parsed.next_update:%Y-%m-%dT%H:%M:%SZ}"


def _chain_refused(cause: Refused, expected: str, roots: frozenset[str] = frozenset()) -> EvidenceRefused:
    return EvidenceRefused(
        _CHAIN_CHECKS.get(cause.code, "chain.path"),
        expected=expected + ", ".join(sorted(roots)[:4]),
        got=cause.message,
        hint="only AMD's keys count, each for its own line of processors",
        source=f"{_SPEC_KDS}; RFC 5280, section 6",
    )


def _claims(attested: Attested, listed: crl.RevocationList, next_update: str) -> Claims:
    report, key = attested.report, attested.vek
    root = attested.issuers.root
    masked = not any(report.chip_id)
    return Claims(
        tee=TEE,
        simulated=not pinned.is_hardware(TEE, root.spki_digest),
        root=root.spki_digest,
        machine=f"provider:{key.provider}" if masked else report.chip_id.hex(),
        contract_digest=ContractDigest(digest.text(report.host_data)) if any(report.host_data) else None,
        registers={"measurement": report.measurement.hex()},
        debug=snp_report.is_debug(report.policy),
        memory_guard=False,  # simulated rooms alone have one
        facts={
            **_facts(report),
            "product": key.line.name,
            "product_name": key.product,
            "vek": "VLEK" if key.provider else "VCEK",
            "provider": key.provider,
            "vek_not_after": key.ends,
            "root_subject": root.subject,
            "crl_number": listed.number,
            "crl_next_update": next_update,
        },
        not_checked=(*NOT_CHECKED, NO_MACHINE) if masked else NOT_CHECKED,
        tcb=_tcb(report, key.line),
    )


def _tcb(report: snp_report.SnpReport, line: snp_product.Line) -> dict[str, int]:
    tcb = {"guest.svn": report.guest_svn}
    tcb.update(snp_product.claimed_tcb(line, report.reported_tcb, "reported"))
    tcb.update(snp_product.claimed_tcb(line, report.committed_tcb, "committed"))
    tcb.update(snp_product.claimed_tcb(line, report.launch_tcb, "launch"))
    tcb.update(snp_product.claimed_tcb(line, report.current_tcb, "current"))
    return tcb


def _facts(report: snp_report.SnpReport) -> dict[str, str | int | bool]:
    facts: dict[str, str | int | bool] = {
        "version": report.version,
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "host_data": report.host_data.hex(),
        "report_data": report.report_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "author_key_en": report.author_key_en,
        "mask_chip_key": report.mask_chip_key,
        "signing_key": report.signing_key,
        "signature_algo": report.signature_algo,
        "report_id": report.report_id.hex(),
        "report_id_ma": report.report_id_ma.hex(),
        "chip_id": report.chip_id.hex(),
        "cpuid": f"{report.family:02x}.{report.model:02x}.{report.stepping:x}" if report.version > 2 else "",
        "firmware.current": "{}.{}.{}".format(*report.current_version),
        "firmware.committed": "{}.{}.{}".format(*report.committed_version),
        "policy": f"{report.policy:#x}",
        "platform_info": f"{report.platform_info:#x}",
        "mitigations.launch": report.mitigations_launch,
        "mitigations.current": report.mitigations_current,
    }
    facts.update(snp_report.policy_facts(report.policy))
    facts.update(snp_report.platform_facts(report.platform_info))
    return facts
