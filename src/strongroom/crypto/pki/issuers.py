"""X.509 of an owner's authority: its root, and below it one issuer for each contract (RFC 5280).

The root signs issuers and its own list alone. An issuer's names are constrained (section 4.2.1.10) to those of its contract:
whoever had its key could certify nothing else. Its key and serial number come of a secret and the contract, so that every
process and every restored copy of one authority has the same.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.crypto import tls
from strongroom.crypto.pki import key_signer
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

    from strongroom.crypto.pki.certificates import Signer
    from strongroom.crypto.pki.key_signer import HeldKey, KeySigner

_LABEL = "strongroom/contract-issuer/1"
_UNIT = "strongroom contract"
_EVERY_ADDRESS = tuple(x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0"))


@dataclass(frozen=True, kw_only=True)
class ContractNames:
    """What an issuer is made for. digest: of the contract (text). dns_names, domains: DNS names and SPIFFE trust domains of its rooms."""

    contract_id: str
    digest: str
    dns_names: tuple[str, ...]
    domains: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def make_root(key: KeySigner, *, name: str, now: datetime, random: Callable[[int], bytes]) -> bytes:
    """A self-signed root certificate (DER), below which issuers of leaves may stand and nothing else (path length 1)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    public = _public(key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(tls.serial(random))
        .not_valid_before(now)
        .not_valid_after(tls.NO_EXPIRY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return key_signer.certificate(builder, key)


def issuer_key(secret: bytes, root: bytes, digest: str) -> HeldKey:
    """The key of the issuer below `root` (certificate, DER) for the contract of that digest."""
    return key_signer.derived(secret, _LABEL, hashlib.sha256(root).digest(), digest.encode())


def issuer_serial(root: bytes, key: HeldKey) -> int:
    """The serial number of the issuer with that key below `root`: 127 bits that say nothing, and the same each time."""
    return tls.serial(lambda count: hashlib.sha256(root + key.spki).digest()[:count])


def make_issuer(root: Signer, key: HeldKey, names: ContractNames) -> bytes:
    """The certificate (DER) of a contract's issuer: of leaves alone, with that contract's names alone.

    Its subject has the whole digest of the contract, so that no two contracts' issuers are mistaken for each other.
    """
    above = _load(root.der)
    identifier = above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    public = key.key.public_key()
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _UNIT),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, names.contract_id[:64]),
        x509.NameAttribute(NameOID.COMMON_NAME, names.digest.removeprefix("sha256:")[:64]),
    ]
    permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in names.dns_names]
    permitted += [x509.UniformResourceIdentifier(domain) for domain in names.domains]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(above.subject)
        .public_key(public)
        .serial_number(issuer_serial(root.der, key))
        .not_valid_before(names.not_before)
        .not_valid_after(names.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(
            x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=_EVERY_ADDRESS),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    return key_signer.certificate(builder, root.key)


def make_list(
    issuer: Signer, revoked: Iterable[tuple[int, datetime]], *, number: int, now: datetime, until: datetime
) -> bytes:
    """The issuer's complete revocation list (RFC 5280, section 5; DER). revoked: serial numbers and since when."""
    certificate = _load(issuer.der)
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(certificate.subject)
        .last_update(now)
        .next_update(until)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
    )
    for serial, since in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return key_signer.revocation_list(builder, issuer.key)


def _public(key: KeySigner) -> CertificateIssuerPublicKeyTypes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - once in an authority's life

    return serialization.load_der_public_key(key.spki)  # type: ignore[return-value]


def _load(data: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(data)
    except ValueError:
        raise Malformed("certificate: expected X.509 in DER") from None


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
