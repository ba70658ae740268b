"""Pinned hardware roots: which root certificates stand for hardware, by TEE.

Digests are SHA-256 over the DER certificate. Whatever evidence leads to another root is software
standing in for hardware, and its claims say `simulated`. A root is added here by a reviewed change
that names where the vendor publishes it; none is ever fetched at run time.

`tpm`: empty. The local room's TPM is a program (swtpm) with a certificate from the node's own
authority, so that nothing which it signs proves hardware. No TPM vendor's root is pinned yet.
"""

from __future__ import annotations

HARDWARE: dict[str, frozenset[str]] = {
    "tpm": frozenset(),
}


def is_hardware(tee: str, root: str) -> bool:
    """Whether `root` (a digest) is a pinned hardware vendor's for that TEE. Unknown TEE: no."""
    return root in HARDWARE.get(tee, frozenset())
