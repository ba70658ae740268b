"""The first of all gates: a broker serves what its own party signed, and nothing else.

  1 own.signature  the broker's own party signed these exact bytes
  2 own.entry      the contract's entry for that key is the broker's own party file, field for field; where the broker
                   listens may differ, and of its authority's roots it may name any that the broker has (`authority.roots`)
  3 own.disk       the party owns a disk of the contract: a broker gives disk keys, and what goes with them (the room's
                   certificate, a place in the ledger); to a contract that needs no key of its party it gives nothing

Before all three hold nothing is issued, recorded, counted, raised, fetched or verified at cost. What a stranger's
contract costs is its envelope and at most `1 + signatures.TRIES_EACH` Ed25519 verifications: until its own party's signature holds, no byte of
the contract is parsed. Pure: to be called outside of any transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.model import check_names, signatures
from strongroom.model import party as party_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.identifiers import ContractDigest, ManifestDigest
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from strongroom.encoding import dsse
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.party import Party


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What the gate says of an agreement's bytes.

    contract_digest: of its exact bytes, whoever signed them. agreement: None unless every check holds, so that nobody goes on with another.
    disks: the manifests of the party's own disks.
    """

    contract_digest: ContractDigest
    checks: tuple[Check, ...]
    agreement: Agreement | None
    disks: tuple[ManifestDigest, ...] = ()


def read(data: bytes, own: Party, *, roots: frozenset[str] = frozenset()) -> GateVerdict:
    """The gate. data: an agreement's envelope. own: the broker's party. roots: digests of its authority's roots, where it has
    others than its party's file names. Raises `Malformed`.
    """
    envelope = agreement_model.read_envelope(data)
    contract_digest = ContractDigest(digest.sha256(envelope.payload))
    signed = _signature(envelope, own)
    if not signed.ok:
        return GateVerdict(contract_digest=contract_digest, checks=(signed,), agreement=None)
    agreement = agreement_model.open_envelope(envelope)
    disks = agreement.contract.disks_of(own.keyid)
    checks = (signed, _entry(agreement.contract, own, roots), _disk(disks))
    ok = all(check.ok for check in checks)
    return GateVerdict(
        contract_digest=contract_digest, checks=checks, agreement=agreement if ok else None, disks=disks
    )


def _signature(envelope: dsse.Envelope, own: Party) -> Check:
    """Check 1."""
    signed = signatures.signed_by(envelope, own.signing_key)
    return Check.judged(
        check_names.OWN_SIGNATURE, expected=own.keyid, got=own.keyid if signed else None, ok=signed
    )


def _entry(contract: Contract, own: Party, roots: frozenset[str]) -> Check:
    """Check 2. Its data are the fields that differ, or the key that both name."""
    named = next((member.party for member in contract.members if member.party.keyid == own.keyid), None)
    if named is None:
        return Check.failed(check_names.OWN_ENTRY, expected=own.keyid, got=None)
    differing = [
        (field, theirs, mine)
        for field, theirs, mine in party_model.differences(named, own)
        if field != "broker.authority" or theirs not in roots
    ]
    return Check.judged(
        check_names.OWN_ENTRY,
        expected={field: mine for field, _, mine in differing} or own.keyid,
        got={field: theirs for field, theirs, _ in differing} or own.keyid,
        ok=not differing,
    )


def _disk(disks: tuple[str, ...]) -> Check:
    """Check 3."""
    owns = bool(disks)
    return Check.judged(check_names.OWN_DISK, expected="disk", got="disk" if owns else None, ok=owns)
