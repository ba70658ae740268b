"""What each verb needs: every verb has its row, each lack is told with what to type, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from strongroom import extras
from strongroom.errors import Unavailable
from strongroom.node import doctor, requirements
from tests.pages import command_lines


def machine(tmp_path, lacks=(), **changes):
    """A machine with everything that is not a device of its own, but for `changes`."""
    for name in ("dev/loop-control", "usr/bin/apt-get", "usr/bin/apt-cache", "usr/bin/dpkg-deb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in lacks:
            (tmp_path / name).touch()
    host = doctor.Host(root=tmp_path, ask=lambda _: "", kvm=lambda _: False)
    whole = {
        "host": host,
        "which": lambda name: f"/usr/bin/{name}",
        "imports": lambda _: True,
        "root": lambda: True,
        "python": requirements.PYTHON,
    }
    return requirements.MachineFacts(**whole | changes)


def unable(found):
    return {verb for row in found for verb in row.verbs if not row.able}


ROOMS = {"up", "run --backend tpm", "run --backend qemu-snp", "run --backend qemu-tdx", "run --backend nitro"}


@pytest.mark.parametrize("path", [path[1:] for path, _ in command_lines.verbs()], ids=" ".join)
def test_every_verb_has_its_row(tmp_path, path):
    rows = requirements.rows_of(requirements.examine(machine(tmp_path)), path)
    assert len(rows) == (len(ROOMS) - 1 if path == ("run",) else 1)


def test_every_row_is_of_a_verb(tmp_path):
    known = {" ".join(path[1:][:count]) for path, _ in command_lines.verbs() for count in (1, 2)}
    rows = requirements.examine(machine(tmp_path))
    assert {verb.partition(" --")[0] for row in rows for verb in row.verbs} <= known


def test_a_machine_that_has_it_all_lacks_devices_alone(tmp_path):
    assert unable(requirements.examine(machine(tmp_path))) == ROOMS


PAUSE = ("pause", "resume")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"which": lambda _: None}, {"node init"}),
        ({"lacks": ("usr/bin/dpkg-deb",)}, {"base build", "base verify"}),
        ({"lacks": ("dev/loop-control",)}, {"try"}),
        ({"root": lambda: False}, {"try"}),
        ({"python": (3, 12)}, {"base build", "base verify"}),
        (
            {"imports": lambda name: name != "pyrage"},
            {*PAUSE, "identity", "seal", "open", "convert", "base build", "base verify", "broker", "join"},
        ),
        ({"imports": lambda name: name not in ("sqlalchemy", "orjson")}, {"broker", *PAUSE}),
        (
            {"imports": lambda name: name not in ("yaml", "sigstore")},
            {*PAUSE, "init", "ps", "logs", "restart", "down", "join"},
        ),
        ({"imports": lambda name: name != "cyclonedx"}, {"base build", "base verify"}),
    ],
    ids=[
        "no programs",
        "no Debian",
        "no loop devices",
        "no root",
        "Python 3.12",
        "no pyrage",
        "no database",
        "no compose",
        "no sbom",
    ],
)
def test_what_is_not_there_is_lacking_for_these_verbs_and_no_other(tmp_path, changes, wanted):
    found = requirements.examine(machine(tmp_path, **changes))
    assert unable(found) == wanted | ROOMS
    assert all(need.fix and need.found for row in found for need in row.lacks)


def test_what_can_be_done_without_is_told_and_keeps_nothing_from_working(tmp_path):
    rows = requirements.examine(machine(tmp_path, imports=lambda name: name != "yaml"))
    (row,) = requirements.rows_of(rows, ("preflight",))
    assert row.able
    assert [(need.name, need.fix) for need in row.lacks] == [
        ("Python package yaml", extras.install("compose"))
    ]


def told(*words, **environment):
    line = [sys.executable, "-m", "strongroom.cli.main", "doctor", *words]
    full = {**os.environ, **environment}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=full)


def test_with_an_empty_path_programs_are_told_with_what_to_type():
    done = told("node", "init", PATH="")
    assert done.returncode == 4
    assert "NO  swtpm: not on PATH\n        apt-get install swtpm" in done.stdout
    assert "error [verb-unable]: this machine cannot do node init: swtpm: not on PATH" in done.stderr
    done = told("--json", PATH="")
    assert done.returncode == 0
    rows = json.loads(done.stdout)["verbs"]
    assert [row["able"] for row in rows if "evidence" in row["verbs"]] == [True]
    assert [row["able"] for row in rows if "node init" in row["verbs"]] == [False]


def test_a_verb_that_there_is_not_is_misuse():
    done = told("sael")
    assert done.returncode == 2
    assert "no verb 'sael'" in done.stderr


def test_a_verb_that_no_row_of_it_can_do_is_refused_with_what_to_type(tmp_path):
    need = doctor.Need(name="swtpm", ok=False, found="not installed", fix="apt-get install swtpm")
    good = requirements.Row(verbs=("run --backend tpm",))
    bad = requirements.Row(verbs=("run --backend nitro",), needs=(need,))
    requirements.require((bad, good), ("run",))
    with pytest.raises(Unavailable, match="cannot do run --backend nitro: swtpm: not installed") as caught:
        requirements.require((bad,), ("run", "--backend", "nitro"))
    assert (caught.value.code, caught.value.hint) == ("verb-unable", need.fix)
