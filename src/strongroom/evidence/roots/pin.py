"""One pinned root: a vendor's key, and where the vendor publishes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A vendor's root key. key: digest of the SubjectPublicKeyInfo (DER), by which the root is known.

    subject: of the certificate that carries it. source: where the vendor publishes that certificate.
    """

    key: str
    subject: str
    source: str
