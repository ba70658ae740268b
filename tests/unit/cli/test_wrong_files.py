"""A good file in the wrong place: what it is stands in the answer, and what to type instead."""

from __future__ import annotations

import contextlib
import errno
import sys

import pytest

from strongroom import files
from strongroom.cli import failures, main
from strongroom.crypto import age
from strongroom.errors import Malformed, Refused
from strongroom_testing import packs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good file of each kind, as parties have them, an age file, and a sealed disk by its name."""
    path = tmp_path_factory.mktemp("files")
    (path / "world").mkdir()
    with packs.world(path / "world") as world:
        made = {
            "contract.json": world.agreement.encode(),
            "run.proof": world.pack().encode(),
            "alice.party.json": world.anchors[0].encode(),
            "bob.party.json": world.anchors[1].encode(),
            "flights.manifest.json": world.owners["alice"].manifest,
            "query.manifest.json": world.owners["bob"].manifest,
            "log.age": age.seal((age.generate().recipient,), b"text"),
            "flights.disk": bytes(2 << 20),
            "notes.txt": b"hello",
        }
    for name, data in made.items():
        (path / name).write_bytes(data)
    return path


def told(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["strongroom", *map(str, words)])
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")
    with pytest.raises(SystemExit) as left:
        main.main()
    return left.value.code, capsys.readouterr().err


def test_each_kind_of_file_is_known(folder):
    assert {path.name: files.kind(path) for path in folder.iterdir() if path.is_file()} == {
        "contract.json": "a contract",
        "run.proof": "a proof pack",
        "alice.party.json": "a party file",
        "bob.party.json": "a party file",
        "flights.manifest.json": "a disk's manifest",
        "query.manifest.json": "a disk's manifest",
        "log.age": "an age file (a key, a result or a log, sealed)",
        "flights.disk": "a sealed disk",
        "notes.txt": "",
    }
    assert files.kind(folder / "gone") == ""
    assert files.kind(folder) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("seal", "{}", "-i", "alice.party.json", "--name", "x"), "alice.party.json is a party file"),
        (("contract", "show", "flights.manifest.json"), "flights.manifest.json is a disk's manifest"),
        (("contract", "show", "alice.party.json"), "alice.party.json is a party file"),
        (("proof", "verify", "contract.json"), "contract.json is a contract"),
        (("ledger", "show", "log.age"), "log.age is an age file"),
        (("identity", "show", "run.proof"), "run.proof is a proof pack"),
        (("contract", "show", "notes.txt"), "is notes.txt the right file"),
        (("identity", "show", "flights.disk"), "is its manifest meant (flights.manifest.json)?"),
        (("open", "contract.json", "-i", "x"), "contract.json: is a contract, and nothing of it is sealed"),
        (("open", ".", "-i", "x"), ".: is a folder"),
        (("preflight", "flights.disk"), "flights.disk: is a sealed disk, and no image"),
        (("preflight", "flights.disk"), "give the image that it was made from"),
        (("preflight", "alice.party.json"), "alice.party.json: is a party file, and no image"),
    ],
)
def test_a_wrong_file_is_named_for_what_it_is(folder, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(folder)
    words = tuple(str(folder / "world") if word == "{}" else word for word in words)
    code, said = told(monkeypatch, capsys, *words)
    assert code == 2
    assert expected in said


def test_a_sealed_disk_opens_though_it_is_known_for_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    for words in (
        ("identity", "new", "alice"),
        ("seal", "data", "-i", "alice.identity", "--name", "x"),
        ("open", "x.disk", "-i", "alice.identity", "--out", "opened"),
    ):
        assert told(monkeypatch, capsys, *words)[0] in (0, None), words
    assert (tmp_path / "opened" / "a").read_text() == "1"


def test_a_wrong_passphrase_names_the_identity_and_an_identity_does_not_say_that_there_is_no_broker(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    assert told(monkeypatch, capsys, "identity", "new", "alice", "--out", "keys")[0] in (0, None)
    monkeypatch.setattr(sys, "argv", ["strongroom", "identity", "show", "keys/alice.identity"])
    with contextlib.suppress(SystemExit):
        main.main()
    shown = capsys.readouterr().out
    assert "in the party file alone: strongroom identity show keys/alice.party.json" in shown
    assert "none" not in shown
    monkeypatch.setattr(
        sys, "argv", ["strongroom", "seal", "data", "-i", "keys/alice.identity", "--name", "x"]
    )
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "another")
    with pytest.raises(SystemExit) as left:
        main.main()
    assert left.value.code == 3
    assert "error [wrong-passphrase]: keys/alice.identity: " in capsys.readouterr().err


def test_the_node_of_a_contract_is_no_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "node").mkdir()
    said = told(
        monkeypatch, capsys, "contract", "new", "c", "--out", "c.json", "--party", "data-owner=alice.party.json",
        "--party", "program-owner=bob.party.json", "--dataset", "flights.manifest.json",
        "--image", "query.manifest.json", "--node", "node",
    )  # fmt: skip
    assert said[0] == 2
    assert "strongroom node show node --json >node.json" in said[1]


def test_nobody_is_told_to_remove_the_only_key(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert told(monkeypatch, capsys, "identity", "new", "alice")[0] in (0, None)
    kept = (tmp_path / "alice.identity").read_bytes()
    code, said = told(monkeypatch, capsys, "identity", "new", "alice")
    assert code == 2
    assert "remove it" not in said
    assert "keep it, and name another" in said
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_text("1")
    assert told(monkeypatch, capsys, "seal", "data", "-i", "alice.identity", "--name", "x")[0] in (0, None)
    (tmp_path / "x.disk").unlink()
    (tmp_path / "x.manifest.json").unlink()
    code, said = told(monkeypatch, capsys, "seal", "data", "-i", "alice.identity", "--name", "x")
    assert "x.key.age: exists already" in said
    assert "remove it" not in said
    assert (tmp_path / "alice.identity").read_bytes() == kept


def test_what_is_no_age_file_is_not_called_anothers():
    with pytest.raises(Malformed, match=r"expected one, which begins with age-encryption\.org"):
        age.generate().open(bytes(300))
    with pytest.raises(Refused, match="does not open with this identity") as refused:
        age.generate().open(age.seal((age.generate().recipient,), b"x"))
    assert "contract show" in refused.value.hint


def test_a_second_broker_says_whom_the_party_file_named_before(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert told(monkeypatch, capsys, "identity", "new", "alice")[0] in (0, None)
    init = ("broker", "init", "-i", "alice.identity", "--listen", "127.0.0.1:1", "--url")
    assert told(monkeypatch, capsys, *init, "https://one.example:1", "one") == (0, "")
    code, said = told(monkeypatch, capsys, *init, "https://two.example:1", "two")
    assert code == 0
    assert "alice.party.json named the broker at https://one.example:1 until now" in said


def test_an_empty_folder_is_sealed_with_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert told(monkeypatch, capsys, "identity", "new", "alice")[0] in (0, None)
    (tmp_path / "data").mkdir()
    said = told(monkeypatch, capsys, "seal", "data", "-i", "alice.identity", "--name", "x")
    assert said == (0, "note: no file is in data: the disk is empty\n")
    (tmp_path / "data" / "a").write_text("1")
    assert told(monkeypatch, capsys, "seal", "data", "-i", "alice.identity", "--name", "y") == (0, "")


def test_a_full_disk_without_a_name_says_where_to_look(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left, failures.reported():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert left.value.code == 4
    assert "hint: make room where this command writes" in capsys.readouterr().err


def test_a_pack_judged_without_an_anchor_is_not_said_to_be_false(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, said = told(monkeypatch, capsys, "proof", "verify", "run.proof")
    assert code == 3
    assert "error [proof-fails]: nobody can say whether the proof holds: it agrees with itself" in said
    assert "--trust" in said
    code, said = told(
        monkeypatch,
        capsys,
        "proof",
        "verify",
        "run.proof",
        "--trust",
        "bob.party.json",
        "--trust",
        "alice.party.json",
    )
    assert code in (0, None)
