from __future__ import annotations

import pytest

from strongroom_testing import brokers


@pytest.fixture
def world(tmp_path):
    with brokers.world(tmp_path) as made:
        yield made
