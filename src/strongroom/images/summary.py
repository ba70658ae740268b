"""What there is to tell of an image, without its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.manifest import ImageSettings


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What there is to tell of an image. `entries` is their number; the rest as in `Loaded`."""

    kind: str
    digest: str
    index: str | None
    names: tuple[str, ...]
    layers: int
    entries: int
    content_bytes: int
    settings: ImageSettings
    notes: tuple[str, ...]
