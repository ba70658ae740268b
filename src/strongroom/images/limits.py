"""How large an image may be. Every number is a refusal, not a truncation.

They are far above real images (the largest public ones have some 40 layers, 300,000 files and
30 GB) and far below what would fill a disk or a memory unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.errors import Refused

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """Sizes are bytes. Tests make smaller limits; the product uses `LIMITS`."""

    document_bytes: int = 4 * MIB
    """One JSON document of the image: index, manifest or configuration."""
    documents_bytes: int = 64 * MIB
    """All documents that are read to find one image: each may name a thousand others."""
    manifests: int = 1024
    """Descriptors in one index, and images in all of an image's indexes together."""
    layers: int = 128
    """Layers of one image; common runtimes stop at 127."""
    layer_bytes: int = 32 * GIB
    """One layer after decompression."""
    total_bytes: int = 64 * GIB
    """All layers after decompression, and the contents of the merged tree."""
    file_bytes: int = 32 * GIB
    """One file."""
    entries: int = 500_000
    """Tar entries of all layers together, and files of the merged tree."""
    path_bytes: int = 4095
    """A whole path, and a symbolic link's target (PATH_MAX less its NUL)."""
    name_bytes: int = 255
    """One component of a path (NAME_MAX)."""
    depth: int = 128
    """Components of a path."""
    pax_bytes: int = MIB
    """One pax extended header."""
    xattrs_per_file: int = 64
    xattr_value_bytes: int = 65_000
    """One extended attribute's value; Linux allows 65,536, erofs a little less per inode."""
    xattr_total_bytes: int = 64 * MIB
    """All extended attributes of an image: they are held in memory."""
    account_file_bytes: int = MIB
    """/etc/passwd and /etc/group of the image."""


# What to do about an image that is beyond a limit: the hint of each such refusal.
SMALLER = "make the image smaller: leave out what the program does not need, and seal data as a dataset"
LIMITS = ImageLimits()
_LEAST = 4096  # bytes that every document counts for: a small one costs its reading too


class Documents:
    """How much of an image's documents was read so far."""

    def __init__(self, limits: ImageLimits) -> None:
        self._left = limits.documents_bytes

    def count(self, size: int, *, what: str) -> None:
        """Count a document of `size` bytes that was read. Raises `Refused` when all of them are too many bytes."""
        self._left -= max(size, _LEAST)
        if self._left < 0:
            raise Refused(
                f"{what}: too many or too large documents before the image itself",
                code="too-large",
                hint="no honest image has so many indexes or configurations: name the image's own digest, or do not trust it",
            )
