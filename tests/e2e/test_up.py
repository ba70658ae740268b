"""`up`, `ps`, `logs`, a second `up` and `down` with a real room: one file, one command, for one owner."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests import verbs
from tests.e2e import real_rooms
from tests.unit.images import kit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.room,
    pytest.mark.root,  # for the memory guard
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]
FILE = """\
name: rows
x-strongroom:
  datasets: {rows: ./data}
services:
  sum:
    command: ["-c", "wc -l /data/rows/table.csv; cp /data/rows/table.csv /out/"]
    restart: on-failure
    x-strongroom:
      image: ./box
      wall_seconds: 120
      datasets: [rows]
      outputs: [{path: /out}]
"""


def image(place: Path) -> None:
    """busybox as an OCI layout."""
    parts = kit.folder(b"bin/") + kit.entry(b"bin/busybox", real_rooms.BUSYBOX.read_bytes(), mode=0o755)
    for name in real_rooms.APPLETS:
        parts += kit.symlink(b"bin/" + name.encode(), b"busybox")
    parts += kit.symlink(b"bin/cp", b"busybox")
    kit.simple(place, parts, config={"Entrypoint": ["/bin/sh"], "Env": ["PATH=/bin"]})


def typed(*words, place, code=0):
    done = verbs.run(*words, cwd=place, timeout=500)
    assert done.returncode == code, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def rows(place):
    (row,) = json.loads(typed("ps", "--json", place=place))
    return row


def ended(place):
    until = time.monotonic() + 300
    while (row := rows(place))["state"] not in ("done", "failed"):
        assert time.monotonic() < until, row
        time.sleep(0.5)
    return row


def test_a_file_comes_up_heals_changes_and_goes_down(tmp_path):
    image(tmp_path / "box")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/table.csv").write_text("1\n2\n3\n")
    (tmp_path / "compose.yaml").write_text(FILE)
    state = tmp_path / ".strongroom"
    try:
        first = json.loads(typed("up", "-d", "--json", place=tmp_path))
        assert (first["changed"], first["simulated"], first["contract"]["version"]) == (["sum"], True, 1)
        row = ended(tmp_path)
        assert (row["state"], row["starts"]) == ("done", 1), row
        assert "sum | 3 /data/rows/table.csv" in typed("logs", place=tmp_path)
        run = state / "runs/sum/1"
        typed("proof", "export", run, "--out", "sum.proof", place=tmp_path)
        assert "sum" in typed(
            "proof", "verify", "sum.proof", "--trust", state / "owner.party.json", place=tmp_path
        )
        for path in (state, state / "broker", state / "node"):
            assert path.stat().st_mode & 0o777 == 0o700
        # Again, nothing changed: no version of the contract, and no room.
        again = json.loads(typed("up", "-d", "--json", place=tmp_path))
        assert (again["changed"], again["contract"]) == ([], first["contract"])
        assert [path.name for path in (state / "runs/sum").iterdir()] == ["1"]
        # Other terms: the next version, a new room; and a room that is killed is started again.
        (tmp_path / "compose.yaml").write_text(FILE.replace("wc -l", "sleep 3; wc -c"))
        changed = json.loads(typed("up", "-d", "--json", place=tmp_path))
        assert (changed["changed"], changed["contract"]["version"]) == (["sum"], 2)
        (running,) = json.loads((state / "status.json").read_text())["rooms"]
        os.kill(running["pid"], signal.SIGKILL)
        row = ended(tmp_path)
        assert (row["state"], row["starts"]) == ("done", 3), row
        assert "sum | 6 /data/rows/table.csv" in typed("logs", place=tmp_path)
    finally:
        down = verbs.run("down", cwd=tmp_path)
    assert "everything has ended" in down.stdout
    assert rows(tmp_path)["state"] == "done"
    assert json.loads((state / "status.json").read_text())["broker"]["pid"] == 0
