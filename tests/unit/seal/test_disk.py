"""Whole disks: made, checked without a key, opened again, and what happens when something goes wrong half-way."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import json
import os
import subprocess
from dataclasses import replace

import pytest

from strongroom.crypto import digest, sign, xts
from strongroom.errors import Conflict, Malformed, Misuse, Refused, Unavailable
from strongroom.model import manifest as manifest_model
from strongroom.seal import disk, erofs, extract, keys, lanes, newfile
from strongroom.seal.tree import Entry, EntryKind
from tests.unit.seal.erofs_check import complaints
from tests.unit.seal.sealed import KEY, OWNER, seal
from tests.unit.seal.trees import file, folder, link, noise, rich


def test_three_layers_as_their_peers_see_them(tmp_path):
    made = seal(tmp_path / "f.disk")
    data = (tmp_path / "f.disk").read_bytes()
    assert len(data) == made.disk_bytes
    subprocess.run(
        [
            *("veritysetup", "verify", tmp_path / "f.disk", tmp_path / "f.disk"),
            *(made.root_hash.removeprefix("sha256:"), f"--hash-offset={made.hash_offset}"),
        ],
        check=True,
        capture_output=True,
    )
    with disk.plaintext(tmp_path / "f.disk", made, KEY) as read:
        plain = read(0, made.data_bytes // manifest_model.BLOCK)
    assert plain == b"".join(erofs.blocks(erofs.layout(rich())))
    (tmp_path / "plain").write_bytes(plain)
    assert complaints(tmp_path / "plain") == []
    assert noise(4096, 4096) in plain
    assert noise(4096, 4096)[:64] not in data


def test_same_input_same_bytes_and_another_key_other_bytes(tmp_path):
    for name, key in (("a", KEY), ("b", KEY), ("c", noise(64, 4))):
        (tmp_path / name).mkdir()
        seal(tmp_path / name / "f.disk", key=key)
    files = {n: {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in "abc"}
    assert files["a"] == files["b"]
    assert files["a"]["f.disk"] != files["c"]["f.disk"]


def test_manifest_is_signed_by_the_owner_and_only_by_them(tmp_path):
    seal(tmp_path / "f.disk")
    data = (tmp_path / "f.manifest.json").read_bytes()
    envelope, manifest = manifest_model.parse_envelope(data)
    disk.check_owner(envelope, manifest, OWNER.public)
    with pytest.raises(Refused, match="of owner"):
        disk.check_owner(envelope, manifest, sign.generate().public)
    with pytest.raises(Refused, match="not signed"):
        disk.check_owner(replace(envelope, signatures=()), manifest, OWNER.public)
    forged = json.loads(data)
    forged["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    envelope, manifest = manifest_model.parse_envelope(json.dumps(forged).encode())
    with pytest.raises(Refused, match="the manifest is not signed by its owner"):
        disk.check_owner(envelope, manifest, OWNER.public)


def test_work_in_lanes_and_in_place_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_WORTH_FORKING", 0)
    for name, many in (("a", True), ("b", False)):
        monkeypatch.setattr(lanes, "_single_threaded", lambda many=many: many)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
        (tmp_path / name).mkdir()
        made = seal(tmp_path / name / "f.disk", [folder(), file(b"f", noise(9 << 20))])
        disk.verify(tmp_path / name / "f.disk", made)
    assert (tmp_path / "a/f.disk").read_bytes() == (tmp_path / "b/f.disk").read_bytes()


@pytest.mark.parametrize("forking", [True, False])
def test_verify_names_the_first_block_that_differs(tmp_path, monkeypatch, forking):
    monkeypatch.setattr(lanes, "_WORTH_FORKING", 0)
    monkeypatch.setattr(lanes, "_single_threaded", lambda: forking)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    path = tmp_path / "f.disk"
    made = seal(path, [folder(), file(b"f", noise(2 << 20))])
    disk.verify(path, made)
    good = path.read_bytes()
    data_blocks = made.data_bytes // 4096
    cases = {
        0: "data block 0 ",
        made.data_bytes - 1: f"data block {data_blocks - 1} ",
        200 * 4096 + 7: "data block 200 ",
        made.hash_offset + 3: "superblock",
        made.hash_offset + 4000: "superblock",
        made.hash_offset + 4096: "hash block 0 of level 1",
        made.hash_offset + 2 * 4096: "hash block 0 of level 0",
        made.disk_bytes - 1: "hash block 4 of level 0",
    }
    for offset, words in cases.items():
        bad = bytearray(good)
        bad[offset] ^= 1
        path.write_bytes(bad)
        with pytest.raises(Refused, match=words) as caught:
            disk.verify(path, made)
        assert caught.value.code == "disk-corrupt"


def test_verify_refuses_cut_and_padded_and_other_disks(tmp_path):
    made = seal(tmp_path / "f.disk")
    other = seal(tmp_path / "g.disk", key=noise(64, 5))
    good = (tmp_path / "f.disk").read_bytes()
    for bad in (b"", good[:-4096], good[:-1], good + b"\x00"):
        (tmp_path / "f.disk").write_bytes(bad)
        with pytest.raises(Refused, match="expected"):
            disk.verify(tmp_path / "f.disk", made)
    assert made.disk_bytes == other.disk_bytes
    with pytest.raises(Refused) as caught:
        disk.verify(tmp_path / "g.disk", made)
    assert caught.value.code == "disk-corrupt"


def test_verify_refuses_a_manifest_with_impossible_sizes(tmp_path):
    made = seal(tmp_path / "f.disk")
    for wrong in (replace(made, disk_bytes=made.disk_bytes + 4096), replace(made, salt=b"x")):
        with pytest.raises(Malformed, match=r"manifest: expected [0-9]+ bytes and salt"):
            disk.verify(tmp_path / "f.disk", wrong)


def test_open_gives_the_files_back(tmp_path):
    made = seal(tmp_path / "f.disk")
    disk.open_disk(tmp_path / "f.disk", made, KEY, tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "a/x").read_bytes() == noise(5 * 4096 + 17)
    assert (out / "a/x").samefile(out / "a/y")
    assert (out / "a/x").stat().st_mode & 0o7777 == 0o755  # no setuid on the owner's machine
    assert (out / "l").readlink().as_posix() == "a/x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.disk", "f.manifest.json", "out"]


def test_open_with_another_key_or_after_a_flip_leaves_nothing(tmp_path):
    made = seal(tmp_path / "f.disk")
    with pytest.raises(Refused, match=r"key\.check: this is not the key of the disk flights"):
        disk.open_disk(tmp_path / "f.disk", made, noise(64, 9), tmp_path / "out")
    with pytest.raises(Malformed, match="superblock"):  # format 1 has no check value
        disk.open_disk(tmp_path / "f.disk", replace(made, key_check=None), noise(64, 9), tmp_path / "out")
    for key, why in (
        (None, "the disk is encrypted and there is no key"),
        (KEY[:32] * 2, "two halves are equal"),
    ):
        with pytest.raises((Misuse, Malformed), match=why):
            disk.open_disk(tmp_path / "f.disk", made, key, tmp_path / "out")
    data = bytearray((tmp_path / "f.disk").read_bytes())
    data[made.data_bytes - 4000] ^= 1
    (tmp_path / "f.disk").write_bytes(data)
    with pytest.raises(Refused, match="data block"):
        disk.open_disk(tmp_path / "f.disk", made, KEY, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.disk", "f.manifest.json"]


def test_open_overwrites_nothing(tmp_path):
    made = seal(tmp_path / "f.disk")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "full")
    (tmp_path / "empty").mkdir()
    for name in ("full", "link", "f.manifest.json"):
        with pytest.raises(Misuse, match="not an empty folder"):
            disk.open_disk(tmp_path / "f.disk", made, KEY, tmp_path / name)
    disk.open_disk(tmp_path / "f.disk", made, KEY, tmp_path / "empty")
    assert (tmp_path / "full" / "mine").read_bytes() == b"precious"


def test_links_that_lead_outside_are_refused_for_data_and_kept_for_images(tmp_path):
    entries = [folder(), link(b"l", b"/etc/passwd"), link(b"m", b"../x")]
    data = seal(tmp_path / "f.disk", entries)
    with pytest.raises(Malformed, match="outside"):
        disk.open_disk(tmp_path / "f.disk", data, KEY, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    image = seal(tmp_path / "g.disk", entries, key=None, kind="image")
    disk.open_disk(tmp_path / "g.disk", image, None, tmp_path / "out")
    assert (tmp_path / "out/l").readlink().as_posix() == "/etc/passwd"


def test_a_disk_without_a_key_is_plain_erofs(tmp_path):
    made = seal(tmp_path / "i.disk", key=None, kind="image")
    assert made.cipher == "none"
    disk.verify(tmp_path / "i.disk", made)
    assert complaints(tmp_path / "i.disk") == []
    with pytest.raises(Misuse, match="a key for a disk that is not encrypted"):
        disk.open_disk(tmp_path / "i.disk", made, KEY, tmp_path / "out")


# --- half-way ---


def lying(claimed: int, real: int) -> list[Entry]:
    return [
        folder(),
        file(b"a", noise(3 << 20)),
        Entry(path=b"f", kind=EntryKind.FILE, mode=0, size=claimed, open=lambda: io.BytesIO(bytes(real))),
    ]


@pytest.mark.parametrize("forking", [True, False])
@pytest.mark.parametrize(("claimed", "real"), [(50_000, 49_999), (50_000, 50_001), (50_000, 0)])
def test_content_that_changes_size_leaves_nothing(tmp_path, monkeypatch, forking, claimed, real):
    monkeypatch.setattr(lanes, "_WORTH_FORKING", 0)
    monkeypatch.setattr(lanes, "_single_threaded", lambda: forking)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    with pytest.raises(Conflict, match="its size is no longer"):
        seal(tmp_path / "f.disk", lying(claimed, real))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, OSError(errno.EIO, "bad")])
def test_any_failure_leaves_nothing(tmp_path, monkeypatch, nameless, failure):
    if not nameless:
        _without_nameless_files(monkeypatch)

    def progress(_done, _total):
        raise failure

    with pytest.raises(type(failure) if isinstance(failure, OSError) else failure):
        seal(tmp_path / "f.disk", progress=progress)
    assert list(tmp_path.iterdir()) == []


def _without_nameless_files(monkeypatch):
    real = os.open

    def refusing(path, flags, *rest, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refusing)


def test_without_nameless_files_it_is_the_same_disk(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    seal(tmp_path / "a/f.disk")
    _without_nameless_files(monkeypatch)
    seal(tmp_path / "b/f.disk")
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()
    }


@pytest.mark.parametrize("taken", ["f.disk", "f.manifest.json"])
def test_nothing_is_overwritten(tmp_path, taken):
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(Misuse, match="exists already"):
        seal(tmp_path / "f.disk")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(taken, b"precious")]


def test_a_manifest_that_appears_meanwhile_takes_the_disk_away_again(tmp_path):
    def progress(_done, _total):
        (tmp_path / "f.manifest.json").write_bytes(b"theirs")

    with pytest.raises(Misuse, match=r"f\.manifest\.json: exists already"):
        seal(tmp_path / "f.disk", progress=progress)
    assert [p.name for p in tmp_path.iterdir()] == ["f.manifest.json"]


def test_bad_names_and_keys_are_refused_before_any_work(tmp_path):
    for more, why in (
        ({"key": bytes(64)}, "two halves are equal"),
        ({"key": b"x"}, "expected 64 bytes, got 1"),
        ({"kind": "film"}, "manifest.kind: expected one of dataset, image, got .film."),
    ):
        with pytest.raises(Malformed, match=why):
            seal(tmp_path / "f.disk", **more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path):
    answer = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "t", tmp_path], check=False, capture_output=True
    )
    if answer.returncode:
        pytest.skip("no tmpfs may be mounted here")
    try:
        with pytest.raises(Unavailable, match="free") as caught:
            seal(tmp_path / "f.disk", [folder(), file(b"f", noise(9 << 20))])
        assert caught.value.code == "disk-full"
        # What is free at the start may be gone later.
        filler = tmp_path / "filler"

        def progress(done, _total):
            if done >= 1 << 20 and not filler.exists():
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
                    while True:
                        out.write(bytes(1 << 16))

        with pytest.raises(Unavailable) as caught:
            seal(tmp_path / "f.disk", [folder(), file(b"f", noise(6 << 20))], progress=progress)
        assert caught.value.code == "disk-full"
        assert [p.name for p in tmp_path.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_lane_that_dies_is_unavailable_not_a_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_WORTH_FORKING", 0)
    monkeypatch.setattr(lanes, "_single_threaded", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    parent = os.getpid()

    def dying(_buffer, _count):
        if os.getpid() != parent:
            os._exit(1)
        return b""

    monkeypatch.setattr(disk.verity, "digests", dying)
    with pytest.raises(Unavailable, match="worker"):
        seal(tmp_path / "f.disk", [folder(), file(b"f", noise(9 << 20))])
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_lane_is_told_without_its_words(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_WORTH_FORKING", 0)
    monkeypatch.setattr(lanes, "_single_threaded", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})

    def failing(_buffer, _count):
        raise ValueError("secret")

    monkeypatch.setattr(disk.verity, "digests", failing)
    with pytest.raises(Unavailable, match="ValueError") as caught:
        seal(tmp_path / "f.disk", [folder(), file(b"f", noise(9 << 20))])
    assert "secret" not in str(caught.value)


def test_progress_ends_with_everything(tmp_path):
    seen = []
    made = seal(tmp_path / "f.disk", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (made.data_bytes, made.data_bytes)
    assert seen == sorted(seen)


# --- small parts ---


def test_new_files_appear_whole_with_their_mode(tmp_path):
    before = os.umask(0o022)
    try:
        newfile.write(tmp_path / "f", b"hello", mode=0o640)
    finally:
        os.umask(before)
    assert (tmp_path / "f").read_bytes() == b"hello"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    with pytest.raises(Misuse, match="g: exists already"), newfile.create(tmp_path / "g"):
        (tmp_path / "g").write_bytes(b"theirs")
    assert (tmp_path / "g").read_bytes() == b"theirs"
    with pytest.raises(FileNotFoundError):
        newfile.write(tmp_path / "no" / "f", b"")


def test_keys_open_for_their_owner_alone():
    from strongroom.crypto import age

    mine, other = age.generate(), age.generate()
    locked = keys.lock(KEY, mine.recipient)
    assert keys.unlock(locked, mine) == KEY
    with pytest.raises(Refused, match="does not open with this identity"):
        keys.unlock(locked, other)
    with pytest.raises(Malformed, match="two halves are equal"):
        keys.unlock(age.seal((mine.recipient,), bytes(64)), mine)
    with pytest.raises(Malformed, match="disk key file: 1048576 bytes, expected at most 16384"):
        keys.unlock(bytes(1 << 20), mine)
    with pytest.raises(Malformed, match="two halves are equal"):
        keys.lock(bytes(64), mine.recipient)
    assert len(keys.new(os.urandom)) == xts.KEY_BYTES


def test_owner_is_the_digest_of_the_signing_key(tmp_path):
    assert seal(tmp_path / "f.disk", [folder()]).owner == digest.sha256(OWNER.public.raw)


def test_staged_folders_disappear_on_failure(tmp_path):
    with pytest.raises(FileNotFoundError), extract.staged(tmp_path / "out") as stage:
        (stage / "no such folder" / "f").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []
