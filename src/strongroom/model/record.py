"""A ledger entry: one decision, or one receipt, as it is appended and proved.

Entries hold digests, public keys, verdicts and receipts; never a secret, never data.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.model.identifiers import NO_CONTRACT, ContractDigest, PartyName, RunId

if TYPE_CHECKING:
    from datetime import datetime


FORMAT = "strongroom-ledger-entry/1"
MAX_BYTES = 60 * 1024  # C2SP tlog-tiles entry bundles carry a 16-bit length


class RecordKind(enum.StrEnum):
    """What is recorded.

    RELEASE and DENIAL: body {"evidence": digest, with that of attached devices, "endorsements": digest,
    "binding": BASE64(64), "nonce": BASE64(32), "signing_key", "disks": [manifest digest], "certificate", "issuer": digest | null, "verdict": object,
    "judged": {"gates": how many of the verdict's checks only the broker could make (they come first),
    "runs_used", "lifetime_seconds"}}: with evidence and endorsements, all that it takes to judge again.
    RENEWAL: as RELEASE, of a run that keys were released to before; "disks" is empty, and "runs_used" does not count the run itself.
    CERTIFICATE: body {"order", "certificate": BASE64(DER), "issuer": digest, "names": [text]}: a certificate beside that of a release or
    renewal, by ACME, for a key that no evidence is bound to.
    RECEIPT: body {"envelope": BASE64 of the signed receipt}; a service hands in several, the last one ends it. CONTRACT: body {"id", "version"}:
    the owner admitted a contract version. WITHDRAWAL: body {"id", "version"}: the owner withdrew the contract of
    that id, every version; `contract` is the version known or named. PAUSE and RESUMPTION: body {"id", "version", "room": name | null}:
    the owner paused the contract of that id, every version, or one of its rooms; and took that back. DISK_REMOVAL: body {"disk": manifest digest}: the
    owner took the disk and its key from the broker. ROTATION: body {"statement": BASE64 of the signed rotation}
    (`model.rotation`): the broker or its party has new keys.
    """

    RELEASE = "release"
    DENIAL = "denial"
    RENEWAL = "renewal"
    CERTIFICATE = "certificate"
    RECEIPT = "receipt"
    CONTRACT = "contract"
    WITHDRAWAL = "withdrawal"
    PAUSE = "pause"
    RESUMPTION = "resumption"
    DISK_REMOVAL = "disk-removal"
    ROTATION = "rotation"


OF_NO_CONTRACT = frozenset((RecordKind.DISK_REMOVAL, RecordKind.ROTATION))


@dataclass(frozen=True, kw_only=True)
class Record:
    """One entry. `run_id` is of releases, denials, renewals and receipts, else `NO_RUN`; `OF_NO_CONTRACT` have `NO_CONTRACT`."""

    kind: RecordKind
    time: datetime
    broker: PartyName
    contract_digest: ContractDigest
    run_id: RunId
    body: dict[str, Any]

    def encode(self) -> bytes:
        """The leaf's bytes (canonical JSON). Raises `Malformed` when they exceed the limit."""
        data = canonical.dumps(
            {
                "format": FORMAT,
                "kind": self.kind.value,
                "time": fields.format_time(self.time),
                "broker": self.broker,
                "contract": self.contract_digest,
                "run": self.run_id,
                "body": self.body,
            }
        )
        if len(data) > MAX_BYTES:
            raise Malformed(f"ledger entry: {len(data)} bytes, at most {MAX_BYTES} allowed")
        return data


def parse(data: bytes) -> Record:
    """Parse a leaf. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what="ledger entry", max_bytes=MAX_BYTES), "ledger entry")
    top.constant("format", FORMAT)
    kind = RecordKind(top.choice("kind", RecordKind))
    record = Record(
        kind=kind,
        time=top.time("time"),
        broker=PartyName(top.name("broker")),
        contract_digest=_contract(top, kind),
        run_id=RunId(top.text_map_of(("run",), max_length=64)["run"]),
        body=top.raw_object("body"),
    )
    top.done()
    return record


def heading(data: bytes) -> Record:
    """What stands around the body of an entry that this very process has just encoded: the body is left out, unread.

    A body is most of an entry and comes first in it; to read it costs as much as to decide.
    """
    top = json.loads(b"{" + data[data.rindex(b'"broker":') :])
    return Record(
        kind=RecordKind(top["kind"]),
        time=fields.Fields(top, "ledger entry").time("time"),
        broker=PartyName(top["broker"]),
        contract_digest=ContractDigest(top["contract"]),
        run_id=RunId(top["run"]),
        body={},
    )


def _contract(top: fields.Fields, kind: RecordKind) -> ContractDigest:
    if kind not in OF_NO_CONTRACT:
        return ContractDigest(top.digest("contract"))
    if top.text_map_of(("contract",), max_length=80)["contract"]:
        raise Malformed(f"ledger entry.contract: expected an empty text, as a {kind.value} is of no contract")
    return NO_CONTRACT
