"""Outputs: what leaves, in which bytes, and what does not."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.agent import finish, outputs, program, tar
from strongroom.crypto import age
from strongroom.errors import Refused
from strongroom.model.contracts.contract import OutputSizes
from strongroom.model.contracts.room_terms import Output
from strongroom.model.receipt import Outcome
from strongroom_testing.contracts import changed
from tests import samples
from tests.effort import examples

SALT = bytes(range(32))


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
    listing = outputs.list_folder(str(root), limit)
    return b"".join(outputs.tar_and_padding(listing, SALT, 0))


def test_tar_reads_back_with_python_and_with_gnu_tar(tree, tmp_path):
    data = tar_of(tree)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        assert archive.extractfile("a.txt").read() == b"hello"
        assert archive.extractfile("b/deep/run").read() == b"x" * 1000
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
    assert listing.left_out
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
    assert listing.left_out


def test_a_folder_behind_a_link_is_not_entered(tree, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_bytes(b"key")
    (tree / "door").symlink_to("../secret")
    (tmp_path / "linked").symlink_to(tmp_path / "secret")
    assert b"key" not in tar_of(tree)
    assert outputs.list_folder(str(tmp_path / "linked"), 100) == outputs.Listing(
        root=str(tmp_path / "linked"), entries=(), left_out=True
    )
    assert outputs.list_folder(str(tmp_path / "absent"), 100).left_out


def test_the_limit_counts_bytes_and_names(tmp_path):
    (tmp_path / "ab").write_bytes(b"12345678")
    assert len(outputs.list_folder(str(tmp_path), 10).entries) == 1
    with pytest.raises(Refused) as caught:
        outputs.list_folder(str(tmp_path), 9)
    assert caught.value.code == "output-bytes"


def seal(tree, recipients, sizes=OutputSizes.EXACT, salt=SALT):
    target = io.BytesIO()
    listing = outputs.list_folder(str(tree), 1 << 30)
    record = outputs.seal(listing, "/out", recipients, sizes, salt, target)
    return record, target.getvalue()


def test_sealed_output_opens_for_its_recipients_alone_and_is_as_recorded(tree):
    (tree / "big").write_bytes(os.urandom(3_000_000))
    one, two, stranger = age.generate(), age.generate(), age.generate()
    record, sealed = seal(tree, (one.recipient, two.recipient))
    assert record.sealed_digest == "sha256:" + hashlib.sha256(sealed).hexdigest()
    assert record.sealed_bytes == len(sealed)
    for identity in (one, two):
        plain = identity.open(sealed)
        assert plain == tar_of(tree, 1 << 30)
        assert record.content_commitment == "sha256:" + hashlib.sha256(plain).hexdigest()
    with pytest.raises(Refused, match="the age file does not open with this identity"):
        stranger.open(sealed)


def test_a_short_result_cannot_be_guessed_from_what_is_recorded(tmp_path):
    """What a ledger's reader can do: make the tar of each possible result, and compare digests."""
    (tmp_path / "n").write_bytes(b"4711\n")
    owner = age.generate()
    record, sealed = seal(tmp_path, (owner.recipient,), salt=os.urandom(32))
    again, _ = seal(tmp_path, (owner.recipient,), salt=os.urandom(32))
    assert record.content_commitment != again.content_commitment
    plain = owner.open(sealed)
    for without in (plain[1024:], plain.replace(plain[512:1024], bytes(512))):
        assert record.content_commitment != "sha256:" + hashlib.sha256(without).hexdigest()
    # The recipient shows the tar to whom it pleases, and the salt is in it.
    assert record.content_commitment == "sha256:" + hashlib.sha256(plain).hexdigest()


def test_the_room_gives_every_output_a_fresh_salt(tmp_path):
    asked = []

    def random(count):
        asked.append(count)
        return os.urandom(count)

    contract = samples.a_contract(
        outputs=tuple(Output(path=f"/out/{name}", recipients=("bob",), max_bytes=100) for name in "ab")
    )
    for name in "ab":
        (tmp_path / name).mkdir()
    end = program.Ended(outcome=Outcome.EXITED, exit_status=0, details=(), started=0.0, ended=1.0)
    first = finish.seal(
        contract, contract.rooms[0], end, str(tmp_path), memory=lambda: 1 << 30, random=random
    )
    first.close()
    assert asked == [32, 32]
    assert len({one.content_commitment for one in first.records}) == 2


@examples(60)
@given(size=st.integers(0, 40_000))
def test_padded_outputs_show_a_power_of_two_and_open_as_ever(size):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_bytes(b"y" * size)
        owner = age.generate()
        record, sealed = seal(folder, (owner.recipient,), OutputSizes.POWER_OF_TWO)
        plain = owner.open(sealed)
        assert len(plain) >= outputs.LEAST_PADDED
        assert len(plain).bit_count() == 1
        assert len(plain) == outputs.padded_size(len(tar_of(folder)), OutputSizes.POWER_OF_TWO)
        assert record.sealed_bytes <= outputs.sealed_bytes(len(tar_of(folder)), OutputSizes.POWER_OF_TWO)
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            assert [one.name for one in archive.getmembers()] == ["x"]
        done = subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True)
        assert (done.stdout, done.stderr) == (b"x\n", b"")


def test_a_padded_log_is_its_text_and_line_ends():
    pieces = b"".join(finish._padded_log(b"word\n", OutputSizes.POWER_OF_TWO))
    assert pieces == b"word\n" + b"\n" * (4096 - 5)
    assert b"".join(finish._padded_log(b"word\n", OutputSizes.EXACT)) == b"word\n"


def nested(root, name, depth):
    """Folders in folders, deeper than any path that the kernel takes."""
    opened = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=opened)
        inner = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    os.close(opened)


@pytest.mark.parametrize(("name", "depth"), [("d" * 200, 40), ("d", 65), ("\u00e9" * 127, 17)])
def test_folders_nested_too_deep_are_an_outcome(tmp_path, name, depth):
    nested(tmp_path, name, depth)
    try:
        with pytest.raises(Refused) as caught:
            outputs.list_folder(str(tmp_path), 1 << 30)
        assert caught.value.code == "output-depth"
    finally:
        subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_as_deep_as_allowed_leaves(tmp_path):
    nested(tmp_path, "d", outputs.MAX_DEPTH)
    listing = outputs.list_folder(str(tmp_path), 1 << 30)
    assert len(listing.entries) == outputs.MAX_DEPTH
    assert listing.tar_bytes == len(tar_of(tmp_path))


def test_more_entries_than_may_leave_are_an_outcome(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "MAX_ENTRIES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(Refused) as caught:
        outputs.list_folder(str(tmp_path), 1 << 30)
    assert caught.value.code == "output-entries"


def test_many_empty_entries_are_bounded_by_the_tar_that_they_make(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "TAR_ALLOWANCE", 4096)
    for number in range(9):
        (tmp_path / str(number)).touch()
    with pytest.raises(Refused) as caught:
        outputs.list_folder(str(tmp_path), 1000)
    assert caught.value.code == "output-entries"


def test_names_of_any_bytes_sparse_files_and_hard_links_leave_as_they_are(tmp_path):
    root = os.fsencode(tmp_path)
    for name in (b"\xff\xfe", b"a\nb", b" ", b"-rf", "\U0001f512".encode()):
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(70_000)
    os.link(tmp_path / "sparse", tmp_path / "twice")
    listing = outputs.list_folder(str(tmp_path), 1 << 20)
    data = tar_of(tmp_path)
    assert listing.tar_bytes == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {os.fsencode(one.name): archive.extractfile(one).read() for one in archive.getmembers()}
    assert members[b"\xff\xfe"] == b"\xff\xfe"
    assert members[b"sparse"] == members[b"twice"] == bytes(70_000)
    assert len(members) == 7


def test_a_sparse_file_larger_than_any_memory_is_an_outcome_before_it_is_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    contract = samples.a_contract(outputs=(Output(path="/out", recipients=("bob",), max_bytes=1 << 40),))
    end = program.Ended(outcome=Outcome.EXITED, exit_status=0, details=(), started=0.0, ended=1.0)
    for most in (1 << 40, 1 << 30):
        limited = changed(contract, outputs=(replace(contract.rooms[0].outputs[0], max_bytes=most),))
        sealed = finish.seal(
            limited, limited.rooms[0], end, str(tmp_path), memory=lambda: 1 << 28, random=os.urandom
        )
        assert sealed.ended.outcome is Outcome.OUTPUT_TOO_LARGE
        assert sealed.records == ()
        sealed.close()


def test_sizes_past_octal_are_written_as_gnu_does(tmp_path):
    header = tar._header(b"x", b"0", 0o644, 1 << 40, b"")
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == 1 << 40
