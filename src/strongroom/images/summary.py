"""What people are told about an image, without its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.manifest import ImageSettings


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What people are told about an image.

    digest: names the image (see `sources.Chosen`). index: the index that it was chosen from. names: tags that mean this
    digest today. entries: how many. content_bytes: of its files. notes: what was left out, and what will not be found.
    """

    kind: str
    digest: str
    index: str | None
    names: tuple[str, ...]
    layers: int
    entries: int
    content_bytes: int
    settings: ImageSettings
    notes: tuple[str, ...]
