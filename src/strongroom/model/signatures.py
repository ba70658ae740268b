"""Whether an envelope is signed by a key: the one place that says so. Who must have signed is for the callers.

A signature counts when it verifies by the key that is asked about, whatever key id it stands under. The key id is a hint
that nobody signed (DSSE 1.0, protocol: "MUST NOT be used for security decisions"): it says which signature is tried first. What
verifies under no hint is tried as well, a few times for each key (`TRIES_EACH`) and at most `MAX_TRIES` times for an envelope, so
that nobody's junk is costly: a broker asks about one key before it does anything for a stranger.
A signature counts for one key alone, and a key has signed once however often its signature is there.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from strongroom.crypto import digest, sign

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strongroom.encoding.dsse import DsseSignature, Envelope

# How many pairs of a signature and a key are tried for an envelope where no hint leads from the signature to the key. Strongroom
# writes the key's digest as key id, so that its own files need none. A file by another tool may have four signatures by four keys.
TRIES_EACH, MAX_TRIES = 4, 16


def signed_by(envelope: Envelope, key: sign.VerifyingKey) -> bool:
    """Whether a signature of `envelope` is by `key`."""
    return key in by_key(envelope, (key,))


def only_by(envelope: Envelope, key: sign.VerifyingKey) -> bool:
    """Whether `envelope` has one signature, and that is by `key`."""
    return len(envelope.signatures) == 1 and signed_by(envelope, key)


def in_own_form(envelope: Envelope, key: sign.VerifyingKey) -> bool:
    """Whether `envelope` has one signature, by `key` and under the digest of it: the one spelling that Strongroom writes."""
    return only_by(envelope, key) and own_form(envelope, (key,)) == envelope


def by_key(envelope: Envelope, keys: Iterable[sign.VerifyingKey]) -> dict[sign.VerifyingKey, DsseSignature]:
    """The signature of each of `keys` that signed `envelope`, in the order of `keys`.

    Answers are kept with the envelope: a key is verified with once, however often it is asked about.
    """
    asked = tuple(keys)
    known = envelope.verified
    unknown = {key.raw: key for key in asked if key.raw not in known}
    left = [signature for signature in envelope.signatures if signature not in known.values()]
    message = envelope.pae() if unknown and left else b""
    for signature, key in _tries(left, unknown):
        if sign.holds(key.verify, signature.sig, message):
            known[key.raw] = signature
            left.remove(signature)
            del unknown[key.raw]
    known |= dict.fromkeys(unknown)
    return {key: signed for key in asked if (signed := known[key.raw]) is not None}


def own_form(envelope: Envelope, keys: Iterable[sign.VerifyingKey]) -> Envelope:
    """`envelope` as Strongroom writes it: signatures by `keys` alone, each once and under the digest of its key, in their order."""
    keyids = {signature: digest.sha256(key.raw) for key, signature in by_key(envelope, keys).items()}
    return replace(
        envelope,
        signatures=tuple(
            replace(signature, keyid=keyids[signature])
            for signature in dict.fromkeys(envelope.signatures)
            if signature in keyids
        ),
    )


def _tries(
    left: list[DsseSignature], unknown: dict[bytes, sign.VerifyingKey]
) -> Iterator[tuple[DsseSignature, sign.VerifyingKey]]:
    """The pairs to try; the caller takes out of `left` and `unknown` what a try has settled."""
    hinted, tries = {}, min(MAX_TRIES, TRIES_EACH * len(unknown))
    for key in tuple(unknown.values()):
        keyid = digest.sha256(key.raw)
        named = next((signature for signature in left if signature.keyid == keyid), None)
        if named is not None:
            hinted[key.raw] = named
            yield named, key
    others = (
        (signature, key)
        for signature in tuple(left)
        for key in tuple(unknown.values())
        if key.raw in unknown and signature in left and signature != hinted.get(key.raw)
    )
    yield from islice(others, tries)
