"""Signatures of images where `cosign` keeps them: in the image's own repository. What they are worth is judged offline.

Asked for each digest: the tag `sha256-….sig` (simple signing), and the artifacts about it (bundles). Only the registry
itself is asked. What does not parse is left out here, so that rubbish beside a good signature does not hide it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.fetch.oci import artifacts, names
from strongroom.images import signatures
from strongroom.images.signatures import Bundle, Signed, Simple, Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from strongroom.fetch.oci.artifacts import FetchedArtifact
    from strongroom.fetch.oci.names import OciReference
    from strongroom.fetch.oci.session import Access

SIGNATURE = "dev.cosignproject.cosign/signature"
_MAX_SIGNATURE = 16 * 1024


def verify_image(
    image: str,
    candidates: Sequence[Simple | Bundle],
    *,
    trust: Trust,
    reach: Callable[[OciReference], Access],
) -> Signed:
    """Who signed `image`: by `candidates` alone where there are some, else by what its registry has.

    image: HOST[:PORT]/REPOSITORY@sha256:…, or a digest with `candidates`. reach: the network; not called with `candidates`. Raises `Misuse` for a
    digest alone, `Refused` for a tag, and unless somebody in `trust` signed.
    """
    if fields.DIGEST.fullmatch(image) is not None:
        if not candidates:
            raise Misuse(
                f"{image}: a digest alone does not say where its signature lies",
                hint="give --bundle, or --payload and --signature; or name the image in its registry, HOST/NAME@sha256:…",
            )
        return signatures.verify((image,), candidates, trust=trust)
    reference = names.parse(image)
    digest = reference.pinned()
    if candidates:
        return signatures.verify((digest,), candidates, trust=trust)
    return require(reference, (digest,), trust=trust, access=reach(reference))


def require(reference: OciReference, digests: Sequence[str], *, trust: Trust, access: Access) -> Signed:
    """Who signed the image. Raises `Refused` unless somebody in `trust` did, for one of `digests`.

    digests: the image's, and that of the index it was chosen from, if any (`Pulled.digest`, `Pulled.index`).
    """
    candidates = [candidate for digest in digests for candidate in fetch(reference, digest, access=access)]
    return signatures.verify(digests, candidates, trust=trust)


def fetch(reference: OciReference, digest: str, *, access: Access) -> tuple[Simple | Bundle, ...]:
    """All that the registry has which may be signatures of `digest`. Nothing is verified."""
    candidates: list[Simple | Bundle] = []
    tag = digest.replace(":", "-") + ".sig"
    try:
        held = artifacts.tagged(reference, tag, access=access, max_bytes=signatures.MAX_BYTES)
    except (Malformed, Refused) as failure:
        if failure.code not in _RUBBISH:
            raise
        held = None
    if held is not None:
        candidates.extend(_simple(held))
    for artifact_about in artifacts.about(
        reference.by(digest),
        kinds=(signatures.BUNDLE_TYPE,),
        access=access,
        max_bytes=signatures.MAX_BYTES,
    ):
        candidates.extend(
            Bundle(data=data)
            for part, data in zip(artifact_about.artifact.parts, artifact_about.contents, strict=True)
            if part.media_type == signatures.BUNDLE_TYPE
        )
    return tuple(candidates)


_RUBBISH = ("malformed", "bad-value", "bad-media-type", "bad-digest", "wrong-digest", "too-large", "not-json")


def _simple(held: FetchedArtifact) -> Iterator[Simple]:
    for part, payload in zip(held.artifact.parts, held.contents, strict=True):
        text = part.annotations.get(SIGNATURE, "")
        if part.media_type != signatures.SIMPLE_TYPE or not 0 < len(text) <= _MAX_SIGNATURE:
            continue
        try:
            signature = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        yield Simple(payload=payload, signature=signature)
