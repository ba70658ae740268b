"""Use case: whether a certificate is still good, in the authority's signed word (`GET /v1/authority/…`, `POST /v1/authority/ocsp`).

  roots           the owner's roots, each with its state
  crl             of a root: the contracts' issuers that are revoked
  crl of contract of its issuer: the rooms' certificates that are revoked (RFC 5280)
  ocsp            of one room's certificate (RFC 6960)

A list counts for an hour and an answer for five minutes; each says what is committed when it is asked for. Who asks
learns serial numbers and times, and of no certificate whether there is one that it does not know.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.authority.roots import RootState
from strongroom.crypto.pki import issuers, ocsp_answers
from strongroom.crypto.pki.certificates import Signer
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from strongroom.broker.broker import Broker
    from strongroom.broker.ports import IssuedIssuer, IssuedLeaf, Reading

LIST_LASTS = timedelta(hours=1)
ANSWER_LASTS = timedelta(minutes=5)
_BACKDATED = timedelta(minutes=1)  # clocks of who verifies may be behind
_KEPT_FOR = timedelta(
    minutes=1
)  # a list that says the same is signed once for all who ask: a root's token may be slow
_MOST_KEPT = 256


def roots(broker: Broker) -> bytes:
    """{"roots": [{"state", "digest", "certificate": BASE64(DER)}]}, the current one first."""
    return canonical.dumps(
        {
            "roots": [
                {
                    "state": root.state.value,
                    "digest": root.digest,
                    "certificate": fields.format_data(root.signer.der),
                }
                for root in broker.authority.roots
            ]
        }
    )


def root_list(broker: Broker, root_digest: str | None) -> bytes:
    """The list (DER) of the root of that digest, of the current one for None. Raises `NotFound`."""
    current = next(root for root in broker.authority.roots if root.state is RootState.CURRENT)
    root = current if root_digest is None else broker.authority.root(root_digest)
    if root is None:
        raise NotFound(
            f"authority: {str(root_digest)[:80]!r} is none of this authority's roots",
            code="no-root",
            hint="GET /v1/authority lists them",
        )
    now = broker.clock()
    revoked = broker.store.read(lambda state: state.certificates.revoked_issuers(root.digest, now=now))
    return _list(broker, root.digest, root.signer, revoked, now)


def contract_list(broker: Broker, contract_digest: ContractDigest) -> bytes:
    """The list (DER) of the contract's issuer. Raises `NotFound` where nothing was issued under the contract."""
    now = broker.clock()

    def read(state: Reading) -> tuple[IssuedIssuer | None, list[IssuedLeaf]]:
        certificates = state.certificates
        return certificates.issuer(contract_digest), list(
            certificates.revoked_leaves(contract_digest, now=now)
        )

    issuer, revoked = broker.store.read(read)
    key = None if issuer is None else broker.authority.issuer_key(issuer.root, contract_digest)
    if issuer is None or key is None:
        raise NotFound(
            f"authority: nothing was issued under {contract_digest} by a root that this authority has",
            code="no-issuer",
            hint="name the contract by its digest; certificates of it are issued with its first release here",
        )
    return _list(broker, contract_digest, Signer(key, issuer.certificate), revoked, now)


def ocsp(broker: Broker, body: bytes) -> bytes:
    """The answer (DER) to an OCSP request. Raises `Malformed`."""
    question = ocsp_answers.read(body)

    def read(state: Reading) -> tuple[IssuedLeaf, IssuedIssuer] | None:
        leaf = state.certificates.find(question.serial)
        issuer = None if leaf is None else state.certificates.issuer(leaf.contract_digest)
        return None if leaf is None or issuer is None else (leaf, issuer)

    known = broker.store.read(read)
    if known is None:
        return ocsp_answers.unauthorized()
    leaf, issuer = known
    key = broker.authority.issuer_key(issuer.root, leaf.contract_digest)
    if key is None or not ocsp_answers.is_about(question, issuer.certificate):
        return ocsp_answers.unauthorized()
    now = broker.clock()
    return ocsp_answers.answer(
        question,
        key,
        issuer.certificate,
        revoked=leaf.revoked,
        now=now - _BACKDATED,
        until=now + ANSWER_LASTS,
    )


def contract_digest(text: str) -> ContractDigest:
    """The digest of a contract out of a path. Raises `Malformed`."""
    if fields.DIGEST.fullmatch(text) is None:
        raise Malformed(
            f"contract: expected sha256: and 64 lower-case hexadecimal digits, got {text[:80]!r}",
            hint="`strongroom contract show` tells a contract's digest",
        )
    return ContractDigest(text)


def _list(
    broker: Broker,
    of: str,
    signer: Signer,
    revoked: Sequence[IssuedLeaf] | Sequence[IssuedIssuer],
    now: datetime,
) -> bytes:
    """The list of the issuer that is called `of`: that of before where it says the same and is younger than `_KEPT_FOR`."""
    entries = tuple((each.serial, each.revoked) for each in revoked if each.revoked is not None)
    kept = broker.lists.get(of)
    if kept is not None and kept[0] == entries and now - kept[1] < _KEPT_FOR:
        return kept[2]
    # Microseconds since 1970, by a clock that never goes back: numbers grow.
    number = int(now.timestamp() * 1_000_000)
    data = issuers.make_list(signer, entries, number=number, now=now - _BACKDATED, until=now + LIST_LASTS)
    if len(broker.lists) >= _MOST_KEPT:
        broker.lists.clear()
    broker.lists[of] = (entries, now, data)
    return data
