"""`strongroom image verify`: who signed an image, judged offline against pinned keys or a pinned identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.images import registry_options
from strongroom.cli.images.registry_options import Credentials, CredentialsFd, PlainHttp, RegistryCa
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.images.signatures import Bundle, Simple, Trust

Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="A public key (PEM) whose signature counts. Repeatable: any one of them."),
]
IdentityName = Annotated[
    str | None,
    typer.Option(
        "--identity", metavar="WHO", help="Keyless: who has to have signed, exactly as in the certificate."
    ),
]
Issuer = Annotated[
    str | None,
    typer.Option(
        "--issuer", metavar="https://…", help="Keyless: who has to vouch for that identity (a URL)."
    ),
]
TrustedRoot = Annotated[
    Path | None,
    typer.Option("--trusted-root", help="Keyless: Sigstore's trusted_root.json, which you keep current."),
]
# The same for other verbs, which have an --identity of their own.
SignedBy = Annotated[
    list[Path] | None,
    typer.Option(
        "--signed-by", help="Demand that this key (PEM) signed what is named in a registry. Repeatable."
    ),
]
SignerIdentity = Annotated[
    str | None,
    typer.Option("--signer-identity", metavar="WHO", help="Demand a keyless signature by this identity …"),
]
SignerIssuer = Annotated[
    str | None, typer.Option("--signer-issuer", metavar="https://…", help="… that this issuer vouched for.")
]

_DEMANDED = ("--signed-by", "--signer-identity", "--signer-issuer")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Look at who signed container images.", no_args_is_help=True)
    group.callback()(_group)
    group.command("verify")(verify)
    app.add_typer(group, name="image")


def _group() -> None:
    pass


def verify(
    image: Annotated[
        str,
        typer.Argument(help="HOST[:PORT]/REPOSITORY@sha256:…, or sha256:… with --bundle or --signature."),
    ],
    key: Keys = None,
    identity: IdentityName = None,
    issuer: Issuer = None,
    trusted_root: TrustedRoot = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option("--bundle", help="A Sigstore bundle; no registry is asked then. Repeatable."),
    ] = None,
    payload: Annotated[
        Path | None, typer.Option("--payload", help="With --signature: the payload of simple signing.")
    ] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="The signature over --payload, in base64.")
    ] = None,
    credentials: Credentials = None,
    credentials_fd: CredentialsFd = None,
    registry_ca: RegistryCa = None,
    plain_http: PlainHttp = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Verify that whom you trust signed exactly this image, as `cosign` does it. A tag is refused."""
    from strongroom.fetch.oci import signed_images

    trust = trusted(key, identity, issuer, trusted_root)
    signed = signed_images.verify_image(
        image,
        _candidates(bundle, payload, signature),
        trust=trust,
        reach=lambda reference: registry_options.access(
            reference,
            credentials=credentials,
            credentials_fd=credentials_fd,
            ca=registry_ca,
            plain_http=plain_http,
        ),
    )
    if as_json:
        print(json.dumps({"digest": signed.digest, "form": signed.form, "by": signed.by}))
        return
    print(f"{signed.digest}\n  signed ({signed.form}) by {signed.by}")


def trusted(
    keys: list[Path] | None,
    identity: str | None,
    issuer: str | None,
    trusted_root: Path | None,
    *,
    named: tuple[str, str, str] = ("--key", "--identity", "--issuer"),
) -> Trust:
    """Whose signature counts. Raises `Misuse` for nobody, for both kinds, or for half an identity.

    named: the options that the first three came from.
    """
    from strongroom.images import signatures

    keyless = (identity, issuer, trusted_root)
    if keys and keyless == (None, None, None):
        return signatures.trust_keys(keys)
    if keys or identity is None or issuer is None or trusted_root is None:
        of_key, of_identity, of_issuer = named
        raise Misuse(
            f"whose signature counts: expected either {of_key}, or all of {of_identity}, {of_issuer} and --trusted-root",
            code="half-an-identity",
            hint=f"give {of_key} alone, or all three: an identity counts only by the word of one issuer, under one root",
        )
    return signatures.trust_identity(identity, issuer=issuer, trusted_root=trusted_root)


def demanded(
    image: str,
    digest: str | None,
    keys: list[Path] | None,
    identity: str | None,
    issuer: str | None,
    trusted_root: Path | None,
) -> Trust | None:
    """Who has to have signed `image`, None where nobody has to. Raises `Misuse` for what no registry names."""
    from strongroom.fetch import images as finding

    if not keys and (identity, issuer, trusted_root) == (None, None, None):
        return None
    finding.check_demand(image, digest)
    return trusted(keys, identity, issuer, trusted_root, named=_DEMANDED)


def _candidates(
    bundles: list[Path] | None, payload: Path | None, signature: Path | None
) -> list[Simple | Bundle]:
    from strongroom.images import signatures

    candidates: list[Simple | Bundle] = [signatures.load_bundle(path) for path in bundles or ()]
    if (payload is None) != (signature is None):
        lone, other = ("--signature", "--payload") if payload is None else ("--payload", "--signature")
        raise Misuse(f"{lone}: goes with {other}", hint=f"give {other} FILE too")
    if payload is not None and signature is not None:
        candidates.append(signatures.load_simple(payload, signature))
    return candidates
