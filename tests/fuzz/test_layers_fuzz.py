"""Random layers: whatever is taken is the tree that umoci unpacks, owners, modes and all."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.images import load
from strongroom.seal.tree import Entry, EntryKind
from tests.unit.images.kit import END, PROGRAM, Layout, entry, folder, hardlink, symlink

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed"),
]
NAMES = (b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/f", b"l", b"l/x", b"d/l")
# Made by the image's room, or in every image.
ADDED = {b"data", b"out", b"tmp", b"proc", b"sys", b"dev", b"run"}
IMAGES = 60


def piece(chance: random.Random) -> tuple[bytes, bytes]:
    """A path, and an entry there."""
    path = chance.choice(NAMES)
    name = chance.choice((b"", b"./", b"/")) + path
    above, _, last = name.rpartition(b"/")
    hidden = above + b"/.wh." + last if above else b".wh." + last
    made = {
        "file": lambda: entry(name, chance.choice((b"", b"1", b"22")), mode=chance.choice((0o644, 0o4711)), uid=chance.choice((0, 5))),
        "directory": lambda: folder(name + b"/", mode=chance.choice((0o755, 0o700)), uid=chance.choice((0, 5))),
        "symlink": lambda: symlink(name, chance.choice((b"a", b"d", b"/d", b"../a"))),
        "hard link": lambda: hardlink(name, chance.choice(NAMES)),
        "fifo": lambda: entry(name, flag=b"6", mode=0o622),
        "whiteout": lambda: chance.choice((entry(hidden), hardlink(hidden, chance.choice(NAMES)))),
        "opaque": lambda: entry(name + b"/.wh..wh..opq"),
        "root": lambda: folder(b"./", mode=0o711),
    }  # fmt: skip
    kind = chance.choices(list(made), weights=(6, 5, 2, 1, 1, 2, 2, 1))[0]
    return path + kind.encode() if kind in ("whiteout", "opaque") else path, made[kind]()


def layer(chance: random.Random) -> bytes:
    """Up to six entries, seldom two of one path."""
    pieces: dict[bytes, bytes] = {}
    for _ in range(chance.randint(1, 6)):
        path, made = piece(chance)
        pieces[path] = pieces.get(path, b"") + made if chance.random() < 0.1 else made
    return b"".join(pieces.values()) + chance.choice((END, b""))


def taken(found: list[Entry]) -> dict[bytes, Any]:
    out: dict[bytes, Any] = {}
    for one in found:
        content = b""
        if one.open is not None:
            with one.open() as source:
                content = source.read()
        mode = 0 if one.kind is EntryKind.SYMLINK else one.mode
        out[one.path] = (one.kind, mode, one.uid, one.target or content)
    return {path: row for path, row in out.items() if path not in ADDED}


def unpacked(root: Path) -> dict[bytes, Any]:
    out: dict[bytes, Any] = {}
    for place in (root, *root.rglob("*")):
        status = place.lstat()
        kind = {
            stat.S_IFLNK: EntryKind.SYMLINK,
            stat.S_IFDIR: EntryKind.DIRECTORY,
            stat.S_IFIFO: EntryKind.FIFO,
            stat.S_IFREG: EntryKind.FILE,
        }[stat.S_IFMT(status.st_mode)]
        content = b""
        if kind is EntryKind.SYMLINK:
            content = os.fsencode(place.readlink())
        elif kind is EntryKind.FILE:
            content = place.read_bytes()
        path = b"" if place == root else os.fsencode(place.relative_to(root))
        mode = 0 if kind is EntryKind.SYMLINK else status.st_mode & 0o7777
        out[path] = (kind, mode, status.st_uid, content)
    return {path: row for path, row in out.items() if path not in ADDED}


def test_what_is_taken_is_what_umoci_unpacks():
    chance = random.Random(3)  # noqa: S311 - the same layers every time
    compared = 0
    for _ in range(IMAGES):
        layers = [PROGRAM + END, *(layer(chance) for _ in range(chance.randint(1, 3)))]
        with TemporaryDirectory() as name:
            scratch = Path(name)
            made = Layout(scratch / "image")
            row = made.image(*layers)
            made.index(row | {"annotations": {"org.opencontainers.image.ref.name": "it"}})
            try:
                with load.load(made.path, scratch=scratch) as found:
                    ours = taken(found.entries)
            except (Malformed, Refused):
                continue
            subprocess.run(
                ["umoci", "unpack", "--image", f"{made.path}:it", str(scratch / "bundle")],
                check=True,
                capture_output=True,
            )
            assert ours == unpacked(scratch / "bundle/rootfs"), layers
            compared += 1
    assert compared > IMAGES // 6
