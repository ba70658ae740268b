"""`up`, `ps`, `logs`, a second `up` and `down` with a real room: one file, one command, for one owner."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from strongroom_testing import ports
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
  datasets: {{rows: ./data}}
services:
  web:
    entrypoint: [/bin/busybox, httpd, -f, -p, "8080", -h, /data/rows]
    ports: ["{port}:8080"]
    restart: on-failure
    mem_limit: 256m
    x-strongroom: {{image: ./box, datasets: [rows], open: [8080]}}
  sum:
    command: ["-c", "wc -l /data/rows/table.csv; cp /data/rows/table.csv /out/"]
    mem_limit: 256m
    depends_on: {{web: {{condition: service_started}}}}
    x-strongroom: {{image: ./box, datasets: [rows], outputs: [{{path: /out}}]}}
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
    return {row["name"]: row for row in json.loads(typed("ps", "--json", place=place))}


def until(place, name, *states):
    """The row of a service once it is in one of `states`."""
    end = time.monotonic() + 300
    while (row := rows(place)[name])["state"] not in states:
        assert time.monotonic() < end, row
        time.sleep(0.5)
    return row


def fetched(port):
    """The page that the room serves, asked for as any client would."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/table.csv", timeout=60) as answer:
        return answer.read()


def test_a_file_comes_up_serves_heals_and_goes_down(tmp_path):
    image(tmp_path / "box")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/table.csv").write_text("1\n2\n3\n")
    port = ports.free()
    (tmp_path / "compose.yaml").write_text(FILE.format(port=port))
    state = tmp_path / ".strongroom"
    try:
        first = json.loads(typed("up", "-d", "--json", place=tmp_path))
        assert (first["changed"], first["simulated"], first["contract"]["version"]) == (
            ["web", "sum"],
            True,
            1,
        )
        assert fetched(port) == b"1\n2\n3\n"
        said = typed(
            "connect", "web:8080", "--contract", state / "contracts/1.json", "--at", state / "sockets/web:8080",
            "--trust", state / "owner.party.json", "--verify", "--json", place=tmp_path,
        )  # fmt: skip
        assert json.loads(said)["verification"]["status"] == "simulated"
        row = until(tmp_path, "sum", "done", "failed")
        assert (row["state"], row["starts"]) == ("done", 1), row
        assert "sum | 3 /data/rows/table.csv" in typed("logs", place=tmp_path)
        typed("proof", "export", state / "runs/sum/1", "--out", "sum.proof", place=tmp_path)
        typed("proof", "verify", "sum.proof", "--trust", state / "owner.party.json", place=tmp_path)
        for path in (state, state / "broker", state / "node"):
            assert path.stat().st_mode & 0o777 == 0o700
        # Again, nothing changed: no version of the contract, and no room.
        again = json.loads(typed("up", "-d", "--json", place=tmp_path))
        assert (again["changed"], again["contract"]) == ([], first["contract"])
        assert {name: row["starts"] for name, row in rows(tmp_path).items()} == {"web": 1, "sum": 1}
        # A room that is killed is started again, and so is the broker; the job that is done stays so.
        status = json.loads((state / "status.json").read_text())
        for child in (status["rooms"][0], status["broker"]):
            os.kill(child["pid"], signal.SIGKILL)
        until(tmp_path, "web", "pausing", "waiting", "starting")
        assert until(tmp_path, "web", "running", "failed")["starts"] == 2
        assert fetched(port) == b"1\n2\n3\n"
        assert rows(tmp_path)["sum"]["starts"] == 1
    finally:
        down = verbs.run("down", cwd=tmp_path)
    assert "everything has ended" in down.stdout
    # It was asked to end, and its room signed a last receipt.
    assert (max((state / "runs/web").iterdir(), key=lambda run: int(run.name)) / "receipt.json").exists()
    assert {name: row["state"] for name, row in rows(tmp_path).items()} == {"web": "stopped", "sum": "done"}
    assert json.loads((state / "status.json").read_text())["broker"]["pid"] == 0
