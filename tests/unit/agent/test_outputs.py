"""Outputs: what leaves, in which bytes, and what does not."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile

import pytest

from strongroom.agent import outputs
from strongroom.crypto import age
from strongroom.errors import Refused


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "out"
    (root / "b/deep").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"hello")
    (root / "b/deep/run").write_bytes(b"x" * 1000)
    (root / "b/deep/run").chmod(0o4755)
    (root / "b/up").symlink_to("../a.txt")
    (root / "empty").write_bytes(b"")
    (root / ("n" * 150)).write_bytes(b"long")
    (root / "é\n").write_bytes(b"name")
    return root


def tar_of(root, limit=1 << 20) -> bytes:
    return b"".join(outputs.write_tar(outputs.list_folder(str(root), limit)))


def test_tar_reads_back_with_python_and_with_gnu_tar(tree, tmp_path):
    data = tar_of(tree)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert tar.extractfile("a.txt").read() == b"hello"
        assert tar.extractfile("b/deep/run").read() == b"x" * 1000
    assert set(members) == {"a.txt", "b", "b/deep", "b/deep/run", "b/up", "empty", "n" * 150, "é\n"}
    assert members["b/up"].linkname == "../a.txt"
    assert members["b/deep/run"].mode == 0o755
    assert {(one.uid, one.gid, one.mtime) for one in members.values()} == {(0, 0, 0)}
    (tmp_path / "x").mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path / "x")], input=data, check=True)
    assert (tmp_path / "x" / ("n" * 150)).read_bytes() == b"long"
    assert (tmp_path / "x/b/up").read_bytes() == b"hello"


def test_same_files_same_bytes_whatever_their_order_and_dates(tree, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tree, other, symlinks=True)
    os.utime(other / "a.txt", (1, 1))
    (other / "zz").write_bytes(b"")
    (other / "zz").unlink()
    assert tar_of(tree) == tar_of(other)


def test_what_could_lead_out_or_is_no_file_stays(tree):
    os.mkfifo(tree / "pipe")
    (tree / "absolute").symlink_to("/etc/passwd")
    (tree / "b/out").symlink_to("../../x")
    (tree / "b/loop").symlink_to("../b/../../out/a.txt")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(tree / "sock"))
        listing = outputs.list_folder(str(tree), 1 << 20)
    assert listing.left_out == 5
    assert not {b"pipe", b"absolute", b"b/out", b"b/loop", b"sock"} & {one.name for one in listing.entries}


@pytest.mark.parametrize(
    ("links", "outward"),
    [
        ({"c1/up": "..", "esc": "c1/up/../.ssh/id"}, {"esc"}),
        ({"a": ".", "esc": "a/../x"}, {"esc"}),
        ({"d/top": "../c1/up", "c1/up": "..", "esc": "d/top/../x", "fine": "d/top/c1"}, {"esc"}),
        ({"a": "b", "b": "../x", "c": "c1/../a"}, {"a", "b", "c"}),
        ({"a": "b", "b": "a", "c": "a/x"}, {"a", "b", "c"}),
    ],
)
def test_a_link_that_leads_out_through_other_links_stays(tmp_path, links, outward):
    for folder in ("c1", "d"):
        (tmp_path / folder).mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    listing = outputs.list_folder(str(tmp_path), 1 << 20)
    kept = {os.fsdecode(entry.name) for entry in listing.entries if entry.link}
    assert kept == set(links) - outward
    assert listing.left_out == len(outward)


def test_a_folder_behind_a_link_is_not_entered(tree, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_bytes(b"key")
    (tree / "door").symlink_to("../secret")
    (tmp_path / "linked").symlink_to(tmp_path / "secret")
    assert b"key" not in tar_of(tree)
    assert outputs.list_folder(str(tmp_path / "linked"), 100) == outputs.Listing(
        root=os.fsencode(tmp_path / "linked"), entries=(), total=0, left_out=1
    )
    assert outputs.list_folder(str(tmp_path / "absent"), 100).left_out == 1


def test_the_limit_counts_bytes_and_names(tmp_path):
    (tmp_path / "ab").write_bytes(b"12345678")
    assert outputs.list_folder(str(tmp_path), 10).total == 10
    with pytest.raises(Refused) as caught:
        outputs.list_folder(str(tmp_path), 9)
    assert caught.value.code == "output-too-large"


def test_sealed_output_opens_for_its_recipients_alone_and_is_as_recorded(tree):
    (tree / "big").write_bytes(os.urandom(3_000_000))
    one, two, stranger = age.generate(), age.generate(), age.generate()
    sink = Sink()
    listing = outputs.list_folder(str(tree), 1 << 30)
    record = outputs.seal(listing, "/out", (one.recipient, two.recipient), sink)  # type: ignore[arg-type]
    assert record.sealed_digest == "sha256:" + hashlib.sha256(sink.data).hexdigest()
    assert record.sealed_bytes == len(sink.data)
    for identity in (one, two):
        plain = identity.open(bytes(sink.data))
        assert plain == tar_of(tree, 1 << 30)
        assert record.content_digest == "sha256:" + hashlib.sha256(plain).hexdigest()
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        stranger.open(bytes(sink.data))


def test_sizes_past_octal_are_written_as_gnu_does(tmp_path):
    header = outputs._header(b"x", b"0", 0o644, 1 << 40, b"")
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 1 << 40
