"""A second real program: Debian's Python and scikit-learn, in an image that nobody adapted.

bob's image is encrypted, and its key at his own broker; alice gives a table through hers. The metrics
equal those of the same image in the clear.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from tools import images

from strongroom.errors import Refused
from tests.e2e import real_rooms, two_owners
from tests.e2e.real_rooms import strongroom

pytestmark = [
    pytest.mark.soak,  # minutes long; `make test` has the same program path in smaller rooms
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        bool(real_rooms.missing_for_images()), reason=real_rooms.missing_for_images() or "a room can run"
    ),
]


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-sklearn-"))
    try:
        images.archive(images.sklearn(), root / "train.tar")
        with two_owners.world(root, programs={"train": (root / "train.tar",)}) as made:
            yield made
    finally:
        two_owners.remove(root)


def test_scikit_learn_trains_in_a_room_as_in_the_clear(world):
    """One room for it all, since it takes its time: also the log, and the proof of both brokers."""
    options = ("--memory-mib", 1024, "--argument", "-v", "--argument", "/train.py", "--logs", "alice")
    ran = world.run(world.contract("train", *options), "train")
    assert ran.code == 0, ran.text
    told = {phase["name"]: phase["milliseconds"] / 1000 for phase in ran.status["phases"]}
    print("program started and ended after seconds:", told["program-started"], told["program-ended"])
    images.run_in_clear(images.sklearn(), data={"table": world.path("data")}, out=world.path("clear"))
    clear = world.path("clear/metrics.json").read_bytes()
    inside = ran.output(world.identity("bob"))["metrics.json"]
    assert json.loads(inside)["accuracy"] > 0.9
    assert inside == clear

    # The log is alice's alone: what Python says of its imports is in it, and nowhere else in the folder.
    sealed = (ran.folder / "log.age").read_bytes()
    log = world.identity("alice").age.open(sealed)
    assert b"import 'sklearn" in log
    with pytest.raises(Refused):
        world.identity("bob").age.open(sealed)
    kept = two_owners.everything(ran.folder)
    for word in (b"import 'sklearn", b"roc_auc", b"confusion"):
        assert word not in kept

    pack = world.path("run.proof")
    strongroom("proof", "export", ran.folder, "--out", pack)
    trust = [word for name in two_owners.OWNERS for word in ("--trust", world.path(f"{name}.party.json"))]
    verified = strongroom("proof", "verify", pack, *trust)
    assert "the proof holds" in verified.stdout
    assert "SIMULATED" in verified.stdout
    for name in two_owners.OWNERS:
        assert f"ok  verdict.{name}" in verified.stdout
        assert f"ok  receipt.{name}" in verified.stdout
