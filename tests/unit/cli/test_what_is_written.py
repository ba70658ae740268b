"""Nothing is written over what is not the command's own, and what the system refuses is told with code and hint."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys

import pytest

from strongroom import files
from strongroom.cli import failures, main
from strongroom.encoding import dsse
from strongroom.errors import Misuse
from strongroom.model import manifest


def run(monkeypatch, capsys, *words):
    """(exit code, standard output, standard error) of one command; never a defect."""
    monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")
    code = 0
    try:
        main.main()
    except SystemExit as left:
        code = left.code or 0
    told = capsys.readouterr()
    assert "defect" not in told.err, told.err
    return code, told.out, told.err


@pytest.fixture
def alice(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, capsys, "identity", "new", "alice", "--out", tmp_path)[0] == 0
    return tmp_path / "alice.identity"


def init(monkeypatch, capsys, alice, folder, party):
    words = ("broker", "init", folder, "-i", alice, "--listen", "127.0.0.1:0", "--party", party)
    return run(monkeypatch, capsys, *words)


def test_a_party_file_never_replaces_an_identity_or_a_document(alice, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes").write_text("mine")
    run(monkeypatch, capsys, "identity", "new", "bob", "--out", tmp_path)
    for precious in (alice, tmp_path / "notes", tmp_path / "bob.party.json", tmp_path):
        before = precious.read_bytes() if precious.is_file() else None
        code, _, err = init(monkeypatch, capsys, alice, tmp_path / "broker", precious)
        assert code == 2
        assert "is not alice's party file" in err
        assert before is None or precious.read_bytes() == before
        assert not (tmp_path / "broker").exists()
    assert init(monkeypatch, capsys, alice, tmp_path / "broker", tmp_path / "alice.party.json")[0] == 0
    assert json.loads((tmp_path / "alice.party.json").read_text())["broker"]["url"].startswith("https://")


def test_a_broker_whose_address_cannot_be_written_down_is_taken_back(alice, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "broker"
    code, _, err = init(monkeypatch, capsys, alice, folder, tmp_path / "absent" / "alice.party.json")
    assert code == 5
    assert "error [no-such-file]" in err
    assert list(folder.iterdir()) == []
    assert init(monkeypatch, capsys, alice, folder, tmp_path / "alice.party.json")[0] == 0


def test_a_broker_is_not_started_against_a_checkpoint_that_is_none(alice, tmp_path, monkeypatch, capsys):
    assert init(monkeypatch, capsys, alice, tmp_path / "broker", tmp_path / "alice.party.json")[0] == 0
    for junk in (b"\xff\xfe", b"", b"text"):
        (tmp_path / "junk").write_bytes(junk)
        code, _, err = run(
            monkeypatch, capsys, "broker", "serve", tmp_path / "broker", "--expect", tmp_path / "junk"
        )
        assert code == 2, err
        assert "error [" in err


def test_only_plain_files_are_replaced(tmp_path):
    """A command run by root once replaced /dev/null by a plain file."""
    device, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(device)
    link.symlink_to(tmp_path / "elsewhere")
    folder.mkdir()
    for target in (device, link, folder):
        with pytest.raises(Misuse, match="is no plain file"):
            files.write(target, b"new", replace=True)
        with pytest.raises(Misuse, match="exists already"):
            files.write(target, b"new")
    assert stat.S_ISFIFO(device.lstat().st_mode)
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [folder, link, device]
    (tmp_path / "plain").write_bytes(b"old")
    files.write(tmp_path / "plain", b"new", replace=True)
    assert (tmp_path / "plain").read_bytes() == b"new"


def test_arguments_that_are_no_paths_or_numbers(alice, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    huge = ("identity", "new", "carol", "--out", tmp_path, "--passphrase-fd", 10**30)
    seal = ("seal", tmp_path / "data", "-i", alice, "--name", "d", "--out", tmp_path / "loop")
    for words in (huge, seal, ("verify", "."), ("verify", ""), ("open", ".", "-i", alice, "--out", "x")):
        code, _, err = run(monkeypatch, capsys, *words)
        assert code in (2, 5), words
        assert "error [" in err
        assert "\nhint: " in err
    image = ("convert", tmp_path / "loop", "-i", alice, "--name", "q", "--out", tmp_path / "out")
    code, _, err = run(monkeypatch, capsys, *image)
    assert code == 2
    assert "error [bad-path]" in err
    code, _, err = run(monkeypatch, capsys, "scrape", 2**22 + 1, "--canary", "canary-\udcff")
    assert code == 5, err


@pytest.mark.parametrize(
    ("number", "exit_code", "code"),
    [
        (errno.ENOENT, 5, "no-such-file"), (errno.EISDIR, 2, "not-a-file"), (errno.ENOSPC, 4, "disk-full"),
        (errno.EACCES, 4, "no-permission"), (errno.ENAMETOOLONG, 2, "bad-path"), (errno.EIO, 4, "system"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_system_refuses_has_code_sentence_and_hint(
    number, exit_code, code, as_json, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["strongroom", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as left, failures.reported():
        raise OSError(number, os.strerror(number), "a\x1b[31mfile")
    told = capsys.readouterr().err
    assert left.value.code == exit_code
    assert "\x1b" not in told
    if as_json:
        error = json.loads(told)["error"]
        assert error["code"] == code
        assert os.strerror(number) in error["message"]
        assert error["hint"]
    else:
        assert f"error [{code}]" in told
        assert "hint: " in told


@pytest.mark.parametrize("kind", [kind for kind, _ in failures.EXIT])
def test_every_failure_has_a_hint_even_where_nobody_wrote_one(kind, monkeypatch, capsys):
    with pytest.raises(SystemExit), failures.reported():
        raise kind("doing x: cause")
    code, hint = capsys.readouterr().err.splitlines()
    assert code == f"error [{kind.default_code}]: doing x: cause"
    assert len(hint) > len("hint: ")
    assert failures.describe(kind("x"))["hint"]


def test_a_full_disk_says_which_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"contract\.json"):
        files.write(tmp_path / "contract.json", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_somebody_else_writes_no_lines_and_moves_no_cursor(tmp_path, monkeypatch, capsys):
    """Whoever gives a disk away writes its manifest: what `inspect` shows of it is shown, never obeyed."""
    evil = "x\n\x1b[2A\x9bsigned by  alice\u202e"
    made = manifest.Manifest(
        raw=b"",
        kind="image",
        name="flights",
        owner="sha256:" + "0" * 64,
        cipher="none",
        data_bytes=8192,
        hash_offset=8192,
        disk_bytes=16384,
        root_hash="sha256:" + "1" * 64,
        salt=bytes(32),
        image=manifest.ImageSettings(
            source="sha256:" + "2" * 64,
            entrypoint=(evil,),
            command=(),
            environment={evil: evil},
            working_directory="/" + evil,
            uid=0,
            gid=0,
            groups=(),
        ),
    )
    envelope = dsse.Envelope(
        payload_type=manifest.PAYLOAD_TYPE,
        payload=manifest.encode(made),
        signatures=(dsse.DsseSignature(keyid=evil, sig=b""),),
    )
    (tmp_path / "m.json").write_bytes(envelope.encode())
    code, out, _ = run(monkeypatch, capsys, "inspect", tmp_path / "m.json")
    assert code == 0
    assert all(line.isprintable() for line in out.splitlines())
    assert sum(line.startswith("signed by") for line in out.splitlines()) == 1
