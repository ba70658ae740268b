"""Fixtures of the agent's tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.unit.agent.container_room import BUSYBOX, ContainerRoom
from tests.unit.agent.two_brokers import house, street  # noqa: F401 - fixtures


@pytest.fixture
def room():
    if os.geteuid() != 0 or not Path(BUSYBOX).exists():
        pytest.skip("needs root and busybox-static")
    base = Path(tempfile.mkdtemp(prefix="strongroom-container-"))
    made = ContainerRoom(base)
    yield made
    made.close()
    shutil.rmtree(base)
