"""Signed files of reference values, as whoever relies on them has them: verified, none older than was seen before, and pulled from registries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.appraisal import intoto
from strongroom.bases import release_file
from strongroom.errors import Misuse, Refused, StrongroomError, of_file
from strongroom.fetch.endorsements.rollback import Marks
from strongroom.fetch.endorsements.statement import Mark
from strongroom.fetch.oci import reference_files
from strongroom.parties import papers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.bases.release_file import Verified
    from strongroom.crypto.sign import VerifyingKey
    from strongroom.fetch.oci.names import OciReference
    from strongroom.fetch.oci.session import Access
    from strongroom.model.identifiers import KeyId
    from strongroom.model.party import Party


@dataclass(frozen=True, kw_only=True)
class ReferenceReader:
    """Whose signatures count, as of when, and the folder in which the newest version seen of each release is remembered."""

    parties: Sequence[Party]
    now: datetime
    state: Path

    @property
    def trusted(self) -> Mapping[KeyId, VerifyingKey]:
        """The parties' keys by their digests."""
        return {party.keyid: party.signing_key for party in self.parties}

    def verify(self, data: bytes) -> Verified:
        """Verify all of a file, and remember its version. Raises `Refused` for a lower version than was seen too, or `Malformed`."""
        verified = release_file.verify(data, trusted=self.trusted, now=self.now)
        release = verified.release
        mark = Mark(name=f"reference/{verified.keyid}/{release.name}", number=release.version)
        Marks(folder=self.state).raise_to((mark,))
        return verified

    def load(self, path: Path) -> Verified:
        """The same for a file by its path."""
        with of_file(path):
            return self.verify(files.read(path, max_bytes=intoto.MAX_FILE))

    def newest(self, contents: Sequence[bytes], *, subject: str) -> bytes:
        """Of files that are said to be about `subject` (a digest), the highest version that somebody trusted signed.

        Others' files do not hide it. Raises what the first of them is refused for when none is left, or `Refused`. Nothing is remembered.
        """
        candidates: list[tuple[int, bytes]] = []
        failures: list[StrongroomError] = []
        for data in contents:
            try:
                release = release_file.verify(data, trusted=self.trusted, now=self.now).release
            except StrongroomError as failure:
                failures.append(failure)
                continue
            if any(file.digest == subject for file in release.subjects):
                candidates.append((release.version, data))
        if candidates:
            return max(candidates)[1]
        if failures:
            raise failures[0]
        raise Refused(
            f"of {len(contents)} files that the registry has for {subject}, none is about it",
            code="other-file",
            hint="ask whoever publishes the base for its file's own digest, and pull by that without --about",
        )


def open_reader(trust: Sequence[Path], *, now: datetime, state: Path | None = None) -> ReferenceReader:
    """A reader of files that a party of `trust` (their party files) signed. state: a folder; without one the user's own.

    Raises `Misuse` where nobody is trusted: a file that counts whoever signed it is none.
    """
    if not trust:
        raise Misuse(
            "no --trust says whose signature counts",
            code="nobody-trusted",
            hint="name the signer's party file: --trust NAME.party.json",
        )
    return ReferenceReader(
        parties=tuple(papers.load_party(path) for path in trust),
        now=now,
        state=state or files.state_folder("references"),
    )


def verify_reference(file: Path, *, reader: ReferenceReader, bases: Sequence[Path] = ()) -> Verified:
    """Verify all of a file, and remember its version. bases: folders, every file of which has to be one that the release is about.

    Raises `Refused`, `Malformed`, `NotFound`.
    """
    verified = reader.load(file)
    for folder in bases:
        release_file.check_files(verified.release, release_file.read(folder))
    return verified


@dataclass(frozen=True, kw_only=True)
class PublishedReference:
    """A file in a registry. name: by its own digest. subjects: digests of the files that it is about, by which it is found too."""

    name: OciReference
    subjects: tuple[str, ...]


def publish_reference(file: Path, *, where: OciReference, access: Access) -> PublishedReference:
    """Put a file into a registry, whoever signed it. access: the network. Raises `Misuse`, `Malformed`, and like `push`."""
    if where.digest is not None:
        raise Misuse(
            f"{where}: a digest is no place to publish to: what is put there has its own",
            hint="leave out @sha256:…",
        )
    data = files.parsed(file, reference_files.checked, max_bytes=intoto.MAX_FILE)
    published = reference_files.publish(data, where, access=access)
    return PublishedReference(name=where.by(published.digest), subjects=published.subjects)


@dataclass(frozen=True, kw_only=True)
class PulledReference:
    """A verified file, and where it was put."""

    path: Path
    verified: Verified


def pull_reference(
    where: OciReference, *, reader: ReferenceReader, access: Access, out: Path, about: bool = False
) -> PulledReference:
    """Get a file from a registry, and keep it in `out` if `reader` takes it. about: the digest in `where` is of a base's file.

    access: the network. Raises `NotFound`, `Refused`, `Malformed`, `Unavailable`; nothing is written then.
    """
    if about:
        data = reader.newest(reference_files.about(where, access=access), subject=where.pinned())
    else:
        data = reference_files.pull(where, access=access)
    verified = reader.verify(data)
    out.mkdir(parents=True, exist_ok=True)
    target = out / release_file.file_name(verified.release)
    files.write(target, data, replace=True)
    return PulledReference(path=target, verified=verified)
