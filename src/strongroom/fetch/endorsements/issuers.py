"""Certificates above an attestation key's, as Google and Microsoft publish them (AIA).

Until its path is verified, anybody may have written a certificate in evidence, and the URL in it. So only hosts of the
vendors are asked, over HTTPS whatever the URL says, and without ports, user names or queries.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.errors import Malformed, Refused
from strongroom.fetch.endorsements.statement import OTHER_VERSION, StatementRequest, StatementTerms
from strongroom.fetch.http.client import Service

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.fetch.endorsements.statement import Statement
    from strongroom.fetch.http.client import Download

MAX_DEPTH = 4
MAX_PATH = 300
HOSTS = (
    re.compile(r"pki\.goog", re.ASCII),
    re.compile(r"privateca-content-[0-9a-f-]{20,60}\.storage\.googleapis\.com", re.ASCII),
    re.compile(r"www\.microsoft\.com", re.ASCII),
    re.compile(r"[a-z0-9-]{1,60}\.microsoftaik\.azure\.net", re.ASCII),
)
_PATH = re.compile(r"/[A-Za-z0-9._~%/-]*", re.ASCII)
_TYPES = frozenset(
    {
        "application/pkix-cert",
        "application/x-x509-ca-cert",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-pem-file",
        "application/pkix-ca-cert",
    }
)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Publishers:
    """Who publishes issuers. mirrors: by a vendor's host, the service that answers in its place."""

    mirrors: dict[str, Service] = field(default_factory=dict)

    def certificate(self, url: str) -> StatementRequest:
        """The certificate at a URL from another certificate. Raises `Refused` for a URL that is not to be asked."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urllib.parse.urlsplit(""), None
        host = (parts.hostname or "").lower()
        if (
            parts.scheme not in ("http", "https")
            or port not in (None, 80, 443)
            or "@" in parts.netloc
            or parts.query
            or parts.fragment
            or len(parts.path) > MAX_PATH
            or _PATH.fullmatch(parts.path) is None
            or not any(pattern.fullmatch(host) for pattern in HOSTS)
        ):
            raise Refused(
                f"{url[:200]!r}: not where Google or Microsoft publish their issuers",
                code="forbidden-address",
                hint="a certificate in evidence may name any URL: give the issuers' certificates to `strongroom evidence verify --endorsements`",
            )
        return StatementRequest(
            key=f"issuer/{hashlib.sha256(f'{host}{parts.path}'.encode()).hexdigest()}",
            service=self.mirrors.get(host) or Service(base=f"https://{host}"),
            path=parts.path,
            types=_TYPES,
            take=_take,
            max_bytes=2 * x509.MAX_CERTIFICATE,
        )


def judge(statement: Statement, path: list[str], *, roots: frozenset[str], now: datetime) -> StatementTerms:  # noqa: ARG001 - judged as a path, by `resolve.issuers_above`
    """See `validate`. An issuer alone can be anybody's: it counts only in a path, which `resolve.issuers_above` verifies."""
    if len(path) != 1 or _DIGEST.fullmatch(path[0]) is None or statement.parts.keys() != {"certificate"}:
        raise Malformed(
            f"{statement.key[:100]!r}: no issuer's certificate", code="unknown-statement", hint=OTHER_VERSION
        )
    certificate = x509.parse(statement.parts["certificate"])
    return StatementTerms(issued=certificate.not_before, until=certificate.not_after)


def _take(answer: Download) -> dict[str, bytes]:
    body = answer.body
    if body.startswith(b"-----BEGIN"):
        (body,) = pem.decode(
            body, b"CERTIFICATE", what=answer.url, max_blocks=1, max_bytes=2 * x509.MAX_CERTIFICATE
        )
    return {"certificate": body}
