"""The judging modules: a wrong answer of one of them releases data, or keeps a lie.

Every `raise` and every `ok=…` of theirs is executed by a unit test (`tests.refusals`), and most changes of
their meaning are noticed by one (`make mutants`).
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

_NAMES = {
    "model": (
        "agreed agreement binding contract endorsements identity manifest merging messages parts party policy receipt record rotation "
        "signatures verdict"
    ),
    "encoding": "canonical cbor dsse fields pem reader sign1 tpm2",
    "crypto": "certificates crl csr der ocsp public_key spki vek x509",
    "ledger": "checkpoint inspect merkle proof proofpack tiles witness",
    "evidence": (
        "azure azure_hcl ccel cose dcap dcap_collateral dcap_pck dcap_quote dcap_tcb eventlog gcp gcp_instance "
        "nitro sgx snp snp_product snp_report tdx tpm tpm_quote"
    ),
    "appraisal": "appraise attached default evaluate judge policy reference statement terms",
    "broker": "admit gates own_party receipt release remove_key rotate withdraw",
    "authority": "issue",
    "convert": "image_xattrs layer_entries layers oci tar",
}
MODULES = tuple(f"strongroom.{package}.{name}" for package, names in _NAMES.items() for name in names.split())


def path(module: str) -> Path:
    """Where the source of `module` stands."""
    return SRC / (module.replace(".", "/") + ".py")
