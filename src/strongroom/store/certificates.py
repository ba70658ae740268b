"""Certificates in a broker's database: those that were issued and have not ended, and which of them were revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from strongroom.broker.ports import IssuedIssuer, IssuedLeaf
from strongroom.model.identifiers import ContractDigest, RoomName, RunId
from strongroom.store import schema
from strongroom.store.moments import moment, seconds
from strongroom.store.statements import text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    Execute = Callable[[str, Mapping[str, object]], sqlite3.Cursor]

_leaves, _issuers = schema.certificates, schema.issuers
_WANTED: sa.BindParameter[object] = sa.bindparam("wanted")
_NOW: sa.BindParameter[object] = sa.bindparam("now")
_LEAF = (
    _leaves.c.serial,
    _leaves.c.contract,
    _leaves.c.room,
    _leaves.c.run,
    _leaves.c.expires,
    _leaves.c.revoked,
)
_ISSUER = (
    _issuers.c.contract,
    _issuers.c.root,
    _issuers.c.certificate,
    _issuers.c.serial,
    _issuers.c.expires,
    _issuers.c.revoked,
)

CERTIFICATES_FORGET = text(sa.delete(_leaves).where(_leaves.c.expires <= _NOW))
_LEAF_ADD = text(sa.insert(_leaves))
_LEAF_FIND = text(sa.select(*_LEAF).where(_leaves.c.serial == _WANTED))
_of_contract = (_leaves.c.contract == _WANTED, _leaves.c.revoked.is_(None), _leaves.c.expires > _NOW)
_REVOKE = text(sa.update(_leaves).where(*_of_contract).values(revoked=sa.bindparam("at")))
_REVOKE_ROOM = text(
    sa.update(_leaves)
    .where(*_of_contract, _leaves.c.room == sa.bindparam("of_room"))
    .values(revoked=sa.bindparam("at"))
)
_LEAVES_REVOKED = text(
    sa.select(*_LEAF)
    .where(_leaves.c.contract == _WANTED, _leaves.c.revoked.is_not(None), _leaves.c.expires > _NOW)
    .order_by(_leaves.c.serial)
)
_ISSUER_ADD = text(insert(_issuers).on_conflict_do_nothing())
_ISSUER_FIND = text(sa.select(*_ISSUER).where(_issuers.c.contract == _WANTED))
_ISSUER_REVOKE = text(
    sa.update(_issuers)
    .where(_issuers.c.contract == _WANTED, _issuers.c.revoked.is_(None))
    .values(revoked=sa.bindparam("at"))
)
_ISSUERS_REVOKED = text(
    sa.select(*_ISSUER)
    .where(_issuers.c.root == _WANTED, _issuers.c.revoked.is_not(None), _issuers.c.expires > _NOW)
    .order_by(_issuers.c.serial)
)
_SERIAL_BYTES = 16


class SqlCertificates:
    """Implements `broker.ports.Certificates`."""

    def __init__(self, read: Execute, write: Execute) -> None:
        self._read = read
        self._write = write

    def add(self, leaf: IssuedLeaf, issuer: IssuedIssuer) -> None:
        """Remember a leaf, and who issued it."""
        self._write(
            _LEAF_ADD,
            {
                "serial": _bytes(leaf.serial),
                "contract": leaf.contract_digest,
                "room": leaf.room,
                "run": leaf.run_id,
                "expires": seconds(leaf.not_after),
                "revoked": None,
            },
        )
        if self.issuer(issuer.contract_digest) is None:
            row = {
                "contract": issuer.contract_digest,
                "root": issuer.root,
                "certificate": issuer.certificate,
                "serial": _bytes(issuer.serial),
                "expires": seconds(issuer.not_after),
                "revoked": None,
            }
            self._write(_ISSUER_ADD, row)

    def find(self, serial: int) -> IssuedLeaf | None:
        """The leaf with that serial number."""
        if serial < 0 or serial.bit_length() > 8 * _SERIAL_BYTES:
            return None
        row = self._read(_LEAF_FIND, {"wanted": _bytes(serial)}).fetchone()
        return None if row is None else _leaf(row)

    def issuer(self, contract_digest: ContractDigest) -> IssuedIssuer | None:
        """The issuer of that contract's leaves."""
        row = self._read(_ISSUER_FIND, {"wanted": contract_digest}).fetchone()
        return None if row is None else _issuer(row)

    def revoke(self, contract_digest: ContractDigest, room: RoomName | None, *, now: datetime) -> int:
        """Revoke every leaf of a room, or of all rooms."""
        values = {"wanted": contract_digest, "now": seconds(now), "at": seconds(now)}
        if room is None:
            return self._write(_REVOKE, values).rowcount
        return self._write(_REVOKE_ROOM, {**values, "of_room": room}).rowcount

    def revoke_issuer(self, contract_digest: ContractDigest, *, now: datetime) -> None:
        """Revoke the contract's issuer."""
        self._write(_ISSUER_REVOKE, {"wanted": contract_digest, "at": seconds(now)})

    def revoked_leaves(self, contract_digest: ContractDigest, *, now: datetime) -> Sequence[IssuedLeaf]:
        """The contract's revoked leaves that would still be good."""
        values = {"wanted": contract_digest, "now": seconds(now)}
        return [_leaf(row) for row in self._read(_LEAVES_REVOKED, values).fetchall()]

    def revoked_issuers(self, root: str, *, now: datetime) -> Sequence[IssuedIssuer]:
        """The revoked issuers below a root that would still be good."""
        values = {"wanted": root, "now": seconds(now)}
        return [_issuer(row) for row in self._read(_ISSUERS_REVOKED, values).fetchall()]


def _bytes(serial: int) -> bytes:
    return serial.to_bytes(_SERIAL_BYTES, "big")


def _leaf(row: tuple[bytes, str, str, str, int, int | None]) -> IssuedLeaf:
    serial, contract, room, run, expires, revoked = row
    return IssuedLeaf(
        serial=int.from_bytes(serial, "big"),
        contract_digest=ContractDigest(contract),
        room=RoomName(room),
        run_id=RunId(run),
        not_after=moment(expires),
        revoked=None if revoked is None else moment(revoked),
    )


def _issuer(row: tuple[str, str, bytes, bytes, int, int | None]) -> IssuedIssuer:
    contract, root, certificate, serial, expires, revoked = row
    return IssuedIssuer(
        contract_digest=ContractDigest(contract),
        root=root,
        certificate=certificate,
        serial=int.from_bytes(serial, "big"),
        not_after=moment(expires),
        revoked=None if revoked is None else moment(revoked),
    )
