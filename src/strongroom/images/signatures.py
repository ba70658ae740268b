"""Whether somebody signed an image, as `cosign` does it; offline, whatever a registry says.

Two forms, as they come from a registry or in files:

  simple signing   cosign's SIGNATURE_SPEC: a JSON payload and a signature over its bytes, by a pinned key
  bundle           Sigstore's bundle v0.3: a DSSE envelope over an in-toto statement of type `SIGN`, by a pinned key, or
                   by a certificate for a pinned identity of a pinned issuer (`keyless`)

Checked of each, in this order:
  1 it parses, within bounds, and is of the kind that a signature of an image has: an attestation of something else
    about the image (its provenance, say) is none
  2 the signature is by the key, or the identity *and* issuer, that the caller pinned; what a signature brings along
    (key hints, certificates of another root, names) chooses nothing
  3 the one digest in what is signed is that of the image asked for (rule 30)
Not checked here: with a pinned key, any transparency log. The name in `docker-reference`: the specification ignores it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strongroom import files
from strongroom.crypto import pinned_key, sign
from strongroom.encoding import canonical, dsse, fields
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.images import keyless

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from strongroom.crypto.pinned_key import PinnedKey
    from strongroom.images.keyless import KeylessIdentity

SIMPLE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE_KIND = "cosign container image signature"
STATEMENT_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
SIGN = "https://sigstore.dev/cosign/sign/v1"
MAX_BYTES = 512 * 1024
MAX_CANDIDATES = 64


@dataclass(frozen=True, kw_only=True)
class Simple:
    """A payload and the signature over it."""

    payload: bytes
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A Sigstore bundle (JSON)."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose signature counts: any one of these keys, or this identity. One of both has to be given."""

    keys: tuple[PinnedKey, ...] = ()
    identity: KeylessIdentity | None = None


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What held: the image's digest, the form of the signature, and who made it, in words."""

    digest: str
    form: str
    by: str


def trust_keys(paths: Sequence[Path]) -> Trust:
    """Any one of the public keys in these files (PEM). Raises `Malformed`."""
    return Trust(
        keys=tuple(files.parsed(path, pinned_key.load, max_bytes=pinned_key.MAX_PEM) for path in paths)
    )


def trust_identity(name: str, *, issuer: str, trusted_root: Path) -> Trust:
    """`name` by the word of `issuer`, under the root in a file: Sigstore's trusted_root.json, which is parsed when a signature is verified."""
    root = files.read(trusted_root, max_bytes=keyless.MAX_ROOT)
    return Trust(identity=keyless.KeylessIdentity(name=name, issuer=issuer, trusted_root=root))


def load_bundle(path: Path) -> Bundle:
    """A Sigstore bundle from its file; parsed when it is verified."""
    return Bundle(data=files.read(path, max_bytes=MAX_BYTES))


def load_simple(payload: Path, signature: Path) -> Simple:
    """A payload, and the file of the signature over it (base64). Raises `Misuse`."""
    try:
        raw = base64.b64decode(files.read(signature, max_bytes=MAX_BYTES).strip(), validate=True)
    except (binascii.Error, ValueError):
        raise Misuse(
            f"--signature {signature}: expected base64",
            code="not-base64",
            hint="give the file that `cosign sign --output-signature FILE` wrote; raw bytes go through `base64`",
        ) from None
    return Simple(payload=files.read(payload, max_bytes=MAX_BYTES), signature=raw)


def verify(digests: Sequence[str], candidates: Sequence[Simple | Bundle], *, trust: Trust) -> Signed:
    """The first candidate that holds for one of `digests`. Raises `Refused`, with what each candidate lacks.

    digests: names of the same bytes only, such as an image's and that of the index it was chosen from by its platform.
    """
    if not trust.keys and trust.identity is None:
        raise Misuse(
            "image signatures: nobody is trusted", hint="give a key, or an identity with its issuer and root"
        )
    if not digests or any(fields.DIGEST.fullmatch(digest) is None for digest in digests):
        raise Misuse(
            "image signatures: expected digests", code="bad-digest", hint="name the image by sha256:…"
        )
    problems = []
    for candidate in candidates[:MAX_CANDIDATES]:
        try:
            return _verified(candidate, digests, trust)
        except (Malformed, Refused) as failure:
            problems.append(failure.message)
    why = "; ".join(dict.fromkeys(problems))[:1000] or "there is no signature at all"
    raise Refused(
        f"image {digests[0]}: not signed by whom you trust: {why}",
        code="image-not-signed",
        hint="get it signed, or pin the key or identity that does sign it",
    )


def parse_simple(payload: bytes) -> str:
    """The digest that a payload of simple signing names. Raises `Malformed`."""
    what = "simple signing"
    top = fields.Fields(canonical.loads(payload, what=what, max_bytes=MAX_BYTES), what)
    critical = top.object("critical")
    critical.object("identity").text_map_of(("docker-reference",), max_length=4096)
    image = critical.object("image")
    digest = image.digest("docker-manifest-digest")
    critical.constant("type", SIMPLE_KIND)
    critical.done()
    image.done()
    return digest


def parse_statement(payload: bytes) -> str:
    """The digest of the one subject of a statement that signs an image. Raises `Malformed`, `Refused`."""
    what = "statement"
    top = canonical.loads(payload, what=what, max_bytes=MAX_BYTES)
    if not isinstance(top, dict) or top.get("_type") != STATEMENT:
        raise Malformed(f"{what}: expected {STATEMENT}")
    if top.get("predicateType") != SIGN:
        raise Refused(f"{what}: is about the image, and is no signature of it", code="not-a-signature")
    subjects = top.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise Malformed(f"{what}.subject: expected exactly one")
    digests = subjects[0].get("digest")
    if not isinstance(digests, dict) or list(digests) != ["sha256"]:
        raise Malformed(f"{what}.subject: expected a SHA-256 digest alone")
    digest = f"sha256:{digests['sha256']}"
    if fields.DIGEST.fullmatch(digest) is None:
        raise Malformed(f"{what}.subject: expected 64 lower-case hexadecimal digits")
    return digest


def _verified(candidate: Simple | Bundle, digests: Sequence[str], trust: Trust) -> Signed:
    if isinstance(candidate, Simple):
        digest = parse_simple(candidate.payload)
        key = _signing_key(trust, [candidate.signature], candidate.payload)
        return Signed(digest=_meant(digest, digests), form="simple signing", by=f"key {key.digest}")
    document = canonical.loads(candidate.data, what="bundle", max_bytes=MAX_BYTES)
    if not isinstance(document, dict) or document.get("mediaType") != BUNDLE_TYPE:
        raise Malformed(f"bundle: expected {BUNDLE_TYPE}", code="wrong-type")
    material = document.get("verificationMaterial")
    if isinstance(material, dict) and "publicKey" in material:
        payload, signatures = _envelope(document)
        key = _signing_key(trust, signatures, dsse.pae(STATEMENT_TYPE, payload))
        return Signed(digest=_meant(parse_statement(payload), digests), form="bundle", by=f"key {key.digest}")
    if trust.identity is None:
        raise Refused("bundle: by a certificate, and you trust keys alone", code="untrusted-signer")
    payload = keyless.verify(candidate.data, identity=trust.identity, payload_type=STATEMENT_TYPE)
    who = f"{trust.identity.name}, says {trust.identity.issuer}"
    return Signed(digest=_meant(parse_statement(payload), digests), form="keyless bundle", by=who)


def _meant(digest: str, digests: Sequence[str]) -> str:
    if digest not in digests:
        raise Refused(f"the signature is of another image, {digest}", code="other-image")
    return digest


def _signing_key(trust: Trust, signatures: Sequence[bytes], message: bytes) -> PinnedKey:
    for key in trust.keys:
        for signature in signatures:
            if sign.holds(key.verify, signature, message):
                return key
    raise Refused("a signature by none of the keys that you trust", code="untrusted-signer")


def _envelope(document: dict[str, Any]) -> tuple[bytes, list[bytes]]:
    """Payload and signatures of a bundle's envelope, in protobuf's JSON, where ids of keys may be left out."""
    envelope = document.get("dsseEnvelope")
    if not isinstance(envelope, dict) or envelope.get("payloadType") != STATEMENT_TYPE:
        raise Malformed(f"bundle: expected an envelope with {STATEMENT_TYPE}", code="wrong-type")
    rows = envelope.get("signatures")
    if not isinstance(rows, list) or not 0 < len(rows) <= dsse.MAX_SIGNATURES:
        raise Malformed(f"bundle: expected 1 to {dsse.MAX_SIGNATURES} signatures")
    texts = [envelope.get("payload"), *(row.get("sig") if isinstance(row, dict) else None for row in rows)]
    try:
        payload, *signatures = (base64.b64decode(text or "", validate=True) for text in texts)
    except (binascii.Error, ValueError, TypeError):
        raise Malformed("bundle: expected payload and signatures in base64") from None
    return payload, signatures
