"""`join`: each party makes its part of one file, and the file becomes a contract that both sign. Eight commands in all, with the run."""

from __future__ import annotations

import shutil

import pytest

from strongroom.parties import papers
from tests import verbs
from tests.unit.images import kit

FILE = """\
name: flights
x-strongroom:
  parties:
    alice: {role: data-owner, file: alice.party.json, seals: {flights: ./secret}}
    bob: {role: program-owner, file: bob.party.json}
  datasets: {flights: flights.manifest.json}
  platforms: {simulated: true, bases: [base], nodes: [node.json]}
services:
  query:
    command: ["--all"]
    x-strongroom:
      owner: bob
      image: ./query
      manifest: query.manifest.json
      datasets: [flights]
      outputs: [{path: /out, to: [bob]}]
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "compose.yaml").write_text(FILE)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/rows").write_text("1\n")
    kit.simple(tmp_path / "query", kit.PROGRAM)
    # A base is there already: it is not built here.
    (tmp_path / "base").mkdir()
    digests = ", ".join(
        f'"{name}": "sha256:{"ab" * 32}"' for name in ("firmware", "kernel", "initrd", "cmdline")
    )
    (tmp_path / "base/base.json").write_text(f'{{"reference": {{{digests}, "machine": "q35"}}}}')
    return tmp_path


def typed(place, *words, code=0):
    done = verbs.run(*words, cwd=place)
    assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_each_makes_its_part_and_both_sign_what_the_file_says(place):
    alice = typed(place, "join", "--as", "alice")
    handed = [line.rpartition("/")[2] for line in alice.splitlines() if line.startswith("hand around  ")]
    assert handed == ["alice.party.json", "flights.manifest.json", "flights.disk"]
    assert "strongroom broker serve" in alice
    assert not (place / "query.disk").exists()
    early = typed(place, "contract", "new", "--compose", "compose.yaml", "--out", "contract.json", code=5)
    assert "compose.yaml needs bob.party.json, which is not there" in early
    assert "strongroom join --as NAME" in early
    bob = typed(place, "join", "--as", "bob", "--operate")
    assert "broker serve" not in bob
    typed(place, "contract", "new", "--compose", "compose.yaml", "--out", "contract.json")
    for name, other in (("alice", "bob"), ("bob", "alice")):
        typed(
            place,
            "contract",
            "sign",
            "contract.json",
            "-i",
            f"{name}.identity",
            "--trust",
            f"{other}.party.json",
            "--yes",
        )
    contract = papers.load_agreement(place / "contract.json").contract
    (room,) = contract.rooms
    assert (room.name, room.image.owner, room.image.arguments) == ("query", "bob", ("--all",))
    assert [(data.name, data.owner) for data in room.datasets] == [("flights", "alice")]
    assert contract.party("alice").broker is not None
    assert contract.party("bob").broker is None
    assert "approved yes" in typed(place, "contract", "verify", "contract.json")
    status = typed(place, "broker", "status", "alice.broker")
    assert "with its key" in status
    assert (place / "alice.identity").stat().st_mode & 0o777 == 0o600


def test_who_joins_again_makes_nothing_twice(place):
    typed(place, "join", "--as", "alice")
    before = {path.name: path.read_bytes() for path in place.glob("*.json")}
    again = typed(place, "join", "--as", "alice")
    assert {path.name: path.read_bytes() for path in place.glob("*.json")} == before
    assert "sealing" not in again


def test_who_is_no_party_joins_nothing(place):
    assert "error [unknown-party]: --as carol" in typed(place, "join", "--as", "carol", code=2)
    assert not list(place.glob("*.identity"))


def test_a_party_file_has_its_partys_name(place):
    (place / "compose.yaml").write_text(FILE.replace("file: bob.party.json", "file: robert.json"))
    assert "expected bob.party.json" in typed(place, "join", "--as", "bob", code=2)


def test_data_that_is_sealed_for_nobody_is_refused(place):
    (place / "compose.yaml").write_text(
        FILE.replace("datasets: {flights: flights.manifest.json}", "datasets: {flights: ./secret}")
    )
    assert "is sealed into a manifest that the file does not name" in typed(
        place, "join", "--as", "alice", code=3
    )
