"""An image on its way from its source to a disk: where it came from, and what people are shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.manifest import ImageSettings


@dataclass(frozen=True, kw_only=True)
class ImageOrigin:
    """Which image it is. kind: of the source that it lies in.

    digest: names it: its manifest's (docker archive: its configuration's). index: that of the index it was chosen from, other than
    the layout's own. names: what the source calls it today, to be shown and not kept.
    """

    kind: str
    digest: str
    index: str | None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Summary(ImageOrigin):
    """What people are shown of an image.

    layers, entries: how many. content_bytes: of its files. notes: what was left out, and what will not be found.
    """

    layers: int
    entries: int
    content_bytes: int
    settings: ImageSettings
    notes: tuple[str, ...]
