"""Endorsements for whoever relies on evidence: fetched for a file of evidence, kept in a folder, and carried over air gaps as one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.encoding import fields
from strongroom.errors import Misuse
from strongroom.evidence import roots as pinned_roots
from strongroom.evidence.formats import snp_product
from strongroom.evidence.wrappings import recognise_endorsements
from strongroom.fetch.endorsements import bundle, intel
from strongroom.fetch.endorsements.disk_cache import Shelf
from strongroom.fetch.endorsements.library import Library
from strongroom.fetch.endorsements.resolve import Vendors
from strongroom.fetch.endorsements.rollback import Marks
from strongroom.fetch.http.client import Client, Service
from strongroom.parties import evidence as evidence_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from strongroom.fetch.endorsements.bundle import Imported
    from strongroom.fetch.endorsements.resolve import Fetcher
    from strongroom.model.endorsements import Endorsements

MAX_VEK = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class FetchedEndorsements:
    """What the verifier of evidence of `tee` reads beside it."""

    tee: str
    endorsements: Endorsements


@dataclass(frozen=True, kw_only=True)
class ExportedStatements:
    """How many statements an exported file has, and its size in bytes."""

    statements: int
    size: int


def choose_vendors(*, pccs: str | None = None, kds: str | None = None, ca: Path | None = None) -> Vendors:
    """Whom to ask: the vendors' own services, but for a PCCS instead of Intel and a mirror of AMD's KDS (https://HOST[:PORT]).

    These two may be in a private network. ca: the only CA (PEM) trusted for them. Raises `Misuse`.
    """
    if ca is not None and pccs is None and kds is None:
        raise Misuse(
            "--ca: for --pccs and --kds alone",
            hint="leave --ca out: vendors' own services are known by the system's CAs",
        )
    vendors = Vendors(
        pcs=intel.PCS if pccs is None else intel.Pcs(api=_configured("--pccs", pccs, ca), lists=None)
    )
    return vendors if kds is None else Vendors(pcs=vendors.pcs, kds=_configured("--kds", kds, ca))


def open_library(
    folder: Path | None = None,
    *,
    roots: Iterable[str] = (),
    offline: bool = False,
    client: Client | None = None,
) -> Library:
    """What is kept in `folder` (without one, in the user's own), and what may be fetched to be kept there.

    roots: digests of vendors' roots that count beside the pinned ones. offline: nobody is asked. client: the way out.
    Raises `Misuse` for a digest that is none.
    """
    more = frozenset(roots)
    for digest in more:
        if fields.DIGEST.fullmatch(digest) is None:
            raise Misuse(
                f"--root: expected sha256: and 64 lower-case hexadecimal digits, got {digest[:100]!r}",
                hint="the SHA-256 of the root's public key: `openssl x509 -in ROOT.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum`",
            )
    place = folder or files.state_folder("endorsements")
    return Library(
        shelf=Shelf(folder=place),
        marks=Marks(folder=place),
        client=client or Client(),
        roots=pinned_roots.PINNED | more,
        offline=offline,
    )


def fetch_endorsements(
    evidence: Path,
    *,
    fetcher: Fetcher,
    now: datetime,
    place: str | None = None,
    vek: Path | None = None,
    out: Path | None = None,
) -> FetchedEndorsements:
    """Get what verifying the evidence in a file takes at `now`, and keep it; `out` is a file that gives it to a verifier.

    place: which of several pieces. vek: a file with the chip's certificate (DER or PEM) that the host handed out; without it the one
    beside the evidence. Raises `Malformed`, and like `Fetcher.endorse`; nothing is written to `out` then.
    """
    recognised = evidence_files.load_evidence(evidence, place=place)
    brought = recognised.endorsements.get("vek")
    if vek is not None:
        brought = files.parsed(vek, _vek, max_bytes=MAX_VEK)
    endorsements = fetcher.endorse(recognised.evidence, now=now, vek=brought)
    if out is not None:
        files.write(out, endorsements.encode(), replace=True)
    return FetchedEndorsements(tee=recognised.evidence.tee, endorsements=endorsements)


def export_endorsements(library: Library, *, out: Path, now: datetime) -> ExportedStatements:
    """Write all that counts at `now` into the file `out`, for `import_endorsements` where no network reaches. Raises `Malformed`."""
    data = bundle.export(library, now=now)
    files.write(out, data, replace=True)
    return ExportedStatements(statements=len(bundle.parse(data)), size=len(data))


def import_endorsements(file: Path, *, library: Library, now: datetime) -> Imported:
    """Take a file in that `export_endorsements` wrote: each statement is judged as if its vendor's service had sent it.

    Raises `Malformed`, or `Refused` for what is forged or older than seen; nothing of the file is kept then.
    """
    return files.parsed(file, lambda data: bundle.take(data, library, now=now), max_bytes=bundle.MAX_BYTES)


def _vek(data: bytes) -> bytes:
    """A VEK certificate (DER), from a file of DER or PEM. Raises `Malformed` for what AMD's profile is not."""
    der = recognise_endorsements.in_der(data, b"CERTIFICATE")
    snp_product.read(der)
    return der


def _configured(option: str, base: str, ca: Path | None) -> Service:
    service = Service(base=base, private=True, ca=ca)
    try:
        service.place()
    except Misuse as cause:
        raise Misuse(f"{option}: {cause.message}", code=cause.code, hint=cause.hint) from None
    return service
