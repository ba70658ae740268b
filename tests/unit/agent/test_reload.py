"""A program in its container gets new certificates: it sees them at once, and is made to read them again as the launch says."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.agent import launcher, owners
from strongroom.agent.certificates.delivery import CertificateFolder
from strongroom.crypto.pki import csr
from strongroom.model.contracts.certificate_terms import Delivery, Mode
from strongroom.model.receipt import Outcome
from tests.unit.agent import tls_material
from tests.unit.agent.container_room import ContainerRoom

pytestmark = pytest.mark.root
WANTED = Delivery(uid=1000, gid=1000)


@pytest.fixture
def room(tmp_path):
    made = ContainerRoom(tmp_path / "room")
    yield made
    made.close()


def certificates(room, **changes):
    folder = room.base / "tls"
    folder.mkdir()
    made = CertificateFolder(str(folder), replace(WANTED, **changes))
    made.write(tls_material.generation("alice"))
    return made


def process_1(pid):
    """Process 1 of the program's namespaces: the child of the launcher, which is `pid`."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


class Watching:
    """Does something from outside once the program has said so, in a thread of its own; `run` waits meanwhile."""

    def __init__(self, monkeypatch, room, act):
        self.wardens, self.failures = [], []
        spawn = launcher.spawn

        def spawned():
            self.wardens.append(spawn())
            return self.wardens[-1]

        monkeypatch.setattr(launcher, "spawn", spawned)
        self._thread = threading.Thread(target=self._run, args=(room, act), daemon=True)
        self._thread.start()

    def _run(self, room, act):
        ready = room.out / "ready"
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            act(process_1(self.wardens[-1].pid))
        except BaseException as cause:  # noqa: BLE001 - shown by the test's own thread
            self.failures.append(cause)

    def done(self):
        self._thread.join(60)
        assert self.failures == []


def test_a_new_generation_is_seen_in_the_container_and_a_signal_is_sent(room, monkeypatch):
    place = certificates(room)
    fresh = tls_material.generation("alice")

    def renew(process):
        place.write(fresh)
        launcher.reload(process)

    watching = Watching(monkeypatch, room, renew)
    ended = room.shell(
        'trap "cat /run/strongroom/tls/certificate.pem; exit 7" HUP; touch /out/ready; while :; do sleep 0.05; done',
        tls=place.folder,
        signal=1,
        wall=60,
    )
    watching.done()
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 7)
    assert ended.log == b"".join(map(csr.pem_certificate, fresh.chains["alice"][:2]))


def test_a_command_runs_as_the_programs_user_in_its_namespaces(room, monkeypatch):
    place = certificates(room)
    watching = Watching(monkeypatch, room, launcher.reload)
    script = "id -u; hostname; cat /run/strongroom/tls/key.pem > /dev/null && echo read; ls /proc | grep -c '^1$'; touch /out/told"
    ended = room.shell(
        "touch /out/ready; while [ ! -e /out/told ]; do sleep 0.05; done; exit 9",
        tls=place.folder,
        reload=("/bin/sh", "-c", script),
        wall=60,
    )
    watching.done()
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 9)
    assert ended.log.split() == [b"1000", b"room", b"read", b"0"]


def test_a_command_that_is_not_there_ends_nothing(room, monkeypatch):
    place = certificates(room)

    def twice(process):
        launcher.reload(process)
        time.sleep(0.2)
        (room.out / "told").touch()

    watching = Watching(monkeypatch, room, twice)
    ended = room.shell(
        "touch /out/ready; while [ ! -e /out/told ]; do sleep 0.05; done; exit 3",
        tls=place.folder,
        reload=("/no/such/command",),
        wall=60,
    )
    watching.done()
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 3)


def test_without_a_signal_or_a_command_nothing_is_done(room, monkeypatch):
    """The kernel keeps a signal from process 1 that has nobody to take it."""
    place = certificates(room)

    def told(process):
        launcher.reload(process)
        (room.out / "told").touch()

    watching = Watching(monkeypatch, room, told)
    ended = room.shell(
        "touch /out/ready; while [ ! -e /out/told ]; do sleep 0.05; done; exit 4", tls=place.folder, wall=60
    )
    watching.done()
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 4)


def test_the_program_writes_nothing_there_and_finds_it_where_the_contract_says(room):
    place = certificates(room, mode=Mode.OWNER_WRITES)
    ended = room.shell(
        "cd /etc/own/tls && cat certificate.pem; echo x > key.pem; touch x; ls -l current/key.pem",
        tls=place.folder,
        tls_place="/etc/own/tls",
    )
    assert b"BEGIN CERTIFICATE" in ended.log
    assert ended.log.count(b"Read-only file system") == 2
    assert b"-rw-------    1 duck     1000" in ended.log


def test_another_user_than_the_contract_says_reads_no_key(room):
    place = certificates(room, uid=1234, gid=1234)
    ended = room.shell("cat /run/strongroom/tls/key.pem", tls=place.folder)
    assert b"Permission denied" in ended.log
    status = Path(place.folder, "1/key.pem").stat()
    assert (status.st_uid, status.st_gid) == (owners.kernel_id(1234), owners.kernel_id(1234))
