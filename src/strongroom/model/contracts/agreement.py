"""An agreement: contract bytes and the signatures over them (a DSSE envelope).

`read` only parses; `signers` verifies each signature against the parties that the contract names.
A signature counts when it is by a party's own key (`model/signatures.py`), and for that party alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.encoding import dsse, fields
from strongroom.errors import Malformed, Refused
from strongroom.model import party as party_model
from strongroom.model import signatures
from strongroom.model.contracts import contract as contract_model

if TYPE_CHECKING:
    from strongroom.crypto import sign
    from strongroom.model.identifiers import PartyName

# A contract's earlier versions that a request may bring: how many, and their bytes together. Each costs a broker one
# parse and a few verifications (`signatures.MAX_TRIES`); a longer chain its owner admits step by step.
MAX_EARLIER, MAX_EARLIER_BYTES = 16, 192 * 1024


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A parsed contract in its envelope."""

    envelope: dsse.Envelope
    contract: contract_model.Contract

    def encode(self) -> bytes:
        """The file form: the envelope as canonical JSON."""
        return self.envelope.encode() + b"\n"

    def signers(self) -> tuple[PartyName, ...]:
        """Names of the parties whose signature verifies, in contract order, each once."""
        return self._signers

    @cached_property
    def _signers(self) -> tuple[PartyName, ...]:
        # Kept: neither bytes nor signatures ever change, and a contract is judged at each of its runs.
        members = self.contract.members
        signed = signatures.by_key(self.envelope, [member.party.signing_key for member in members])
        return tuple(member.party.name for member in members if member.party.signing_key in signed)

    def missing(self) -> tuple[PartyName, ...]:
        """Parties who have not signed and may or must; approvers matter while fewer than the threshold have."""
        signed = self.signers()
        asked = {*self.contract.approvals.parties, *self.contract.must_sign()}
        names = (member.party.name for member in self.contract.members)
        return tuple(name for name in names if name in asked and name not in signed)

    def approved(self) -> bool:
        """Whether enough of the approvers have signed, and everybody whose signature no threshold replaces."""
        contract = self.contract
        signed = set(self.signers())
        counted = signed & set(contract.approvals.parties)
        return signed.issuperset(contract.must_sign()) and len(counted) >= contract.approvals.threshold


def draft(contract: contract_model.Contract) -> Agreement:
    """An envelope that nobody has signed yet."""
    envelope = dsse.Envelope(payload_type=contract_model.PAYLOAD_TYPE, payload=contract.raw, signatures=())
    return Agreement(envelope=envelope, contract=contract)


def read(data: bytes) -> Agreement:
    """Parse an envelope and the contract within. Raises `Malformed`."""
    return open_envelope(read_envelope(data))


def read_envelope(data: bytes) -> dsse.Envelope:
    """Parse an envelope and look at nothing within. Raises `Malformed`."""
    return dsse.parse(data, payload_type=contract_model.PAYLOAD_TYPE, max_payload=contract_model.MAX_BYTES)


_DRAFTED = (
    "whoever drafted the contract makes it anew with `strongroom contract new`, and the parties sign that"
)


def open_envelope(envelope: dsse.Envelope) -> Agreement:
    """Parse the contract within. Raises `Malformed`."""
    with fields.hinted(_DRAFTED):
        return Agreement(envelope=envelope, contract=contract_model.parse(envelope.payload))


def read_earlier(source: fields.Fields) -> tuple[bytes, ...]:
    """Read `earlier`: envelopes of earlier versions of a contract, lowest first, not looked into. Raises `Malformed`."""
    envelopes: list[bytes] = []
    left = MAX_EARLIER_BYTES
    for index, item in enumerate(source.items("earlier", max_items=MAX_EARLIER)):
        name = f"earlier[{index}]"
        envelopes.append(fields.Fields({name: item}, source.what).data(name, max_bytes=left))
        left -= len(envelopes[-1])
    return tuple(envelopes)


def add_signature(agreement: Agreement, key: sign.SigningKey) -> Agreement:
    """Sign as the party whose key this is. Signing twice changes nothing. Raises `Refused`."""
    keyid = party_model.keyid(key.public)
    names = [m.party.name for m in agreement.contract.members if m.party.keyid == keyid]
    if not names:
        raise Refused(
            "signing the contract: this identity is not one of its parties",
            code="not-a-party",
            hint="`strongroom contract show` lists the parties; one of them signs, each with its own identity (-i)",
        )
    keys = [member.party.signing_key for member in agreement.contract.members]
    sound = signatures.by_key(agreement.envelope, keys)
    own = sound.get(key.public)
    others = tuple(
        signature
        for signature in agreement.envelope.signatures
        if signature != own and (signature.keyid != keyid or signature in sound.values())
    )
    if len(others) >= dsse.MAX_SIGNATURES:
        raise Malformed(
            f"contract envelope: {len(others)} signatures by others, at most {dsse.MAX_SIGNATURES - 1} leave room",
            hint="sign a copy that nobody signed yet, and put both together with `strongroom contract merge`",
        )
    signature = dsse.DsseSignature(keyid=keyid, sig=key.sign(agreement.envelope.pae()))
    envelope = dsse.Envelope(
        payload_type=agreement.envelope.payload_type,
        payload=agreement.envelope.payload,
        signatures=(*others, signature),
    )
    return Agreement(envelope=envelope, contract=agreement.contract)
