"""Eight images of strangers' programs, each doing a piece of its real work in a room, unmodified.

Preflight says beforehand what each is up against; what leaves the room equals what the same image writes in the clear. Minutes long: `make soak`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tools import images, strangers

from tests.e2e import real_rooms
from tests.e2e.real_rooms import Ran, strongroom

pytestmark = [
    pytest.mark.soak,
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(real_rooms.missing_for_images()), reason=real_rooms.missing_for_images() or "a room can run"
    ),
]


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-strangers-"))
    made = real_rooms.prepare(root)
    try:
        strangers.rows(root / "rows")
        strongroom("seal", root / "rows", "-i", root / "alice.identity", "--name", "rows", "--out", root)
        strongroom(
            "broker", "add-key", root / "broker", root / "rows.manifest.json", root / "rows.key.age",
            "-i", root / "alice.identity",
        )  # fmt: skip
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


# What preflight says beside "fine", of each.
WARNINGS = {
    "nginx": {"ports"},
    "postgresql": {"ports", "set-uid"},
    "redis": {"ports", "set-uid", "volumes"},
    "sklearn": set(),
    "r": set(),
    "go": set(),
    "nodejs": {"ports"},
    "openjdk": {"set-uid"},
}


@pytest.mark.parametrize("name", strangers.ALL)
def test_preflight_says_what_each_of_them_is_up_against(name: str) -> None:
    words = ("--memory-mib", strangers.ALL[name].memory_mib, "--json")
    told = json.loads(
        strongroom(
            "preflight", strangers.build(name), *words, "--platform", "local", "--platform", "snp"
        ).stdout
    )
    assert told["platforms"] == {"local": True, "snp": True}
    assert {one["check"] for one in told["findings"] if one["severity"] == "warns"} == WARNINGS[name]


def test_an_image_is_the_same_bytes_wherever_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = images.digest(strangers.build("nginx"))
    shutil.copytree(images.cache_folder() / "debs", tmp_path / "strongroom/images/debs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = os.umask(0o077)
    try:
        assert images.digest(strangers.build("nginx")) == one
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", strangers.ALL)
def test_does_its_work_in_a_room_as_in_the_clear(world: real_rooms.World, name: str) -> None:
    assert_same_work(world, name, strangers.build(name), strangers.ALL[name])


# Others give up their rights themselves, or refuse to have them; of runtimes these are enough.
@pytest.mark.parametrize("name", ["redis", "r", "go", "nodejs"])
def test_does_its_work_in_a_room_as_uid_0_too(world: real_rooms.World, name: str) -> None:
    """Many images name no user: their program believes that it is root, and is not the kernel's."""
    one = replace(strangers.ALL[name], user="0:0")
    assert_same_work(world, f"{name}-as-root", strangers.build(name, user=one.user), one)


def assert_same_work(world: real_rooms.World, name: str, layout: Path, one: strangers.Stranger) -> None:
    """Preflight, convert, run in the clear and in a room: what leaves is the same."""
    begun = time.monotonic()
    done = strongroom("preflight", layout, "--memory-mib", one.memory_mib, "--platform", "local")
    assert "will run" in done.stdout
    looked = time.monotonic()
    strongroom("convert", layout, "-i", world.path("bob.identity"), "--name", name, "--out", world.root)
    converted = time.monotonic()
    images.run_in_clear(layout, data={"rows": world.path("rows")}, out=world.path(f"clear-{name}"))
    clear = time.monotonic()
    ran = run(world, name, one.memory_mib)
    log = world.identity("alice").age.open((ran.folder / "log.age").read_bytes()) if ran.code == 8 else b""
    assert ran.code == 0, ran.text + log.decode(errors="replace")[-4000:]
    told = {phase["name"]: phase["milliseconds"] / 1000 for phase in ran.status["phases"]}
    print(
        f"\n{name}: preflight {looked - begun:.1f} s, convert {converted - looked:.1f} s, in the clear {clear - converted:.1f} s,"
        f" in the room {told['program-ended'] - told['program-started']:.1f} s"
    )
    inside = ran.output(world.identity("bob"))
    for file in one.outputs:
        assert inside[file] == world.path(f"clear-{name}/{file}").read_bytes()
        assert len(inside[file]) > 10


def run(world: real_rooms.World, name: str, memory_mib: int) -> Ran:
    """One room for that image over alice's rows."""
    made = world.path(f"contract-{name}.json")
    strongroom(
        "contract", "new", f"stranger-{name}", "--out", made,
        "--party", f"data-owner={world.path('alice.party.json')}",
        "--party", f"program-owner={world.path('bob.party.json')}",
        "--image", world.path(f"{name}.manifest.json"), "--base", world.path("base"),
        "--node", world.path("node.json"), "--dataset", f"rows={world.path('rows.manifest.json')}",
        "--output", "/out=bob", "--logs", "alice", "--simulated", "--without-memory-guard",
        "--memory-mib", memory_mib, "--wall-seconds", 900,
    )  # fmt: skip
    for owner in ("alice", "bob"):
        strongroom("contract", "sign", made, "-i", world.path(f"{owner}.identity"), "--yes")
    folder = world.path(f"run-{name}")
    ran = strongroom(
        "run", made, "--node", world.path("node"), "--base", world.path("base"),
        "--disk", world.path(f"{name}.disk"), "--disk", world.path("rows.disk"), "--out", folder,
        "--no-memory-guard", check=False, timeout=1200,
    )  # fmt: skip
    return Ran(code=ran.returncode, text=ran.stdout + ran.stderr, folder=folder)
