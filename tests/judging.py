"""The judging modules: a wrong answer of one of them releases data, or keeps a lie.

Every `raise` and every `ok=…` of theirs is executed by a unit test (`tests.refusals`), and most changes of
their meaning are noticed by one (`make mutants`).
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

_NAMES = {
    "model": "binding endorsements identity manifest messages parts party receipt record rotation signatures verdict",
    "model.contracts": "agreement contract merging policy",
    "model.room": "agreed",
    "encoding": "canonical cbor dsse fields pem reader sign1 tpm2",
    "crypto": "der public_key spki",
    "crypto.pki": "certificates crl csr ocsp vek x509",
    "ledger": "checkpoint inspect merkle proof proofpack releases tiles witness",
    "evidence": "azure gcp nitro sgx snp tdx tpm",
    "evidence.formats": (
        "azure_hcl ccel cose dcap dcap_collateral dcap_pck dcap_quote dcap_tcb eventlog gcp_instance "
        "snp_product snp_report tpm_quote"
    ),
    "appraisal": "appraise attached_devices default evaluate intoto judge policy terms",
    "appraisal.reference": "values",
    "broker": "admit_contract own_party release request_checks",
    "broker.running": "receipt watch",
    "broker.administration": "pause remove_key rotate series withdraw",
    "tunnel": "entry handshake records",
    "authority": "issue",
    "images": "layer_entries layers oci tar xattrs",
}
MODULES = tuple(f"strongroom.{package}.{name}" for package, names in _NAMES.items() for name in names.split())


def path(module: str) -> Path:
    """Where the source of `module` stands."""
    return SRC / (module.replace(".", "/") + ".py")
