"""The base for SEV-SNP, with its real kernel and agent, on a machine that is none: it says so, and proves nothing."""

from __future__ import annotations

import json

import pytest

from strongroom.bases import build, profile
from strongroom.model.room import channel as wire
from tests.bench import bench_base
from tests.e2e.shared_cache import SHARED

pytestmark = [pytest.mark.room, pytest.mark.root, pytest.mark.soak]


def test_a_machine_that_is_no_tee_is_taken_for_none():
    """Its kernel has configfs-tsm and nobody who makes reports by it: Linux's own answer to that is what the agent reads."""
    folder = build.build(build.sources(profile=profile.SNP), SHARED, lambda _: None).folder
    said = bench_base.boot(folder, until=b'"hint"')
    assert said is not None
    told = [json.loads(frame.payload) for frame in wire.Decoder().feed(said.data)]
    assert [(one["kind"], one["code"]) for one in told] == [("failed", "no-tee")]
