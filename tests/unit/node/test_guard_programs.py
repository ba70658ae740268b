"""Unmodified programs under the guard: threads, children, signals, code written at run time, big tools."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from strongroom.node.guard import launch, maps
from tests.unit.node.guarded import run

from . import victims

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(launch.supported() is not None, reason=f"no memory guard here: {launch.supported()}"),
]


def python(program):
    code, out = run([sys.executable, "-I", "-c", program])
    assert code == 0
    return out.decode()


def exposed_at_end(program):
    """What `program` prints, and whether any private writable region remained."""
    look = "\nprint([l for l in open('/proc/self/maps') if l.split()[1] == 'rw-p'])"
    return python(program + look).splitlines()


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_busybox_static():
    script = "x=0; while [ $x -lt 20 ]; do x=$((x+1)); (echo $x) | cat; done | wc -l; ls /nowhere; exit 3"
    assert run(["busybox", "sh", "-c", script + " 2>/dev/null"])[:2] == (3, b"20\n")


def test_threads_are_joined_promptly():
    lines = exposed_at_end(
        "import threading, time\n"
        "t0 = time.monotonic()\n"
        "for _ in range(30):\n"
        "    ts = [threading.Thread(target=lambda: [bytearray(n) for n in range(0, 400000, 50000)]) for _ in range(4)]\n"
        "    [t.start() for t in ts]; [t.join() for t in ts]\n"
        "print(time.monotonic() - t0 < 20)"
    )
    assert lines == ["True", "[]"]


C_JOIN = r"""
import ctypes, time
libc = ctypes.CDLL(None)
THREAD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def work(argument):
    time.sleep(0.05)
    return (argument or 0) + 1
body = THREAD(work)
for number in range(10):
    handle, result = ctypes.c_ulong(), ctypes.c_void_p()
    assert libc.pthread_create(ctypes.byref(handle), None, body, ctypes.c_void_p(number)) == 0
    assert libc.pthread_join(handle, ctypes.byref(result)) == 0
    assert result.value == number + 1
print("joined")
"""


def test_pthread_join_waits_for_the_kernels_wake():
    assert python(C_JOIN) == "joined\n"


def test_fork_gives_each_its_own_memory():
    program = (
        "import os\n"
        "data = bytearray(b'parent' * 100000); kept = list(range(1000))\n"
        "r, w = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    data[:6] = b'child!'; kept[0] = -1\n"
        "    os.write(w, bytes(data[:12]) + b'%d' % sum(kept)); os._exit(5)\n"
        "_, status = os.waitpid(child, 0)\n"
        "print(os.read(r, 99), bytes(data[:6]), sum(kept), os.waitstatus_to_exitcode(status))"
    )
    assert exposed_at_end(program) == ["b'child!parent499499' b'parent' 499500 5", "[]"]


def test_a_forked_child_is_guarded_too():
    program = (
        "import os\nchild = os.fork()\nif child: os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert exposed_at_end(program) == ["[]"]


def test_an_executed_program_is_guarded_too():
    inner = "print([l for l in open('/proc/self/maps') if l.split()[1] == 'rw-p'])"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    assert python(program) == "[]\n"
    program = f"import os, sys; os.execv(sys.executable, [sys.executable, '-c', {inner!r}])"
    assert python(program) == "[]\n"


def test_exec_from_a_second_thread():
    program = (
        "import os, threading\n"
        "threading.Thread(target=lambda: os.execv('/bin/echo', ['echo', 'from a thread'])).start()\n"
        "threading.Event().wait()"
    )
    assert python(program) == "from a thread\n"


def test_fork_while_other_threads_run():
    program = (
        "import os, threading\n"
        "stop = False\n"
        "def churn():\n"
        "    while not stop: bytearray(500000)\n"
        "ts = [threading.Thread(target=churn) for _ in range(3)]\n"
        "[t.start() for t in ts]\n"
        "codes = []\n"
        "for n in range(8):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(n)\n"
        "    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "stop = True\n"
        "[t.join() for t in ts]\n"
        "print(codes)"
    )
    assert python(program) == "[0, 1, 2, 3, 4, 5, 6, 7]\n"


def test_a_pool_of_processes():
    program = "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(p.map(abs, range(-3, 0)))"
    assert python(program) == "[3, 2, 1]\n"


def test_signals_arrive_once_and_in_handlers():
    program = (
        "import os, signal, time\n"
        "got = []\n"
        "signal.signal(signal.SIGUSR1, lambda *a: got.append(1))\n"
        "for _ in range(100): os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print(len(got))\n"
        "ticks = []\n"
        "def tick(*a):\n"
        "    ticks.append(bytearray(300000))\n"
        "    if len(ticks) < 100: signal.setitimer(signal.ITIMER_REAL, 0.002)\n"  # after this one: never one in another
        "signal.signal(signal.SIGALRM, tick)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.002)\n"
        "t0 = time.monotonic()\n"
        "while len(ticks) < 100 and time.monotonic() - t0 < 60: bytearray(1000000)\n"
        "print(len(ticks) > 10)"
    )
    assert exposed_at_end(program) == ["100", "True", "[]"]


def test_memory_grows_shrinks_and_comes_zeroed():
    program = (
        "import ctypes, mmap\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.sbrk.restype = ctypes.c_void_p; libc.sbrk.argtypes = [ctypes.c_ssize_t]\n"
        "libc.realloc.restype = ctypes.c_void_p; libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n"
        "at = libc.sbrk(1 << 20)\n"
        "ctypes.memset(at, 7, 1 << 20)\n"
        "libc.sbrk(-(1 << 20)); again = libc.sbrk(1 << 20)\n"
        "low = -(-again // 4096) * 4096\n"
        "print(again == at, set(ctypes.string_at(low, (1 << 20) - 8192)))\n"
        "print(libc.sbrk(1 << 50) == ctypes.c_void_p(-1).value)\n"
        "p = libc.realloc(None, 300000); ctypes.memset(p, 65, 300000)\n"
        "p = libc.realloc(p, 3000000)\n"
        "print(ctypes.string_at(p, 300000) == b'A' * 300000)\n"
        "p = libc.realloc(p, 200000)\n"
        "print(ctypes.string_at(p, 200000) == b'A' * 200000)\n"
        "m = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "print(m[:] == bytes(1 << 20)); m[:4] = b'abcd'; m.close()"
    )
    assert exposed_at_end(program) == ["True {0}", "True", "True", "True", "True", "[]"]


def test_private_mappings_of_files_keep_their_content(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"0123456789" * 1000)
    program = (
        "import ctypes, mmap\n"
        f"f = open({str(file)!r}, 'r+b')\n"
        "m = mmap.mmap(f.fileno(), 10000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)\n"
        "print(m[9990:] == b'0123456789', m[:3]); m[:3] = b'xyz'; print(m[:5])\n"
        # read-only first, writable later
        "n = mmap.mmap(f.fileno(), 10000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\n"
        "libc = ctypes.CDLL(None)\n"
        "for l in open('/proc/self/maps'):\n"
        f"    if {str(file)!r} in l: at = int(l.split('-')[0], 16)\n"
        "print(libc.mprotect(ctypes.c_void_p(at + 4096), 4096, 3))\n"
        "ctypes.memmove(at + 4096, b'W', 1)\n"
        "print(n[4090:4100], n[8190:8200], n[9990:])"
    )
    assert exposed_at_end(program) == [
        "True b'012'",
        "b'xyz34'",
        "0",
        "b'012345W789' b'0123456789' b'0123456789'".replace(
            "b'012345W789'", repr(b"0123456789"[:6] + b"W789")
        ),
        "[]",
    ]
    assert file.read_bytes() == b"0123456789" * 1000


def test_code_written_at_run_time_runs():
    # A JIT's two habits: reserve, then make executable; and write first, then make executable.
    program = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n"
        "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "def call(at): return ctypes.CFUNCTYPE(ctypes.c_int)(at)()\n"
        "code = b'\\xb8\\x2a\\x00\\x00\\x00\\xc3'\n"  # mov eax, 42; ret
        "a = libc.mmap(None, 1 << 26, 0, 0x4022, -1, 0)\n"
        "print(libc.mprotect(a, 1 << 26, 7)); ctypes.memmove(a + 5000, code, 6); print(call(a + 5000))\n"
        "b = libc.mmap(None, 65536, 3, 0x22, -1, 0)\n"
        "ctypes.memmove(b + 60000, code, 6); print(libc.mprotect(b, 65536, 5)); print(call(b + 60000))\n"
        "c = libc.mmap(None, 4096, 7, 0x22, -1, 0)\n"
        "ctypes.memmove(c, code, 6); print(call(c))"
    )
    assert exposed_at_end(program) == ["0", "42", "0", "42", "42", "[]"]


def test_a_deep_stack():
    program = (
        "import sys, threading\n"
        "sys.setrecursionlimit(20000)\n"
        "def down(n): return 0 if n == 0 else 1 + max([down(n - 1)], key=lambda x: x)\n"
        "print(down(4000))"
    )
    assert exposed_at_end(program) == ["4000", "[]"]


def test_timeouts_of_joins_still_work():
    program = (
        "import threading, time\n"
        "t = threading.Thread(target=time.sleep, args=(1,)); t.start(); t.join(0.1); print(t.is_alive()); t.join()\n"
        "print(t.is_alive())"
    )
    assert python(program) == "True\nFalse\n"


def test_files_sockets_and_pipes_carry_secret_pages(tmp_path):
    program = (
        "import os, socket\n"
        "block = os.urandom(1 << 20)\n"
        f"p = {str(tmp_path / 'f')!r}\n"
        "open(p, 'wb').write(block); print(open(p, 'rb').read() == block)\n"
        "a, b = socket.socketpair(); import threading\n"
        "threading.Thread(target=lambda: (a.sendall(block), a.close())).start()\n"
        "got = b''\n"
        "while (x := b.recv(65536)): got += x\n"
        "print(got == block)"
    )
    assert python(program) == "True\nTrue\n"


def connected(path):
    """A socket to `path` once somebody listens there: the file exists before it listens."""
    deadline = time.monotonic() + 60
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        try:
            client.connect(str(path))
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@pytest.mark.skipif(not shutil.which("swtpm"), reason="swtpm is not installed")
def test_swtpm_answers_and_keeps_its_memory(tmp_path):
    server, control = tmp_path / "server", tmp_path / "control"
    argv = [
        "swtpm",
        "socket",
        "--tpm2",
        "--tpmstate",
        f"dir={tmp_path}",
        "--flags",
        "not-need-init,startup-clear",
    ]
    argv += ["--server", f"type=unixio,path={server}", "--ctrl", f"type=unixio,path={control}"]
    guarded = launch.spawn(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with connected(server) as tpm:
            tpm.sendall(struct.pack(">HIIH", 0x8001, 12, 0x17B, 16))  # TPM2_GetRandom(16)
            tag, size, code, length = struct.unpack(">HIIH", tpm.recv(12, socket.MSG_WAITALL))
            assert (tag, size, code, length) == (0x8001, 28, 0, 16)
            assert tpm.recv(16, socket.MSG_WAITALL) != bytes(16)
        assert [region for region in maps.regions(guarded.pid) if region.exposed] == []
    finally:
        guarded.kill()
        assert guarded.wait(60) is not None
    assert victims.wait_until_gone(guarded.watcher_pid) == []


def test_a_stack_overflow_is_a_fault_not_a_corruption():
    program = (
        "import sys; sys.setrecursionlimit(10**8)\n"
        "def down(n): return max([n], key=lambda n: down(n + 1))\n"
        "down(0)"
    )
    assert run([sys.executable, "-I", "-c", program])[0] == -signal.SIGSEGV


def test_descriptors_of_secret_files_do_not_pile_up():
    program = (
        "import os\n"
        "keep = [bytearray(400000) for _ in range(200)]\n"
        "print(sum('secretmem' in os.readlink(f'/proc/self/fd/{n}') for n in range(3)), os.dup(0))"
    )
    assert python(program) == "0 3\n"  # the lowest free descriptor is still the first


@pytest.mark.slow("takes and gives back 750 MB in a guarded program")
def test_memory_is_given_back():
    program = (
        "def locked(): return next(int(l.split()[1]) for l in open('/proc/meminfo') if l.startswith('Unevictable'))\n"
        "for _ in range(5): b = bytearray(50 << 20); del b\n"
        "before = locked()\n"
        "for _ in range(10): b = bytearray(50 << 20); del b\n"
        "print(locked() - before < 150000)"
    )
    assert python(program) == "True\n"
