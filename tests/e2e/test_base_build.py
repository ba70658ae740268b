"""The base from real packages: the same bytes twice, nothing half-made, no two builds in each other's way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from strongroom.bases import build, document, inputs
from strongroom.bases import profile as base_profile
from strongroom.bases.packages import debs as base_debs
from strongroom.errors import Misuse

NOBODY = 65534
SHARED = build.default_cache(dict(os.environ))
pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a Debian")]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "strongroom.cli.main", "base", *words]


def environment(cache: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "XDG_CACHE_HOME": str(cache), **more}


def fresh(folder: Path) -> Path:
    """A cache that has nothing but the downloads of earlier builds."""
    (folder / "strongroom").mkdir(parents=True)
    debs = SHARED / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    (folder / "strongroom" / "debs").symlink_to(debs)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(cache: Path) -> list[str]:
    return [str(path) for path in cache.glob("strongroom/*/.*") if path.parent.name != "debs"]


def elsewhere() -> Path:
    """A folder that another user can reach, with a cache that has the downloads of earlier builds."""
    folder = Path(tempfile.mkdtemp(prefix="strongroom builds, a longer name "))
    debs = folder / "cache" / "strongroom" / "debs"
    debs.mkdir(parents=True)
    for path in (SHARED / "debs").glob("*.deb"):
        try:
            os.link(path, debs / path.name)
        except OSError:
            shutil.copy(path, debs)
    for path in (folder, folder / "cache", folder / "cache" / "strongroom", debs):
        path.chmod(0o755)
        os.chown(path, NOBODY, NOBODY)
    return folder


def build_twice(profiles: str, tmp_path: Path) -> tuple[Path, Path]:
    """The same profiles by two users, in two folders, with other umask, time zone, locale and hash seed."""
    for name in profiles.split(","):  # so that both find the downloads
        given = build.sources(profile=base_profile.PROFILES[name])
        base_debs.fetch(given.debs, SHARED / "debs", inputs.archives(SHARED))
    one, there = tmp_path / "one", elsewhere()
    words = command("build", "--for", profiles, "--out")
    try:
        subprocess.run(
            ["sh", "-c", 'umask 022; exec "$@"', "sh", *words, str(one)],
            env=environment(fresh(tmp_path / "a"), TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1"),
            cwd="/",
            check=True,
            capture_output=True,
        )
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        second = subprocess.run(
            ["sh", "-c", 'umask 077; exec "$@"', "sh", *user, *words, str(there / "deeper" / "two")],
            env=environment(
                there / "cache",
                TZ="Asia/Kathmandu",
                LC_ALL="tr_TR.UTF-8",
                PYTHONHASHSEED="2",
                PYTHONDONTWRITEBYTECODE="1",
                SOURCE_DATE_EPOCH="1",
            ),
            cwd=there,
            check=False,
            capture_output=True,
            text=True,
        )
        assert second.returncode == 0, second.stderr
        shutil.copytree(there / "deeper" / "two", tmp_path / "two")
    finally:
        shutil.rmtree(there)
    return one, tmp_path / "two"


def test_two_builds_in_two_places_are_the_same_bytes(tmp_path):
    check_two_builds("local,uki", tmp_path)


@pytest.mark.soak
def test_two_builds_of_every_platform_are_the_same_bytes(tmp_path):
    check_two_builds(",".join(base_profile.PROFILES), tmp_path)


def check_two_builds(profiles, tmp_path):
    left, right = build_twice(profiles, tmp_path)
    disks = set()
    for name in profiles.split(","):
        one, two = files(left / name), files(right / name)
        profile = base_profile.PROFILES[name]
        assert sorted(one) == sorted((*document.parts_of(profile), *document.DOCUMENTS))
        assert {file for file in one if one[file] != two.get(file)} == set()
        assert sum(len(one[file]) for file in document.PARTS) <= 80_000_000
        for path in (right / name).iterdir():
            assert path.stat().st_mode & 0o777 == 0o644
        for file, content in one.items():
            assert str(tmp_path).encode() not in content, file
            assert b"Kathmandu" not in content, file
        assert document.load(left / name).profile is profile
        assert document.measure(left / name, firmware=build.FIRMWARE) == document.load(left / name)
        disks.add(one[document.DISK])
    assert len(disks) == 1  # what runs in the room is the same everywhere


def test_modules_compile_to_the_same_bytes_alone_and_in_company(tmp_path):
    """The cache of compiled modules must not show in the bytes."""
    given = build.sources()
    unpacked, _ = build._unpacked(given, SHARED, lambda _: None)
    (tmp_path / "whole").mkdir()
    whole = build._tree(given, unpacked, tmp_path / "whole")
    kept = sorted((tmp_path / "whole" / "compiled").iterdir())
    partly = tmp_path / "partly" / "compiled"
    partly.mkdir(parents=True)
    for path in kept[::3]:
        shutil.copy(path, partly)
    assert build._tree(given, unpacked, tmp_path / "partly") == whole


def test_killed_builds_leave_nothing_half_made_and_the_next_ones_at_once_give_one_base(tmp_path):
    cache = fresh(tmp_path / "cache")
    for delay in (0.8, 2.0, 3.5):
        process = subprocess.Popen(
            command("build"), env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for folder in (cache / "strongroom" / "base").glob("[0-9a-f]*"):
            document.load(folder)
            assert sorted(path.name for path in folder.iterdir()) == sorted(
                (*document.PARTS, *document.DOCUMENTS)
            )
    running = [
        subprocess.Popen(
            command("build", "--json"), env=environment(cache), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = [json.loads(process.communicate()[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({one["folder"] for one in said}) == 1
    assert [one["cached"] for one in said].count(False) <= 1  # a killed one may have been ready
    assert leftovers(cache) == []
    subprocess.run(command("measure"), env=environment(cache), check=True, capture_output=True)


def test_measure_names_the_file_that_differs(tmp_path):
    out = tmp_path / "base"
    built = build.build(build.sources(), SHARED, lambda _: None, out=out)
    assert document.measure(out, firmware=build.FIRMWARE) == built.base
    for name in ("bzImage", "initrd", "cmdline", "base.disk", "packages.json"):
        original = (out / name).read_bytes()
        (out / name).write_bytes(bytes([original[0] ^ 1]) + original[1:])
        done = subprocess.run(
            command("measure", str(out)),
            env=environment(tmp_path),
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode in (2, 3), name
        assert name in done.stderr
        assert "Traceback" not in done.stderr
        (out / name).write_bytes(original)
    subprocess.run(command("measure", str(out)), env=environment(tmp_path), check=True, capture_output=True)


def test_a_damaged_base_in_the_cache_is_built_again(tmp_path):
    cache = fresh(tmp_path / "cache") / "strongroom"
    given = build.sources()
    first = build.build(given, cache, lambda _: None)
    disk = first.folder / "base.disk"
    disk.write_bytes(disk.read_bytes()[:-1] + b"!")
    second = build.build(given, cache, lambda _: None)
    assert not second.cached
    assert second.base == first.base
    assert build.build(given, cache, lambda _: None).cached
    assert build.current(cache) == first.folder


def test_what_is_in_the_way_is_not_replaced(tmp_path):
    given = build.sources()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(Misuse):
            build.build(given, SHARED, lambda _: None, out=tmp_path / "mine", force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_what_is_in_the_room_is_the_agent_and_what_it_needs():
    built = build.build(build.sources(), SHARED, lambda _: None)
    listed = {one["name"] for one in json.loads((built.folder / "packages.json").read_bytes())}
    assert {"strongroom", "cryptography", "pyrage", "libc6", "busybox-static"} < listed
    assert not {"apt", "dpkg", "perl-base", "bash"} & listed
    names = subprocess.run(
        ["dump.erofs", "--ls", "--path=/usr/lib/python3.11/strongroom", built.folder / "base.disk"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "agent" in names
    for other in ("broker", "cli", "convert", "store", "seal", "node"):
        assert f" {other}\n" not in names
