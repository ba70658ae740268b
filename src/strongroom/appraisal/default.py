"""The least that anybody should ask of claims: no debug, nothing revoked, hardware unless software is expected.

For those who have no contract and no policy of their own, and for comparing verifiers with others. What verification
itself demands (signatures, chains, dates, revocation lists, a matched TCB level) has held already, or there would be
no claims. `strict` asks besides what Intel's and others' stricter verifiers ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.checks import ANY, HARDWARE, SOFTWARE
from strongroom.model import check_names
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from strongroom.model.claims import Claims

REVOKED = frozenset({"Revoked"})
# What a stricter verifier asks of a trust domain, where the claims have the fact.
_SERVICE_TD = "mr_service_td"
_SEPT_VE = "td_attributes.sept_ve_disable"


def default_policy(
    claims: Claims, *, simulated: bool = False, strict: bool = False, at: str = ""
) -> tuple[Check, ...]:
    """The checks, in order; the claims are good when every one is `ok`. Attached devices are asked the same.

    simulated: software may stand in for hardware (tests of synthetic vendors). at: what the names of
    the checks begin with: empty for the room's own claims, `device-N.` for those of an attached device.
    """
    checks = [
        Check.judged(
            f"{at}{check_names.CLAIMS_DEBUG}", expected=False, got=claims.debug, ok=not claims.debug
        ),
        Check.judged(
            f"{at}{check_names.CLAIMS_STATUS}",
            expected="not-revoked",
            got=claims.status or None,
            ok=claims.status not in REVOKED,
        ),
        Check.judged(
            f"{at}{check_names.CLAIMS_SIMULATED}",
            expected=ANY if simulated else HARDWARE,
            got=SOFTWARE if claims.simulated else HARDWARE,
            ok=simulated or not claims.simulated,
        ),
    ]
    if strict:
        checks += _strict(claims, at)
    for index, device in enumerate(claims.devices):
        checks += default_policy(device, simulated=simulated, strict=strict, at=f"{at}device-{index}.")
    return tuple(checks)


def _strict(claims: Claims, at: str) -> list[Check]:
    checks = []
    service_td = claims.registers.get(_SERVICE_TD)
    if service_td is not None:
        clear = not service_td.strip("0")  # hexadecimal digits: no service TD is bound
        checks.append(
            Check.judged(f"{at}{check_names.CLAIMS_SERVICE_TD}", expected=None, got=service_td, ok=clear)
        )
    disabled = claims.facts.get(_SEPT_VE)
    if disabled is not None:
        checks.append(
            Check.judged(
                f"{at}{check_names.CLAIMS_SEPT_VE}", expected=True, got=disabled, ok=disabled is True
            )
        )
    return checks
