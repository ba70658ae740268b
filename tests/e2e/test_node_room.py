"""Rooms of a node on real QEMU and swtpm, with a few lines of shell in the agent's place."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from strongroom.errors import NotFound, Refused, StrongroomError, Unavailable
from strongroom.evidence.formats import tpm_quote
from strongroom.model.contracts import contract as contract_model
from strongroom.node import children, launch_record, room
from strongroom.node.qemu import machine
from strongroom.node.vtpm import create
from strongroom.node.vtpm import state as tpm_state
from tests import samples
from tests.e2e import real_rooms, tiny

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]

AGREEMENT = samples.signed(
    samples.a_contract(
        limits=contract_model.RunLimits(
            runs=1,
            not_before=samples.NOW,
            not_after=samples.NOW.replace(year=2030),
        ),
        wall_seconds=60,
        memory_mib=256,
    )
)
SEPARATOR = hashlib.sha256(b"\xff\xff\xff\xff").digest()  # EV_SEPARATOR of SeaBIOS, as everywhere
SLEEP = "phase asleep\nbusybox sleep 1000\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    real_rooms.strongroom("base", "build", "--out", tmp_path_factory.mktemp("real") / "base")
    return next(tmp_path_factory.getbasetemp().glob("real*/base"))


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    return create.create(
        tmp_path_factory.mktemp("node") / "n", "here", now=samples.NOW, random=secrets.token_bytes
    )


class Started:
    """A room in a thread, with what it told."""

    def __init__(self, node, base, out, **changes):
        out.mkdir(exist_ok=True)
        self.phases, self.raised = [], None
        changes.setdefault("guarded", False)
        order = room.Order(
            room="main", node=node, base=base, agreement=AGREEMENT, drives=changes.pop("drives", ()),
            manifests={"image": b"signed"}, out=out, **changes,
        )  # fmt: skip
        self.room = room.Room(order=order, on_phase=lambda name, _moment: self.phases.append(name))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.room.run()
        except StrongroomError as cause:
            self.raised = cause

    def until(self, phase, seconds=120):
        deadline = time.monotonic() + seconds
        while phase not in self.phases:
            assert self.thread.is_alive(), self.raised
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ended(self, seconds=120):
        self.thread.join(seconds)
        assert not self.thread.is_alive()
        return self.raised


def pids(started):
    return [child.pid for child in (started.room.qemu, started.room.swtpm)]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def gone(numbers, seconds=60):
    deadline = time.monotonic() + seconds
    while any(alive(one) for one in numbers) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(one) for one in numbers)


def descriptors():
    """What this process has open, by kind."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()).split(":")[0])
    return sorted(found)


@pytest.mark.parametrize("guarded", [False, True])
def test_what_the_guest_sees_is_what_the_node_says(base, node, tmp_path, guarded):
    disk = tmp_path / "a,b=c.disk"  # a name that QEMU's own option syntax could not carry
    disk.write_bytes(bytes(8192))
    before = descriptors()
    started = Started(
        node, tiny.build(tmp_path / "base", base), tmp_path / "out", guarded=guarded,
        drives=tuple(machine.Drive(serial=name, path=disk) for name in ("image", "data-0", "data-1")),
        clock="2031-05-06T00:00:00",
    )  # fmt: skip
    failure = started.ended()
    assert isinstance(failure, Refused)
    assert failure.code == "no-receipt"  # the shell says done, but has nothing to show
    record = (tmp_path / "out/launch-record.json").read_bytes()
    assert json.loads(record)["memory_guard"] is guarded
    expected = tpm_quote.extend(
        tpm_quote.extend(tpm_quote.H_CRTM_START, hashlib.sha256(record).digest()), SEPARATOR
    ).hex()
    assert started.phases == [
        f"pcr0-{expected[:32]}", f"pcr0-{expected[32:]}",
        "disk-base-ro1", "disk-image-ro1", "disk-data-0-ro1", "disk-data-1-ro1",
        "date-2031", "net-lo-end",
    ]  # fmt: skip
    assert (tmp_path / "out/manifests/image.json").read_bytes() == b"signed"
    assert gone(pids(started))
    assert descriptors() == before


@pytest.mark.parametrize(
    ("victim", "guarded"),
    [
        ("qemu", True),
        ("swtpm", False),
        pytest.param("qemu", False, marks=pytest.mark.soak),
        pytest.param("swtpm", True, marks=pytest.mark.soak),
    ],
)
def test_a_killed_part_ends_the_room_and_says_which(base, node, tmp_path, guarded, victim):
    started = Started(node, tiny.build(tmp_path / "base", base, SLEEP), tmp_path / "out", guarded=guarded)
    started.until("asleep")
    running = pids(started)
    assert all(alive(one) for one in running)
    os.kill(running[0 if victim == "qemu" else 1], signal.SIGKILL)
    failure = started.ended()
    assert isinstance(failure, Unavailable)
    assert failure.code == "room-died"
    assert ("TPM" in failure.message) is (victim == "swtpm")
    assert "'asleep'" in failure.message
    assert gone(running)


@pytest.mark.parametrize(
    ("how", "guarded", "code"),
    [
        (signal.SIGKILL, False, -9),
        (signal.SIGKILL, True, -9),
        (signal.SIGTERM, False, 143),
        (signal.SIGTERM, True, 143),
        (signal.SIGINT, False, 130),
    ],
)
def test_nothing_outlives_the_node(base, node, tmp_path, how, guarded, code):
    """Whatever ends `strongroom run`, even SIGKILL, ends QEMU and swtpm, and no file is left but the run's."""
    made = tiny.build(tmp_path / "base", base, SLEEP)
    (tmp_path / "temporary").mkdir()
    script = "import sys; from pathlib import Path; from tests.e2e import test_node_room as t; t.serve(*map(Path, sys.argv[1:4]), sys.argv[4] == 'True')"
    running = subprocess.Popen(
        [sys.executable, "-c", script, node.folder, made, tmp_path / "out", str(guarded)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    line = running.stdout.readline()
    numbers = [int(word) for word in line.split()]
    assert len(numbers) == 2, running.communicate()
    assert all(alive(one) for one in numbers)
    running.send_signal(how)
    _, text = running.communicate(timeout=120)
    assert running.returncode == code
    assert "Traceback" not in text
    assert gone(numbers)
    assert list((tmp_path / "temporary").iterdir()) == []


def serve(folder, base, out, guarded):
    """In a process of its own: what `strongroom run` does around a room."""
    from strongroom.cli import failures, interruption

    with failures.reported(), interruption.orderly():
        out.mkdir()
        order = room.Order(
            room="main", node=tpm_state.load(folder), base=base, agreement=AGREEMENT, drives=(), manifests={}, out=out,
            guarded=guarded,
        )  # fmt: skip
        made = room.Room(order=order)
        made.on_phase = lambda _name, _moment: print(made.qemu.pid, made.swtpm.pid, flush=True)
        made.run()


@pytest.mark.soak  # test_room_cheats has two whole rooms so
def test_rooms_side_by_side(base, node, tmp_path):
    made = tiny.build(tmp_path / "base", base)
    pair = [Started(node, made, tmp_path / f"out-{n}") for n in range(2)]
    assert [one.ended().code for one in pair] == ["no-receipt", "no-receipt"]
    assert pair[0].phases == pair[1].phases
    assert len(pair[0].phases) == 5


def test_a_kernel_that_panics_is_a_room_that_died(base, node, tmp_path):
    made = tiny.build(tmp_path / "base", base, "busybox sleep 0.2\nexit 1\n")
    failure = Started(node, made, tmp_path / "out").ended()
    assert failure.code == "room-died"
    assert "exit status 0" in failure.message


def test_a_base_that_does_not_boot(base, node, tmp_path, monkeypatch):
    made = tiny.build(tmp_path / "base", base)
    (made / "bzImage").write_bytes(os.urandom(1 << 20))
    monkeypatch.setattr(room, "BOOT_SECONDS", 5.0)
    failure = Started(node, made, tmp_path / "out").ended()
    assert failure.code in ("room-silent", "room-died")


def test_a_disk_that_qemu_cannot_open_is_told_in_qemus_words(base, node, tmp_path):
    made = tiny.build(tmp_path / "base", base)
    failure = Started(
        node, made, tmp_path / "out", drives=(machine.Drive(serial="image", path=tmp_path / "absent"),)
    ).ended()
    assert failure.code == "room-died"
    assert "No such file" in failure.message


def test_without_qemu_and_without_swtpm(base, node, tmp_path, monkeypatch):
    made = tiny.build(tmp_path / "base", base)
    before = descriptors()
    for number, name in enumerate(("swtpm", "qemu-system-x86_64")):
        real = children._find

        def find(wanted, name=name, real=real):
            return real(wanted if wanted != name else f"{name}-absent")

        monkeypatch.setattr(children, "_find", find)
        failure = Started(node, made, tmp_path / f"out-{number}").ended()
        assert isinstance(failure, NotFound)
        assert name in failure.message
        monkeypatch.setattr(children, "_find", real)
    assert descriptors() == before


def test_a_firmware_that_is_not_there(base, node, tmp_path):
    made = tiny.build(tmp_path / "base", base)
    failure = Started(node, made, tmp_path / "out", firmware=tmp_path / "absent").ended()
    assert isinstance(failure, NotFound)
    assert failure.code == "no-base"


def test_the_firmware_that_is_measured_is_the_one_that_runs(base, node, tmp_path):
    """One changed byte in a copy of the firmware is another record, and another PCR 0."""
    made = tiny.build(tmp_path / "base", base)
    image = bytearray(launch_record.FIRMWARE.read_bytes())
    place = image.rindex(b"SeaBIOS (version")
    image[place : place + 7] = b"XeaBIOS"
    (tmp_path / "bios").write_bytes(image)
    phases = []
    for number, firmware in enumerate((launch_record.FIRMWARE, tmp_path / "bios")):
        started = Started(node, made, tmp_path / f"out-{number}", firmware=firmware)
        assert started.ended().code == "no-receipt"
        phases.append(started.phases[:2])
    assert phases[0] != phases[1]
