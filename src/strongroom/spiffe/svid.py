"""An X.509-SVID as the Workload API hands it out (SPIFFE "X.509-SVID", and "The SPIFFE Workload API" section 5).

Messages are of protocol buffers (proto3 encoding), of which these need one kind of field: bytes after their length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

MAX_BYTES = 256 * 1024
MAX_CERTIFICATES = 16
_TRUST_DOMAIN_LENGTH = 255
_LENGTH_DELIMITED = 2


@dataclass(frozen=True, kw_only=True)
class X509Svid:
    """chain: DER certificates, the leaf first. key: its private key, PKCS #8 DER. bundle: DER certificates of the trust domain's
    authorities. id: spiffe://TRUST-DOMAIN/PATH.
    """

    id: str
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    bundle: tuple[bytes, ...]

    @property
    def trust_domain(self) -> str:
        """As an id: spiffe://TRUST-DOMAIN."""
        return "/".join(self.id.split("/")[:3])

    def encode(self) -> bytes:
        """JSON bytes in one line, for the pipe to the process that serves it."""
        return canonical.dumps(
            {
                "id": self.id,
                "chain": [fields.format_data(certificate) for certificate in self.chain],
                "key": fields.format_data(self.key),
                "bundle": [fields.format_data(certificate) for certificate in self.bundle],
            }
        )


def parse(data: bytes) -> X509Svid:
    """Read what `X509Svid.encode` wrote. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="SVID", max_bytes=MAX_BYTES), "SVID")
    svid = X509Svid(
        id=top.text("id", max_length=2048),
        chain=top.datas("chain", max_items=MAX_CERTIFICATES, max_bytes=16 * 1024),
        key=top.data("key", max_bytes=16 * 1024),
        bundle=top.datas("bundle", max_items=MAX_CERTIFICATES, max_bytes=16 * 1024),
    )
    top.done()
    parts = svid.id.split("/", 3)
    if parts[:2] != ["spiffe:", ""] or len(parts) != 4 or not 0 < len(parts[2]) <= _TRUST_DOMAIN_LENGTH:
        raise Malformed("SVID.id: expected spiffe://TRUST-DOMAIN/PATH")
    if not svid.chain or not svid.bundle:
        raise Malformed("SVID: expected a chain and a bundle, got one that is empty")
    return svid


def x509_svid_response(svid: X509Svid) -> bytes:
    """X509SVIDResponse: svids = 1, each spiffe_id = 1, x509_svid = 2, x509_svid_key = 3, bundle = 4."""
    inner = (
        _field(1, svid.id.encode())
        + _field(2, b"".join(svid.chain))
        + _field(3, svid.key)
        + _field(4, b"".join(svid.bundle))
    )
    return _field(1, inner)


def x509_bundles_response(svid: X509Svid) -> bytes:
    """X509BundlesResponse: bundles = 2, a map of trust domain to concatenated DER."""
    return _field(2, _field(1, svid.trust_domain.encode()) + _field(2, b"".join(svid.bundle)))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
