"""An OCI layout folder (image-spec v1.1, image-layout.md) that is filled from registries, and serves as their cache.

`blobs/sha256/…` holds whole blobs under their digests: a file gets its name when its bytes have that digest, and not
before. `partial/` holds what has come of others, so that an interrupted pull goes on where it stopped; nothing of it is
believed, as the digest is taken over all of it at the end. `index.json` names what was pulled, the newest last.
One process at a time fetches a blob; others wait for it. All of it is private: images may be.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.encoding import canonical
from strongroom.errors import Malformed, Refused
from strongroom.fetch.endorsements import disk_cache
from strongroom.fetch.http.streaming import BROKEN
from strongroom.images import oci
from strongroom.images.limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.images.oci import Descriptor

MAX_NAMED = 512
LOCK_SECONDS = 4 * 3600.0
_CHUNK = 1 << 20
_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True, kw_only=True)
class OciLayout:
    """The folder, which is made when it is first needed."""

    folder: Path

    def path(self, digest: str) -> Path:
        """Where the blob of that digest is, or will be."""
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is there and whole. One that was damaged is removed."""
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as source:
            if size in (None, os.fstat(fd).st_size) and _digest(source.fileno()) == digest:
                return True
        self.path(digest).unlink(missing_ok=True)
        return False

    def read(self, digest: str, *, max_bytes: int) -> bytes | None:
        """A small blob, None where it is not there or damaged."""
        if not self.has(digest):
            return None
        return disk_cache.load(self.path(digest), max_bytes=max_bytes)

    def put(self, data: bytes) -> str:
        """Keep a small blob. Returns its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._make()
        disk_cache.write(self.path(digest), data)
        return digest

    @contextlib.contextmanager
    def arriving(self, digest: str, size: int) -> Iterator[Arriving]:
        """Hold the right to fetch a blob, which nobody else then has. It has the bytes that came before.

        Raises `Unavailable` when waiting for it takes too long.
        """
        hexadecimal = digest.removeprefix("sha256:")
        partial = self.folder / "partial"
        self._make()
        with disk_cache.locked(partial / f"{hexadecimal[:2]}.lock", seconds=LOCK_SECONDS):
            arriving = Arriving(partial / hexadecimal, self.path(digest), digest, size)
            try:
                yield arriving
            finally:
                arriving.close()

    def name(self, descriptor: Descriptor) -> None:
        """List a manifest or index in `index.json`."""
        path = self.folder / "index.json"
        self._make()
        with disk_cache.locked(self.folder / "partial" / "index.lock", seconds=LOCK_SECONDS):
            disk_cache.write(self.folder / "oci-layout", _VERSION)
            entries = self._named(path)
            new_entry = {
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size,
            }
            others = [entry for entry in entries if entry["digest"] != descriptor.digest]
            document = {
                "schemaVersion": 2,
                "mediaType": oci.INDEXES[0],
                "manifests": [*others, new_entry][-MAX_NAMED:],
            }
            disk_cache.write(path, canonical.dumps(document))

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("partial", "blobs", "blobs/sha256"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)

    def _named(self, path: Path) -> list[dict[str, object]]:
        data = disk_cache.load(path, max_bytes=LIMITS.document_bytes)
        if data is None:
            return []
        with contextlib.suppress(Malformed, Refused):
            return [
                {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
                for descriptor in oci.parse_index(data, oci.INDEXES[0], what="index.json", limits=LIMITS)
                if self.path(descriptor.digest).exists()
            ]
        return []  # damaged; the blobs are there still, and what is asked for is listed anew


class Arriving:
    """A blob on its way. `done` bytes of `size` are there."""

    def __init__(self, path: Path, target: Path, digest: str, size: int) -> None:
        self._path, self._target, self.digest, self.size = path, target, digest, size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._state = hashlib.sha256()
        self.done = 0
        while self.done <= size and (chunk := os.pread(self._fd, _CHUNK, self.done)):
            self._state.update(chunk)
            self.done += len(chunk)
        if self.done > size:
            self.restart()

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end. Raises `Refused` when they are more than the blob has."""
        if self.done + len(chunk) > self.size:
            self.restart()
            raise Refused(
                f"blob {self.digest}: more than its {self.size} bytes came",
                code="wrong-size",
                hint=BROKEN,
            )
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._fd, view, self.done)
            self._state.update(view[:written])
            self.done += written
            view = view[written:]

    def restart(self) -> None:
        """Forget what has come."""
        os.ftruncate(self._fd, 0)
        self._state = hashlib.sha256()
        self.done = 0

    def finish(self) -> None:
        """Give the blob its name. Raises `Refused` when its digest is another one, and forgets it."""
        got = "sha256:" + self._state.hexdigest()
        if self.done != self.size or got != self.digest:
            self.restart()
            raise Refused(
                f"blob: expected {self.digest}, got {got}",
                code="wrong-digest",
                hint=BROKEN,
            )
        # Not synced to the disk: whoever uses it takes its digest again, so that a crash costs time and nothing else.
        self._path.replace(self._target)

    def close(self) -> None:
        """Leave what has come for the next time; an empty file is nothing to leave."""
        os.close(self._fd)
        if self.done == 0:
            self._path.unlink(missing_ok=True)


def _digest(fd: int) -> str:
    state, place = hashlib.sha256(), 0
    while chunk := os.pread(fd, _CHUNK, place):
        state.update(chunk)
        place += len(chunk)
    return "sha256:" + state.hexdigest()
