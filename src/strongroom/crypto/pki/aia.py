"""Where a certificate says that its issuer's certificate is to be had (RFC 5280, section 4.2.2.1, caIssuers)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

if TYPE_CHECKING:
    from strongroom.crypto.pki.x509 import Certificate

MAX_URLS = 4


def issuer_urls(certificate: Certificate) -> tuple[str, ...]:
    """The URLs, as they stand: whoever wrote the certificate chose them, and none is to be called unchecked."""
    for extension in certificate.extensions.values():
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            named = [
                access.access_location.value
                for access in extension.value
                if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS
                and isinstance(access.access_location, x509.UniformResourceIdentifier)
            ]
            return tuple(named[:MAX_URLS])
    return ()
