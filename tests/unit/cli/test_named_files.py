"""What is wrong is said of the file or the option that was typed, and with what to do next."""

from __future__ import annotations

import json
import sys

import pytest

from strongroom.bases import document
from strongroom.cli import main


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "right")
    monkeypatch.setenv("STRONGROOM_NEW_PASSPHRASE", "new")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["strongroom", *words])
        try:
            main.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        return code, capsys.readouterr().err

    return run


def test_a_wrong_passphrase_names_the_brokers_file(told, tmp_path, monkeypatch):
    told("identity", "new", "alice")
    assert told("broker", "init", "b", "-i", "alice.identity")[0] == 0
    assert told("identity", "rotate", "alice.identity", "--out", "new")[0] == 0
    (statement,) = (str(path) for path in tmp_path.rglob("*.rotation.json"))
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "another")
    for words in (("passwd", "b"), ("rotate-identity", "b", statement)):
        code, said = told("broker", *words)
        assert (code, "error [wrong-passphrase]: b/broker.json: " in said) == (3, True), said


def test_an_image_that_is_none_is_named_as_it_was_typed(told, tmp_path):
    told("identity", "new", "alice")
    (tmp_path / "x.tar").write_text("x")
    convert = ("convert", "-i", "alice.identity", "--name", "program")
    code, said = told(*convert, "x.tar")
    assert (code, "error [not-an-image]: x.tar: not an image archive: " in said) == (2, True), said
    code, said = told(*convert, "sub/../gone")
    assert (code, "error [no-such-file]: sub/../gone: no such file" in said) == (5, True), said


def test_what_an_image_holds_wrongly_is_said_of_the_image(told, tmp_path):
    told("identity", "new", "alice")
    (tmp_path / "root").mkdir()
    (tmp_path / "c.json").write_text(json.dumps({"config": {"Entrypoint": ["/x"], "User": "bob"}}))
    code, said = told("convert", "root", "-i", "alice.identity", "--name", "p", "--config", "c.json")
    assert (code, "error [unknown-user]: root: image: its user 'bob'" in said) == (3, True), said


def test_measure_names_the_firmware_and_the_option(told, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for name in (document.KERNEL, document.INITRD, document.CMDLINE):
        (base / name).write_bytes(b"x")
    (tmp_path / "OVMF.fd").write_bytes(bytes(5000))
    measure = ("measure", "base", "--for", "snp", "--vcpus", "1")
    code, said = told(*measure, "--vcpu-type", "EPYC", "--ovmf", "OVMF.fd")
    assert (code, "OVMF.fd: firmware: not whole pages" in said, "give a whole OVMF image" in said) == (
        2,
        True,
        True,
    ), said
    code, said = told(*measure, "--vcpu-type", "EPYC", "--ovmf", "none.fd")
    assert (code, "none.fd: " in said, "base build" in said) == (5, True, False), said
    code, said = told(*measure, "--vcpu-type", "i486", "--ovmf", "OVMF.fd")
    assert (code, "--vcpu-type 'i486'" in said, "EPYC-Milan" in said) == (2, True, True), said


def test_two_things_of_one_name_are_named_as_they_were_typed(told, tmp_path):
    told("identity", "new", "alice")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text("1")
    code, said = told("seal", "a/x", "b/x", "-i", "alice.identity", "--name", "d")
    assert (code, "a/x, b/x" in said) == (2, True), said


def test_a_link_that_leads_out_says_whereto(told, tmp_path):
    told("identity", "new", "alice")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "out").symlink_to("/etc/passwd")
    code, said = told("seal", "a", "-i", "alice.identity", "--name", "d")
    assert (code, "symlink 'out' leads outside the sealed folder, or in a circle: to '/etc/passwd'" in said) == (3, True), said  # fmt: skip
