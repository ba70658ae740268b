"""The roots of AMD SEV-SNP: one AMD Root Key (ARK) for each line of processors."""

from __future__ import annotations

from strongroom.evidence.roots.pin import Pin

_SUBJECT = "CN=ARK-{},O=Advanced Micro Devices,ST=CA,L=Santa Clara,C=US,OU=Engineering"
_SOURCE = (
    "https://kdsintf.amd.com/vcek/v1/{}/cert_chain, the last certificate, serial {} (AMD 57230, VCEK Certificate "
    "and KDS Interface Specification); the key certifies both the ASK (chips' keys) and the ASVK (providers' keys)"
)

# By product line, since a key of one line must never vouch for a report of another.
ARKS = {
    "Milan": "sha256:9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
    "Genoa": "sha256:429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
    "Turin": "sha256:4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
}
_SERIALS = {"Milan": 65536, "Genoa": 131072, "Turin": 196608}
PINS = tuple(
    Pin(key=key, subject=_SUBJECT.format(line), source=_SOURCE.format(line, _SERIALS[line]))
    for line, key in ARKS.items()
)
