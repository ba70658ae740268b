"""age files (age-encryption.org/v1) with X25519 recipients: how results leave and keys rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO

import pyrage

from strongroom.errors import Malformed, Refused


@dataclass(frozen=True)
class AgeIdentity:
    """A private age key, as its `AGE-SECRET-KEY-1…` text, never shown by `repr`."""

    text: str = field(repr=False)

    @property
    def recipient(self) -> str:
        """The public `age1…` text."""
        return str(self._identity().to_public())

    def open(self, sealed: bytes) -> bytes:
        """Decrypt a whole age file in memory. Raises `Refused`."""
        try:
            return bytes(pyrage.decrypt(sealed, [self._identity()]))
        except pyrage.DecryptError:
            raise Refused("the age file does not open with this identity", code="not-ours") from None

    def open_stream(self, source: BinaryIO, target: BinaryIO) -> None:
        """Decrypt from `source` to `target` in bounded memory. Raises `Refused`."""
        try:
            pyrage.decrypt_io(source, target, [self._identity()])
        except pyrage.DecryptError:
            raise Refused("the age file does not open with this identity", code="not-ours") from None
        except OSError as cause:
            if cause.errno is not None:  # the disk's own failure, not the file's
                raise
            raise Refused("the age file is damaged or cut short", code="damaged") from None

    def _identity(self) -> pyrage.x25519.Identity:
        try:
            return pyrage.x25519.Identity.from_str(self.text)
        except pyrage.IdentityError:
            raise Malformed("age identity: not an AGE-SECRET-KEY-1 text") from None


def generate() -> AgeIdentity:
    """A fresh identity from the operating system's generator."""
    return AgeIdentity(str(pyrage.x25519.Identity.generate()))


def check_recipient(text: str) -> str:
    """Return `text` when it is an `age1…` recipient, else raise `Malformed`."""
    _recipient(text)
    return text


def seal(recipients: tuple[str, ...], plaintext: bytes) -> bytes:
    """Encrypt to at least one `age1…` recipient."""
    return bytes(pyrage.encrypt(plaintext, _recipients(recipients)))


def seal_stream(recipients: tuple[str, ...], source: BinaryIO, target: BinaryIO) -> None:
    """Encrypt from `source` to `target` in bounded memory."""
    pyrage.encrypt_io(source, target, _recipients(recipients))


def _recipients(texts: tuple[str, ...]) -> list[pyrage.x25519.Recipient]:
    if not texts:
        raise Malformed("age: no recipient, so nobody could open the file")
    return [_recipient(text) for text in texts]


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise Malformed("age recipient: not an age1 text") from None
