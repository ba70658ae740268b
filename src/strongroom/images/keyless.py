"""Signatures by a certificate for a moment, as Sigstore issues them: verified by the `sigstore` library, offline.

The library (extra `sigstore`) checks against the trusted root that the caller gives: the certificate's path at the time
that the log or a timestamp vouches for, its signed certificate timestamp, the log's inclusion proof under a signed
checkpoint and its promise where there is one, that the entry is of this very signature, and the signature. Pinned here:
the identity in the certificate *and* who vouched for it, both exactly; either alone would be anybody's (rule 30).
Nothing is fetched: no list of roots is updated, no log is asked. The trusted root is the caller's to keep up to date.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse, NotFound, Refused

if TYPE_CHECKING:
    from types import ModuleType

MAX_ROOT = 1024 * 1024
MAX_NAME = 1024


@dataclass(frozen=True, kw_only=True)
class KeylessIdentity:
    """Who has to have signed. name: the certificate's subject alternative name (an address, or a workflow's URL).

    issuer: the URL of the OpenID Connect issuer that vouched for the name. trusted_root: Sigstore's trusted_root.json.
    """

    name: str
    issuer: str
    trusted_root: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse half an identity."""
        for what, text in (("identity", self.name), ("issuer", self.issuer)):
            if not 0 < len(text) <= MAX_NAME or not text.isprintable():
                raise Misuse(
                    f"image signatures: {what}: expected 1 to {MAX_NAME} printable characters",
                    code="half-an-identity",
                    hint="give both, exactly as in the certificate: who signed, and which issuer vouches for it",
                )


def verify(bundle: bytes, *, identity: KeylessIdentity, payload_type: str) -> bytes:
    """The payload that `identity` signed. Raises `Refused`, `Malformed`, or `NotFound` without the library."""
    library = _library()
    root = _trusted_root(library, identity.trusted_root)
    wanted = library.policy.Identity(identity=identity.name, issuer=identity.issuer)
    try:
        parsed = library.models.Bundle.from_json(bundle)
        kind, payload = library.verifier.Verifier(trusted_root=root).verify_dsse(parsed, wanted)
    # Whatever the library makes of hostile bytes, it is no acceptance.
    except Exception as failure:  # noqa: BLE001
        raise Refused(
            f"keyless signature: {_reason(failure)}",
            code="bad-signature",
            hint="is the trusted root current, and are identity and issuer exactly those in the certificate?",
        ) from None
    if kind != payload_type:
        raise Malformed(
            f"keyless signature: expected one over {payload_type}, got one over {str(kind)[:80]!r}",
            code="wrong-type",
        )
    return bytes(payload)


def _trusted_root(library: _Library, data: bytes) -> Any:
    canonical.loads(data, what="trusted root", max_bytes=MAX_ROOT)
    try:
        return library.models.TrustedRoot(library.roots.TrustedRoot.from_json(data))
    except Exception as failure:  # noqa: BLE001 - as above
        raise Malformed(
            f"trusted root: {_reason(failure)}",
            code="bad-trusted-root",
            hint="give Sigstore's trusted_root.json with --trusted-root, as its TUF repository has it",
        ) from None


class _Library(NamedTuple):
    models: ModuleType
    verifier: ModuleType
    policy: ModuleType
    roots: ModuleType


def _library() -> _Library:
    try:
        from sigstore import models  # noqa: PLC0415 - an extra; and a second of loading
        from sigstore.verify import policy, verifier  # noqa: PLC0415
        from sigstore_models.trustroot import v1  # noqa: PLC0415
    except ImportError:
        raise NotFound(
            "keyless signatures: the library `sigstore` is not installed",
            code="no-sigstore",
            hint="pip install 'strongroom[sigstore]'",
        ) from None
    # It warns of parts of a trusted root that it leaves out; what counts is what it then refuses.
    logging.getLogger("sigstore").setLevel(logging.ERROR)
    return _Library(models=models, verifier=verifier, policy=policy, roots=v1)


def _reason(failure: BaseException) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in str(failure)[:400])
    return f"{type(failure).__name__}: {text}"
