"""Google Compute Engine (`gcp`): a quote by the virtual TPM that Google gives to an instance → Claims.

Specs: TCG TPM 2.0 Library, Part 2 (structures); TCG PC Client Platform Firmware Profile 1.06 (event log);
RFC 5280 (certificates); google/go-tpm-tools (what the certificate says of the instance).
Checked here, in this order (numbers recur at the code; a failure is named in EvidenceRefused.check):
  1 parts        the five parts, the event log perhaps, no other; no endorsements; nothing over its size
  2 chain.*      the attestation key (AK) is certified, in date, up to one of `roots`
  3 instance     the certificate names one instance of Google's
  4 quote        made inside a TPM, of PCRs of the SHA-256 or the SHA-384 bank, without trailing bytes
  5 signature    by the AK over the quote; r and s in range
  6 binding      the quote's extra data are those expected
  7 pcr-values   the PCR values given are those quoted
  8 event-log    where there is a log, its replay explains every quoted PCR that it names

Not checked here: any PCR value, which instance, secure boot. Those are compared with the contract
(strongroom/appraisal); they are in the claims. Not checked anywhere: see NOT_CHECKED.
The TPM is Google's, outside of the room: its quote proves what Google's firmware and the guest measured to those who
believe Google. That the memory is closed to Google is proved by a TDX or SNP report alone, which is evidence of its own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from strongroom.crypto import x509
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import eventlog_efi, gcp_instance, tpm_quote
from strongroom.evidence import roots as pinned
from strongroom.model.claims import Claims

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.model.binding import Bound
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

TEE = "gcp"
PARTS = {
    "quote": tpm_quote.MAX_QUOTE,
    "signature": tpm_quote.MAX_SIGNATURE,
    "ak-certificate": x509.MAX_CERTIFICATE,
    "issuers": x509.MAX_PATH * x509.MAX_CERTIFICATE,
    "pcrs": tpm_quote.MAX_PCRS,
}
LOG = {"event-log": eventlog_efi.MAX_LOG}

NOT_CHECKED = (
    "that the instance's memory is closed to Google: a TDX or SNP report proves that, as evidence of its own",
    "that such a report is of the same instance: a shared nonce says it; nothing that Google signs does",
    "that the attestation key lives in the TPM of a given endorsement key: Google, who makes both, vouches for it",
    "revocation: Google's certificates of attestation keys name no list",
)
_SPEC_TPM = "TCG TPM 2.0 Library, Part 2"
_SPEC_INSTANCE = "google/go-tpm-tools, server/verify.go"
_CHAIN_CHECKS = {
    "untrusted-root": "chain.root",
    "expired": "chain.validity",
    "not-yet-valid": "chain.validity",
    "wrong-purpose": "chain.purpose",
}


def verify(
    evidence: Evidence,
    endorsements: Endorsements,
    *,
    binding: Bound,
    roots: frozenset[str],
    now: datetime,
) -> Claims:
    """Claims of an instance's virtual TPM. Raises `EvidenceRefused`, or `Malformed` when a part does not parse.

    binding: `extra_data` is compared, whole. roots: digests of the keys (or certificates) of roots.
    """
    # 1 parts
    _check_parts(evidence, endorsements)
    parts = evidence.parts
    # 2 chain
    path = _chain(parts["ak-certificate"], parts["issuers"], roots, now)
    # 3 instance
    instance = _instance(path.leaf)
    # 4 quote
    quote = tpm_quote.parse_quote(parts["quote"])
    # 5 signature
    signature = tpm_quote.parse_signature(parts["signature"])
    _check_signature(signature, path.leaf.key, quote.raw)
    # 6 binding
    expected = binding.value("extra_data")
    if quote.extra_data != expected:
        raise EvidenceRefused(
            "binding",
            expected=expected.hex() or "nothing",
            got=quote.extra_data.hex() or "nothing",
            hint="the quote is for another nonce, contract, key or audience: evidence cannot be used again",
            source="model/binding.py",
        )
    # 7 pcr-values
    pcrs = tpm_quote.check_pcrs(quote, signature, parts["pcrs"])
    # 8 event-log
    log = parts.get("event-log")
    boot = {} if log is None else eventlog_efi.explain(log, quote.bank, pcrs)
    return _claims(path, instance, quote, pcrs, boot)


def _check_parts(evidence: Evidence, endorsements: Endorsements) -> None:
    limits = {**PARTS, **LOG} if "event-log" in evidence.parts else PARTS
    if evidence.parts.keys() != limits.keys():
        raise EvidenceRefused(
            "parts",
            expected=", ".join(sorted(PARTS)) + ", perhaps event-log",
            got=", ".join(sorted(evidence.parts))[:400] or "nothing",
        )
    for name, limit in limits.items():
        if len(evidence.parts[name]) > limit:
            raise Malformed(
                f"{TEE} evidence: {name}: {len(evidence.parts[name])} bytes, at most {limit} allowed",
                code="too-large",
            )
    if endorsements.parts:
        raise EvidenceRefused(
            "parts", expected="no endorsements", got=", ".join(sorted(endorsements.parts))[:400]
        )


def _chain(leaf: bytes, issuers: bytes, roots: frozenset[str], now: datetime) -> x509.Path:
    try:
        # Google marks no certificate of an attestation key with a purpose; the instance extension tells it apart.
        return x509.verify_path(leaf, issuers, roots=roots, purpose=None, now=now)
    except Refused as cause:
        raise EvidenceRefused(
            _CHAIN_CHECKS.get(cause.code, "chain.path"),
            expected="an attestation key certificate, in date, that leads to one of "
            + ", ".join(sorted(roots)[:4]),
            got=cause.message,
            hint="give the certificates from the attestation key's issuer to Google's root, in that order",
            source="RFC 5280, section 6",
        ) from None


def _instance(leaf: x509.Certificate) -> gcp_instance.Instance:
    value = leaf.extension(gcp_instance.OID)
    if value is None:
        raise EvidenceRefused(
            "instance",
            expected=f"extension {gcp_instance.OID}, which names the instance",
            got="no such extension",
            hint="a certificate of Google's, but not that of an instance's attestation key",
            source=_SPEC_INSTANCE,
        )
    return _kept_instance(value)


_kept_instance = functools.lru_cache(maxsize=256)(gcp_instance.parse)


def _check_signature(
    signature: tpm_quote.EcdsaSignature | tpm_quote.RsaSignature, key: x509.PublicKey, quote: bytes
) -> None:
    try:
        tpm_quote.check_signature(signature, key, quote)
    except Refused as cause:
        raise EvidenceRefused(
            "signature",
            expected="a signature over the quote by the certified attestation key",
            got=cause.message,
            source=_SPEC_TPM,
        ) from None


def _claims(
    path: x509.Path,
    instance: gcp_instance.Instance,
    quote: tpm_quote.Quote,
    pcrs: dict[int, bytes],
    boot: dict[str, str | int | bool],
) -> Claims:
    facts: dict[str, str | int | bool] = {
        "zone": instance.zone,
        "project_number": instance.project_number,
        "project_id": instance.project_id,
        "instance_id": instance.instance_id,
        "instance_name": instance.instance_name,
        **instance.flags,
        "pcr_bank": quote.bank,
        "clock_ms": quote.clock,
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "clock_safe": quote.safe,
        "tpm_firmware": f"{quote.firmware:016x}",
        "ak_subject": path.leaf.subject,
        "ak_key": path.leaf.key.kind,
        "ak_serial": f"{path.leaf.serial:x}",
        "root_subject": path.root.subject,
        **boot,
    }
    unasked = () if quote.extra_data else ("that the quote is fresh: no extra data were expected in it",)
    unlogged = () if boot else ("what the firmware measured: no event log was given",)
    return Claims(
        tee=TEE,
        # Google's test machines have certificates of the same authority.
        simulated=not (pinned.is_hardware(TEE, path.root.spki_digest) and instance.production),
        root=path.root.spki_digest,
        machine=path.leaf.spki_digest,
        contract=None,
        registers={f"pcr{index}": value.hex() for index, value in pcrs.items()},
        debug=False,
        memory_guard=False,
        facts=facts,
        not_checked=(*NOT_CHECKED, *unasked, *unlogged),
        tcb={"gce.security": instance.security_version},
    )
