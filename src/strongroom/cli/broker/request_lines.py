"""The lines that `broker serve` prints: one for each event of the broker's request log, as text or as JSON.

Whatever strangers wrote into a request is shown and never obeyed (`printable`), and every line has an end.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from strongroom.broker.request_log import UNREAD, Event, Recorded, Summed
from strongroom.cli.printable import printable
from strongroom.encoding import fields
from strongroom.ledger import describe
from strongroom.model import record

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 1024  # characters of a line of text
DECISIONS = {
    record.RecordKind.RELEASE: "released",
    record.RecordKind.RENEWAL: "renewed",
    record.RecordKind.DENIAL: "denied",
    record.RecordKind.RECEIPT: "recorded",
}


def printer(*, as_json: bool) -> Callable[[Event], None]:
    """Writes each event to standard output, in one go: lines of several processes do not mix."""
    written = _json if as_json else _text

    def tell(event: Event) -> None:
        data = (written(event) + "\n").encode(errors="backslashreplace")
        try:
            os.write(1, data)
        except OSError:
            return  # nobody reads, or the disk is full: the ledger has the entry

    return tell


def _text(event: Event) -> str:
    line = printable(_recorded(event) if isinstance(event, Recorded) else _summed(event))
    return line if len(line) <= MOST else line[:MOST] + "…"


def _recorded(event: Recorded) -> str:
    entry = event.record()
    contract = f"{event.contract_id} {entry.contract_digest[:19]}".strip()
    return (
        f"{fields.format_time(entry.time)}  entry {event.index}  {contract}  {entry.run_id}  from {event.peer or '?'}: "
        f"{_said(entry)}"
    )


def _summed(event: Summed) -> str:
    kinds = ", ".join(
        f"{count} {' '.join(part for part in (kind.request, kind.contract_id, kind.reason) if part)}"
        for kind, count in event.kinds
    )
    line = f"{fields.format_time(event.until)}  no entry: {event.requests} request(s)"
    if event.kinds:
        seconds = max(1, round((event.until - event.since).total_seconds()))
        busiest = ", ".join(f"{peer or '?'} {count}" for peer, count in event.busiest)
        line += f" in {seconds} s: {kinds}; from {event.addresses} address(es): {busiest}"
    if event.untold:
        line += f"; {event.untold} line(s) lost, as nobody read them: see the ledger"
    return line


def _json(event: Event) -> str:
    if isinstance(event, Summed):
        return json.dumps(
            {
                "event": "sum",
                "since": fields.format_time(event.since if event.kinds else event.until),
                "until": fields.format_time(event.until),
                "requests": event.requests,
                "kinds": [
                    {
                        "request": kind.request,
                        "contract": kind.contract_id,
                        "reason": kind.reason,
                        "count": count,
                    }
                    for kind, count in event.kinds
                ],
                "addresses": event.addresses,
                "busiest": [{"peer": peer, "count": count} for peer, count in event.busiest],
                "lines_lost": event.untold,
            }
        )
    entry = event.record()
    reason = describe.reason(entry) if entry.kind is record.RecordKind.DENIAL else None
    return json.dumps(
        {
            "event": "entry",
            "entry": event.index,
            "time": fields.format_time(entry.time),
            "decision": DECISIONS.get(entry.kind, entry.kind.value),
            "contract": {"id": event.contract_id, "digest": entry.contract_digest},
            "run": entry.run_id,
            "peer": event.peer,
            "description": _said(entry),
            "reason": None if reason is None else reason.to_json(),
        }
    )


def _said(entry: record.Record) -> str:
    return DECISIONS[entry.kind] if entry.kind in UNREAD else describe.describe(entry)
