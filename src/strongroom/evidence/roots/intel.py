"""The root of Intel SGX and TDX: of PCK certificates, TCB signing and revocation lists."""

from __future__ import annotations

from strongroom.evidence.roots.pin import Pin

PINS = (
    Pin(
        key="sha256:a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",
        subject="CN=Intel SGX Root CA,O=Intel Corporation,L=Santa Clara,ST=CA,C=US",
        source="https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem; two "
        "certificates carry this key and the serial 22650cd65a9d3489f383b49552bf501b392706ac: one valid to 2033, "
        "one to 2049 (Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.1)",
    ),
)
