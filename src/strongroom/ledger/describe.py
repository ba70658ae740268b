"""A ledger entry in one sentence, for people: what was decided, and of a denial why.

Any broker's entries are described, sound or not. Never raises; the sentence may hold texts of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Refused
from strongroom.model import party, receipt, record, rotation, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.model.record import Record
    from strongroom.model.verdict import Explained

MOST = 600  # characters
UNKNOWN = "of a form that this version does not know"


def describe(entry: Record) -> str:
    """What the entry says."""
    try:
        description = _KINDS[entry.kind](entry)
    except Malformed:
        description = UNKNOWN
    return description if len(description) <= MOST else description[:MOST] + "…"


def describe_entry(leaf: bytes) -> str:
    """What an entry's bytes say. Raises `Malformed`."""
    return describe(record.parse(leaf))


def row_json(index: int, entry: Record) -> dict[str, object]:
    """An entry as an object: its index, its own fields, and what it says."""
    own = canonical.loads(entry.encode(), what="ledger entry", max_bytes=record.MAX_BYTES)
    return {"index": index, **own, "description": describe(entry)}


def reason(entry: Record) -> Explained | None:
    """The first failed check of a denial; None where there is none to be read."""
    try:
        return next((explain(check) for check in _checks(entry) if not check.ok), None)
    except Malformed:
        return None


def _checks(entry: Record) -> tuple[verdict.Check, ...]:
    recorded = fields.Fields(dict(entry.body), "ledger entry").raw_object("verdict")
    return verdict.read_checks(fields.Fields(dict(recorded), "verdict"))


def _release(entry: Record) -> str:
    disks = fields.Fields(dict(entry.body), "ledger entry").items("disks", max_items=256)
    return f"released, with the keys of {len(disks)} disk(s)"


def _renewal(entry: Record) -> str:
    certificate = fields.Fields(dict(entry.body), "ledger entry").digest_or_null("certificate")
    return f"renewed, {'without' if certificate is None else 'with'} a certificate: the room attested again"


def _denial(entry: Record) -> str:
    failed = [check for check in _checks(entry) if not check.ok]
    if not failed:
        return UNKNOWN
    first = explain(failed[0])
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"denied: {first.name}: expected {first.expected}, got {first.got}{more}; {first.hint}"


def _receipt(entry: Record) -> str:
    data = fields.Fields(dict(entry.body), "ledger entry").data("envelope", max_bytes=receipt.MAX_BYTES)
    parsed = receipt.parse_envelope(data)[1]
    why = f": {parsed.explanation}" if parsed.details else ""
    if not parsed.is_last:
        return f"receipt {parsed.sequence}: {parsed.outcome.value}"
    number = f" {parsed.sequence}, the last" if parsed.sequence > 1 else ""
    return f"receipt{number}: {parsed.outcome.value}, status {parsed.exit_status}{why}"


def _contract(entry: Record) -> str:
    body = fields.Fields(dict(entry.body), "ledger entry")
    return f"version {_version(body)} of {body.name('id')} admitted, lower ones withdrawn"


def _withdrawal(entry: Record) -> str:
    body = fields.Fields(dict(entry.body), "ledger entry")
    return f"{body.name('id')} withdrawn, every version (the last one known: {_version(body)})"


def _pause(entry: Record) -> str:
    return f"{_paused(entry)} paused, in every version: nothing is released or renewed"


def _resumption(entry: Record) -> str:
    return f"{_paused(entry)} goes on: released and renewed again"


def _paused(entry: Record) -> str:
    body = fields.Fields(dict(entry.body), "ledger entry")
    id = body.name("id")
    return id if body.value("room") is None else f"room {_room(entry)} of {id}"


def _room(entry: Record) -> str:
    return fields.Fields(dict(entry.body), "ledger entry").name("room")


def _certificate(entry: Record) -> str:
    names = fields.Fields(dict(entry.body), "ledger entry").texts("names", max_items=32, max_length=253)
    return f"certificate by ACME for {', '.join(names)}, for a key that no evidence is bound to"


def _disk_removal(entry: Record) -> str:
    body = fields.Fields(dict(entry.body), "ledger entry")
    return f"disk {body.digest('disk')} taken from the broker, with its key"


def _rotation(entry: Record) -> str:
    data = fields.Fields(dict(entry.body), "ledger entry").data("statement", max_bytes=rotation.MAX_ENVELOPE)
    statement = rotation.read(data)
    try:
        rotation.verify(statement, statement.old)
        vouched = "vouched for by the old key"
    except Refused:
        vouched = "NOT SIGNED by both keys"
    changed = ", ".join(field for field, _, _ in party.differences(statement.old, statement.new))
    return f"keys of {statement.new.name} replaced ({changed}), {vouched}: {statement.old.keyid} to {statement.new.keyid}"


def _version(body: fields.Fields) -> int:
    return body.integer("version", low=1, high=1_000_000)


_KINDS: dict[record.RecordKind, Callable[[Record], str]] = {
    record.RecordKind.RELEASE: _release,
    record.RecordKind.RENEWAL: _renewal,
    record.RecordKind.DENIAL: _denial,
    record.RecordKind.CERTIFICATE: _certificate,
    record.RecordKind.RECEIPT: _receipt,
    record.RecordKind.CONTRACT: _contract,
    record.RecordKind.WITHDRAWAL: _withdrawal,
    record.RecordKind.PAUSE: _pause,
    record.RecordKind.RESUMPTION: _resumption,
    record.RecordKind.DISK_REMOVAL: _disk_removal,
    record.RecordKind.ROTATION: _rotation,
}
