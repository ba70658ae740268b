"""Signed statements about files: in-toto Statement v1 in DSSE, one envelope a line (in-toto's attestation bundle).

https://github.com/in-toto/attestation/tree/main/spec/v1. A statement names its subjects by digest, and says one thing
about them: the predicate, of the type that `predicate_type` names. Whose signature counts is the reader's to say. Written
canonically, so that the same statement is the same bytes; read strictly, and judged as the bytes that were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, dsse, fields, unexpected
from strongroom.errors import Malformed, Refused
from strongroom.model import signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.crypto.sign import SigningKey, VerifyingKey
    from strongroom.model.identifiers import KeyId

TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 2 * 1024 * 1024  # of one statement; a bill of materials is the largest
MAX_FILE = 8 * 1024 * 1024
MAX_LINES = 8
MAX_SUBJECTS = 128


@dataclass(frozen=True, kw_only=True)
class InTotoSubject:
    """A file that a statement is about; its name is for people."""

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class InTotoStatement:
    """One statement, not yet anybody's."""

    subjects: tuple[InTotoSubject, ...]
    predicate_type: str
    predicate: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The object form."""
        return {
            "_type": TYPE,
            "subject": [
                {"name": subject.name, "digest": {"sha256": subject.digest.removeprefix("sha256:")}}
                for subject in self.subjects
            ],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }

    def encode(self) -> bytes:
        """The payload."""
        return canonical.dumps(self.to_json())

    def sign(self, key: SigningKey, *, keyid: KeyId) -> bytes:
        """The envelope: one line. Raises `Malformed` for what could not be read again."""
        payload = self.encode()
        parse(payload)
        bare = dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=())
        signature = dsse.DsseSignature(keyid=keyid, sig=key.sign(bare.pae()))
        return dsse.Envelope(payload_type=PAYLOAD_TYPE, payload=payload, signatures=(signature,)).encode()


def parse(payload: bytes) -> InTotoStatement:
    """Read a payload. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(payload, what="statement", max_bytes=MAX_BYTES), "statement")
    top.constant("_type", TYPE)
    subjects = []
    for item in top.objects("subject", max_items=MAX_SUBJECTS):
        name = item.text("name", max_length=256)
        inner = item.object("digest")
        digest = "sha256:" + inner.text("sha256", max_length=64)
        if fields.DIGEST.fullmatch(digest) is None or not name.isprintable():
            raise Malformed(
                f"{item.what}: expected a printable name and 64 lower-case hexadecimal digits as sha256, got {unexpected.quoted(name)} "
                f"and {unexpected.kind(digest.removeprefix('sha256:'))}"
            )
        inner.done()
        item.done()
        subjects.append(InTotoSubject(name=name, digest=digest))
    statement = InTotoStatement(
        subjects=tuple(subjects),
        predicate_type=top.text("predicateType", max_length=256),
        predicate=top.raw_object("predicate"),
    )
    top.done()
    if not subjects:
        raise Malformed(
            "statement.subject: empty, expected at least one: it would be about nothing", code="empty"
        )
    return statement


def lines(data: bytes) -> tuple[bytes, ...]:
    """The envelopes of a file, each on a line of its own. Raises `Malformed`."""
    if len(data) > MAX_FILE:
        raise Malformed(f"statements: {len(data)} bytes, at most {MAX_FILE} allowed", code="too-large")
    envelopes = data.removesuffix(b"\n").split(b"\n")
    if not 0 < len(envelopes) <= MAX_LINES or not all(envelopes):
        raise Malformed(
            f"statements: expected 1 to {MAX_LINES} lines, each an envelope and none empty, got {len(envelopes)}",
            code="too-many",
        )
    return tuple(envelopes)


def open_signed(line: bytes, *, trusted: Sequence[VerifyingKey]) -> tuple[InTotoStatement, VerifyingKey]:
    """The statement of one envelope, and the first of `trusted` that signed it. Raises `Refused`, or `Malformed`."""
    envelope = dsse.parse(line, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES)
    signers = list(signatures.by_key(envelope, trusted))
    if not signers:
        raise Refused(
            "reference file: not signed by any key that you trust",
            code="untrusted-reference",
            hint="name the signer's party file with --trust; nothing in the file itself makes it trusted",
        )
    return parse(envelope.payload), signers[0]


def unverified(line: bytes) -> InTotoStatement:
    """What an envelope says, whoever signed it: to be shown as that, and never acted on."""
    return parse(dsse.parse(line, payload_type=PAYLOAD_TYPE, max_payload=MAX_BYTES).payload)
