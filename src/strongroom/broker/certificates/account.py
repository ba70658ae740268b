"""The external account by which a room's program comes to certificates of its own (ACME; `broker.running.acme`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.acme.tokens import AccountRoom
from strongroom.crypto import hpke
from strongroom.model import messages
from strongroom.model.contracts.certificate_terms import Interface

if TYPE_CHECKING:
    from strongroom.broker.broker import Broker
    from strongroom.broker.parsed_request import ParsedRequest
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import RoomName, RunId
    from strongroom.model.verdict import Accepted


def attested(contract: Contract, room: RoomName, run_id: RunId) -> AccountRoom | None:
    """What an external account of that run says; None where its contract gives it no ACME."""
    terms = contract.room(room).certificate
    if terms is None or Interface.ACME not in terms.interfaces:
        return None
    return AccountRoom(
        run_id=run_id,
        contract_digest=contract.digest,
        contract_id=contract.id,
        room=room,
        names=terms.names,
        usages=terms.usages,
        lifetime_seconds=terms.lifetime_seconds,
    )


def seal(broker: Broker, ask: ParsedRequest, accepted: Accepted) -> bytes:
    """The external account, sealed to the key that the accepted evidence is bound to; nothing where the contract gives the room none."""
    about = attested(ask.contract, ask.room, ask.run_id)
    if about is None:
        return b""
    kid, key = broker.acme.tokens.external_account(about)
    account = messages.ExternalAccount(directory=f"{broker.acme.base}/directory", kid=kid, key=key)
    return hpke.seal(
        accepted.binding.keys.kem, account.encode(), info=messages.account_info(accepted.binding)
    )
