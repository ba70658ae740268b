"""The versions of a contract: the chain that they make, and whether the one presented is its next link.

  contract.withdrawn the owner has not withdrawn the contract here (`withdraw`): no version of it
  contract.earlier   every version that was brought along is this broker's own party's: signed by it, of the same id and
                     disk owners
  contract.version   the version known here, or the next one, versions brought along being counted
  contract.replaces  the next version replaces exactly the one before it

Versions are counted by contract id and disk owners together: an id is its drafter's choice, and nobody's contract withdraws
another's by taking its id. Where nothing is known the chain begins at version 1, so that no broker, a new one neither, takes a
version whose past it has not seen. What is brought along is history: it is not served under, so that of the gate
(`own_party`) it has to pass the signature alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.broker.ports import KnownVersion, Series
from strongroom.crypto import digest
from strongroom.encoding import framed
from strongroom.errors import Malformed
from strongroom.model import check_names, signatures
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.identifiers import NO_CONTRACT, ContractDigest
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.model.contracts.contract import Contract
    from strongroom.model.party import Party
    from strongroom.model.verdict import Data

_LABEL = "strongroom/disk-owners/1"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A version of a contract, by what it takes to put it into the chain. replaces: None for version 1."""

    version: int
    digest: ContractDigest
    replaces: ContractDigest | None


@dataclass(frozen=True, kw_only=True)
class Brought:
    """The versions that a request brought along, and the checks of them: none where it brought none."""

    links: tuple[Link, ...] = ()
    checks: tuple[Check, ...] = ()


NONE = Brought()


def series(contract: Contract) -> Series:
    """What the versions of `contract` are counted by."""
    keys = (key.encode() for key in contract.owner_keys())
    return Series(id=contract.id, owners=digest.sha256(framed.join(_LABEL, *keys)))


def read(contract: Contract, earlier: Sequence[bytes], own: Party) -> Brought:
    """Read envelopes of earlier versions of `contract`. Pure; stops at the first that is not its own party's."""
    if not earlier:
        return NONE
    links: list[Link] = []
    fault = ""
    for data in earlier:
        link = _read(data, contract, own)
        if isinstance(link, str):
            fault = link
            break
        links.append(link)
    got: Data = {"file": len(links) + 1, "fault": fault} if fault else "all"
    asked: Data = {"id": contract.id, "signer": own.keyid}
    check = Check.judged(check_names.CONTRACT_EARLIER, expected=asked, got=got, ok=not fault)
    return Brought(links=() if fault else tuple(links), checks=(check,))


def _read(data: bytes, contract: Contract, own: Party) -> Link | str:
    """The link of one envelope, or the code of what is wrong with it."""
    try:
        envelope = agreement_model.read_envelope(data)
        if not signatures.signed_by(envelope, own.signing_key):
            return "unsigned"
        envelope_contract = agreement_model.open_envelope(envelope).contract
    except Malformed:
        return "malformed"
    return _link(envelope_contract) if series(envelope_contract) == series(contract) else "other-contract"


def _link(contract: Contract) -> Link:
    return Link(version=contract.version, digest=contract.digest, replaces=contract.replaces)


def check(highest: KnownVersion | None, contract: Contract, brought: Brought) -> tuple[Check, ...]:
    """Whether `contract` stands where its series does, or follows. highest: the highest version seen of its series.

    To be called in the transaction in which the decision is recorded.
    """
    presented = _link(contract)
    height, head = (0, None) if highest is None else (highest.version, highest.digest)
    first = _first(height, presented, brought.links)
    follows = first.version == height + 1
    stands = highest is not None and (presented.version, presented.digest) == (height, head)
    withdrawn = highest is not None and highest.withdrawn
    stays = Check.judged(
        check_names.CONTRACT_WITHDRAWN, expected="no", got="yes" if withdrawn else "no", ok=not withdrawn
    )
    version = Check.judged(
        check_names.CONTRACT_VERSION,
        expected=None if highest is None else {"version": highest.version, "digest": highest.digest},
        got={"version": presented.version, "digest": presented.digest, "from": first.version},
        ok=stands or follows,
    )
    if not follows:
        return (stays, *brought.checks, version)
    replaces = Check.judged(
        check_names.CONTRACT_REPLACES, expected=head, got=first.replaces, ok=first.replaces == head
    )
    return (stays, *brought.checks, version, replaces)


def known(contract: Contract) -> KnownVersion:
    """What to remember of `contract`."""
    return KnownVersion(version=contract.version, digest=contract.digest, runs=contract.limits.runs)


def _first(height: int, presented: Link, links: Sequence[Link]) -> Link:
    """Back from `presented` by what each version replaces, as far as `links` lead, to the one after `height`."""
    by_digest = {link.digest: link for link in links}
    first = presented
    while first.version > height + 1:
        before = by_digest.get(first.replaces or NO_CONTRACT)
        if before is None or before.version != first.version - 1:
            break
        first = before
    return first
