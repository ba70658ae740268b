"""Seals an image as convert does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.crypto import sign
from strongroom.seal import browse, disk
from tests.unit.images.kit import (
    loaded,
)

if TYPE_CHECKING:
    from pathlib import Path

    from strongroom.seal.tree import Entry


def seal(layout: Path, tmp_path: Path, name: str) -> tuple[tuple[Entry, ...], Path]:
    target = tmp_path / f"{name}.disk"
    with loaded(layout, tmp_path) as found:
        manifest = disk.seal(
            found.entries,
            kind="image",
            name="query",
            owner_key=sign.SigningKey(b"\7" * 32),
            key=None,
            image=found.settings,
            target=target,
        )

    def read(first: int, count: int) -> bytes:
        with target.open("rb") as source:
            source.seek(first * 4096)
            return source.read(count * 4096)

    return browse.tree(read, manifest.data_bytes), target
