"""A contract is signed: held against what the signer has, shown by the caller, and signed as one of its parties. Copies of it are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Refused
from strongroom.model.contracts import agreement as agreement_model
from strongroom.model.contracts import merging, signing
from strongroom.parties import papers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.merging import Merged
    from strongroom.model.identity import Identity
    from strongroom.model.party import Party


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a contract was held against. compared, not_compared: names of parties whose entries equal a file of the signer's, and the others'.

    signed_before: whether the signer signed the version that this one replaces; None for a first version.
    """

    compared: tuple[str, ...]
    not_compared: tuple[str, ...]
    signed_before: bool | None


def review_contract(
    agreement: Agreement,
    *,
    signer: Party,
    own: Party,
    trust: Sequence[Party] = (),
    previous: Agreement | None = None,
) -> Review:
    """Hold a contract against the signer's own party file `own`, others' files `trust`, and the version `previous` that it replaces.

    signer: the public part of the identity that would sign. Raises `Refused` or `Misuse` for what nobody should sign.
    """
    contract = agreement.contract
    signing.check_own(contract, own, identity=signer)
    compared = (own.name, *signing.check_others(contract, trust))
    signing.check_replaced(contract, None if previous is None else previous.contract)
    return Review(
        compared=compared,
        not_compared=signing.not_compared(contract, compared),
        signed_before=None if previous is None else signing.signed_before(previous, own),
    )


def sign_contract(
    agreement: Agreement,
    *,
    identity: Identity,
    own: Party,
    trust: Sequence[Party] = (),
    previous: Agreement | None = None,
) -> Agreement:
    """Sign as the party `own`, once the contract has passed `review_contract`. Show it to whoever signs before: this asks nobody."""
    review_contract(agreement, signer=identity.party(), own=own, trust=trust, previous=previous)
    return agreement_model.add_signature(agreement, identity.signing)


def merge_contracts(paths: Sequence[Path], *, out: Path) -> Merged:
    """Gather the signatures that parties made on copies of one contract, and write them to `out`: a new file, or one of `paths`.

    Raises `Refused` unless every file holds the same contract, `Malformed`, `Misuse` where `out` is another file that exists.
    """
    merged = merging.merge([papers.load_agreement(path) for path in paths])
    replaced = out.exists() and any(out.samefile(path) for path in paths)
    papers.save_agreement(merged.agreement, out=out, replace=replaced)
    return merged


def require_approved(agreement: Agreement, *, file: Path) -> None:
    """Raise `Refused` unless enough parties have signed. file: where the contract is, for what to type next."""
    if not agreement.approved():
        raise Refused(
            "the contract is not approved",
            code="not-approved",
            hint=f"still to sign: {', '.join(agreement.missing())}; each types `strongroom contract sign {file} --identity NAME.identity`",
        )
