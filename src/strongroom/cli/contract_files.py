"""Contract files, for every verb that is given one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.cli import files
from strongroom.errors import Misuse
from strongroom.model import agreement as agreement_model
from strongroom.model import contract as contract_model

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE = 4 * contract_model.MAX_BYTES


def load_agreement(path: Path) -> agreement_model.Agreement:
    """Read a contract file."""
    return agreement_model.read(files.read(path, max_bytes=MAX_FILE))


def load_earlier(paths: list[Path]) -> tuple[bytes, ...]:
    """The envelopes of earlier versions, lowest first, in whatever order they are given. Raises `Misuse`."""
    agreements = sorted((load_agreement(path) for path in paths), key=lambda one: one.contract.version)
    envelopes = tuple(one.encode() for one in agreements)
    if (
        len(envelopes) > agreement_model.MAX_EARLIER
        or sum(map(len, envelopes)) > agreement_model.MAX_EARLIER_BYTES
    ):
        raise Misuse(
            f"--earlier: at most {agreement_model.MAX_EARLIER} files of {agreement_model.MAX_EARLIER_BYTES} bytes together",
            hint="the brokers' owners admit the older versions in their turn: `strongroom broker admit`",
        )
    return envelopes
