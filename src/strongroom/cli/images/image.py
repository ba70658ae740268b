"""`strongroom image verify`: who signed an image, judged offline against pinned keys or a pinned identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import files
from strongroom.cli.images import registry_options
from strongroom.cli.images.registry_options import Credentials, CredentialsFd, PlainHttp, RegistryCa
from strongroom.encoding import fields
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
    from strongroom.fetch.oci import names, signed_images
    from strongroom.images import signatures

    trust = trusted(key, identity, issuer, trusted_root)
    given = _given(bundle, payload, signature)
    if fields.DIGEST.fullmatch(image) is not None:
        if not given:
            raise Misuse("a digest alone: where is its signature?", hint="give --bundle or --signature")
        signed = signatures.verify((image,), given, trust=trust)
    else:
        reference = names.parse(image)
        digest = reference.pinned()
        if given:
            signed = signatures.verify((digest,), given, trust=trust)
        else:
            access = registry_options.access(
                reference,
                credentials=credentials,
                credentials_fd=credentials_fd,
                ca=registry_ca,
                plain_http=plain_http,
            )
            signed = signed_images.require(reference, (digest,), trust=trust, access=access)
    if as_json:
        print(json.dumps({"digest": signed.digest, "form": signed.form, "by": signed.by}))
        return
    print(f"{signed.digest}\n  signed ({signed.form}) by {signed.by}")


def trusted(
    keys: list[Path] | None, identity: str | None, issuer: str | None, trusted_root: Path | None
) -> Trust:
    """Whose signature counts. Raises `Misuse` for nobody, for both kinds, or for half an identity."""
    from strongroom.crypto import pinned_key
    from strongroom.images import keyless as image_keyless
    from strongroom.images.signatures import Trust

    keyless = (identity, issuer, trusted_root)
    if keys and keyless == (None, None, None):
        loaded = (files.parsed(one, pinned_key.load, max_bytes=pinned_key.MAX_PEM) for one in keys)
        return Trust(keys=tuple(loaded))
    if keys or identity is None or issuer is None or trusted_root is None:
        raise Misuse(
            "who is trusted? either --key, or all of --identity, --issuer and --trusted-root",
            code="half-an-identity",
            hint="an identity counts only as told by one issuer, under a root that you give",
        )
    root = files.read(trusted_root, max_bytes=image_keyless.MAX_ROOT)
    return Trust(identity=image_keyless.KeylessIdentity(name=identity, issuer=issuer, trusted_root=root))


def demanded(
    image: str,
    digest: str | None,
    keys: list[Path] | None,
    identity: str | None,
    issuer: str | None,
    trusted_root: Path | None,
) -> Trust | None:
    """Who has to have signed `image`, None where nobody has to. Raises `Misuse` for what no registry names."""
    from strongroom.fetch.oci import names

    if not keys and (identity, issuer, trusted_root) == (None, None, None):
        return None
    if not names.is_name(image) or Path(image).exists():
        raise Misuse(
            f"{image[:200]}: a signature is demanded of what is named in a registry alone",
            code="no-signature-here",
            hint="for files: `strongroom image verify sha256:… --bundle …`, and --digest here",
        )
    if digest is not None:
        raise Misuse("--digest: the name has it already", hint="name the very image that is signed")
    return trusted(keys, identity, issuer, trusted_root)


def _given(bundles: list[Path] | None, payload: Path | None, signature: Path | None) -> list[Simple | Bundle]:
    import base64
    import binascii

    from strongroom.images.signatures import MAX_BYTES, Bundle, Simple

    found: list[Simple | Bundle] = [
        Bundle(data=files.read(one, max_bytes=MAX_BYTES)) for one in bundles or ()
    ]
    if (payload is None) != (signature is None):
        raise Misuse("--payload and --signature: one without the other")
    if payload is not None and signature is not None:
        try:
            raw = base64.b64decode(files.read(signature, max_bytes=MAX_BYTES).strip(), validate=True)
        except (binascii.Error, ValueError):
            raise Misuse(f"{signature}: no base64", code="not-base64") from None
        found.append(Simple(payload=files.read(payload, max_bytes=MAX_BYTES), signature=raw))
    return found
