"""What `fake_intel` can get wrong on purpose, and which check of the verifiers refuses it."""

from __future__ import annotations

import enum


class Fault(enum.StrEnum):
    """One thing wrong with evidence or endorsements that are sound otherwise."""

    OTHER_REPORT_DATA = "other-report-data"
    BAD_SIGNATURE = "bad-signature"
    R_ZERO = "r-zero"
    S_IS_ORDER = "s-is-order"
    OTHER_ATTESTATION_KEY = "other-attestation-key"
    QE_FORGED = "qe-forged"
    QE_OTHER_SIGNER = "qe-other-signer"
    QE_OTHER_PRODUCT = "qe-other-product"
    QE_DEBUG = "qe-debug"
    QE_MISC = "qe-misc"
    QE_OLD = "qe-old"
    PCK_FORGED = "pck-forged"
    PCK_EXPIRED = "pck-expired"
    PCK_NOT_YET_VALID = "pck-not-yet-valid"
    PCK_MISNAMED = "pck-misnamed"
    PCK_OF_OTHER_ROOT = "pck-of-other-root"
    PCK_ABSENT = "pck-absent"
    PPID_ZERO = "ppid-zero"
    TRAILING_BYTE = "trailing-byte"
    CUT_SHORT = "cut-short"
    OTHER_VENDOR = "other-vendor"
    PLATFORM_OLD = "platform-old"
    PCE_OLD = "pce-old"
    OTHER_FMSPC = "other-fmspc"
    OTHER_TEE = "other-tee"
    EVIDENCE_PART_ADDED = "evidence-part-added"
    # of TDX
    MODULE_UNKNOWN = "module-unknown"
    MODULE_OTHER_SIGNER = "module-other-signer"
    MODULE_ATTRIBUTES = "module-attributes"
    MODULE_OLD = "module-old"
    RESERVED_ATTRIBUTE = "reserved-attribute"
    XFAM_WITHOUT_SSE = "xfam-without-sse"
    XFAM_UNKNOWN = "xfam-unknown"
    # of SGX
    NOT_INITIALISED = "not-initialised"
    RESERVED_BYTES = "reserved-bytes"
    # of endorsements
    PART_ADDED = "part-added"
    TCB_INFO_MISSING = "tcb-info-missing"
    QE_IDENTITY_MISSING = "qe-identity-missing"
    ROOT_CRL_MISSING = "root-crl-missing"
    PCK_CRL_MISSING = "pck-crl-missing"
    TCB_INFO_EDITED = "tcb-info-edited"
    TCB_INFO_UNSIGNED = "tcb-info-unsigned"
    TCB_INFO_ENDED = "tcb-info-ended"
    TCB_INFO_NOT_YET = "tcb-info-not-yet"
    TCB_INFO_OF_OTHER_TEE = "tcb-info-of-other-tee"
    TCB_REVOKED = "tcb-revoked"
    NO_LEVEL = "no-level"
    DUPLICATE_KEY = "duplicate-key"
    FIFTEEN_COMPONENTS = "fifteen-components"
    UNKNOWN_STATUS = "unknown-status"
    QE_IDENTITY_FORGED = "qe-identity-forged"
    QE_IDENTITY_WRONG_ISSUER = "qe-identity-wrong-issuer"
    QE_IDENTITY_ENDED = "qe-identity-ended"
    QE_IDENTITY_OF_OTHER_TEE = "qe-identity-of-other-tee"
    QE_REVOKED = "qe-revoked"
    SIGNER_ENDED = "signer-ended"
    ROOT_CRL_ENDED = "root-crl-ended"
    ROOT_CRL_FORGED = "root-crl-forged"
    PCK_CRL_ENDED = "pck-crl-ended"
    PCK_CRL_FORGED = "pck-crl-forged"
    PCK_CRL_OF_OTHER_CA = "pck-crl-of-other-ca"
    PCK_CRL_OF_ROOT = "pck-crl-of-root"
    PCK_CRL_WITHOUT_AUTHORITY = "pck-crl-without-authority"
    PCK_REVOKED = "pck-revoked"
    CA_REVOKED = "ca-revoked"
    SIGNER_REVOKED = "signer-revoked"


F = Fault
# Which check refuses each fault; `format` means that something does not parse.
REFUSED_BY = {
    F.OTHER_REPORT_DATA: "binding",
    F.BAD_SIGNATURE: "signature",
    F.R_ZERO: "signature",
    F.S_IS_ORDER: "signature",
    F.OTHER_ATTESTATION_KEY: "qe.report-data",
    F.QE_FORGED: "qe.signature",
    F.QE_OTHER_SIGNER: "qe.identity",
    F.QE_OTHER_PRODUCT: "qe.identity",
    F.QE_DEBUG: "qe.identity",
    F.QE_MISC: "qe.identity",
    F.QE_OLD: "tcb.level",
    F.PCK_FORGED: "pck.path",
    F.PCK_EXPIRED: "pck.validity",
    F.PCK_NOT_YET_VALID: "pck.validity",
    F.PCK_MISNAMED: "pck.path",
    F.PCK_OF_OTHER_ROOT: "pck.root",
    F.PCK_ABSENT: "pck.missing",
    F.PPID_ZERO: "format",
    F.TRAILING_BYTE: "format",
    F.CUT_SHORT: "format",
    F.OTHER_VENDOR: "format",
    F.PLATFORM_OLD: "tcb.level",
    F.PCE_OLD: "tcb.level",
    F.OTHER_FMSPC: "tcb.platform",
    F.OTHER_TEE: "tee",
    F.EVIDENCE_PART_ADDED: "parts",
    F.MODULE_UNKNOWN: "tcb.module",
    F.MODULE_OTHER_SIGNER: "tcb.module",
    F.MODULE_ATTRIBUTES: "tcb.module",
    F.MODULE_OLD: "tcb.level",
    F.RESERVED_ATTRIBUTE: "td-attributes",
    F.XFAM_WITHOUT_SSE: "xfam",
    F.XFAM_UNKNOWN: "xfam",
    F.NOT_INITIALISED: "attributes",
    F.RESERVED_BYTES: "format",
    F.PART_ADDED: "parts",
    F.TCB_INFO_MISSING: "endorsements.missing",
    F.QE_IDENTITY_MISSING: "endorsements.missing",
    F.ROOT_CRL_MISSING: "endorsements.missing",
    F.PCK_CRL_MISSING: "endorsements.missing",
    F.TCB_INFO_EDITED: "tcb-info.signature",
    F.TCB_INFO_UNSIGNED: "format",
    F.TCB_INFO_ENDED: "tcb-info.validity",
    F.TCB_INFO_NOT_YET: "tcb-info.validity",
    F.TCB_INFO_OF_OTHER_TEE: "tcb.platform",
    F.TCB_REVOKED: "tcb.status",
    F.NO_LEVEL: "tcb.level",
    F.DUPLICATE_KEY: "format",
    F.FIFTEEN_COMPONENTS: "format",
    F.UNKNOWN_STATUS: "format",
    F.QE_IDENTITY_FORGED: "qe-identity.signature",
    F.QE_IDENTITY_WRONG_ISSUER: "qe-identity.path",
    F.QE_IDENTITY_ENDED: "qe-identity.validity",
    F.QE_IDENTITY_OF_OTHER_TEE: "qe.identity",
    F.QE_REVOKED: "tcb.status",
    F.SIGNER_ENDED: "tcb-info.validity",
    F.ROOT_CRL_ENDED: "root-ca-crl.validity",
    F.ROOT_CRL_FORGED: "root-ca-crl.signature",
    F.PCK_CRL_ENDED: "pck-crl.validity",
    F.PCK_CRL_FORGED: "pck-crl.signature",
    F.PCK_CRL_OF_OTHER_CA: "pck-crl.signature",
    F.PCK_CRL_OF_ROOT: "pck-crl.path",
    F.PCK_CRL_WITHOUT_AUTHORITY: "format",
    F.PCK_REVOKED: "revoked",
    F.CA_REVOKED: "revoked",
    F.SIGNER_REVOKED: "revoked",
}
OF_TDX = frozenset(
    {
        F.MODULE_UNKNOWN,
        F.MODULE_OTHER_SIGNER,
        F.MODULE_ATTRIBUTES,
        F.MODULE_OLD,
        F.RESERVED_ATTRIBUTE,
        F.XFAM_WITHOUT_SSE,
        F.XFAM_UNKNOWN,
    }
)
OF_SGX = frozenset({F.NOT_INITIALISED, F.RESERVED_BYTES})
OF_PCK = frozenset(
    {
        F.PCK_FORGED,
        F.PCK_EXPIRED,
        F.PCK_NOT_YET_VALID,
        F.PCK_MISNAMED,
        F.PCK_OF_OTHER_ROOT,
        F.PPID_ZERO,
        F.PLATFORM_OLD,
        F.PCE_OLD,
        F.OTHER_FMSPC,
    }
)
SERIAL_OF = {F.PCK_REVOKED: "pck", F.CA_REVOKED: "ca", F.SIGNER_REVOKED: "signer"}
WITHOUT = {
    F.TCB_INFO_MISSING: "tcb-info",
    F.QE_IDENTITY_MISSING: "qe-identity",
    F.ROOT_CRL_MISSING: "root-ca-crl",
    F.PCK_CRL_MISSING: "pck-crl",
}
