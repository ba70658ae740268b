"""Pinned hardware roots: which root keys stand for hardware, by TEE.

A root is known by the SHA-256 of its SubjectPublicKeyInfo (DER), since vendors renew certificates over one
key (Intel's root has two). Verifiers report that digest as `Claims.root`, contracts name it in
`platforms[].roots`. Only `tpm`, whose roots are the nodes' own, reports the digest of the whole certificate.
Whatever evidence leads to another root is software standing in for hardware, and its claims say
`simulated`. A root is added by a reviewed change to its vendor's file here that names where the vendor
publishes it; none is ever fetched at run time.

`tpm`: empty. The local room's TPM is a program (swtpm) with a certificate from the node's own
authority, so that nothing which it signs proves hardware. No TPM vendor's root is pinned yet.
`cca`: empty. No CCA platform has a public root; endorsements bring a platform key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.evidence.roots import amd, aws, google, intel, nvidia

if TYPE_CHECKING:
    from strongroom.evidence.roots.pin import Pin

PINS: dict[str, tuple[Pin, ...]] = {
    "azure": (*amd.PINS, *intel.PINS),
    "cca": (),
    "gcp": google.PINS,
    "nitro": aws.PINS,
    "nvgpu": nvidia.PINS,
    "sgx": intel.PINS,
    "snp": amd.PINS,
    "tdx": intel.PINS,
    "tpm": (),
}
HARDWARE: dict[str, frozenset[str]] = {tee: frozenset(pin.key for pin in pins) for tee, pins in PINS.items()}
PINNED: frozenset[str] = frozenset().union(*HARDWARE.values())
"""Every pinned root: what callers without a contract trust."""


def is_hardware(tee: str, root: str) -> bool:
    """Whether `root` (a digest) is a pinned hardware vendor's for that TEE. Unknown TEE: no."""
    return root in HARDWARE.get(tee, frozenset())
