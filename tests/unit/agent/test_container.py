"""The container, for real: a busybox root, fresh namespaces, no rights."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from strongroom.agent import container, owners, program
from strongroom.errors import Malformed
from strongroom.model.receipt import Outcome
from strongroom.model.room import mounts
from tests import kernel_view

pytestmark = pytest.mark.root


def said(ended) -> str:
    return ended.log.decode()


def test_runs_as_the_image_user_and_reports_its_exit_status(room):
    ended = room.shell("id; exit 7")
    assert said(ended).strip() == "uid=1000(duck) gid=1000 groups=1000,2000"
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 7)
    assert room.starts == 1
    assert ended.started <= ended.ended


def test_no_capability_is_left_or_to_be_regained_even_by_uid_0(room):
    for uid in (0, 1000):
        log = said(room.shell("cat /proc/self/status", uid=uid, gid=uid))
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert f"{name}:\t0000000000000000" in log
        assert "NoNewPrivs:\t1" in log
        assert "Seccomp:\t2" in log


def test_sees_its_own_processes_alone_and_no_way_to_its_init(room):
    log = said(
        room.shell("ls /proc | grep -E '^[0-9]+$' | wc -l; cat /proc/1/environ /proc/1/maps", uid=0, gid=0)
    )
    lines = log.splitlines()
    assert int(lines[0]) <= 4
    assert log.count("No such file") == 2
    assert "[stack]" not in log


@pytest.mark.parametrize("uid", [0, 1000])
def test_of_the_kernels_files_it_opens_those_of_a_list_and_writes_none(room, uid):
    ended = room.shell(kernel_view.SCRIPT, uid=uid, gid=uid)
    assert kernel_view.beyond(said(ended)) == []


def test_uid_0_of_an_image_is_not_the_kernels(room):
    log = said(
        room.shell(
            "id -u; cat /proc/self/uid_map; for f in /proc/1/oom_score_adj /proc/dynamic_debug/control /proc/sysrq-trigger"
            " /proc/sys/kernel/panic /proc/mtrr; do { echo 0 > $f; } 2>/dev/null && [ ! -c $f ] && echo wrote $f; done;"
            "echo x > /out/mine",
            uid=0, gid=0, groups=(),
        )
    )  # fmt: skip
    lines = [line.split() for line in log.splitlines()]
    assert lines[0] == ["0"]
    assert lines[1] == ["0", str(owners.FIRST), str(owners.COUNT)]
    assert "wrote" not in log
    assert (room.out / "mine").stat().st_uid == owners.kernel_id(0) != 0


def test_owners_of_the_images_files_are_what_the_image_says(room):
    for name, uid, mode in (("root", 0, 0o600), ("duck", 1000, 0o600), ("far", 2_000_000_000, 0o640)):
        (room.root / name).write_text(f"{name}\n")
        os.chown(room.root / name, uid, uid)
        (room.root / name).chmod(mode)
    (room.root / "home").mkdir()
    os.chown(room.root / "home", 1000, 1000)
    log = said(
        room.shell(
            "stat -c %n:%u:%g /root /duck /far /home /tmp /dev/shm; cat /root; cat /far; cat /duck && echo more >> /duck && cat /duck;"
            "echo x > /home/new && stat -c %n:%u:%g:%h /home/new /duck"
        )
    )
    lines = log.splitlines()
    assert lines[:6] == [
        *("/root:0:0", "/duck:1000:1000", "/far:2000000000:2000000000", "/home:1000:1000", "/tmp:0:0", "/dev/shm:0:0"),
    ]  # fmt: skip
    assert log.count("Permission denied") == 2
    assert lines[-5:] == ["duck", "duck", "more", "/home/new:1000:1000:1", "/duck:1000:1000:1"]
    assert (room.root / "duck").read_text() == "duck\n"


def test_what_uid_0_finds_it_may_change_in_memory(room):
    """With the image's owners, mode and file capabilities, which the overlay has to copy."""
    (room.root / "bin/run").write_bytes((room.root / "bin/busybox").read_bytes())
    (room.root / "bin/run").chmod(0o755)
    os.setxattr(
        room.root / "bin/run",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    log = said(
        room.shell(
            "echo 127.0.0.9 mine >> /etc/hosts && grep -c mine /etc/hosts; echo x >> /bin/run && echo grown;"
            "mkdir /new && stat -c %u /new /etc /etc/hosts /; grep CapEff /proc/self/status",
            uid=0, gid=0,
        )
    )  # fmt: skip
    assert log.split() == ["1", "grown", "0", "0", "0", "0", "CapEff:", "0" * 16]


def test_data_is_read_only_and_out_is_writable(room):
    ended = room.shell(
        "cat /data/flights/table.csv; touch /data/flights/x; touch /data/x; mkdir /out/d && echo hi > /out/d/f; id > /out/id"
    )
    log = said(ended)
    assert log.startswith("a,b\n1,2\n")
    assert log.count("Read-only file system") == 2
    assert (room.out / "d/f").read_text() == "hi\n"
    assert (room.out / "d/f").stat().st_uid == owners.kernel_id(1000)


def test_datasets_may_have_the_names_of_everything_else(room):
    names = ("data", "flights", "image", "key.pem", "out", "proc", "scratch", "tls", "upper")
    log = said(
        room.shell(
            "ls -1 /data; cat /data/*/table.csv; ls /out", datasets=dict.fromkeys(names, str(room.data))
        )
    )
    assert log.split() == [*names, *(["a,b", "1,2"] * len(names))]


def test_out_is_bounded_and_full_is_the_programs_to_see(room):
    ended = room.shell("dd if=/dev/zero of=/out/big bs=64k count=64 || exit 9")
    assert ended.exit_status == 9
    assert "No space left" in said(ended)


def test_root_is_writable_in_memory_and_the_image_stays_as_it_was(room):
    ended = room.shell("echo new > /new && cat /new", uid=0, gid=0)
    assert said(ended) == "new\n"
    assert not (room.root / "new").exists()


def test_no_network_but_a_loopback(room):
    log = said(room.shell("ip -o link; ip -o addr; ping -c1 -W1 127.0.0.1; ping -c1 -W1 10.0.0.1"))
    interfaces = {
        line.split()[1].split("@")[0].rstrip(":")
        for line in log.splitlines()
        if line[:1].isdigit() and ": " in line
    }
    assert "lo" in interfaces
    assert not any(name.startswith(("e", "w", "br", "veth")) for name in interfaces)
    assert "127.0.0.1/8" in log


def test_devices_proc_and_host_name(room):
    log = said(
        room.shell(
            "hostname; ls /dev; head -c4 /dev/urandom | wc -c; cat /proc/kcore | wc -c;"
            "echo 1 > /proc/sys/kernel/panic; ls /sys; cat /proc/mounts; echo x > /dev/null && echo ok; echo y > /dev/stderr",
            uid=0, gid=0,
        )
    )  # fmt: skip
    lines = log.splitlines()
    assert lines[0] == "room"
    assert {"null", "zero", "full", "random", "urandom", "shm", "fd"} <= set(lines)
    assert "Read-only file system" in log
    assert str(room.base) not in log.replace(f"lowerdir={room.base}", "").replace(f"{room.base}/scratch", "")
    assert "ok" in lines
    assert "y" in lines


def test_nothing_of_the_agent_is_inherited(room):
    assert said(room.run("ls", "/proc/self/fd")).split() == ["0", "1", "2", "3"]  # 3 is what ls itself reads
    log = said(room.shell("cat /proc/self/environ; cat /proc/self/cgroup"))
    assert "PYTHON" not in log
    assert {line.split(":")[2] for line in log.splitlines() if line.count(":") == 2} <= {"/"}


def test_tmp_is_private_and_sticky(room):
    assert said(room.shell("stat -c %a /tmp; touch /tmp/x && echo made")) == "1777\nmade\n"


def test_mounts_follow_links_of_the_image_inside_it(room):
    links = {
        "data": "/srv/data", "tmp": "var/tmp", "var/tmp": "../srv/tmp", "out": "../../../srv/out", "dev": "/srv/dev",
        "proc": "srv/proc", "etc": "/usr/etc",
    }  # fmt: skip
    (room.root / "var").mkdir()
    (room.root / "etc").rename(room.root / "usr-etc")
    for name, target in links.items():
        (room.root / name).symlink_to(target)
    log = said(
        room.shell(
            "cat /data/flights/table.csv /srv/data/flights/table.csv; echo 1 > /out/x; stat -L -c %a /tmp /srv/tmp;"
            "echo y > /dev/null && cat /proc/self/comm; wc -c < /proc/iomem; cat /usr/etc/hostname; ls -1 /srv"
        )
    )
    assert log.split() == [
        "a,b",
        "1,2",
        "a,b",
        "1,2",
        "1777",
        "1777",
        "cat",
        "0",
        "room",
        "data",
        "dev",
        "out",
        "proc",
        "tmp",
    ]
    assert (room.out / "x").read_text() == "1\n"
    assert not (room.root / "srv").exists()


def mounts_of(room) -> list[str]:
    """Those that this process sees, less other tests' rooms, which come and go."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if "/strongroom-container-" not in line or str(room.base) in line]


def test_a_mount_never_lands_outside_the_root_of_the_container(room):
    outside = room.base / "outside"
    outside.mkdir()
    before = mounts_of(room)
    for name in ("data", "out"):
        (room.root / name).symlink_to(f"../../../../../..{outside}/{name}")
    ended = room.shell(f"cat /data/flights/table.csv; ls {outside}; echo 1 > /tmp/x && echo 2 > /out/x")
    assert said(ended).split() == ["a,b", "1,2", "data", "out"]
    assert not list(outside.iterdir())
    assert mounts_of(room) == before
    assert (room.out / "x").read_text() == "2\n"


def test_temporary_memory_holds_other_mounts_and_may_be_dev_shm(room):
    (room.root / "run").symlink_to("/tmp")
    (room.root / "data").symlink_to("/tmp/sets")
    (room.root / "out").symlink_to("/dev/shm/results")
    (room.root / "tmp").symlink_to("/dev/shm")
    (room.base / "tls").mkdir()
    (room.base / "tls/key.pem").write_text("key\n")
    ended = room.shell(
        "cat /data/flights/table.csv /run/strongroom/tls/key.pem; echo 1 > /tmp/x && echo 2 > /out/y",
        tls=str(room.base / "tls"),
    )
    assert said(ended).split() == ["a,b", "1,2", "key"]
    assert [one.name for one in room.out.iterdir()] == ["y"]


@pytest.mark.parametrize(
    ("links", "files", "reason"),
    [
        ({}, ["out"], "/out is where a room takes results from; your image has a file there"),
        ({"out": "/srv/a"}, ["srv"], "your image has a file at /srv, where that leads"),
        ({"tmp": "data", "data": "tmp"}, [], "leads in a circle"),
        ({"tmp": "/"}, [], "to the top of the image"),
        ({"data": "/out/x"}, [], "/data to /out/x|to /out/x, and /out to /out"),
        ({"dev": "/proc"}, [], "one covers the other"),
    ],
)
def test_what_cannot_be_mounted_is_refused_with_the_rooms_reason(room, links, files, reason):
    for name, target in links.items():
        (room.root / name).symlink_to(target)
    for name in files:
        (room.root / name).write_text("x")
    ended = room.shell("echo ran")
    assert (ended.outcome, ended.details) == (Outcome.NOT_STARTED, ("container-failed",))
    assert re.search(reason, said(ended)), said(ended)
    assert "ran" not in said(ended).split()


def test_every_mount_of_the_table_is_made_by_one_function():
    assert set(container.MAKERS) == {*mounts.MOUNTS, mounts.TLS}


def test_environment_home_and_path(room):
    log = said(room.shell("env", environment={"A": "b"}))
    assert "A=b" in log
    assert "HOME=/home/duck" in log
    assert f"PATH={container.DEFAULT_PATH}" in log
    assert "STRONG" not in log
    assert "VIRTUAL_ENV" not in log


@pytest.mark.parametrize("place", ["/pipe", "/proc/self/fd/1", "/proc/self/fd/4", "/dev/zero", "/etc"])
def test_what_is_no_file_in_the_place_of_passwd_holds_nothing_up(room, place):
    os.mkfifo(room.root / "pipe")
    (room.root / "etc/passwd").unlink()
    (room.root / "etc/passwd").symlink_to(place)
    assert said(room.shell("echo home is $HOME", wall=5)) == "home is /\n"


def test_program_is_found_on_the_images_path(room):
    assert said(room.run("hostname")) == "room\n"


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "reason"),
    [
        (("/bin/nothing",), {}, "program-missing", b"No such file"),
        (("nothing",), {}, "program-missing", b"no such program on the image's PATH"),
        (("/etc/passwd",), {}, "program-not-executable", b"Permission denied"),
        (("/bin/noise",), {}, "program-bad-format", b"Exec format error"),
        (
            ("/bin/true",),
            {"working_directory": "/absent"},
            "program-missing",
            b"No such file or directory /absent",
        ),
        (("/bin/true",), {"image": "/absent"}, "container-failed", b"opening /absent"),
    ],
)
def test_what_cannot_start_says_why_in_a_code_and_in_the_sealed_log_alone(
    room, arguments, changes, code, reason
):
    noise = room.root / "bin/noise"
    noise.write_bytes(b"\x00\x01\x02")
    noise.chmod(0o755)
    ended = room.run(*arguments, **changes)
    assert (ended.outcome, ended.exit_status, ended.details) == (Outcome.NOT_STARTED, 0, (code,))
    assert reason in ended.log
    assert room.run(*arguments, log=0, **changes).log == b""


def test_signals_end_the_program_as_they_would_anywhere(room):
    for name, number in (("KILL", signal.SIGKILL), ("ABRT", signal.SIGABRT), ("TERM", signal.SIGTERM)):
        ended = room.shell(f"kill -{name} $$")
        assert (ended.outcome, ended.exit_status) == (Outcome.KILLED, number)


def test_program_cannot_end_its_init(room):
    ended = room.shell(
        "kill -INT 1; kill -TERM 1; kill -ALRM 1; kill -KILL 1; sleep 0.2; exit 4", uid=0, gid=0
    )
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 4)


def test_wall_limit_kills_everything(room):
    ended = room.shell("sleep 200 & sleep 200", wall=1)
    assert ended.outcome is Outcome.TIMED_OUT
    assert 0.9 < ended.ended - ended.started < 100  # not when its program ends


def test_a_failed_read_kills_everything_at_once(room):
    ended = room.shell("sleep 200 & sleep 200", on_start=room.fail_a_read)
    assert room.starts == 1
    assert ended.ended - ended.started < 100  # not when its program ends


def test_a_read_that_failed_while_the_container_was_made_ends_the_run_too(room):
    room.fail_a_read()
    began = time.monotonic()
    room.shell("sleep 200")
    assert time.monotonic() - began < 100  # not when its program ends


def test_orphans_are_reaped_and_killed_with_the_program(room):
    ended = room.shell("(sleep 60 &) ; (true &) ; exit 3")
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 3)
    assert ended.ended - ended.started < 10


def test_output_is_dropped_without_a_reader_and_cut_at_the_limit(room):
    assert room.shell("echo secret", log=0).log == b""
    ended = room.shell("echo 0123456789", log=4)
    assert ended.log.startswith(b"0123\n[strongroom: the rest")


CALLS = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) for x in a])
    return "ok" if r >= 0 else errno.errorcode[ctypes.get_errno()]
print("unshare", call(272, 0x10000000))
print("clone-newuser", call(56, 0x10000000 | 17, 0, 0, 0, 0))
print("clone3", call(435, 0, 0))
print("keyctl", call(250, 0, 0))
print("bpf", call(321, 0, 0, 0))
print("ptrace", call(101, 0, 0, 0, 0))
print("io_uring", call(425, 1, 0))
print("perf", call(298, 0, 0, -1, -1, 0))
print("mount", call(165, 0, 0, 0, 0, 0))
print("future", call(451, 0))
print("getpid", call(39))
for f in (1, 2, 10, 16, 40, 38, 17):
    try:
        socket.socket(f, socket.SOCK_RAW if f in (16, 17) else socket.SOCK_STREAM if f != 38 else socket.SOCK_SEQPACKET).close(); print("family", f, "ok")
    except OSError as e: print("family", f, errno.errorcode[e.errno])
for f in (1, 16, 38, 40):
    try:
        [one.close() for one in socket.socketpair(f, socket.SOCK_STREAM)]; print("pair", f, "ok")
    except OSError as e: print("pair", f, errno.errorcode[e.errno])
pid = os.fork()
if pid == 0: os._exit(0)
print("fork", os.waitpid(pid, 0)[1])
import threading
t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
sys.stdout.flush()
call(0x40000000 + 39)
print("survived x32")
"""


def test_system_call_filter(tmp_path):
    """In a process of its own with the filter alone, since the busybox root has no Python."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        from strongroom.agent import kernel, seccomp

        os.dup2(write, 1)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.set_seccomp(seccomp.build())
        os.execv(sys.executable, [sys.executable, "-c", CALLS])  # noqa: S606
    os.close(write)
    with os.fdopen(read) as file:
        lines = dict(line.rsplit(" ", 1) if " " in line else (line, "") for line in file.read().splitlines())
    status = os.waitpid(pid, 0)[1]
    refused = ("unshare", "clone-newuser", "keyctl", "bpf", "ptrace", "io_uring", "perf", "mount")
    assert {name: lines[name] for name in refused} == dict.fromkeys(refused, "EPERM")
    assert lines["clone3"] == lines["future"] == "ENOSYS"
    assert lines["getpid"] == "ok"
    assert [lines[f"family {one}"] for one in (1, 2, 10, 16)] == ["ok"] * 4
    assert [lines[f"family {one}"] for one in (40, 38, 17)] == ["EAFNOSUPPORT"] * 3
    assert lines["pair 1"] == "ok"
    assert [lines[f"pair {one}"] for one in (38, 40)] == ["EAFNOSUPPORT"] * 2  # not even as far as its driver
    assert lines["fork"] == "0"
    assert "thread" in lines
    assert "survived" not in lines
    assert os.WTERMSIG(status) == signal.SIGSYS


def test_launch_survives_its_encoding_and_refuses_emptiness(room):
    assert container.parse_launch(room.launch.encode()).environment == room.launch.environment
    with pytest.raises(Malformed, match="nothing to run"):
        container.parse_launch(room.launch.encode().replace(b'["/bin/sh","-c","true"]', b"[]"))


def test_localhost_has_its_names_and_its_low_ports(room):
    log = said(
        room.shell(
            "cat /etc/hosts /etc/hostname /proc/sys/net/ipv4/ip_unprivileged_port_start; ping -c1 -W1 localhost"
        )
    )
    assert "127.0.0.1\tlocalhost" in log
    assert "::1\tlocalhost" in log
    assert "\nroom\n0\n" in log
    log = said(room.shell("echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start"))
    assert "Read-only file system" in log


def test_an_image_with_names_of_its_own_keeps_them(room):
    (room.root / "etc").mkdir(exist_ok=True)
    (room.root / "etc/hosts").write_text("127.0.0.1 own\n")
    (room.root / "etc/hostname").write_text("")  # as builders leave it
    assert said(room.shell("cat /etc/hosts /etc/hostname")) == "127.0.0.1 own\nroom\n"
    (room.root / "etc/hosts").unlink()
    (room.root / "etc/hosts").symlink_to("/out/hosts")
    assert "No such file" in said(room.shell("cat /etc/hosts"))
    assert not (room.out / "hosts").exists()


def test_the_images_words_lead_nowhere_that_the_agent_has_open(room, tmp_path):
    (tmp_path / "secret").write_text("the host's")
    outside = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # As a folder that whoever started a dry run had open, of the same number there.
        ended = room.run("/bin/cat", "secret", working_directory=f"/proc/self/fd/{outside}")
        assert (ended.outcome, ended.details) == (Outcome.NOT_STARTED, ("program-missing",))
        script = room.root / "bin/script"
        script.write_text(f"#!/proc/self/fd/{outside}/program\n")
        script.chmod(0o755)
        shutil.copy(room.root / "bin/busybox", tmp_path / "program")
        tmp_path.chmod(0o755)
        ended = room.run("/bin/script")
        assert (ended.outcome, ended.details) == (Outcome.NOT_STARTED, ("program-missing",))
    finally:
        os.close(outside)


@pytest.mark.parametrize("program", ["/proc/self/exe", "exe", "/bin/link", "/proc/thread-self/exe"])
def test_a_program_is_the_images_file_and_never_the_agents_interpreter(room, program):
    (room.root / "bin/link").symlink_to("/proc/self/exe")
    ended = room.run(program, "-c", "print(1)", environment={"PATH": "/proc/self"})
    assert (ended.outcome, ended.details) == (Outcome.NOT_STARTED, ("program-missing",))
    assert "Too many levels of symbolic links" in said(ended)


class Stopping:
    """A service's life that ends when the program has printed what a test waits for."""

    def __init__(self, ending, *, after=1.0):
        self.wanted, self.after, self.began = ending, after, time.monotonic()
        self.ending = None

    def step(self):
        if time.monotonic() - self.began > self.after:
            self.ending = self.wanted
        return 0.05


def test_a_service_is_asked_by_sigterm_and_its_program_ends_by_itself(room):
    ended = room.shell(
        "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.1; done",
        wall=Stopping(program.Ending(detail="stopped", grace=20.0)),
        restart="always",
    )
    assert (ended.outcome, ended.exit_status, ended.details) == (Outcome.EXITED, 3, ("stopped",))
    assert said(ended) == "up\nbye\n"


def test_a_service_that_heeds_no_sigterm_is_killed_when_its_time_is_over(room):
    ended = room.shell(
        "trap '' TERM; echo up; while true; do sleep 0.1; done",
        wall=Stopping(program.Ending(detail="stopped", grace=0.5)),
    )
    assert (ended.outcome, ended.exit_status, ended.details) == (Outcome.KILLED, 9, ("stopped",))


def test_a_paused_service_is_killed_at_once_and_asked_nothing(room):
    ended = room.shell(
        "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done",
        wall=Stopping(program.Ending(detail="paused")),
        restart="always",
    )
    assert (ended.outcome, ended.exit_status, ended.details) == (Outcome.KILLED, 9, ("paused",))
    assert said(ended) == "up\n"


def test_a_service_that_fails_is_started_again_until_it_succeeds(room):
    script = "echo x >> /tmp/n; n=$(wc -l < /tmp/n); echo run $n; [ $n -ge 3 ]"
    ended = room.shell(script, wall=Stopping(None, after=1000.0), restart="on-failure")
    assert (ended.outcome, ended.exit_status) == (Outcome.EXITED, 0)
    assert [line for line in said(ended).splitlines() if line.startswith("run")] == [
        "run 1",
        "run 2",
        "run 3",
    ]
    assert "[strongroom: the program ended (wait status 256) and is started again]" in said(ended)
    assert room.starts == 3


def test_a_program_that_is_not_there_is_not_started_again(room):
    ended = room.run("/bin/absent", wall=Stopping(None, after=1000.0), restart="always")
    assert (ended.outcome, ended.details) == (Outcome.NOT_STARTED, ("program-missing",))
