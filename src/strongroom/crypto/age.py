"""age files (age-encryption.org/v1) with X25519 recipients: how outputs and logs leave a room, and how keys are kept in files.

The library behind it is loaded at its first use, so that judging evidence needs neither it nor its time.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from strongroom.encoding import unexpected
from strongroom.errors import Malformed, NotFound, Refused

# How an age file begins: in binary, and in ASCII armor.
MAGIC = (b"age-encryption.org/v1\n", b"-----BEGIN AGE ENCRYPTED FILE-----")


@dataclass(frozen=True)
class AgeIdentity:
    """A private age key, which age calls an identity, as its `AGE-SECRET-KEY-1…` text, never shown by `repr`."""

    text: str = field(repr=False)

    @property
    def recipient(self) -> str:
        """The public `age1…` text."""
        return str(self._identity().to_public())

    def open(self, sealed: bytes) -> bytes:
        """Decrypt a whole age file in memory. Raises `Malformed` when it is none, `Refused` when it does not open."""
        if not sealed.startswith(MAGIC):
            raise Malformed(
                "age file: expected one, which begins with age-encryption.org/v1, got another file",
                code="bad-age",
            )
        try:
            return bytes(_pyrage().decrypt(sealed, [self._identity()]))
        except _pyrage().DecryptError:
            raise _not_ours() from None

    def open_stream(self, source: BinaryIO, target: BinaryIO) -> None:
        """Decrypt from `source` to `target` in bounded memory. Raises `Refused` when it does not open, also when it is no age file."""
        try:
            _pyrage().decrypt_io(source, target, [self._identity()])
        except _pyrage().DecryptError:
            raise _not_ours() from None
        except OSError as cause:
            if cause.errno is not None:  # the disk's own failure, not the file's
                raise
            raise Refused(
                "the age file is damaged or cut short",
                code="damaged",
                hint="copy it again from where it came",
            ) from None

    def _identity(self) -> Any:
        try:
            return _pyrage().x25519.Identity.from_str(self.text)
        except _pyrage().IdentityError:
            raise Malformed(
                "age identity: expected a text that begins with AGE-SECRET-KEY-1, got another"
            ) from None


def _not_ours() -> Refused:
    return Refused(
        "the age file does not open with this identity",
        code="not-ours",
        hint="it opens with the identity that it was sealed to: of an output or a log `strongroom contract show` says whose, "
        "of a disk's key it is the disk's owner's; a damaged file gives the same answer",
    )


def generate() -> AgeIdentity:
    """A fresh identity from the operating system's generator."""
    return AgeIdentity(str(_pyrage().x25519.Identity.generate()))


def check_recipient(text: str) -> str:
    """Return `text` when it is an `age1…` recipient, else raise `Malformed`."""
    _recipient(text)
    return text


def seal(recipients: tuple[str, ...], plaintext: bytes) -> bytes:
    """Encrypt to at least one `age1…` recipient."""
    return bytes(_pyrage().encrypt(plaintext, _recipients(recipients)))


def seal_stream(recipients: tuple[str, ...], source: BinaryIO, target: BinaryIO) -> None:
    """Encrypt from `source` to `target` in bounded memory."""
    _pyrage().encrypt_io(source, target, _recipients(recipients))


def _recipients(texts: tuple[str, ...]) -> list[Any]:
    if not texts:
        raise Malformed("age: no recipient, so nobody could open the file")
    return [_recipient(text) for text in texts]


def _recipient(text: str) -> Any:
    try:
        return _pyrage().x25519.Recipient.from_str(text)
    except _pyrage().RecipientError:
        raise Malformed(
            f"age recipient: expected age1 and 58 more characters, got {unexpected.kind(text)}"
        ) from None


@functools.cache
def _pyrage() -> Any:
    try:
        return importlib.import_module("pyrage")
    except ImportError:
        raise NotFound(
            "age files: the package pyrage is not installed",
            hint="pip install 'strongroom[rooms]'",
        ) from None
