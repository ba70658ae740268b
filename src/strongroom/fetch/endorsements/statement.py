"""One thing that a vendor says, how to ask for it, and how long it counts.

A statement's key names what it is about, wherever it comes from (the vendor, a PCCS, a mirror, an imported file):

    amd/chain/{vcek|vlek}/LINE              ASK or ASVK, and ARK
    amd/crl/{vcek|vlek}/LINE                the ARK's revocation list
    amd/vcek/LINE/HWID/TCB                  the certificate of one chip at one TCB
    intel/tcb/{sgx|tdx}/FMSPC/UPDATE        TCB info of one kind of platform; UPDATE: standard or early
    intel/qe/{sgx|tdx}/UPDATE               identity of Intel's quoting enclave
    intel/crl/{root|platform|processor}     revocation list of Intel's root, or of a PCK CA
    intel/pck/DIGEST                        PCK certificates of a platform that its quote only names
    issuer/DIGEST                           the certificate of an issuer, by the digest of its URL
    nvidia/rim/ID                           reference measurements of one driver or firmware

Each is kept with all that it takes to tell that the vendor signed it, so that a statement can be verified by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.fetch.http.client import Download, Service

MAX_KEY = 256
MAX_PART = 1024 * 1024
MAX_PARTS = 4
MAX_BYTES = 3 * 1024 * 1024  # of a statement in its JSON form

OTHER_VERSION = "another version of Strongroom wrote it, or it was altered: export it again, with the version that is used here"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A number that may only grow: of the statement `name` under one signing authority."""

    name: str
    number: int


@dataclass(frozen=True, kw_only=True)
class StatementTerms:
    """What a statement says of itself. until: its vendor's own end of it, inclusive. marks: what may not go back."""

    issued: datetime
    until: datetime
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What was fetched, exactly, and when. Parts are named as verifiers name endorsements, where they read them."""

    key: str
    parts: dict[str, bytes] = field(repr=False)
    fetched: datetime

    def to_json(self) -> dict[str, object]:
        """The object form."""
        return {
            "fetched": fields.format_time(self.fetched),
            "key": self.key,
            "parts": {name: fields.format_data(part) for name, part in self.parts.items()},
        }

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.to_json())


@dataclass(frozen=True, kw_only=True)
class StatementRequest:
    """How to get the statement `key`. take: from the answer to the parts; raises `Malformed`."""

    key: str
    service: Service
    path: str
    types: frozenset[str]
    take: Callable[[Download], dict[str, bytes]] = field(repr=False)
    max_bytes: int = MAX_PART


def read(source: fields.Fields) -> Statement:
    """Read the object form. Raises `Malformed`."""
    fetched = source.time("fetched")
    key = source.text("key", max_length=MAX_KEY)
    inner = source.object("parts")
    names = inner.names()
    if not 0 < len(names) <= MAX_PARTS or any(fields.NAME.fullmatch(name) is None for name in names):
        raise Malformed(f"{inner.what}: expected 1 to {MAX_PARTS} named parts", hint=OTHER_VERSION)
    parts = {name: inner.data(name, max_bytes=MAX_PART) for name in names}
    source.done()
    return Statement(key=key, parts=parts, fetched=fetched)


def parse(data: bytes) -> Statement:
    """Parse the canonical bytes. Raises `Malformed`."""
    value = canonical.loads(data, what="kept endorsement", max_bytes=MAX_BYTES)
    return read(fields.Fields(value, "kept endorsement"))
