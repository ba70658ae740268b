"""Certificates of rooms by one processor: leaves, contracts' issuers, revocation lists and OCSP answers, beside bare signatures.

What a leaf costs beside its signature is mostly the check that the room's key is a point on its curve. An issuer is made once for each contract.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from strongroom.authority.roots import Authority, Root, RootState
from strongroom.crypto import tls
from strongroom.crypto.pki import certificates, issuers, key_signer, ocsp_answers
from strongroom.crypto.pki.leaf import Leaf
from tests import samples

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 1.0
LISTED = 1000
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def run() -> list[tuple[str, str, str]]:
    """The rows of the table."""
    key = key_signer.held(tls.generate())
    der = issuers.make_root(key, name="bench", now=NOW, random=secrets.token_bytes)
    root = Root(state=RootState.CURRENT, signer=certificates.Signer(key, der))
    contract = samples.a_contract()

    def fresh_issuer() -> None:
        Authority((root,), secret=secrets.token_bytes(32)).issuer(contract, root.digest)

    issuer = Authority((root,), secret=bytes(32)).issuer(contract, root.digest)
    if issuer is None:
        raise RuntimeError("the root is the authority's own")
    leaf = Leaf(
        common_name="run-" + "0" * 32,
        unit="",
        dns_names=("room.flights.example",),
        uri="spiffe://flights.strongroom/room/main/run/run-" + "0" * 32,
        spki=tls.generate().spki,
        evidence_digest=samples.DIGEST,
        not_before=NOW,
        not_after=NOW + timedelta(hours=1),
    )
    revoked = [(number, NOW) for number in range(1, LISTED + 1)]
    until = NOW + timedelta(hours=1)
    bare = ec.generate_private_key(ec.SECP256R1())
    asked = _question(issuer.certificate)
    held = issuers.issuer_key(bytes(32), der, contract.digest)
    signatures = _rate(lambda: bare.sign(b"x" * 600, ec.ECDSA(hashes.SHA256())))
    leaves = _rate(lambda: issuer.signer.issue(leaf, serial=tls.serial(secrets.token_bytes)))
    contracts = _rate(fresh_issuer)
    lists = _rate(lambda: issuers.make_list(issuer.signer, revoked, number=1, now=NOW, until=until))
    answers = _rate(
        lambda: ocsp_answers.answer(
            ocsp_answers.read(asked), held, issuer.certificate, revoked=None, now=NOW, until=until
        )
    )
    return [
        ("ECDSA P-256 signatures alone", f"{signatures:,.0f}/s", ""),
        ("certificates of rooms", f"{leaves:,.0f}/s, {leaves / signatures:.0%} of that", "≥ 40 %"),
        ("issuers of contracts", f"{contracts:,.0f}/s", ""),
        (f"revocation lists of {LISTED:,}", f"{lists:,.0f}/s", ""),
        ("OCSP answers", f"{answers:,.0f}/s", ""),
    ]


def _question(issuer: bytes) -> bytes:
    certificate = x509.load_der_x509_certificate(issuer)
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, certificate, hashes.SHA256())
    return builder.build().public_bytes(serialization.Encoding.DER)


def _rate(act: Callable[[], object]) -> float:
    """How often a second of this thread's processor time."""
    act()
    begun, count = time.thread_time(), 0
    while (spent := time.thread_time() - begun) < SECONDS:
        act()
        count += 1
    return count / spent
