"""Reference values from signed files: our own format.

A DSSE envelope (type `PAYLOAD_TYPE`) over::

    {"format": "strongroom-reference/1", "name": name, "tee": name, "issued": time, "expires": time,
     "references": [{register: value}], "tcb": {component: least}}

`references` are alternatives, each a whole set; `tcb` may be empty. Whose signature counts is the reader's to say:
at least one of the keys that the reader trusts must have signed, whatever the file says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Malformed, Refused
from strongroom.model import signatures
from strongroom.model.contract import read_reference
from strongroom.model.policy import read_minimums
from strongroom.model.policy_file import Extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from strongroom.crypto.sign import SigningKey, VerifyingKey

FORMAT = "strongroom-reference/1"
PAYLOAD_TYPE = "application/vnd.strongroom.reference+json"
MAX_BYTES = 256 * 1024
MAX_REFERENCES = 64


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference values of one TEE, valid from `issued` until before `expires` (None: the file gives no end)."""

    name: str
    tee: str
    issued: datetime | None
    expires: datetime | None
    references: tuple[dict[str, str], ...]
    tcb: dict[str, int]

    def extra(self) -> Extra:
        """What policy files take of it."""
        return Extra(tee=self.tee, references=self.references, tcb=self.tcb)


def encode(reference: Reference, *, key: SigningKey, keyid: str) -> bytes:
    """The signed file. Raises `Malformed` for what could not be read again."""
    if reference.issued is None or reference.expires is None:
        raise Malformed("reference: it needs both its times")
    payload = canonical.dumps(
        {
            "format": FORMAT,
            "name": reference.name,
            "tee": reference.tee,
            "issued": fields.format_time(reference.issued),
            "expires": fields.format_time(reference.expires),
            "references": [dict(one) for one in reference.references],
            "tcb": dict(reference.tcb),
        }
    )
    parse(payload)
    bare = dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=())
    signature = dsse.Signature(keyid=keyid, sig=key.sign(bare.pae()))
    return dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=(signature,)).encode()


def parse(payload: bytes) -> Reference:
    """Read the payload. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(payload, what="reference", max_bytes=MAX_BYTES), "reference")
    top.constant("format", FORMAT)
    made = Reference(
        name=top.name("name"),
        tee=top.name("tee"),
        issued=top.time("issued"),
        expires=top.time("expires"),
        references=tuple(
            read_reference(item) for item in top.objects("references", max_items=MAX_REFERENCES)
        ),
        tcb=read_minimums(top.object("tcb")),
    )
    top.done()
    if not made.references:
        raise Malformed("reference.references: empty, which no evidence could meet", code="empty")
    return made


def open_signed(data: bytes, *, trusted: Sequence[VerifyingKey], now: datetime) -> Reference:
    """The reference values of a file that one of `trusted` signed. Raises `Refused`, or `Malformed`."""
    envelope = dsse.parse(data, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    if not any(signatures.signed_by(envelope, key) for key in trusted):
        raise Refused(
            "reference file: not signed by any key that you trust",
            code="untrusted-reference",
            hint="name the signer's party file with --trust; nothing in the file itself makes it trusted",
        )
    made = parse(envelope.payload)
    check_dates(made, now)
    return made


def check_dates(reference: Reference, now: datetime) -> None:
    """Raise `Refused` unless `reference` counts at `now`."""
    early = reference.issued is not None and now < reference.issued
    late = reference.expires is not None and now >= reference.expires
    if early or late:
        raise Refused(
            f"reference file {reference.name}: not valid at {fields.format_time(now)}",
            code="reference-expired",
            hint="get a current one from whoever signs it",
        )
