"""The broker's own checks of a release request, made before any evidence is looked at and after `own_party`.

  1 nonce.fresh        issued here, not used before, not expired        (RULES 18)
  2 nonce.contract     issued for this very contract
  3 request.role       the one role that this broker serves
  4 contract.version   not lower than the highest seen; same version, same digest   (RULES 38, 42)
  5 contract.replaces  the next version replaces exactly the one that was seen
  6 run.unique         no keys were released to this room before
  7 certificate.names  the request asks for nothing that the contract lacks         (RULES 40)
  8 certificate.key    the request is by the TLS key that the evidence is bound to
  9 keys.present       every disk of this owner is known here, with its key if it has one

Each is a `Check`; none raises. `appraisal.judge` takes them and decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import fields
from strongroom.model import binding as binding_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.broker.broker import Broker
    from strongroom.broker.storage import IssuedNonce, KnownDisk, KnownVersion, Run, Transaction
    from strongroom.crypto.certificates import Request
    from strongroom.model.agreement import Agreement
    from strongroom.model.contract import Contract
    from strongroom.model.messages import ReleaseRequest

NO_CIPHER = "none"
_SOURCE = "design 5.4"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A release request, parsed: the message, its agreement and its certificate request.

    own: the checks of `own_party`, which all held, or there would be no agreement.
    """

    request: ReleaseRequest
    own: tuple[Check, ...]
    agreement: Agreement
    csr: Request | None

    @property
    def contract(self) -> Contract:
        """The contract that keys are asked for under."""
        return self.agreement.contract

    @cached_property
    def run(self) -> str:
        """The run's name."""
        return self.request.keys.run_id

    @cached_property
    def evidence(self) -> str:
        """The digest of the evidence, by which records and certificates name it."""
        return digest.sha256(self.request.evidence.encode())


@dataclass(frozen=True, kw_only=True)
class Gates:
    """The checks, whether the nonce was good, and the disks that keys would be released for."""

    checks: tuple[Check, ...]
    fresh: bool
    disks: tuple[KnownDisk, ...]


def check(broker: Broker, ask: Ask, transaction: Transaction, now: datetime) -> Gates:
    """Make every check, using up the nonce."""
    issued = transaction.nonces.take(ask.request.nonce)
    nonce = (_nonce(issued, now), _nonce_contract(issued, ask.contract))
    wanted = ask.contract.disks_of(broker.party.keyid)
    disks = tuple(disk for one in wanted if (disk := transaction.disks.find(one)) is not None)
    highest = transaction.contracts.highest(ask.contract.id)
    checks = (
        *ask.own,
        *nonce,
        _role(ask.request.role),
        *_version(highest, ask.contract),
        _unique(transaction.runs.find(ask.run)),
        *_certificate(ask),
        _keys(wanted, disks),
    )
    told = tuple(one if one.source else replace(one, source=_SOURCE) for one in checks)
    return Gates(checks=told, fresh=all(one.ok for one in nonce), disks=disks)


def _nonce(issued: IssuedNonce | None, now: datetime) -> Check:
    if issued is None:
        got = "a nonce that this broker does not know"
    elif issued.used:
        got = "a nonce that was used before"
    elif issued.expires <= now:
        got = f"a nonce that expired at {fields.format_time(issued.expires)}"
    else:
        return _ok("nonce.fresh", "a nonce of this broker, unused and in time", source="design 5.2")
    return Check(
        name="nonce.fresh",
        expected="a nonce of this broker, unused and in time",
        got=got,
        ok=False,
        hint="ask for a challenge and attest afresh; evidence is good for one release",
        source="design 5.2",
    )


def _nonce_contract(issued: IssuedNonce | None, contract: Contract) -> Check:
    got = "no nonce" if issued is None else issued.contract
    return _equal(
        "nonce.contract",
        contract.digest,
        got,
        hint="the challenge was for another contract; ask for one under this contract",
    )


def _role(role: str) -> Check:
    return _equal("request.role", binding_model.ROLE_ROOM, role, hint="keys are released to rooms alone")


def _version(highest: KnownVersion | None, contract: Contract) -> tuple[Check, ...]:
    if highest is None:
        return (_ok("contract.version", "any version, as none was seen before"),)
    if contract.version == highest.version:
        check = _equal(
            "contract.version",
            f"version {highest.version}, {highest.digest}",
            f"version {contract.version}, {contract.digest}",
            hint="another contract has that id and version; give the new one a higher version",
        )
        return (check,)
    newer = contract.version > highest.version
    first = Check(
        name="contract.version",
        expected=f"version {highest.version} or later",
        got=f"version {contract.version}",
        ok=newer,
        hint="" if newer else "a later version was admitted, which withdraws this one",
        source="design 4",
    )
    if contract.version != highest.version + 1:
        return (first,)
    second = _equal(
        "contract.replaces",
        highest.digest,
        contract.replaces or "nothing",
        hint="the next version must name the version that this broker knows",
    )
    return (first, second)


def _unique(found: Run | None) -> Check:
    return Check(
        name="run.unique",
        expected="a room that got no keys before",
        got="a room that got no keys before" if found is None else f"{found.run}, released before",
        ok=found is None,
        hint="" if found is None else "a room gets its keys once; start another room",
    )


def _certificate(ask: Ask) -> tuple[Check, ...]:
    if ask.csr is None:
        return ()
    allowed = () if ask.contract.certificate is None else ask.contract.certificate.names
    asked = list(ask.csr.names)
    if ask.csr.common_name not in ("", ask.run):
        asked.append(ask.csr.common_name)
    extra = [name for name in asked if name not in allowed]
    names = Check(
        name="certificate.names",
        expected="names out of: " + (", ".join(allowed) if allowed else "none, no certificate is agreed"),
        got=", ".join(asked)[:1000] if asked else "no names",
        ok=not extra and bool(allowed),
        hint="" if not extra and allowed else "names come from the contract alone; ask for those or fewer",
        source="design 5.5",
    )
    key = Check(
        name="certificate.key",
        expected="a request by the TLS key that the evidence is bound to",
        got="that key" if ask.csr.spki == ask.request.keys.tls else "another key",
        ok=ask.csr.spki == ask.request.keys.tls,
        hint="" if ask.csr.spki == ask.request.keys.tls else "sign the request with the attested TLS key",
    )
    return (names, key)


def _keys(wanted: tuple[str, ...], disks: tuple[KnownDisk, ...]) -> Check:
    held = {disk.manifest for disk in disks if disk.cipher == NO_CIPHER or disk.sealed_key is not None}
    missing = [one for one in wanted if one not in held]
    return Check(
        name="keys.present",
        expected="every disk of this owner known here, with its key",
        got="all known" if not missing else "not known: " + ", ".join(missing[:4]),
        ok=not missing,
        hint="" if not missing else "the owner adds it: `strongroom broker add-key DIR MANIFEST [KEY.age]`",
    )


def _ok(name: str, held: str, *, source: str = "") -> Check:
    return Check(name=name, expected=held, got=held, ok=True, source=source)


def _equal(name: str, expected: str, got: str, *, hint: str) -> Check:
    same = expected == got
    return Check(name=name, expected=expected, got=got, ok=same, hint="" if same else hint)
