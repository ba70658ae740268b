"""What was converted before: taken again when it is the same, checked when it is taken, and never half there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from strongroom.crypto import sign
from strongroom.images import cache as caches
from strongroom.images import load
from strongroom.seal import disk
from tests import verbs
from tests.unit.images.kit import ACCOUNTS, END, PROGRAM, Layout, entry

if TYPE_CHECKING:
    from pathlib import Path

OWNER = sign.SigningKey(b"\7" * 32)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A cache of our own, an identity, and a way to run the command line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "correct horse")
    run("identity", "new", "bob", "--out", tmp_path)
    return tmp_path


def run(*words: object, code: int = 0) -> str:
    done = verbs.run(*words, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def convert(world: Path, layout: Path, name: str, *more: object) -> bytes:
    told = run(
        "convert",
        layout,
        "-i",
        world / "bob.identity",
        "--name",
        name,
        "--out",
        world / "disks",
        "--json",
        *more,
    )
    json.loads(told)
    return (world / "disks" / f"{name}.disk").read_bytes()


def kept(world: Path, kind: str = "disks") -> list[Path]:
    folder = world / "xdg/strongroom/converted" / kind
    return sorted(folder.iterdir()) if folder.is_dir() else []


def layout(path: Path, *, size: int = 1000, compression: str = "+gzip", **config: object) -> Path:
    noise = random.Random(1).randbytes(size)  # noqa: S311
    made = Layout(path)
    return made.index(
        made.image(PROGRAM + ACCOUNTS + entry(b"noise", noise) + END, compression=compression, **config)
    ).path


def test_the_second_time_it_is_taken_and_is_the_same(world):
    source = layout(world / "image")
    first = convert(world, source, "one")
    assert [path.suffix for path in kept(world)] == [".disk", ".json"]
    assert len(kept(world, "layers")) == 1
    for path in (*kept(world, "layers"), *kept(world)):
        assert path.parent.stat().st_mode & 0o077 == 0
    for blob in (source / "blobs/sha256").iterdir():
        if blob.stat().st_size > 900:
            blob.unlink()  # the layer: it is not looked at again
    convert(world, source, "two")
    assert (world / "disks/two.disk").read_bytes() == first
    run("verify", world / "disks/two.disk", "--owner", world / "bob.party.json")
    one, two = (json.loads((world / f"disks/{name}.manifest.json").read_text()) for name in ("one", "two"))
    assert one != two  # another name, signed


def test_a_damaged_disk_is_made_anew(world):
    source = layout(world / "image")
    first = convert(world, source, "one")
    (world / "disks/one.disk").unlink()
    held = kept(world)[0]
    data = bytearray(held.read_bytes())
    data[5000] ^= 1
    held.write_bytes(data)
    assert convert(world, source, "two") == first
    assert kept(world)[0].read_bytes() == first  # and the cache has the sound one now


def sealed(world: Path, source: Path, cache: caches.Cache) -> tuple[str, int]:
    """Seal it and keep it: the key, and the disk's size."""
    target = world / f"{source.name}.disk"
    with load.load(source, scratch=world) as loaded:
        made = disk.seal(
            loaded.entries,
            kind="image",
            name="x",
            owner_key=OWNER,
            key=None,
            image=loaded.settings,
            target=target,
        )
        key = cache.key(loaded.digest, loaded.config)
        cache.keep(key, target, made, loaded.summary)
    return key, made.disk_bytes


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format":"strongroom-converted/1"}'])
def test_a_damaged_document_is_as_good_as_none(world, content):
    cache = caches.Cache(folder=world / "c")
    key, _ = sealed(world, layout(world / "image"), cache)
    assert cache.find(key) is not None
    (world / f"c/disks/{key}.json").write_bytes(content)
    assert cache.find(key) is None
    assert list((world / "c/disks").iterdir()) == []


def test_a_damaged_layer_is_unpacked_anew(world):
    source = layout(world / "image")
    first = convert(world, source, "one")
    for path in kept(world):
        path.unlink()
    (held,) = kept(world, "layers")
    held.chmod(0o600)
    held.write_bytes(held.read_bytes()[:-1] + b"x")
    assert convert(world, source, "two") == first


def test_other_settings_or_other_code_are_another_disk(world, monkeypatch):
    one = load.identify(layout(world / "image"), digest=None, platform=load.PLATFORM)
    cache = caches.Cache(folder=world / "c")
    key = cache.key(one.digest, one.config)
    assert key == cache.key(one.digest, one.config)
    for change in (
        {"user": "1"},
        {"working_directory": "/x"},
        {"entrypoint": ("/y",)},
        {"environment": {"A": "b"}},
    ):
        assert cache.key(one.digest, replace(one.config, **change)) != key
    assert cache.key("sha256:" + "0" * 64, one.config) != key
    monkeypatch.setattr(caches, "_code", lambda: "other")
    assert cache.key(one.digest, one.config) != key


def test_what_is_encrypted_leaves_nothing_in_clear_behind(world, monkeypatch):
    source = layout(world / "image")
    (world / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(world / "temporary"))
    content = random.Random(1).randbytes(1000)[100:164]  # noqa: S311 - of the image's file

    def in_clear():
        files = [path for path in world.rglob("*") if path.is_file() and source not in path.parents]
        return {path.relative_to(world).parts[0] for path in files if content in path.read_bytes()}

    convert(world, source, "secret", "--encrypt")
    assert in_clear() == set()
    assert kept(world) == kept(world, "layers") == []
    convert(world, source, "plain")
    assert in_clear() == {"disks", "xdg"}
    before = kept(world)
    assert convert(world, source, "again", "--encrypt") != (world / "disks/plain.disk").read_bytes()
    assert kept(world) == before
    keys = {(world / f"disks/{name}.key.age").read_bytes() for name in ("secret", "again")}
    assert len(keys) == 2


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago(world):
    _, size = sealed(world, layout(world / "first", size=50_000), caches.Cache(folder=world / "other"))
    cache = caches.Cache(folder=world / "c", max_bytes=2 * size + size // 2)
    paths = []
    for number in range(3):
        key, _ = sealed(world, layout(world / f"image{number}", size=50_000 + number), cache)
        paths.append(world / "c/disks" / f"{key}.disk")
        if number == 1:
            past = time.time() - 100
            os.utime(paths[0], (past, past))
            os.utime(paths[1], (past - 100, past - 100))
    assert [path.exists() for path in paths] == [True, False, True]
    assert not paths[1].with_suffix(".json").exists()
    sealed(world, layout(world / "large", size=50_009), caches.Cache(folder=world / "d", max_bytes=size))
    assert not (world / "d").exists()  # one disk never takes more than half


def test_a_cache_that_cannot_be_written_is_no_failure(world):
    (world / "xdg").mkdir(exist_ok=True)
    (world / "xdg/strongroom").write_text("a file where the cache would be")
    convert(world, layout(world / "image"), "one")


@pytest.mark.slow("a dozen conversions as programs of their own")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_at_any_moment_nothing_half_made_is_left_and_the_next_one_goes_through(world, number):
    source = layout(world / "image", size=12 << 20)
    words = ["convert", source, "-i", world / "bob.identity", "--name", "one", "--out", world / "disks"]
    dice = random.Random(number)  # noqa: S311
    for _ in range(2):
        child = subprocess.Popen(
            [*verbs.COMMAND, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(dice.uniform(0.2, 1.6))
        child.send_signal(number)
        child.wait(60)
        left = {path.name for path in (world / "disks").iterdir()} if (world / "disks").exists() else set()
        assert left in (set(), {"one.disk", "one.manifest.json"})
        for path in kept(world, "layers"):
            spool = caches.Cache(folder=path.parent.parent).layer("sha256:" + path.name)
            assert spool is not None
            spool.close()
        for path in kept(world):
            assert path.suffix in (".disk", ".json")
        for path in (world / "disks").iterdir() if left else ():
            path.unlink()
    run(*words)
    run("verify", world / "disks/one.disk", "--owner", world / "bob.party.json")
