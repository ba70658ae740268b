"""The broker's own checks of a release request, made before any evidence is looked at and after `own_party`.

  1 nonce.fresh        issued here, not used before, not expired
  2 nonce.contract     issued for this very contract
  3 request.role       a room of the contract in which the owner has a disk
  4 contract.withdrawn the owner has not withdrawn it here        (`versions`)
    contract.version   the version that is known here, or the next   (`versions`)
  5 contract.replaces  the next version replaces exactly the one before it
    contract.paused    the owner has not paused it here, nor this room of it
  6 run.unique         no keys were released to this room before;
    run.released       of a renewal instead: they were, under this contract, and its last receipt is not here
  7 certificate.names  the request asks for nothing that the contract lacks
  8 certificate.key    the request is by the TLS key that the evidence is bound to
    certificate.kind   that key is of the kind that the contract says
  9 keys.present       every disk of this owner is known here, with its key if it has one

Each is a `Check` of names and data; none raises. `appraisal.judge` takes them and decides; `appraisal.wording.table`
has their sentences. They are made before anything is verified, of the request and of what the storage knew (`Known`).
Of nothing else: so the transaction that decides asks whether the storage still knows the same, and then they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.appraisal.checks import listed
from strongroom.broker import versions
from strongroom.broker.ports import Known, NonceUse
from strongroom.crypto import digest
from strongroom.crypto.pki import certificates
from strongroom.encoding import fields
from strongroom.model import check_names
from strongroom.model import manifest as manifest_model
from strongroom.model.verdict import Check

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.broker.broker import Broker
    from strongroom.broker.parsed_request import ParsedRequest
    from strongroom.broker.ports import KnownDisk, KnownVersion, Reading, Run
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identifiers import ContractDigest, KeyId, ManifestDigest, RoomName
    from strongroom.model.verdict import Data


def known(ask: ParsedRequest, state: Reading) -> Known:
    """Read what is known for `ask`. state: the storage, committed, or within the transaction that decides."""
    return Known(
        version=state.contracts.highest(ask.series),
        run=state.runs.find(ask.run_id),
        disks=_held(ask.disks, state),
    )


def check(ask: ParsedRequest, known: Known) -> tuple[Check, ...]:
    """Make every check. Pure."""
    return (
        *ask.own,
        fresh(ask.nonce_end),
        nonce_contract(ask.contract.digest, ask.request.contract_digest),
        _role(ask.contract, ask.own_key, ask.request.role),
        *versions.check(known.version, ask.contract, ask.brought),
        _paused(known.version, ask.room),
        _released(ask, known.run) if ask.renews else _unique(known.run),
        *_certificate(ask),
        _keys(ask.disks, known.disks),
    )


def standing(
    broker: Broker, of: Contract, room: RoomName, brought: versions.Brought, state: Reading
) -> tuple[Check, ...]:
    """Those checks that a question about a room is enough for: 3, 4, 5, the pause and, as the last, 9."""
    own = broker.party.keyid
    wanted = of.disks_of(own, room=room)
    highest = state.contracts.highest(versions.series(of))
    return (
        _role(of, own, room),
        *versions.check(highest, of, brought),
        _paused(highest, room),
        _keys(wanted, _held(wanted, state)),
    )


def _held(wanted: tuple[ManifestDigest, ...], state: Reading) -> tuple[KnownDisk, ...]:
    return tuple(disk for manifest in wanted if (disk := state.disks.find(manifest)) is not None)


def fresh(end: datetime | None, *, use: NonceUse = NonceUse.FRESH) -> Check:
    """The check `nonce.fresh`. end: when the nonce ends, None for one that is not ours. use: how it stands."""
    got: Data = "unused"
    if end is None:
        got = "unknown"
    elif use is NonceUse.USED:
        got = "used"
    elif use is NonceUse.ENDED:
        got = {"expired": fields.format_time(end)}
    return Check.equal(check_names.NONCE_FRESH, "unused", got)


def nonce_contract(contract_digest: ContractDigest, issued_for: ContractDigest) -> Check:
    """The check `nonce.contract`: the digest of the contract, and that which the nonce was made for."""
    return Check.equal(check_names.NONCE_CONTRACT, contract_digest, issued_for)


def _role(contract: Contract, own: KeyId, role: str) -> Check:
    rooms = [room.name for room in contract.rooms if contract.disks_of(own, room=room.name)]
    return Check.judged(check_names.REQUEST_ROLE, expected=listed(rooms), got=role, ok=role in rooms)


def _unique(earlier: Run | None) -> Check:
    return Check.equal(check_names.RUN_UNIQUE, None, None if earlier is None else earlier.run_id)


def _released(ask: ParsedRequest, run: Run | None) -> Check:
    mine = (ask.request.keys.signing, ask.contract.digest, ask.room)
    same = run is not None and (run.signing_key, run.contract_digest, run.room) == mine
    got: Data = ask.run_id if same else None
    if run is not None and same and run.receipt is not None:
        got = "ended"
    return Check.equal(check_names.RUN_RELEASED, ask.run_id, got)


def _paused(highest: KnownVersion | None, room: RoomName) -> Check:
    paused = highest is not None and highest.is_paused(room)
    return Check.equal(check_names.CONTRACT_PAUSED, "no", "yes" if paused else "no")


def _certificate(ask: ParsedRequest) -> tuple[Check, ...]:
    if ask.csr is None:
        return ()
    terms = next((room.certificate for room in ask.contract.rooms if room.name == ask.room), None)
    allowed = () if terms is None else terms.names
    asked = list(ask.csr.names)
    if ask.csr.common_name not in ("", ask.run_id):
        asked.append(ask.csr.common_name)
    names = Check.judged(
        check_names.CERTIFICATE_NAMES,
        expected=list(allowed),
        got=listed(asked),
        ok=bool(allowed) and all(name in allowed for name in asked),
    )
    key = Check.equal(
        check_names.CERTIFICATE_KEY, digest.sha256(ask.request.keys.tls), digest.sha256(ask.csr.spki)
    )
    kind = Check.equal(
        check_names.CERTIFICATE_KIND,
        None if terms is None else terms.key.value,
        certificates.key_kind(ask.request.keys.tls) or "unknown",
    )
    return (names, key, kind)


def _keys(wanted: tuple[ManifestDigest, ...], disks: tuple[KnownDisk, ...]) -> Check:
    with_keys = {
        disk.manifest_digest
        for disk in disks
        if disk.cipher == manifest_model.NO_CIPHER or disk.sealed_key is not None
    }
    missing = [manifest for manifest in wanted if manifest not in with_keys]
    return Check.equal(check_names.KEYS_PRESENT, "all", {"missing": listed(missing)} if missing else "all")
