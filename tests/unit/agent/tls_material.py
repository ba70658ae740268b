"""Keys with chains as a broker would issue them, for tests of what a program gets."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from functools import cache

from strongroom.agent.certificates.delivery import Generation
from strongroom.authority.roots import Authority, Root, RootState
from strongroom.crypto import tls
from strongroom.crypto.pki import certificates, csr, issuers, key_signer
from strongroom.crypto.pki.leaf import Leaf
from strongroom.model.contracts.certificate_terms import KeyKind
from tests import samples

NAME = "room.flights.example"


@cache
def _root(party: str) -> Root:
    key = key_signer.held(tls.generate())
    der = issuers.make_root(key, name=party, now=datetime.now(UTC), random=secrets.token_bytes)
    return Root(state=RootState.CURRENT, signer=certificates.Signer(key, der))


RUN = "run-" + "0" * 32


def generation(*parties: str, kind: KeyKind = KeyKind.ECDSA_P256, run: str = RUN) -> Generation:
    """A fresh key, and the chain that the broker of each party issued for it, to a run of that name."""
    key = csr.generate(kind)
    now = datetime.now(UTC).replace(microsecond=0)
    chains = {}
    for party in parties:
        root = _root(party)
        issuer = Authority((root,), secret=bytes(32)).issuer(samples.a_contract(), root.digest)
        leaf = Leaf(
            common_name=run,
            unit="",
            dns_names=(NAME,),
            uri="spiffe://flights.strongroom/room/main/run/x",
            spki=key.public,
            evidence_digest=samples.DIGEST,
            not_before=now - timedelta(minutes=1),
            not_after=now + timedelta(hours=1),
        )
        serial = tls.serial(secrets.token_bytes)
        chains[party] = (issuer.signer.issue(leaf, serial=serial), issuer.certificate, issuer.root)
    return Generation(key=key, chains=chains)
