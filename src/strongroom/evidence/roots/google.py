"""The roots of Google Compute Engine's virtual TPMs."""

from __future__ import annotations

from strongroom.evidence.roots.pin import Pin

PINS = (
    Pin(
        key="sha256:56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f",
        subject="CN=EK/AK CA Root,OU=Google Cloud,O=Google LLC,L=Mountain View,ST=California,C=US",
        source="https://privateca-content-62d71773-0000-21da-852e-f4f5e80d7778.storage.googleapis.com/"
        "032bf9d39db4fa06aade/ca.crt; google/go-tpm-tools, server/ca-certs/gcp_ek_ak_ca_root.crt "
        "(subject key id 49e74a5b5629f59d79b7a6303c03b28fe714dd4c)",
    ),
    Pin(
        key="sha256:f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9",
        subject="CN=tpm_ek_v1_cloud_host_root-signer-0-2018-04-06T10:58:26-07:00 K:1\\, 1:Pw003HsFYO4:0:18,"
        "OU=Cloud,O=Google LLC,L=Mountain View,ST=California,C=US",
        source="https://pki.goog/cloud_integrity/tpm_ek_root_1.crt; google/go-tpm-tools, "
        "server/ca-certs/tpm_ek_root_1.cer (subject key id 65f4e4e6aaf6fd5ad2889ca85355f7008e08f7a5)",
    ),
)
