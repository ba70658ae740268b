"""Whether an envelope is signed by a key. Who must have signed is for the callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.errors import Refused

if TYPE_CHECKING:
    from strongroom.crypto import sign
    from strongroom.encoding import dsse


def signed_by(envelope: dsse.Envelope, key: sign.VerifyingKey) -> bool:
    """Whether any signature of `envelope` is by `key`. Key ids are hints and are not looked at."""
    message = envelope.pae()
    for one in envelope.signatures:
        try:
            key.verify(one.sig, message)
        except Refused:
            continue
        return True
    return False
