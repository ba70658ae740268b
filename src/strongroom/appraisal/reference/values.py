"""Reference values from signed files: our own format, one file for all platforms of a base.

A file of in-toto statements (`statement`), of which exactly one has the type `PREDICATE`, about the base's files, with the
predicate::

    {"format": "strongroom-reference/2", "name": name, "version": number, "issued": time, "expires": time,
     "platforms": [{"profile": name, "tee": name, "references": [{register: value}], "tcb": {component: least}}]}

`references` are alternatives, each a whole set; `tcb` may be empty. `version` only grows: whoever remembers a higher one
of the same name and signer refuses a lower (`fetch.endorsements.rollback`). Whose signature counts is the reader's to say: at least one
of the keys that the reader trusts must have signed, whatever the file says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.appraisal import intoto as statement
from strongroom.appraisal.intoto import InTotoStatement, InTotoSubject
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound, Refused
from strongroom.model.contracts.contract import read_reference
from strongroom.model.contracts.policy import read_minimums
from strongroom.model.contracts.policy_file import Extra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from strongroom.crypto.sign import VerifyingKey

FORMAT = "strongroom-reference/2"
PREDICATE = "urn:strongroom:reference:2"
MAX_BYTES = 256 * 1024
MAX_REFERENCES = 64
MAX_PLATFORMS = 16


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference values of one TEE, valid from `issued` until before `expires` (None: the file gives no end)."""

    name: str
    tee: str
    issued: datetime | None
    expires: datetime | None
    references: tuple[dict[str, str], ...]
    tcb: dict[str, int]
    profile: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    def extra(self) -> Extra:
        """What policy files take of it."""
        return Extra(tee=self.tee, references=self.references, tcb=self.tcb, facts=self.facts)


@dataclass(frozen=True, kw_only=True)
class ReferenceRelease:
    """What one file says: of a base's files, what each platform will report. `platforms` share its name and times."""

    name: str
    version: int
    issued: datetime
    expires: datetime
    subjects: tuple[InTotoSubject, ...]
    platforms: tuple[Reference, ...]

    def platform(self, wanted: str) -> Reference:
        """The platform of a profile, or of a TEE. Raises `NotFound`, or `Refused` when several are of that TEE."""
        suited = [platform for platform in self.platforms if platform.profile == wanted]
        suited = suited or [platform for platform in self.platforms if platform.tee == wanted]
        known = ", ".join(platform.profile for platform in self.platforms)
        if not suited:
            raise NotFound(
                f"{self.name}: says nothing of {wanted}",
                code="no-platform",
                hint=f"name one of its profiles: {known}",
            )
        if len(suited) > 1:
            raise Refused(
                f"{self.name}: several platforms are {wanted}",
                code="choose",
                hint=f"name one of its profiles: {known}",
            )
        return suited[0]

    def statement(self) -> InTotoStatement:
        """The statement. Raises `Malformed` for what could not be read again."""
        reference_statement = InTotoStatement(
            subjects=self.subjects,
            predicate_type=PREDICATE,
            predicate={
                "format": FORMAT,
                "name": self.name,
                "version": self.version,
                "issued": fields.format_time(self.issued),
                "expires": fields.format_time(self.expires),
                "platforms": [
                    {
                        "profile": platform.profile,
                        "tee": platform.tee,
                        "references": [dict(registers) for registers in platform.references],
                        "tcb": dict(platform.tcb),
                    }
                    for platform in self.platforms
                ],
            },
        )
        read(statement.parse(reference_statement.encode()))
        return reference_statement


def read(statement: InTotoStatement) -> ReferenceRelease:
    """The reference values in a statement. Raises `Malformed`."""
    if statement.predicate_type != PREDICATE:
        raise Malformed(
            f"reference file: expected a statement of type {PREDICATE}, got one of {statement.predicate_type[:80]!a}",
            code="wrong-type",
        )
    if len(canonical.dumps(statement.predicate)) > MAX_BYTES:
        raise Malformed(f"reference file: more than {MAX_BYTES} bytes", code="too-large")
    top = fields.Fields(statement.predicate, "reference")
    top.constant("format", FORMAT)
    header: dict[str, Any] = {
        "name": top.name("name"),
        "issued": top.time("issued"),
        "expires": top.time("expires"),
    }
    version = top.integer("version", low=1, high=2**53 - 1)
    platforms = []
    for item in top.objects("platforms", max_items=MAX_PLATFORMS):
        platforms.append(
            Reference(
                **header,
                profile=item.name("profile"),
                tee=item.name("tee"),
                references=tuple(
                    read_reference(registers)
                    for registers in item.objects("references", max_items=MAX_REFERENCES)
                ),
                tcb=read_minimums(item.object("tcb")),
            )
        )
        item.done()
    top.done()
    profiles = {platform.profile for platform in platforms}
    if (
        not platforms
        or len(profiles) != len(platforms)
        or not all(platform.references for platform in platforms)
    ):
        raise Malformed(
            "reference.platforms: expected at least one, each of a profile of its own and with references",
            code="empty",
        )
    return ReferenceRelease(
        **header, version=version, subjects=statement.subjects, platforms=tuple(platforms)
    )


def open_signed(data: bytes, *, trusted: Sequence[VerifyingKey], now: datetime) -> ReferenceRelease:
    """The reference values of a file that one of `trusted` signed. Raises `Refused`, or `Malformed`.

    What else the file states is not looked at, nor needed: it may be a bundle with provenance.
    """
    envelopes = [
        line for line in statement.lines(data) if statement.unverified(line).predicate_type == PREDICATE
    ]
    if len(envelopes) != 1:
        raise Malformed(
            f"reference file: {len(envelopes)} statements of reference values (type {PREDICATE}), expected one"
        )
    signed, _ = statement.open_signed(envelopes[0], trusted=trusted)
    release = read(signed)
    check_dates(release, now)
    return release


def check_dates(reference: Reference | ReferenceRelease, now: datetime) -> None:
    """Raise `Refused` unless `reference` counts at `now`."""
    early = reference.issued is not None and now < reference.issued
    late = reference.expires is not None and now >= reference.expires
    if early or late:
        begin, end = (
            "any time" if moment is None else fields.format_time(moment)
            for moment in (reference.issued, reference.expires)
        )
        raise Refused(
            f"reference file {reference.name}: counts from {begin} until before {end}, asked at {fields.format_time(now)}",
            code="reference-expired",
            hint="get a current one from whoever signs it; is this machine's clock right?",
        )


def parse_values(data: bytes) -> tuple[str, tuple[dict[str, str], ...]]:
    """The TEE and its alternatives, as `strongroom measure … --reference` prints them: unsigned, so somebody's own. Raises `Malformed`."""
    top = fields.Fields(
        canonical.loads(data, what="reference values", max_bytes=MAX_BYTES), "reference values"
    )
    tee = top.name("tee")
    references = tuple(
        read_reference(registers) for registers in top.objects("references", max_items=MAX_REFERENCES)
    )
    top.done()
    return tee, references
