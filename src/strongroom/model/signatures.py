"""Whether an envelope is signed by a key. Who must have signed is for the callers.

A key id only says which signature to look at: what counts is that it verifies by the caller's own key. So that no
envelope costs its reader more than one verification for each key asked about, and no signature is good twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.crypto import sign
    from strongroom.encoding import dsse


def signed_by(envelope: dsse.Envelope, key: sign.VerifyingKey) -> bool:
    """Whether `envelope` has one signature with the key id of `key`, and it verifies."""
    return bool(signers(envelope, (key,)))


def signers(envelope: dsse.Envelope, keys: Iterable[sign.VerifyingKey]) -> frozenset[sign.VerifyingKey]:
    """Those of `keys` that signed `envelope`: at most one verification for each of them, however often it is asked about.

    A key id that stands there twice counts for nothing: which of the two is meant is for nobody to guess.
    """
    by_keyid: dict[str, list[bytes]] = {}
    for signature in envelope.signatures:
        by_keyid.setdefault(signature.keyid, []).append(signature.sig)
    message = b""
    known = envelope.verified
    asked = tuple(keys)
    for key in asked:
        signatures = by_keyid.get(digest.sha256(key.raw), [])
        if key.raw not in known and len(signatures) == 1:
            message = message or envelope.pae()
            known[key.raw] = _verifies(signatures[0], key, message)
    return frozenset(key for key in asked if known.get(key.raw))


def verifies(signature: dsse.DsseSignature, key: sign.VerifyingKey | None, message: bytes) -> bool:
    """Whether `signature` is by `key` over `message`; None is nobody's key."""
    return key is not None and _verifies(signature.sig, key, message)


def _verifies(signature: bytes, key: sign.VerifyingKey, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except Refused:
        return False
    return True
