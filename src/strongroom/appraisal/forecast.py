"""Stored evidence, judged again by newer word of its vendor: what will stop being accepted, when, and what to update.

Two appraisals of the same evidence under the same policy: by the endorsements of then, and by newer ones. Every check
that held and does not hold any more is listed, with the time from which the newer word counts, the dates on which the
policy's own allowances and the endorsements end, and for Intel each component that is behind the newest level.
Pure: both times are arguments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from strongroom.appraisal.evaluate import Appraisal, evaluate
from strongroom.appraisal.wording.sentences import explain
from strongroom.encoding import fields
from strongroom.errors import Malformed, PolicyDenied
from strongroom.evidence.formats import dcap_tcb
from strongroom.model import check_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.model.binding import Bound
    from strongroom.model.claims import Claims
    from strongroom.model.contracts.policy_file import PolicyFile
    from strongroom.model.endorsements import Endorsements
    from strongroom.model.evidence import Evidence

_TCB_INFO, _QE_IDENTITY = "tcb-info", "qe-identity"
# Facts that say until when something counts.
_ENDS = {
    "tcb_info_next_update": "Intel's TCB info: fetch the next one before",
    "crl_next_update": "the revocation list: fetch the next one before",
    "vek_not_after": "the chip's certificate: fetch another before",
    "certificate_not_after": "the document's certificate: attest again before",
}


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Something that will not be accepted any more. when: from that time on, None: now already, by the newer word."""

    check: str
    reason: str
    when: datetime | None
    fix: str

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "check": self.check,
            "reason": self.reason,
            "when": None if self.when is None else fields.format_time(self.when),
            "fix": self.fix,
        }


@dataclass(frozen=True, kw_only=True)
class Update:
    """A component that is behind: what the platform has, what the newest level needs, and what it is."""

    component: str
    has: int
    needs: int
    what: str

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {"component": self.component, "has": self.has, "needs": self.needs, "what": self.what}


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Both appraisals, what stops, and what to update."""

    before: Appraisal
    after: Appraisal
    stops: tuple[Stop, ...]
    updates: tuple[Update, ...]

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "stops": [stop.to_json() for stop in self.stops],
            "updates": [update.to_json() for update in self.updates],
        }

    def require(self) -> None:
        """Raise `PolicyDenied` with the verdict of later where the newer endorsements turn an acceptance into a denial."""
        if self.before.accepted and not self.after.accepted:
            raise PolicyDenied(
                "the newer endorsements end the acceptance",
                verdict=self.after,
                hint="update what is named above, or let the parties accept it until a date",
            )


def forecast(
    evidence: Evidence,
    old: Endorsements,
    newer: Endorsements,
    policy: PolicyFile,
    *,
    binding: Bound,
    then: datetime,
    later: datetime,
) -> Forecast:
    """Judge by `old` at `then`, and by `newer` at `later`. Never raises for what the evidence is.

    later: a time at which the newer endorsements count. Allowances that end until `later` show as checks that fail.
    """
    before = evaluate(evidence, old, policy, binding=binding, now=then)
    after = evaluate(evidence, newer, policy, binding=binding, now=later)
    known = before.claims or after.claims
    return Forecast(
        before=before,
        after=after,
        stops=(*_stops(before, after, newer), *_ends(known, policy, then)),
        updates=() if known is None else tuple(_updates(known, newer)),
    )


def _stops(before: Appraisal, after: Appraisal, newer: Endorsements) -> Iterator[Stop]:
    held_before = {check.name for check in before.checks if check.ok}
    failed_then = {check.name for check in before.failed}
    since = _issued(newer)
    for check in after.failed:
        if check.name in failed_then:
            continue
        explained = explain(check)
        turned = "held so far" if check.name in held_before else "new"
        yield Stop(
            check=check.name,
            reason=f"{turned}: expected {explained.expected}, will be {explained.got}",
            when=since,
            fix=explained.hint,
        )


def _ends(claims: Claims | None, policy: PolicyFile, then: datetime) -> Iterator[Stop]:
    """The dates that are known already: of allowances which these claims need, and of endorsements."""
    if claims is None:
        return
    for platform in policy.platforms:
        asked = platform.policy
        if platform.tee != claims.tee or asked is None:
            continue
        status_end = (asked.status or {}).get(claims.status)
        if status_end is not None and status_end > then:
            yield Stop(
                check=check_names.PLATFORM_STATUS,
                reason=f"{claims.status} is accepted until then",
                when=status_end,
                fix="update the platform, or let the parties accept it longer",
            )
        for name in claims.advisories:
            end = asked.advisories.get(name)
            if end is not None and end > then:
                yield Stop(
                    check=f"{check_names.PLATFORM_ADVISORY}{name[:64]}",
                    reason=f"{name} is accepted until then",
                    when=end,
                    fix="read the advisory and update what it names",
                )
    for fact, what in _ENDS.items():
        end = _time(claims.facts.get(fact))
        if end is not None:
            yield Stop(check=f"endorsements.{fact}", reason="ends", when=end, fix=what)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return fields.Fields({"time": value}, "fact").time("time")
    except Malformed:
        return None


def _issued(newer: Endorsements) -> datetime | None:
    """From when Intel's newer TCB info counts; other vendors' word counts at once."""
    if _TCB_INFO not in newer.parts:
        return None
    try:
        inner, _ = dcap_tcb.split(newer.parts[_TCB_INFO], "tcbInfo", what="TCB info")
        return dcap_tcb.parse_tcb_info(inner).issued.astimezone(UTC)
    except Malformed:
        return None


def _updates(claims: Claims, newer: Endorsements) -> Iterator[Update]:
    """Components below the newest level that is up to date. The documents are only read here; `evaluate` judged them."""
    try:
        yield from _platform_updates(claims, newer)
        yield from _qe_updates(claims, newer)
    except Malformed:
        return


def _platform_updates(claims: Claims, newer: Endorsements) -> Iterator[Update]:
    if _TCB_INFO not in newer.parts:
        return
    inner, _ = dcap_tcb.split(newer.parts[_TCB_INFO], "tcbInfo", what="TCB info")
    info = dcap_tcb.parse_tcb_info(inner)
    best = next((level for level in info.levels if level.status == dcap_tcb.UP_TO_DATE), None)
    if best is None:
        return
    component_names = _component_names(inner, info.levels.index(best))
    for index, needs in enumerate(best.sgx):
        yield from _behind(
            claims,
            f"sgx.{index + 1:02d}",
            needs,
            component_names.get(("sgx", index), "CPU microcode or BIOS"),
        )
    yield from _behind(
        claims, "pce.svn", best.pce_svn, "the provisioning certification enclave (PCE), then the PCK"
    )
    has = claims.facts.get("tee_tcb_svn")
    if not isinstance(has, str) or len(has) != 2 * dcap_tcb.COMPONENTS or not best.tdx:
        return
    svn = bytes.fromhex(has)
    module = dcap_tcb.module_of(info, svn[1]) if svn[1] else None
    for index, needs in enumerate(best.tdx):
        if svn[1] and index < 2:
            continue  # the module's own version, which its identity judges
        if svn[index] < needs:
            what = component_names.get(("tdx", index), "TDX module or its loader")
            yield Update(component=f"tdx.{index + 1:02d}", has=svn[index], needs=needs, what=what)
    if module is not None:
        newest = next((level for level in module.levels if level.status == dcap_tcb.UP_TO_DATE), None)
        if newest is not None and svn[0] < newest.isv_svn:
            yield Update(component="tdx_module.svn", has=svn[0], needs=newest.isv_svn, what="the TDX module")


def _qe_updates(claims: Claims, newer: Endorsements) -> Iterator[Update]:
    if _QE_IDENTITY not in newer.parts:
        return
    inner, _ = dcap_tcb.split(newer.parts[_QE_IDENTITY], "enclaveIdentity", what="QE identity")
    newest = next(
        (level for level in dcap_tcb.parse_identity(inner).levels if level.status == dcap_tcb.UP_TO_DATE),
        None,
    )
    if newest is not None:
        yield from _behind(
            claims, "qe.svn", newest.isv_svn, "the quoting enclave (DCAP packages of the host)"
        )


def _behind(claims: Claims, component: str, needs: int, what: str) -> Iterator[Update]:
    has = claims.tcb.get(component)
    if has is not None and has < needs:
        yield Update(component=component, has=has, needs=needs, what=what)


def _component_names(inner: bytes, level: int) -> dict[tuple[str, int], str]:
    """What Intel calls each component (`BIOS: Early Microcode Update`); only some have a name."""
    value: Any = json.loads(inner)
    out: dict[tuple[str, int], str] = {}
    for kind in ("sgx", "tdx"):
        listed = value["tcbLevels"][level]["tcb"].get(f"{kind}tcbcomponents", [])
        for index, component in enumerate(listed):
            words = [
                component[key]
                for key in ("category", "type")
                if isinstance(component.get(key), str) and component[key]
            ]
            if words:
                out[kind, index] = ": ".join(word[:80] for word in words if word.isprintable())
    return out
