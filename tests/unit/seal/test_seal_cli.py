"""The four verbs as a user types them, and as a user interrupts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from strongroom.crypto import age
from strongroom.model import identity as identity_model
from strongroom.seal import disk
from tests import verbs
from tests.unit.seal.trees import noise

ENVIRONMENT = {**os.environ, "STRONGROOM_PASSPHRASE": "only for this test"}


@pytest.fixture(scope="session")
def alice(tmp_path_factory):
    where = tmp_path_factory.mktemp("alice")
    assert run("identity", "new", "alice", "--out", where).returncode == 0
    return where / "alice.identity"


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a.csv").write_bytes(b"x,y\n1,2\n")
    (root / "sub" / "b.bin").write_bytes(noise(100_000))
    (root / "sub" / "l").symlink_to("../a.csv")
    return root


def command(*words: object) -> list[str]:
    return [*verbs.COMMAND, *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return verbs.run(*words, env=ENVIRONMENT, timeout=120)


def seal(alice: Path, data: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run("seal", data, "--identity", alice, "--name", "flights", "--out", out, *more)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_seal_inspect_verify_open(alice, data, tmp_path):
    out = tmp_path / "out"
    made = seal(alice, data, out)
    assert made.returncode == 0, made.stderr
    assert names(out) == ["flights.disk", "flights.key.age", "flights.manifest.json"]
    assert (out / "flights.key.age").stat().st_mode & 0o777 == 0o600
    shown = json.loads(run("inspect", out / "flights.disk", "--json").stdout)
    assert shown["cipher"] == "aes-xts-plain64"
    assert shown == json.loads(run("inspect", out / "flights.manifest.json", "--json").stdout)
    assert "not checked" in run("inspect", out / "flights.disk").stdout
    party = alice.with_name("alice.party.json")
    sound = run("verify", out / "flights.disk", "--owner", party, "--json")
    assert json.loads(sound.stdout) == {
        "digest": shown["digest"],
        "root_hash": shown["root_hash"],
        "signature": True,
    }
    assert "not checked" in run("verify", out / "flights.disk").stdout
    opened = run("open", out / "flights.disk", "--identity", alice, "--out", tmp_path / "opened")
    assert opened.returncode == 0, opened.stderr
    subprocess.run(["diff", "-r", data, tmp_path / "opened"], check=True)


def test_the_same_key_makes_the_same_disk(alice, data, tmp_path):
    first = json.loads(seal(alice, data, tmp_path / "1", "--json").stdout)
    again = json.loads(seal(alice, data, tmp_path / "2", "--json", "--key-file", first["key"]).stdout)
    other = json.loads(seal(alice, data, tmp_path / "3", "--json").stdout)
    for kind in ("disk", "manifest"):
        one, two, three = (Path(x[kind]).read_bytes() for x in (first, again, other))
        assert one == two != three


def test_failures_are_sentences(alice, data, tmp_path):
    out = tmp_path / "out"
    assert seal(alice, data, out).returncode == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    bob = tmp_path / "bob"
    run("identity", "new", "bob", "--out", bob)
    (tmp_path / "fifos").mkdir()
    os.mkfifo(tmp_path / "fifos" / "f")
    broken = tmp_path / "broken.disk"
    broken.write_bytes(before["flights.disk"][:-1] + b"x")
    short = tmp_path / "short.disk"
    short.write_bytes(before["flights.disk"][:-1])
    manifest = ("--manifest", out / "flights.manifest.json")
    new = tmp_path / "new"
    cases = [
        (2, "exists already", seal(alice, data, out)),
        (2, "bad-name", run("seal", data, "-i", alice, "--name", "No Name", "--out", new)),
        (2, "out-inside", seal(alice, data, data / "x")),
        (3, "special-file", seal(alice, tmp_path / "fifos", new)),
        (5, "No such file", seal(alice, tmp_path / "nothing", new)),
        (3, "not-ours", seal(bob / "bob.identity", data, new, "--key-file", out / "flights.key.age")),
        (5, "no such file", run("verify", tmp_path / "nothing.disk")),
        (5, "there is no manifest", run("verify", broken)),
        (3, "hash block", run("verify", broken, *manifest)),
        (3, "expected", run("verify", short, *manifest)),
        (3, "not-owner", run("verify", out / "flights.disk", "--owner", bob / "bob.party.json")),
        (3, "not-owner", run("open", out / "flights.disk", "-i", bob / "bob.identity", "--out", new)),
        (2, "not an empty folder", run("open", out / "flights.disk", "-i", alice, "--out", out)),
        (5, "there is no key", run("open", broken, "-i", alice, "--out", new, *manifest)),
        (2, "not-json", run("inspect", data / "a.csv")),
    ]
    for code, words, answer in cases:
        assert answer.returncode == code, (words, answer.stderr)
        assert words in answer.stderr
        assert "Traceback" not in answer.stderr
    assert not new.exists()
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


# --- interrupted ---


@pytest.fixture
def large(tmp_path):
    """Half a minute of work, in a file that takes no room."""
    root = tmp_path / "large"
    root.mkdir()
    with (root / "hole").open("wb") as out:
        out.truncate(20 << 30)
    return root


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_an_interrupted_seal_leaves_nothing_half_made(alice, large, tmp_path, number, code):
    out = tmp_path / "out"
    words = command("seal", large, "--identity", alice, "--name", "flights", "--out", out)
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=-3, stderr=-3, start_new_session=True) as process:
        wait_for(lambda: out.exists() and _written(process.pid) > 20 << 20)
        workers = children(process.pid)
        assert len(workers) >= 1 or len(os.sched_getaffinity(0)) == 1
        process.send_signal(number)
        assert process.wait(60) == code
    # A process that is killed cannot tidy up; the key alone, which nothing was sealed with, may stay.
    assert names(out) == (["flights.key.age"] if number == signal.SIGKILL else [])
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))  # noqa: PTH110


def test_ctrl_c_on_the_whole_process_group_leaves_nothing(alice, large, tmp_path):
    out = tmp_path / "out"
    words = command("seal", large, "--identity", alice, "--name", "flights", "--out", out)
    with subprocess.Popen(
        words, env=ENVIRONMENT, stdout=-3, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        wait_for(lambda: out.exists() and _written(process.pid) > 20 << 20)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert names(out) == []


def test_a_source_that_vanishes_leaves_nothing(alice, large, tmp_path):
    for index in range(50):
        (large / f"z{index}").write_bytes(noise(10))
    with (large / "hole").open("r+b") as hole:
        hole.truncate(1 << 29)
    out = tmp_path / "out"
    words = command("seal", large, "--identity", alice, "--name", "flights", "--out", out)
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=-3, stderr=subprocess.PIPE) as process:
        wait_for(lambda: out.exists() and _written(process.pid) > 20 << 20)
        (large / "z7").unlink()
        with (large / "hole").open("r+b") as hole:
            hole.truncate(1 << 28)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 6
    assert b"source-changed" in said
    assert names(out) == []


def _written(pid: int) -> int:
    """What the process and its workers have written so far."""
    total = 0
    for one in (pid, *children(pid)):
        try:
            with open(f"/proc/{one}/io") as source:  # noqa: PTH123
                total += int(source.read().split("wchar: ")[1].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as source:  # noqa: PTH123
            return [int(word) for word in source.read().split()]
    except FileNotFoundError:
        return []


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@pytest.mark.slow("seals 400 MB in a program of its own")
def test_memory_is_bounded(tmp_path):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "hole").open("wb") as out:
        out.truncate(400 << 20)
    program = f"""
import re, resource
from pathlib import Path
from strongroom.crypto import sign
from strongroom.seal import disk, folder
target = Path({str(tmp_path)!r}) / "f.disk"
made = disk.seal(folder.from_paths([Path({str(tmp_path / "in")!r})]), kind="dataset", name="f",
                 owner_key=sign.generate(), key=bytes(range(64)), image=None, target=target)
disk.verify(target, made)
# Not ru_maxrss of this process: that starts with what its parent had before exec.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert max(map(int, answer.stdout.split())) < 100 * 1024  # KiB


# --- results ---


def recipient(alice: Path) -> str:
    return identity_model.read_public(alice.read_bytes()).recipient


def test_a_result_is_unpacked(alice, data, tmp_path):
    subprocess.run(["tar", "-C", data, "-cf", tmp_path / "r.tar", "a.csv", "sub"], check=True)
    sealed = tmp_path / "out-0.tar.age"
    sealed.write_bytes(age.seal((recipient(alice),), (tmp_path / "r.tar").read_bytes()))
    answer = run("open", sealed, "-i", alice, "--out", tmp_path / "result")
    assert answer.returncode == 0, answer.stderr
    subprocess.run(["diff", "-r", data, tmp_path / "result"], check=True)
    (tmp_path / "text.age").write_bytes(age.seal((recipient(alice),), b"not a tar"))
    assert run("open", tmp_path / "text.age", "-i", alice, "--out", tmp_path / "text").returncode == 0
    assert (tmp_path / "text" / "text").read_bytes() == b"not a tar"


def test_a_log_is_what_the_program_printed_though_it_looks_like_a_tar(alice, tmp_path):
    printed = bytes(257) + b"ustar, but no tar"
    (tmp_path / "log.age").write_bytes(age.seal((recipient(alice),), printed))
    assert run("open", tmp_path / "log.age", "-i", alice, "--out", tmp_path / "log").returncode == 0
    assert (tmp_path / "log/log").read_bytes() == printed


def test_a_result_that_is_damaged_or_hostile_or_not_ours_leaves_nothing(alice, tmp_path):
    (tmp_path / "f").write_bytes(noise(200_000))
    base = ["tar", "-C", tmp_path, "-P", "-cf", tmp_path / "r.tar"]
    subprocess.run([*base, "f"], check=True)
    good = age.seal((recipient(alice),), (tmp_path / "r.tar").read_bytes())
    subprocess.run([*base, "--transform", "s,^,../,", "f"], check=True)
    climbing = age.seal((recipient(alice),), (tmp_path / "r.tar").read_bytes())
    cases = [
        (3, good[:-1]),
        (3, good[:100_000]),
        (3, good[:150_000] + bytes([good[150_000] ^ 1]) + good[150_001:]),
        (3, age.seal((age.generate().recipient,), b"x")),
        (2, climbing),
    ]
    out = tmp_path / "out"
    out.mkdir()
    for code, content in cases:
        sealed = tmp_path / "r.tar.age"
        sealed.write_bytes(content)
        answer = run("open", sealed, "-i", alice, "--out", out / "r")
        assert answer.returncode == code, answer.stderr
        assert "Traceback" not in answer.stderr
        assert names(out) == []
    assert names(tmp_path) == ["f", "out", "r.tar", "r.tar.age"]


def test_beside_knows_names_with_dots(tmp_path):
    assert disk.beside(tmp_path / "a.b.disk", disk.KEY_SUFFIX) == tmp_path / "a.b.key.age"
