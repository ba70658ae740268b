"""What a contract is held against before somebody signs it: the signer's own party file, others' that the signer holds,
and the version that it replaces. Whoever signs what names a stranger's key in the signer's place signs it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Misuse, Refused
from strongroom.model import party as party_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.party import Party


def check_member(contract: Contract, own: Party) -> None:
    """Raise `Refused` unless a party of `contract` has the signing key of `own`."""
    if _with_key(contract, own) is None:
        raise Refused(
            "signing the contract: this identity is not one of its parties",
            code="not-a-party",
            hint="`strongroom contract show` lists the parties; one of them signs, each with its own identity (-i)",
        )


def check_own(contract: Contract, own: Party, *, identity: Party) -> None:
    """Raise `Refused` unless the contract's entry for the signer is the signer's own party file, field for field.

    own: the file, with the signer's broker if there is one. identity: the public part of the identity that signs.
    Where the broker listens may differ.
    """
    check_party_file(own, identity)
    check_member(contract, own)
    _check_entry(contract, own, "your own party file")


def check_party_file(own: Party, identity: Party) -> None:
    """Raise `Misuse` unless the party file `own` is of that identity, whatever broker it names."""
    if (own.name, own.signing_key, own.recipient) != (
        identity.name,
        identity.signing_key,
        identity.recipient,
    ):
        raise Misuse(
            f"the party file is of {own.name}, {own.keyid}; the identity is {identity.name}, {identity.keyid}",
            code="other-party-file",
            hint="`strongroom identity new` and `broker init` wrote NAME.party.json; name it with --party",
        )


def check_others(contract: Contract, held: Sequence[Party]) -> tuple[str, ...]:
    """Names of the parties whose entry equals one of the files `held`. Raise `Refused` where one differs.

    A file that is of nobody in the contract raises `Misuse`: whoever gave it expected somebody else.
    """
    for file in held:
        if _entry_of(contract, file) is None:
            raise Misuse(
                f"--trust: nobody in the contract has the name or the key of {file.name}",
                hint="`strongroom contract show` lists the parties; leave out the files of others",
            )
        _check_entry(contract, file, f"the file of {file.name} that you trust")
    return tuple(file.name for file in held)


def check_replaced(contract: Contract, previous: Contract | None) -> None:
    """Raise `Misuse` or `Refused` unless `previous` is the version that `contract` replaces; None for version 1."""
    if contract.replaces is None and previous is None:
        return
    if previous is None:
        raise Misuse(
            f"signing the contract: version {contract.version} replaces {contract.replaces}, which is not at hand",
            code="needs-replaced",
            hint="give that version's file with --replaces, so that what changes is shown before you sign",
        )
    if previous.digest != contract.replaces:
        raise Refused(
            f"signing the contract: it replaces {contract.replaces or 'nothing'}, --replaces gives {previous.digest}",
            code="replaces-another",
            hint="compare with the version that it names, or let it be drafted again from yours",
        )
    following = (previous.id, previous.version + 1, previous.owner_keys())
    if (contract.id, contract.version, contract.owner_keys()) != following:
        raise Refused(
            f"signing the contract: version {contract.version} of {contract.id} does not follow version "
            f"{previous.version} of {previous.id}: {_apart(contract, previous)}",
            code="no-successor",
            hint="no broker would take it; with another id or other owners of disks it is a new contract",
        )


def _apart(contract: Contract, previous: Contract) -> str:
    if contract.id != previous.id:
        return f"expected the id {previous.id}, got {contract.id}"
    if contract.version != previous.version + 1:
        return f"expected version {previous.version + 1}, got {contract.version}"
    owners, before = (" and ".join(version.owners()) for version in (contract, previous))
    return f"expected disks of the owners before it ({before}) by their keys, got those of {owners}"


def not_compared(contract: Contract, compared: Sequence[str]) -> tuple[str, ...]:
    """Names of the parties whose entry was held against no file, in contract order."""
    return tuple(member.party.name for member in contract.members if member.party.name not in compared)


def signed_before(previous: Agreement, own: Party) -> bool:
    """Whether the signer's key signed the version before."""
    named = _with_key(previous.contract, own)
    return named is not None and named.name in previous.signers()


def _with_key(contract: Contract, file: Party) -> Party | None:
    return next((member.party for member in contract.members if member.party.keyid == file.keyid), None)


def _entry_of(contract: Contract, file: Party) -> Party | None:
    """The entry that claims to be of `file`: by its key, else by its name."""
    by_name = (member.party for member in contract.members if member.party.name == file.name)
    return _with_key(contract, file) or next(by_name, None)


def _check_entry(contract: Contract, file: Party, whose: str) -> None:
    entry = _entry_of(contract, file)
    differing = () if entry is None else party_model.differences(entry, file)
    if differing:
        differences = "; ".join(f"{field} is {theirs}, not {mine}" for field, theirs, mine in differing)
        raise Refused(
            f"the contract's entry for {file.name} is not {whose}: {differences}",
            code="other-entry",
            hint="whoever drafts the contract takes the party file itself; with other keys in it, somebody else is meant",
        )
