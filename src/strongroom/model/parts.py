"""Named byte strings, the form that evidence and endorsements share: {name: BASE64}, bounded, names strict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.encoding import fields, unexpected
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping


def to_json(parts: Mapping[str, bytes]) -> dict[str, str]:
    """The object form."""
    return {name: fields.format_data(data) for name, data in parts.items()}


def read(source: fields.Fields, *, least: int, most: int, max_bytes: int) -> dict[str, bytes]:
    """Read `least` to `most` parts of at most `max_bytes` each, and nothing else. Raises `Malformed`."""
    names = source.names()
    if not least <= len(names) <= most:
        raise Malformed(f"{source.what}: {len(names)} parts, expected {least} to {most}", code="too-many")
    for name in names:
        if fields.NAME.fullmatch(name) is None:
            raise Malformed(
                f"{source.what}: expected {fields.NAME_LIKE}, got {unexpected.quoted(name)}", code="bad-name"
            )
    return {name: source.data(name, max_bytes=max_bytes) for name in names}
