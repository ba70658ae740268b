"""Case folders of `tdx`: see `dcap`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vectors.adapters import dcap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vectors.loaded import Loaded


def load(folder: Path, case: dict) -> Loaded:
    """The arguments of one verification."""
    return dcap.load(folder, case, tee="tdx")
