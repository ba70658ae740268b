"""The guard's public face: starting, ending, and what dies with what."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from strongroom.errors import Misuse
from strongroom.node.guard import launch
from tests.unit.node.guarded import run

from . import victims

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(launch.supported() is not None, reason=f"no memory guard here: {launch.supported()}"),
]

PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_the_programs(code):
    assert run(["/bin/sh", "-c", f"exit {code}"]) == (code, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGTRAP])
def test_death_by_a_signal_is_told(number):
    assert run([*PYTHON, f"import os; os.kill(os.getpid(), {int(number)})"])[0] == -number


def test_a_program_over_at_once_is_told_too():
    for _ in range(5):
        assert run(["/bin/true"]) == (0, b"")


def test_arguments_of_any_bytes_reach_the_program():
    words = ["", "two words", "naïve", "\udcff\udc80", "a\nb"]
    program = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    assert run([*PYTHON, program, *words])[1] == b"|".join(map(os.fsencode, words))


def test_the_environment_is_replaced_or_inherited(monkeypatch):
    monkeypatch.setenv("HERE", "inherited")
    show = "import os; print(os.environ.get('HERE'), os.environ.get('GIVEN'))"
    assert run([*PYTHON, show])[1] == b"inherited None\n"
    assert run([*PYTHON, show], env={"GIVEN": "x=y"})[1] == b"None x=y\n"


def test_descriptors_are_passed_and_no_others():
    given, ours = os.pipe()
    os.write(ours, b"through")
    os.close(ours)
    count = f"import os; print(os.read({given}, 99), len(os.listdir('/proc/self/fd')))"
    assert run([*PYTHON, count], pass_fds=[given])[1] == b"b'through' 5\n"  # 0, 1, 2, the pipe, the listing
    os.close(given)


def test_the_program_has_default_signals_and_none_blocked():
    show = (
        "import re; s = open('/proc/self/status').read();"
        "print([re.search(k + r':\\s*(\\w+)', s)[1].lstrip('0') for k in ('SigBlk', 'NoNewPrivs')])"
    )
    assert run([*PYTHON, show])[1] == b"['', '1']\n"


def test_no_core_and_not_dumpable():
    show = (
        "import ctypes, resource;"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    assert run([sys.executable, "-c", show])[1] == b"(0, 0) 0\n"


@pytest.mark.parametrize("path", ["/nowhere/at/all", "no-such-program-on-the-path", "/etc/passwd"])
def test_a_program_that_cannot_be_executed_is_a_misuse(path):
    with pytest.raises(Misuse) as caught:
        launch.spawn([path], stdout=subprocess.DEVNULL)
    assert caught.value.code == "guard-exec"


def test_nothing_to_start_is_a_misuse():
    with pytest.raises(Misuse, match="no program was named"):
        launch.spawn([])


def test_an_output_pipe_ends_with_the_program_not_with_its_children():
    # The program's own copy of a descriptor is the only one left: closing it is seen at once.
    out, theirs = os.pipe()
    guarded = launch.spawn([*PYTHON, "import os, time; os.close(1); time.sleep(60)"], stdout=theirs)
    os.close(theirs)
    assert victims.read_until(out, b"never", 10) == b""
    os.close(out)
    guarded.kill()
    assert guarded.wait(60) == -signal.SIGKILL


def test_waiting_has_a_limit_and_may_be_repeated():
    guarded = launch.spawn(["/bin/sleep", "2"])
    assert guarded.wait(0.1) is None
    assert guarded.wait(60) == 0
    assert guarded.wait(60) == 0
    assert guarded.wait() == 0


def test_kill_ends_the_whole_tree():
    guarded = launch.spawn(["/bin/sh", "-c", "sleep 100 & (sleep 100 & sleep 100) & exec sleep 100"])
    assert victims.until(lambda: len(victims.in_session(guarded.watcher_pid)) >= 5)
    guarded.kill()
    guarded.kill()
    assert guarded.wait(60) == -signal.SIGKILL
    assert victims.wait_until_gone(guarded.watcher_pid) == []
    guarded.kill()


def test_the_end_of_the_program_ends_what_it_left_behind():
    assert run(["/bin/sh", "-c", "(sleep 100 >/dev/null &) ; exit 4"])[0] == 4


@pytest.mark.parametrize("victim", ["guardian_pid", "watcher_pid", "pid"])
def test_killing_any_of_the_three_ends_all(victim):
    guarded = launch.spawn(["/bin/sh", "-c", "sleep 100 & sleep 100"])
    time.sleep(0.1)
    os.kill(getattr(guarded, victim), signal.SIGKILL)
    assert guarded.wait(60) == -signal.SIGKILL
    assert bool(guarded.failure) == (victim != "pid")
    assert victims.wait_until_gone(guarded.watcher_pid) == []


@pytest.mark.parametrize("victim", ["guardian_pid", "watcher_pid"])
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_guard_cannot_be_stopped_or_asked_to_go(victim, number):
    guarded = launch.spawn(["/bin/sh", "-c", "sleep 0.4; sleep 0.1; exit 6"])
    os.kill(getattr(guarded, victim), number)
    assert guarded.wait(60) == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_program_dies_with_its_caller(number):
    program = (
        "import time\nfrom strongroom.node.guard import launch\n"
        "g = launch.spawn(['/bin/sleep', '100'])\nprint(g.watcher_pid, flush=True)\ntime.sleep(100)"
    )
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with caller:
        session = int(caller.stdout.readline())
        assert len(victims.in_session(session)) == 3
        caller.send_signal(number)
    assert victims.wait_until_gone(session) == []


def test_the_program_outlives_the_thread_that_started_it():
    started = []
    thread = threading.Thread(
        target=lambda: started.append(launch.spawn(["/bin/sh", "-c", "sleep 0.5; exit 8"]))
    )
    thread.start()
    thread.join()
    assert started[0].wait(60) == 8


def test_a_stopped_program_continues_where_it_was():
    guarded = launch.spawn(["/bin/sh", "-c", "sleep 0.2; exit 9"])
    os.kill(guarded.pid, signal.SIGSTOP)
    assert guarded.wait(0.6) is None
    os.kill(guarded.pid, signal.SIGCONT)
    assert guarded.wait(60) == 9


@pytest.mark.slow("guarded programs, started and ended by the dozen")
def test_many_quick_starts_leave_nothing():
    sessions = []
    for number in range(50):
        guarded = launch.spawn(["/bin/sh", "-c", f"exit {number}"], stdout=subprocess.DEVNULL)
        sessions.append(guarded.watcher_pid)
        if number % 2:
            assert guarded.wait(60) == number
        else:
            guarded.kill()
            assert guarded.wait(60) in {number, -signal.SIGKILL}
    assert [pid for session in sessions for pid in victims.in_session(session)] == []
    # and no zombie of ours; what other tests have started may live on
    with contextlib.suppress(ChildProcessError):
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)


BUSY = """
import os, subprocess, threading
def work():
    while True:
        blocks = [bytearray(200_000) for _ in range(5)]
        threading.Thread(target=lambda: bytearray(300_000)).start()
for _ in range(3):
    threading.Thread(target=work).start()
while True:
    subprocess.run(["/bin/true"])
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow("guarded programs, started and ended by the dozen")
@pytest.mark.parametrize("who", ["pid", "guardian_pid", "kill"])
def test_death_at_any_moment_leaves_nothing(who):
    chance = random.Random(who)  # noqa: S311 - moments, not secrets
    for _ in range(6):
        guarded = launch.spawn([*PYTHON, BUSY])
        time.sleep(chance.uniform(0.02, 0.5))
        assert guarded.wait(0) is None
        if who == "kill":
            guarded.kill()
        else:
            os.kill(getattr(guarded, who), signal.SIGKILL)
        assert guarded.wait(60) == -signal.SIGKILL
        assert victims.wait_until_gone(guarded.watcher_pid) == []


def test_the_guardian_does_not_spin_while_the_program_sleeps():
    guarded = launch.spawn(["/bin/sleep", "1000"])

    def ticks():
        total = 0
        for pid in (guarded.guardian_pid, guarded.watcher_pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    def idle():
        before = ticks()
        time.sleep(1)
        return ticks() - before <= 1

    assert victims.until(idle)  # once it has started the program, however long that takes
    guarded.kill()
    guarded.wait(60)


def test_a_program_of_another_instruction_set_is_refused(tmp_path):
    # A 32-bit ELF file: system calls of another kind would go unseen.
    import struct

    code = b"\xb8\x01\x00\x00\x00\xbb\x07\x00\x00\x00\xcd\x80"  # exit(7)
    base = 0x08048000
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("<8I", 1, 0, base, base, 84 + len(code), 84 + len(code), 5, 4096)
    program = tmp_path / "small"
    program.write_bytes(header + code)
    program.chmod(0o755)
    if subprocess.run([str(program)], check=False).returncode != 7:
        pytest.skip("this kernel runs no 32-bit programs")
    from strongroom.errors import Unavailable

    with pytest.raises(Unavailable, match="not an x86-64 program"):
        launch.spawn([str(program)])


def test_a_program_already_traced_is_refused_not_run():
    # Whoever traces the watcher first has it: then nothing starts. Simulated by a busy tracer slot.
    libc = ctypes.CDLL(None, use_errno=True)
    guarded = launch.spawn(["/bin/sleep", "5"])
    for pid in (guarded.pid, guarded.guardian_pid, guarded.watcher_pid):
        for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
            assert libc.ptrace(request, pid, 0, 0) == -1
            assert ctypes.get_errno() == 1  # EPERM
    guarded.kill()
    guarded.wait(60)


@pytest.mark.slow("guarded programs, started and ended by the dozen")
def test_many_at_once_from_many_threads():
    codes = {}

    def one(number):
        codes[number] = run([*PYTHON, f"import os, time; time.sleep(0.2); os._exit({number})"])[0]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(12)}


def test_one_thread_waits_while_another_kills():
    guarded = launch.spawn(["/bin/sleep", "100"])
    codes = []
    waiters = [threading.Thread(target=lambda: codes.append(guarded.wait(60))) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.2)
    guarded.kill()
    for waiter in waiters:
        waiter.join()
    assert codes == [-signal.SIGKILL] * 3  # nobody waited in vain: that were None


def test_leaving_the_context_ends_it():
    with launch.spawn(["/bin/sleep", "100"]) as guarded:
        pass
    assert victims.in_session(guarded.watcher_pid) == []
