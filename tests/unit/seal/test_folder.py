from __future__ import annotations

import os
import socket

import pytest

from strongroom.errors import Conflict, Misuse, Refused
from strongroom.seal import folder
from strongroom.seal.tree import EntryKind


def _by_path(paths):
    return {entry.path: entry for entry in folder.from_paths(paths)}


def test_one_folder_is_the_root(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f").write_bytes(b"hello")
    (tmp_path / "run").write_bytes(b"#!")
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "l").symlink_to("sub/f")
    found = _by_path([tmp_path])
    assert sorted(found) == [b"", b"l", b"run", b"sub", b"sub/f"]
    assert found[b"run"].mode == 0o755
    assert found[b"sub/f"].mode == 0o644
    assert found[b"l"].target == b"sub/f"
    assert {(e.uid, e.gid, e.mtime) for e in found.values()} == {(0, 0, 0)}
    with found[b"sub/f"].open() as source:
        assert source.read() == b"hello"


def test_several_paths_keep_their_names(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"1")
    (tmp_path / "f").write_bytes(b"2")
    assert sorted(_by_path([tmp_path / "f", tmp_path / "d"])) == [b"", b"d", b"d/x", b"f"]
    assert sorted(_by_path([tmp_path / "f"])) == [b"", b"f"]


def test_two_paths_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"")
    with pytest.raises(Misuse, match="same name"):
        folder.from_paths([tmp_path / "a" / "f", tmp_path / "b" / "f"])


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "sub/../../x", "sub/../../../x", "../.."])
def test_symlinks_that_lead_outside_are_refused(tmp_path, target):
    (tmp_path / "sub").mkdir()
    (tmp_path / "l").symlink_to(target)
    with pytest.raises(Refused) as caught:
        folder.from_paths([tmp_path])
    assert caught.value.code == "escaping-symlink"


@pytest.mark.parametrize(
    "links",
    [
        {"sub/up": "..", "esc": "sub/up/../.ssh/id"},
        {"a": ".", "esc": "a/../x"},
        {"deep": "sub/low", "sub/low": "../sub/up", "sub/up": "..", "esc": "deep/../x"},
        {"a": "b", "b": "a"},
    ],
)
def test_symlinks_that_lead_outside_through_others_are_refused(tmp_path, links):
    (tmp_path / "sub").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with pytest.raises(Refused) as caught:
        folder.from_paths([tmp_path])
    assert caught.value.code == "escaping-symlink"
    if "esc" in links:
        (tmp_path / "esc").unlink()
        assert len(folder.from_paths([tmp_path])) == len(links) + 1


def test_symlinks_that_stay_inside_are_kept(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "l").symlink_to("../sub/./x")
    assert _by_path([tmp_path])[b"sub/l"].kind is EntryKind.SYMLINK


def test_fifos_and_sockets_are_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Refused) as caught:
        folder.from_paths([tmp_path])
    assert caught.value.code == "special-file"
    (tmp_path / "fifo").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # socket paths must be short
        server.bind("s")
        with pytest.raises(Refused, match="'s' is a device, fifo or socket"):
            folder.from_paths([tmp_path])


def test_hard_links_share_a_group(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "b")
    found = _by_path([tmp_path])
    assert found[b"a"].link_group == found[b"b"].link_group is not None


@pytest.mark.parametrize("change", ["grow", "shrink", "replace", "vanish", "rewrite", "symlink"])
def test_a_file_that_changed_since_is_refused(tmp_path, change):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    entry = _by_path([tmp_path])[b"f"]
    if change == "grow":
        path.write_bytes(b"0123456789more")
    elif change == "shrink":
        path.write_bytes(b"0")
    elif change == "replace":
        (tmp_path / "g").write_bytes(b"0123456789")
        (tmp_path / "g").rename(path)
    elif change == "vanish":
        path.unlink()
    elif change == "rewrite":
        path.write_bytes(b"9876543210")
        os.utime(path, ns=(1, 1))
    else:
        path.rename(tmp_path / "g")
        path.symlink_to("g")
    with pytest.raises(Conflict) as caught:
        entry.open()
    assert caught.value.code == "source-changed"


def test_a_file_rewritten_while_it_is_read_is_noticed_at_its_end(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with _by_path([tmp_path])[b"f"].open() as source:
        assert source.read(5) == b"01234"
        path.write_bytes(b"9876543210")
        os.utime(path, ns=(1, 1))
        source.read(5)
        with pytest.raises(Conflict, match="it changed while it was being sealed"):
            source.read(5)


def test_nothing_given():
    with pytest.raises(Misuse, match="no file or folder given"):
        folder.from_paths([])
