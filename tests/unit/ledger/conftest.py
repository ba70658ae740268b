from __future__ import annotations

import pytest

from strongroom_testing import packs


@pytest.fixture(scope="package")
def world(tmp_path_factory):
    with packs.world(tmp_path_factory.mktemp("packs")) as made:
        yield made


@pytest.fixture(scope="package")
def pack(world):
    # Two rooms before it, so that the proofs in it have hashes.
    world.pack()
    return world.pack()
