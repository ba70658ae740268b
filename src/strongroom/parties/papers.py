"""The files that parties hold and hand around, by their paths: identities, party files, contracts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.errors import Malformed, Misuse, NotFound, of_file
from strongroom.model import identity as identity_model
from strongroom.model import party as party_model
from strongroom.model import rotation as rotation_model
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import contract as contract_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.identity import Identity
    from strongroom.model.party import Party
    from strongroom.model.rotation import Rotation

MAX_AGREEMENT = 4 * contract_model.MAX_BYTES


def open_identity(path: Path, *, passphrase: bytes | Callable[[], bytes]) -> Identity:
    """Open an identity file. passphrase: a function is asked once the file is known to be one. Raises `Malformed`, `Refused`."""
    with of_file(path):
        data = files.read(path, max_bytes=identity_model.MAX_BYTES)
        identity_model.read_public(data)  # complain about a wrong file before asking for a passphrase
        return identity_model.unlock(data, passphrase if isinstance(passphrase, bytes) else passphrase())


def load_public(identity: Path) -> Party:
    """The public part of an identity file, without its passphrase: no broker is in it. Raises `Malformed`."""
    return files.parsed(identity, identity_model.read_public, max_bytes=identity_model.MAX_BYTES)


def load_party(path: Path) -> Party:
    """A party from the file that it hands around."""
    return files.parsed(path, party_model.parse, max_bytes=party_model.MAX_BYTES)


def load_own_party(path: Path) -> Party:
    """A party's own file, as `broker init` completes it. Raises `NotFound` where it is not there, `Malformed`."""
    if not path.is_file():
        raise NotFound(
            f"{path}: your own party file is not there",
            code="no-party-file",
            hint="name it with --party: the file that you hand around, which `broker init` completes",
        )
    return load_party(path)


def load_public_or_party(path: Path) -> tuple[Party, bool]:
    """The public part in an identity file, which names no broker, or a party file; and whether it is the former. Raises `Malformed`."""

    def either(data: bytes) -> tuple[Party, bool]:
        try:
            return identity_model.read_public(data), True
        except Malformed:
            return party_model.parse(data), False

    return files.parsed(path, either, max_bytes=identity_model.MAX_BYTES)


def party_file(identity: Path, name: str) -> Path:
    """Where the party file of an identity is, unless one says otherwise: beside it, under the party's name."""
    return identity.with_name(f"{name}.party.json")


def refuse_foreign(target: Path, owner: Party) -> None:
    """The only thing that a party file is written over is an older one of the same party. Raises `Misuse`."""
    if not os.path.lexists(target):
        return
    try:
        known = load_party(target)
    except (Malformed, OSError):
        known = None
    if known is None or (known.name, known.keyid) != (owner.name, owner.keyid):
        raise Misuse(
            f"{target}: is there, and is not {owner.name}'s party file",
            code="exists",
            hint="name another file with --party",
        )


def load_rotation(path: Path) -> Rotation:
    """A party's statement of its new keys. Nothing is verified."""
    return files.parsed(path, rotation_model.read, max_bytes=rotation_model.MAX_ENVELOPE)


def load_agreement(path: Path) -> Agreement:
    """A contract with its signatures, from its file. Nothing is verified."""
    return files.parsed(path, agreement_model.read, max_bytes=MAX_AGREEMENT)


def save_agreement(agreement: Agreement, *, out: Path, replace: bool = False) -> None:
    """Write a contract with its signatures: the file is there whole, or not at all. Raises `Misuse` where there is one and `replace` is false."""
    files.write(out, agreement.encode(), replace=replace)


def load_earlier(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """The envelopes of earlier versions, lowest first, in whatever order they are given. Raises `Misuse`."""
    agreements = sorted(
        (load_agreement(path) for path in paths), key=lambda agreement: agreement.contract.version
    )
    envelopes = tuple(agreement.encode() for agreement in agreements)
    if (
        len(envelopes) > agreement_model.MAX_EARLIER
        or sum(map(len, envelopes)) > agreement_model.MAX_EARLIER_BYTES
    ):
        raise Misuse(
            f"--earlier: expected at most {agreement_model.MAX_EARLIER} files of {agreement_model.MAX_EARLIER_BYTES} bytes together, "
            f"got {len(envelopes)} of {sum(map(len, envelopes))}",
            hint="leave the oldest out; the owner of each broker admits those one by one: `strongroom broker admit`",
        )
    return envelopes
