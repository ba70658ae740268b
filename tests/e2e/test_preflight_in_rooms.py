"""What preflight says of an image, what becomes of it in a dry run, and what in a real room: the same, in both directions.

The cases are those of the dry run. Two rooms at a time, of busybox and a dataset of one line, under one broker: `make soak`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.images.preflight import examine
from strongroom.images.preflight.examine import ImageLocation
from strongroom.model.manifest import ImageSettings
from strongroom.model.receipt import Outcome
from strongroom.seal import disk
from tests.e2e import real_rooms
from tests.e2e.real_rooms import Ran, strongroom
from tests.unit.dryrun.cases import CASES, IN_ROOMS_ALONE
from tests.unit.dryrun.images import attempt, base, layout
from tests.unit.images import kit

MEMORY_MIB = 256
AT_ONCE = 2
ALL = CASES | IN_ROOMS_ALONE
TOGETHER = [list(ALL)[at : at + AT_ONCE] for at in range(0, len(ALL), AT_ONCE)]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(real_rooms.missing_for_images()), reason=real_rooms.missing_for_images() or "a room can run"
    ),
]


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-preflight-"))
    made = real_rooms.prepare(root, rows=1)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("names", TOGETHER, ids=", ".join)
def test_what_preflight_says_is_what_happens_in_a_room(world, tmp_path, names):
    images = {
        name: layout(folder_of(tmp_path, name), base(), *ALL[name][1](), **ALL[name][2]) for name in names
    }
    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as rooms:
        ran = dict(
            zip(names, rooms.map(lambda name: in_a_room(world, name, images[name]), names), strict=True)
        )
    print(f"\n{time.monotonic() - begun:.0f} s:", end=" ")
    for name, path in images.items():
        end = ran[name].receipt
        print(f"{name}: {end.outcome.value}, {end.exit_status} {end.explanation}", end="; ")
        report = examine.examine(
            ImageLocation(path=path), scratch=tmp_path, platforms=("local",), memory_mib=MEMORY_MIB
        )
        happened = (end.outcome, end.exit_status) == (Outcome.EXITED, 0)
        assert (report.will_run, happened) == (ALL[name][0], ALL[name][0]), (name, end, report.findings)
        if name in CASES:
            assert (end.outcome, end.exit_status, end.details) == in_a_dry_run(path, tmp_path), name


def folder_of(tmp_path: Path, name: str) -> Path:
    made = tmp_path / str(list(ALL).index(name))
    made.mkdir()
    return made


def in_a_dry_run(path: Path, tmp_path: Path) -> tuple[Outcome, int, tuple[str, ...]]:
    """How it ends there. What `convert` refuses is not begun there; in a room its container cannot be made."""
    try:
        end = attempt(path, tmp_path, memory=MEMORY_MIB << 20)[0]
    except Refused as cause:
        assert cause.code == "mount-point"  # noqa: PT017 - it may be refused for this alone
        return Outcome.NOT_STARTED, 0, ("container-failed",)
    return end.outcome, end.exit_status, end.details


def in_a_room(world: real_rooms.World, name: str, path: Path) -> Ran:
    """One room for that image over alice's line."""
    title = f"case-{list(ALL).index(name)}"
    converted = strongroom(
        "convert", path, "-i", world.path("bob.identity"), "--name", title, "--out", world.root, check=False
    )
    if converted.returncode:
        assert "mount-point" in converted.stderr
        sealed_all_the_same(world, title, name)
    contract = world.path(f"{title}.json")
    strongroom(
        "contract", "new", title, "--out", contract,
        "--party", f"data-owner={world.path('alice.party.json')}",
        "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path(f"{title}.manifest.json"), "--base", world.path("base"),
        "--node", world.path("node.json"), "--dataset", f"flights={world.path('flights.manifest.json')}",
        "--output", "/out=bob", "--exact-exit-status", "--simulated", "--without-memory-guard",
        "--memory-mib", MEMORY_MIB,
    )  # fmt: skip
    for owner in ("alice", "bob"):
        strongroom("contract", "sign", contract, "-i", world.path(f"{owner}.identity"), "--yes")
    return world.run(contract, image=title)


def sealed_all_the_same(world: real_rooms.World, title: str, name: str) -> None:
    """The disk of an image that `convert` refuses, as somebody else's tool might make it: the room has to see for itself."""
    tree = kit.apply(base(), *ALL[name][1]())
    settings = ImageSettings(
        source=kit.sha256(title.encode()),
        entrypoint=("/bin/true",),
        command=(),
        environment={"PATH": "/bin"},
        working_directory="/",
        uid=1000,
        gid=100,
        groups=(100,),
    )
    disk.seal(
        tree.entries(),
        kind="image",
        name=title,
        owner_key=world.identity("bob").signing,
        key=None,
        image=settings,
        target=world.path(f"{title}.disk"),
    )
