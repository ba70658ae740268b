"""Checkpoints and witness cosignatures as signed notes.

Formats: C2SP signed-note, tlog-checkpoint and tlog-cosignature (cosignature/v1), Ed25519.
A checkpoint's text is three lines: origin, tree size, base64 of the root hash. Parsing refuses any
text that would not re-encode to itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Refused
from strongroom.ledger import merkle

if TYPE_CHECKING:
    from strongroom.crypto import sign

MAX_BYTES = 64 * 1024
MAX_SIGNATURES = 64
_ED25519 = 0x01
_COSIGNATURE_V1 = 0x04
_DASH = "\u2014"


@dataclass(frozen=True, kw_only=True)
class NoteSignature:
    """One signature line: key name, 4-byte key id, and the bytes after the key id."""

    name: str
    key_id: bytes
    body: bytes

    def line(self) -> str:
        """The line's text, with its newline."""
        return f"{_DASH} {self.name} {base64.b64encode(self.key_id + self.body).decode()}\n"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A parsed checkpoint; `signatures` are not verified until `verify` or `verify_cosignature`."""

    origin: str
    size: int
    root: bytes
    signatures: tuple[NoteSignature, ...]

    def text(self) -> str:
        """The signed text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def note(self) -> str:
        """The whole note."""
        return self.text() + "\n" + "".join(signature.line() for signature in self.signatures)


_AS_SHOWN = "give a checkpoint unchanged, as a broker shows it or `strongroom ledger verify` keeps it"
_OTHER = "one broker, one ledger: is it the checkpoint of this party's broker? A broker that was made anew has another"


def origin_of(ledger_key: sign.VerifyingKey) -> str:
    """The origin line of the ledger with that key: one key, one ledger, one name."""
    return "strongroom-ledger/" + hashlib.sha256(ledger_key.raw).hexdigest()[:32]


def issue(key: sign.SigningKey, *, size: int, root: bytes) -> str:
    """A checkpoint note signed by the ledger's own key."""
    origin = origin_of(key.public)
    bare = Checkpoint(origin=origin, size=size, root=root, signatures=())
    signature = NoteSignature(
        name=origin,
        key_id=_key_id(origin, _ED25519, key.public),
        body=key.sign(bare.text().encode()),
    )
    return bare.text() + "\n" + signature.line()


def parse(note: str) -> Checkpoint:
    """Parse a note. Raises `Malformed`."""
    if len(note) > MAX_BYTES:
        raise Malformed(
            f"checkpoint: {len(note)} characters, expected at most {MAX_BYTES}",
            code="too-large",
            hint=_AS_SHOWN,
        )
    text, blank, tail = note.partition("\n\n")
    lines = text.split("\n")
    if not blank or len(lines) != 3 or not lines[0] or not tail.endswith("\n"):
        raise Malformed("checkpoint: expected three lines, a blank line and signatures", hint=_AS_SHOWN)
    size = lines[1]
    if not size.isascii() or not size.isdigit() or len(size) > 16 or str(int(size)) != size:
        raise Malformed(
            f"checkpoint: its second line: expected a number of entries, got {size[:40]!r}", hint=_AS_SHOWN
        )
    signatures = tuple(_parse_line(line) for line in tail[:-1].split("\n")[: MAX_SIGNATURES + 1])
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise Malformed(
            f"checkpoint: more than {MAX_SIGNATURES} signatures",
            hint="leave out cosignatures of witnesses that you do not need",
        )
    checkpoint = Checkpoint(
        origin=lines[0], size=int(size), root=_decode(lines[2], 32), signatures=signatures
    )
    if checkpoint.size > merkle.MAX_SIZE or checkpoint.note() != note:
        raise Malformed("checkpoint: not in its one canonical form", hint=_AS_SHOWN)
    return checkpoint


def verify(note: str, ledger_key: sign.VerifyingKey) -> Checkpoint:
    """Parse a note and check the ledger's own signature. Raises `Malformed` or `Refused`."""
    checkpoint = parse(note)
    origin = origin_of(ledger_key)
    if checkpoint.origin != origin:
        raise Refused(
            f"checkpoint: origin is {checkpoint.origin[:80]}, expected {origin}",
            code="wrong-ledger",
            hint=_OTHER,
        )
    key_id = _key_id(origin, _ED25519, ledger_key)
    for signature in checkpoint.signatures:
        if signature.name == origin and signature.key_id == key_id:
            ledger_key.verify(signature.body, checkpoint.text().encode())
            return checkpoint
    raise Refused(
        "checkpoint: not signed by its ledger",
        code="unsigned",
        hint="anybody could have written it: ask the ledger's broker for one, and do not rely on this one",
    )


def cosign(note: str, name: str, key: sign.SigningKey, *, timestamp: int) -> str:
    """The note with a witness's cosignature added (replacing an older one of that witness).

    Raises `Malformed` for a note that has no room for one: what a witness could not read again it must not remember.
    """
    checkpoint = parse(note)
    message = _cosigned(checkpoint, timestamp)
    key_id = _key_id(name, _COSIGNATURE_V1, key.public)
    added = NoteSignature(name=name, key_id=key_id, body=timestamp.to_bytes(8, "big") + key.sign(message))
    kept = tuple(
        signature
        for signature in checkpoint.signatures
        if (signature.name, signature.key_id) != (name, key_id)
    )
    cosigned = Checkpoint(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        signatures=(*kept, added),
    ).note()
    parse(cosigned)
    return cosigned


def verify_cosignature(checkpoint: Checkpoint, name: str, key: sign.VerifyingKey) -> int:
    """The time (seconds since 1970) at which that witness saw the checkpoint. Raises `Refused`."""
    key_id = _key_id(name, _COSIGNATURE_V1, key)
    for signature in checkpoint.signatures:
        if signature.name == name and signature.key_id == key_id and len(signature.body) == 72:
            timestamp = int.from_bytes(signature.body[:8], "big")
            key.verify(signature.body[8:], _cosigned(checkpoint, timestamp))
            return timestamp
    raise Refused(
        f"checkpoint: no cosignature by {name}",
        code="unsigned",
        hint=f"ask {name} for a checkpoint that `strongroom ledger witness` wrote",
    )


def _cosigned(checkpoint: Checkpoint, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{checkpoint.text()}".encode()


def _key_id(name: str, kind: int, key: sign.VerifyingKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key.raw).digest()[:4]


def _parse_line(line: str) -> NoteSignature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not parts[1] or "+" in parts[1]:
        raise Malformed(
            f"checkpoint: a signature's line: expected {_DASH} NAME BASE64, got {line[:80]!r}", hint=_AS_SHOWN
        )
    data = _decode(parts[2], None)
    if not 4 < len(data) <= 4096:
        raise Malformed(
            f"checkpoint: the signature of {parts[1][:80]!r} has {len(data)} bytes, expected 5 to 4096",
            hint=_AS_SHOWN,
        )
    return NoteSignature(name=parts[1], key_id=data[:4], body=data[4:])


def _decode(text: str, exactly: int | None) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"checkpoint: expected base64, got {text[:80]!r}", hint=_AS_SHOWN) from None
    if exactly is not None and len(data) != exactly:
        raise Malformed(
            f"checkpoint: its third line: expected {exactly} bytes in base64, got {len(data)}", hint=_AS_SHOWN
        )
    return data
