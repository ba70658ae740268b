"""What `convert`, `preflight` and `try` have in common: the option --from, and where fetched and converted images are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

From = Annotated[
    Path | None,
    typer.Option("--from", help="For a compose file: where its image lies, instead of its registry."),
]


def settings(config: Path | None) -> bytes | None:
    """The file of --config, which must be an image's configuration."""
    from strongroom.images import convert

    return None if config is None else convert.load_settings(config)


def cache_folder() -> Path:
    """Where fetched images and converted disks are kept."""
    from strongroom.bases import build

    return build.default_cache(dict(os.environ))
