"""What was converted before: disks by image, unpacked layers by digest, so that the same work is not done twice.

    cache/disks/KEY.disk, KEY.json     a sealed disk that is not encrypted, and the image's summary
    cache/layers/DIGEST                an uncompressed layer, under its diff_id

KEY is the digest of everything that decides a disk's bytes: the image's digest, the settings that it is sealed with, and the code that
converts (like the base's). Nothing is believed when it is taken out again: a layer has its digest, a disk its root hash,
or it is removed and the work is done anew. A file gets its name when it is whole (no name is ever half-made, whatever kills the process);
the files used longest ago go when all together pass a bound.

Only what is public by its owner's word comes in: a conversion with `--encrypt` neither reads nor writes here, since
an image that is worth encrypting must not lie about in clear. The folder is its user's alone (0700).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, StrongroomError
from strongroom.images import blobs
from strongroom.model import manifest as manifest_model
from strongroom.seal import newfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.images.oci import ImageConfig
    from strongroom.images.summary import Summary
    from strongroom.model.manifest import Manifest

MAX_BYTES = 10 << 30
_MAX_DOCUMENT = 2 * manifest_model.MAX_BYTES
_FORMAT = "strongroom-converted/1"


@dataclass(frozen=True, kw_only=True)
class CachedDisk:
    """A disk in the cache: its file, the manifest of whoever sealed it first, and the image's summary."""

    disk: Path
    manifest: Manifest
    entries: int
    content_bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder, made when it is first needed, that holds at most `max_bytes`."""

    folder: Path
    max_bytes: int = MAX_BYTES

    def key(self, image: str, config: ImageConfig) -> str:
        """The name of that image's disk: 64 hexadecimal digits."""
        settings = {
            "entrypoint": list(config.entrypoint),
            "command": list(config.command),
            "environment": config.environment,
            "working_directory": config.working_directory,
            "user": config.user,
        }
        inputs = canonical.dumps({"image": image, "settings": settings, "code": _code()})
        return digest.sha256(inputs).removeprefix("sha256:")

    def find(self, key: str) -> CachedDisk | None:
        """The disk of that name, None when it is not there or its document is damaged. Its bytes are for the taker to check."""
        path = self.folder / "disks" / f"{key}.disk"
        try:
            document = _small(path.with_suffix(".json"))
            os.utime(path)
        except OSError:
            return None
        try:
            return _parse(document, path)
        except Malformed:
            self.drop(key)
            return None

    def keep(self, key: str, disk: Path, manifest: Manifest, summary: Summary) -> None:
        """Keep a disk: by a second name for it where that can be, else as a copy. A cache that is full or broken is no failure."""
        if manifest.disk_bytes > self.max_bytes // 2:
            return
        document = canonical.dumps(
            {
                "format": _FORMAT,
                "manifest": manifest.raw.decode(),
                "entries": summary.entries,
                "content_bytes": summary.content_bytes,
                "notes": list(summary.notes),
            }
        )
        path = self.folder / "disks" / f"{key}.disk"
        with contextlib.suppress(OSError, StrongroomError):
            self._make()
            self.drop(key)
            try:
                os.link(disk, path)
            except OSError:
                with newfile.create(path, mode=0o600, expected_bytes=manifest.disk_bytes) as fd:
                    copy(disk, fd)
            newfile.write(path.with_suffix(".json"), document, mode=0o600)
        self.prune()

    def drop(self, key: str) -> None:
        """Remove a disk."""
        path = self.folder / "disks" / f"{key}.disk"
        with contextlib.suppress(OSError):
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def layer(self, diff_id: str) -> blobs.Spool | None:
        """An unpacked layer, checked; None when there is none, or its bytes are not that layer's (any more)."""
        path = self._layer(diff_id)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        spool = blobs.Spool(None, fd=fd)
        if spool.digest() == diff_id:
            with contextlib.suppress(OSError):
                os.utime(path)
            return spool
        spool.close()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def spool(self) -> blobs.Spool | None:
        """A place for a layer that may be kept, None where this folder cannot have one."""
        try:
            self._make()
            fd = os.open(self.folder / "layers", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        return blobs.Spool(None, fd=fd)

    def keep_layer(self, diff_id: str, spool: blobs.Spool) -> None:
        """Give what `spool` holds, checked by the caller, its name."""
        path = self._layer(diff_id)
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # With a folder's descriptor this is linkat(…, AT_SYMLINK_FOLLOW), which names the nameless file.
                os.link(f"/proc/self/fd/{spool.fileno()}", path.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
        self.prune()

    def prune(self) -> None:
        """Remove what was used longest ago until the bound holds, and what has lost its other half."""
        disks = []
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                disks.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in disks)
        for _, size, path in sorted(disks):
            if total <= self.max_bytes:
                break
            total -= size
            if path.parent.name == "disks":
                self.drop(path.stem)
            else:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        for name in ("disks", "layers"):
            folder = self.folder / name
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.suffix == ".json" and not path.with_suffix(".disk").exists():
                    path.unlink(missing_ok=True)
                elif path.suffix != ".json":
                    yield path

    def _layer(self, diff_id: str) -> Path:
        return self.folder / "layers" / diff_id.removeprefix("sha256:")

    def _make(self) -> None:
        for name in ("disks", "layers"):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)


def copy(source: Path, fd: int) -> None:
    """All bytes of `source` into the empty file `fd`, by the file system itself where it can."""
    with source.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while left:
            try:
                count = os.copy_file_range(file.fileno(), fd, min(left, 1 << 30))
            except OSError:
                count = os.sendfile(fd, file.fileno(), None, min(left, 1 << 30))
            if not count:
                return
            left -= count


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_DOCUMENT + 1)


def _parse(document: bytes, disk: Path) -> CachedDisk:
    top = fields.Fields(canonical.loads(document, what="cache", max_bytes=_MAX_DOCUMENT), "cache")
    top.constant("format", _FORMAT)
    kept = CachedDisk(
        disk=disk,
        manifest=manifest_model.parse(top.text("manifest", max_length=manifest_model.MAX_BYTES).encode()),
        entries=top.integer("entries", low=1, high=1 << 32),
        content_bytes=top.integer("content_bytes", low=0, high=1 << 50),
        notes=tuple(str(note) for note in top.items("notes", max_items=1000)),
    )
    top.done()
    if kept.manifest.image is None or kept.manifest.cipher != manifest_model.NO_CIPHER:
        raise Malformed("cache: expected an image's disk in clear")
    return kept


def _code() -> str:
    """The digest of what converts: this code decides bytes as much as any layer."""
    folder = Path(__file__).parent
    names = (
        "accounts",
        "blobs",
        "files",
        "layer_entries",
        "layers",
        "limits",
        "load",
        "oci",
        "rootfs",
        "sources",
        "tar",
        "xattrs",
    )
    mine = [folder / f"{name}.py" for name in names]
    mine += [folder.parent / "seal" / f"{name}.py" for name in ("disk", "erofs", "tree", "verity")]
    mine += [folder.parent / "model" / f"{name}.py" for name in ("manifest", "room/mounts")]
    return digest.sha256(canonical.dumps([digest.sha256(path.read_bytes()) for path in mine]))
