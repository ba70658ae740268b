"""The names of the files in a run's folder. They are made and read here alone, so that no two files can share one.

A party's name stands between a kind's prefix and `.json`, an output's number between `out-` and `.tar.age`. No other
name begins with any of these prefixes, and no name begins with a dot: names that do are of files being written.
"""

from __future__ import annotations

import re

from strongroom.encoding import fields
from strongroom.model.identifiers import PartyName

AGREEMENT = "agreement.json"
LAUNCH_RECORD = "launch-record.json"
MANIFESTS = "manifests"  # a folder: SERIAL.json of each disk
STATUS = "status.json"
RECEIPT = "receipt.json"
LOG = "log.age"
OWN_NAMES = (AGREEMENT, LAUNCH_RECORD, MANIFESTS, STATUS, RECEIPT, LOG)

_EVIDENCE, _RELEASE, _LEDGER_PROOF, _OUTPUT = "evidence-", "release-", "receipt-", "out-"
_OF_A_PARTY = re.compile(
    rf"(?:{_EVIDENCE}|{_RELEASE}|{_LEDGER_PROOF})(?P<party>{fields.NAME.pattern})\.json", re.ASCII
)
_OF_AN_OUTPUT = re.compile(rf"{_OUTPUT}(?P<number>0|[1-9][0-9]?)\.tar\.age", re.ASCII)


def evidence(party: PartyName) -> str:
    """What the party's broker was shown."""
    return f"{_EVIDENCE}{party}.json"


def release(party: PartyName) -> str:
    """What the party's broker decided."""
    return f"{_RELEASE}{party}.json"


def ledger_proof(party: PartyName) -> str:
    """That the receipt is in the party's ledger."""
    return f"{_LEDGER_PROOF}{party}.json"


def output(number: int) -> str:
    """The contract's output of that number, from 0, sealed."""
    return f"{_OUTPUT}{number}.tar.age"


def manifest(serial: str) -> str:
    """The signed manifest of a disk, by the serial that the node gives it."""
    return f"{MANIFESTS}/{serial}.json"


def party_of(name: str) -> PartyName | None:
    """Whose broker a file is of, None when it is of no party's."""
    match = _OF_A_PARTY.fullmatch(name)
    return None if match is None else PartyName(match["party"])


def output_of(name: str) -> int | None:
    """Which output a file is, None when it is none."""
    match = _OF_AN_OUTPUT.fullmatch(name)
    return None if match is None else int(match["number"])


RELEASES, LEDGER_PROOFS = release(PartyName("*")), ledger_proof(PartyName("*"))  # patterns for glob
