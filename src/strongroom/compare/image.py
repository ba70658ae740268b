"""An image as a `ComparedSide`: an OCI image, or a sealed disk of one; how it runs, its packages and its files.

An encrypted disk shows its manifest alone: what it runs, as whom, and the root hash of what nobody can read.
Packages are those that the image's own package databases list (dpkg, apk, Python's dist-info folders).
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from strongroom.compare.compare import ComparedSide, Topic
from strongroom.errors import Malformed
from strongroom.images import load as images
from strongroom.model import manifest as manifest_model
from strongroom.seal import browse, disk
from strongroom.seal.tree import EntryKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from strongroom.model.manifest import ImageSettings, Manifest
    from strongroom.seal.tree import Entry

MAX_DATABASE = 64 << 20
MAX_PACKAGES = 1 << 16
_DPKG = b"var/lib/dpkg/status"
_DPKG_FOLDER = b"var/lib/dpkg/status.d/"
_APK = b"lib/apk/db/installed"
_PYTHON = re.compile(rb"(?:.+/)?([^/-]+)-([^/-]+)\.dist-info")
_PART = "image"
# What is signed for: the manifest's digest, which contracts name.
_REGISTERS = {"image": ("image.manifest",), "dataset": ("datasets.manifest",)}


@contextlib.contextmanager
def from_source(path: Path, *, scratch: Path, config: bytes | None) -> Iterator[ComparedSide]:
    """An OCI layout, an archive or a root file system (`config` is for that). Open while it is compared."""
    with images.load(path, scratch=scratch, config=config) as loaded:
        yield _subject(loaded.settings, None, tuple(loaded.entries))


@contextlib.contextmanager
def from_disk(path: Path | None, manifest: Manifest) -> Iterator[ComparedSide]:
    """A sealed disk, or its manifest alone (`path` None, or an encrypted disk)."""
    with contextlib.ExitStack() as opened:
        entries: tuple[Entry, ...] | None = None
        if path is not None and manifest.cipher == manifest_model.NO_CIPHER:
            entries = browse.tree(
                opened.enter_context(disk.plaintext(path, manifest, None)), manifest.data_bytes
            )
        yield _subject(manifest.image, manifest.root_hash, entries)


def _subject(
    settings: ImageSettings | None, root_hash: str | None, entries: tuple[Entry, ...] | None
) -> ComparedSide:
    facts: dict[tuple[Topic, str, str], str] = {}
    if settings is not None:
        facts |= {(Topic.SETTING, _PART, name): value for name, value in _settings(settings)}
        facts[Topic.BYTES, _PART, "OCI image that it was made of"] = settings.source
    if entries is not None:
        facts |= {(Topic.PACKAGE, _PART, name): version for name, version in packages(entries).items()}
    kind = "image" if settings is not None else "dataset"
    return ComparedSide(
        kind=kind,
        parts={} if root_hash is None else {_PART: root_hash},
        facts=facts,
        trees={} if entries is None else {_PART: entries},
        registers={_PART: _REGISTERS[kind]},
    )


def _settings(settings: ImageSettings) -> Iterator[tuple[str, str]]:
    yield "entrypoint", _words(settings.entrypoint)
    yield "arguments", _words(settings.command)
    yield "working directory", settings.working_directory
    yield "user", f"{settings.uid}:{settings.gid}"
    yield "groups", " ".join(map(str, settings.groups)) or "none"
    for name, value in settings.environment.items():
        yield f"environment {name}", value


def _words(words: tuple[str, ...]) -> str:
    return " ".join(repr(word) for word in words) or "none"


def packages(entries: Iterable[Entry]) -> dict[str, str]:
    """Version by name and kind of package. Raises `Malformed` for a database that is none."""
    out: dict[str, str] = {}
    for entry in entries:
        python = _PYTHON.fullmatch(entry.path) if entry.kind is EntryKind.DIRECTORY else None
        if python is not None:
            out[f"{_text(python[1])} (python)"] = _text(python[2])
        elif entry.path == _DPKG or (
            entry.path.startswith(_DPKG_FOLDER) and not entry.path.endswith(b".md5sums")
        ):
            out |= {f"{name} (deb)": version for name, version in _stanzas(entry, b"Package", b"Version")}
        elif entry.path == _APK:
            out |= {f"{name} (apk)": version for name, version in _stanzas(entry, b"P", b"V")}
        if len(out) > MAX_PACKAGES:
            raise Malformed(
                f"image: more than {MAX_PACKAGES} packages", code="too-many", hint="so many are not compared"
            )
    return out


def _stanzas(entry: Entry, name: bytes, version: bytes) -> Iterator[tuple[str, str]]:
    """The two fields of each paragraph of a database."""
    if entry.open is None:
        return
    if entry.size > MAX_DATABASE:
        raise Malformed(
            f"image: {_text(entry.path)}: {entry.size} bytes, expected at most {MAX_DATABASE}",
            code="too-large",
            hint="a package database of that size is not read",
        )
    with entry.open() as content:
        data = content.read(MAX_DATABASE)
    for stanza in data.split(b"\n\n"):
        fields = dict(
            line.split(b":", 1) for line in stanza.split(b"\n") if b":" in line and line[:1] not in b" \t"
        )
        if name in fields and version in fields:
            yield _text(fields[name].strip()), _text(fields[version].strip())


def _text(data: bytes) -> str:
    return data[:256].decode("utf-8", "backslashreplace")
