"""What `up` makes, and what it makes again: a version of the contract where terms differ, a disk where its content did."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.bases.build import BuiltBase
from strongroom.errors import Misuse, NotFound, Refused, Unavailable
from strongroom.node import run_status
from strongroom.parties import papers
from strongroom.project import file, folder, prepare
from strongroom.project import plan as plans
from strongroom.project.plan import ChildState, ChildStatus, SupervisorStatus
from tests.unit.images import kit

NOW = datetime(2026, 12, 1, tzinfo=UTC)
FILE = """\
name: shop
x-strongroom:
  datasets: {rows: ./rows}
  platforms: {memory_guard: false}
services:
  web:
    command: [serve]
    ports: ["8443:443"]
    x-strongroom: {image: ./box, open: [443], datasets: [rows]}
  app:
    expose: [8000]
    x-strongroom: {image: ./box}
  job:
    x-strongroom: {image: ./box}
"""


class Place:
    """A folder with a Compose file, and a base that is built at once."""

    def __init__(self, path, monkeypatch) -> None:
        self.path, self.said = path, []
        kit.simple(path / "box", kit.PROGRAM)
        (path / "rows").mkdir()
        (path / "rows/table").write_text("1\n")
        built = path / "cache/base/0123456789abcdef0123"
        built.mkdir(parents=True)
        digests = ", ".join(
            f'"{name}": "sha256:{"ab" * 32}"' for name in ("firmware", "kernel", "initrd", "cmdline")
        )
        (built / "base.json").write_text(f'{{"reference": {{{digests}, "machine": "q35"}}}}')
        monkeypatch.setattr(
            "strongroom.bases.build.build_bases",
            lambda _profiles, **_more: (BuiltBase(folder=built, base=None, cached=True),),
        )
        monkeypatch.setattr(
            "strongroom.bases.cache.copy", lambda source, out, **_more: out.symlink_to(source)
        )

        # Where rooms are published is looked at, and this machine's ports are not these tests'.
        self.listened: list[str] = []
        monkeypatch.setattr("strongroom.node.network.addresses.listen", self.listen)
        self.supervised = True
        monkeypatch.setattr(folder.StateFolder, "is_supervised", lambda _folder: self.supervised)

    def listen(self, address, what):
        self.listened.append(f"{what} {address}")
        return socket.socket(), address

    def up(self, text=FILE, *, now=NOW):
        (self.path / "compose.yaml").write_text(text)
        compose = self.path / "compose.yaml"
        around = prepare.Surroundings(cache=self.path / "cache", now=now, say=self.said.append)
        return prepare.prepare(compose, file.load(compose), around=around)


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_everything_is_made_once(place):
    first = place.up()
    assert (first.drafted, first.changed, first.contract.version) == (True, ("web", "app", "job"), 1)
    assert papers.load_agreement(first.contract_file).approved()
    assert first.contract.simulated
    assert first.folder.path.stat().st_mode & 0o777 == 0o700
    (platform,) = first.contract.platforms
    assert (platform.memory_guard, first.contract.limits.runs) == (False, prepare.RUNS)
    place.said.clear()
    again = place.up()
    assert (again.drafted, again.changed, again.contract) == (False, (), first.contract)
    assert again.plan == first.plan
    assert not [step for step in place.said if "base" not in step]


def test_the_owner_alone_reads_logs_and_outputs_where_nobody_is_named(place):
    contract = place.up(
        FILE.replace("{image: ./box}\n  job", "{image: ./box, outputs: [{path: /out}]}\n  job")
    ).contract
    assert contract.room("app").logs.recipients == ("owner",)
    assert contract.room("app").outputs[0].recipients == ("owner",)


def test_other_terms_are_the_next_version_and_the_other_rooms_go_on(place):
    first = place.up()
    second = place.up(FILE.replace("[serve]", "[serve, --fast]"))
    assert (second.drafted, second.changed, second.contract.version) == (True, ("web",), 2)
    assert second.contract.replaces == first.contract.digest
    generations = {room.name: room.generation for room in second.plan.rooms}
    assert generations == {"web": 2, "app": 1, "job": 1}
    # What goes on is started under the newest version the next time: brokers refuse every lower one.
    assert {room.contract for room in second.plan.rooms} == {
        second.contract_file.relative_to(second.folder.path)
    }


def test_where_a_port_is_published_is_no_term_of_the_contract(place):
    first = place.up()
    second = place.up(FILE.replace("8443:443", "9443:443"))
    assert (second.drafted, second.changed) == (False, ("web",))
    assert second.contract == first.contract
    assert second.plan.room("web").published == {"443": "127.0.0.1:9443"}


def test_rooms_that_reach_each_other_change_together(place):
    talking = FILE.replace("    command: [serve]", "    command: [serve]\n    depends_on: [app]")
    assert set(place.up(talking).changed) == {"web", "app", "job"}
    assert place.up(talking.replace("[serve]", "[other]")).changed == ("app", "web")


def test_data_that_changed_is_sealed_anew(place):
    place.up()
    table = place.path / "rows/table"
    os.utime(table, ns=(1, 1))
    assert place.up().changed == ("web",)
    table.write_text("2\n2\n")
    changed = place.up()
    assert (changed.changed, changed.contract.version) == (("web",), 3)


def test_a_contract_that_ends_soon_has_a_next_version(place):
    place.up()
    assert not place.up(now=NOW + timedelta(days=20)).drafted
    renewed = place.up(now=NOW + timedelta(days=25))
    assert (renewed.drafted, renewed.changed, renewed.contract.version) == (True, (), 2)


def test_after_down_everything_is_started(place):
    first = place.up()
    plans.write_plan(
        first.folder, plans.Plan(broker="https://127.0.0.1:9", rooms=first.plan.rooms, down=True)
    )
    again = place.up()
    assert (again.drafted, again.changed) == (False, ("web", "app", "job"))
    assert {room.generation for room in again.plan.rooms} == {2}


def test_what_nobody_keeps_up_is_started(place):
    place.up()
    place.supervised = False
    assert place.up().changed == ("web", "app", "job")


def test_what_failed_is_started_again_and_a_job_that_is_done_is_not(place):
    first = place.up()
    states = {"web": ChildState.RUNNING, "app": ChildState.FAILED, "job": ChildState.DONE}
    children = tuple(ChildStatus(name=name, state=state) for name, state in states.items())
    broker = ChildStatus(name="broker", state=ChildState.RUNNING)
    plans.write_status(first.folder, SupervisorStatus(pid=1, broker=broker, rooms=children))
    again = place.up()
    assert (again.drafted, again.changed) == (False, ("app",))


def test_what_fails_is_tried_again_the_next_time(place, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("strongroom.wiring.owner.admit_contract", _fails)
        with pytest.raises(Unavailable, match="full"):
            place.up()
    assert place.up().contract.version == 1
    with monkeypatch.context() as broken:
        broken.setattr("strongroom.seal.dataset.seal_files", _fails)
        (place.path / "rows/more").write_text("x")
        with pytest.raises(Unavailable, match="full"):
            place.up()
    assert not list((place.path / ".strongroom/datasets").glob(".new-*"))
    assert place.up().changed == ("web",)


def _fails(*_words, **_more):
    raise Unavailable("the disk is full")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("memory_guard: false", "memory_guard: false, simulated: false", "only-simulated"),
        ("memory_guard: false", "memory_guard: false, references: [snp.json]", "only-simulated"),
        ("memory_guard: false", "memory_guard: false, bases: [base]", "only-own-node"),
    ],
)
def test_what_up_does_not_do_is_said_before_anything_is_made(place, old, new, code):
    with pytest.raises(Misuse) as refused:
        place.up(FILE.replace(old, new))
    assert refused.value.code == code
    assert not folder.beside(place.path / "compose.yaml").path.exists()


def test_without_the_rights_for_the_guard_it_says_so(place, monkeypatch):
    monkeypatch.setattr("strongroom.node.guard.launch.supported", lambda: "this process lacks CAP_SYS_PTRACE")
    with pytest.raises(Unavailable, match="lacks CAP_SYS_PTRACE") as refused:
        place.up(FILE.replace("  platforms: {memory_guard: false}\n", ""))
    assert refused.value.code == "no-memory-guard"


def test_a_file_that_blocks_makes_nothing(place):
    with pytest.raises(Refused, match="privileged"):
        place.up(FILE.replace("    expose: [8000]", "    expose: [8000]\n    privileged: true"))
    assert not folder.beside(place.path / "compose.yaml").path.exists()


def test_paths_that_lead_nowhere_are_said_together_before_anything_is_made(place):
    wrong = FILE.replace("./box, open", "./bx, open").replace("rows: ./rows", "rows: ./rws")
    with pytest.raises(NotFound, match=r"services\.web: image \./bx, datasets\.rows \./rws") as missing:
        place.up(wrong)
    assert missing.value.code == "no-such-file"
    assert not folder.beside(place.path / "compose.yaml").path.exists()


def test_a_port_that_another_program_has_is_said_before_anything_is_made(place, monkeypatch):
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"services.web: ports: listening at 127.0.0.1:{port}") as taken:
            place.up(FILE.replace("8443:", f"{port}:"))
    assert taken.value.code == "address-in-use"
    assert not folder.beside(place.path / "compose.yaml").path.exists()


def test_a_port_that_a_room_has_is_its_own(place):
    prepared = place.up()
    assert place.listened == ["services.web: ports 127.0.0.1:8443"]
    run = prepared.folder.runs("web") / "1"
    run.mkdir(parents=True)
    child = ChildStatus(name="web", state=ChildState.RUNNING, run=Path("runs/web/1"))
    plans.write_status(
        prepared.folder,
        SupervisorStatus(pid=1, broker=ChildStatus(name="broker", state=ChildState.RUNNING), rooms=(child,)),
    )
    with run_status.held(run):
        place.up()
    assert len(place.listened) == 1
    place.up()
    assert len(place.listened) == 2


def test_an_image_that_is_a_folder_of_files_is_none(place):
    (place.path / "tree").mkdir()
    with pytest.raises(Misuse, match="no image of a registry's form"):
        place.up(FILE.replace("./box}\n  job", "./tree}\n  job"))
