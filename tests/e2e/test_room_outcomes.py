"""Real rooms: each way that a run can end, and what the parties are told."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.errors import Refused
from strongroom.model.receipt import Outcome
from strongroom.node import runs
from strongroom.node.run_status import ENDED, State
from strongroom_testing import traces
from tests import kernel_view
from tests.e2e import real_rooms, system_calls
from tests.unit.images import kit

pytestmark = [
    pytest.mark.room,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(real_rooms.missing()), reason=real_rooms.missing() or "a room can run"),
]


@pytest.fixture(scope="module")
def world():
    root = Path(tempfile.mkdtemp(prefix="strongroom-rooms-"))
    made = real_rooms.prepare(root)
    yield made
    made.close()
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def done(world):
    """A run that goes well, on a machine whose clock is ahead, and its states as somebody who looks on sees them."""
    script = (
        "sha256sum /data/flights/table.csv > /out/sum; id > /out/id; env > /out/env; date +%Y > /out/year;"
        " echo chatter; sleep 3; exit 0"
    )
    seen, ended = set(), threading.Event()

    def look():
        while not ended.is_set():
            seen.update(
                (one.contract_id, one.state.value) for one in runs.find(world.root) if one.state not in ENDED
            )
            ended.wait(0.2)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        ran = world.run(world.contract(script, "--env", "WORD=said"), "--clock", "2031-05-05T05:05:05")
    finally:
        ended.set()
        looker.join()
    return ran, seen


@pytest.fixture(scope="module")
def logged(world):
    """A run whose program fails and says so, with a log, on a machine whose clock is behind."""
    script = (
        "date +%Y > /out/year; head -n 20000 /data/flights/table.csv > /out/rows; echo sorry >&2; exit 42"
    )
    options = ("--logs", "bob", "--exact-exit-status", "--exact-sizes")
    return world.run(world.contract(script, *options), "--clock", "2001-05-05T05:05:05")


def test_results_leave_sealed_with_a_receipt(world, done):
    ran, _ = done
    assert ran.code == 0, ran.text
    files = ran.output(world.identity("bob"))
    table = (world.path("data") / "table.csv").read_bytes()
    assert files["sum"].split()[0].decode() == hashlib.sha256(table).hexdigest()
    assert files["id"] == b"uid=1000(duck) gid=1000 groups=1000\n" or files["id"].startswith(
        b"uid=1000(duck) gid=1000"
    )
    assert b"WORD=said" in files["env"]
    with pytest.raises(Refused):
        ran.output(world.identity("alice"))
    assert ran.phases == [
        "booted", "contract-bound", "attested:alice", "disks-open", "program-started", "program-ended",
        "outputs-sealed", "receipt-posted", "outputs-sent",
    ]  # fmt: skip
    assert ran.receipt.outcome is Outcome.EXITED
    everything = b"".join(path.read_bytes() for path in ran.folder.rglob("*") if path.is_file())
    assert b"chatter" not in everything
    assert not (ran.folder / "log.age").exists()


def test_nothing_that_a_node_holds_shows_a_key_or_a_row(world, logged):
    """In every form that traces.py names: what a run leaves, says and was given, and all files of owners and brokers."""
    ran = logged
    alice, bob = world.identity("alice"), world.identity("bob")
    rows = ran.output(bob)["rows"]
    secrets = {
        "alice's disk key": alice.age.open((world.path("flights.key.age")).read_bytes()),
        "passphrase": real_rooms.PASSPHRASE.encode(),
        **{f"row {at}": rows[at * 5000 :][:48] for at in range(4)},
    }
    for one in (alice, bob):
        secrets[f"{one.name}'s signing key"] = one.signing.raw
        secrets[f"{one.name}'s age key"] = one.age.text.removeprefix("AGE-SECRET-KEY-1").encode()
    in_clear = [
        world.path("data"),
        world.path("base"),
        world.path("image"),
    ]  # the owner's own, and what is public
    places = {
        str(path.relative_to(world.root)): path.read_bytes()
        for path in world.root.rglob("*")
        if path.is_file() and not any(folder in path.parents for folder in in_clear)
    }
    assert f"{ran.folder.name}/receipt.json" in places
    assert f"{ran.folder.name}/out-0.tar.age" in places
    assert "flights.disk" in places
    places["what the node printed"] = ran.text.encode()
    assert traces.shown(secrets, places) == []
    assert traces.shown({"row": rows[:48]}, {"table": world.path("data/table.csv").read_bytes()}) == [
        "row in table"
    ]


@pytest.mark.parametrize("year", ["2001", "2031"])
def test_a_clock_that_is_years_off_changes_nothing(world, done, logged, year):
    ran = {"2001": logged, "2031": done[0]}[year]
    assert ran.receipt.outcome is Outcome.EXITED, ran.text
    # The program's own date is the broker's, which is this machine's.
    assert ran.output(world.identity("bob"))["year"] == f"{ran.receipt.started.year}\n".encode()
    for moment in (ran.receipt.started, ran.receipt.ended):
        # The fixtures' rooms ran before other tests of this module.
        assert abs((moment - datetime.now(UTC)).total_seconds()) < 7200


def test_a_program_that_fails_has_a_receipt_and_its_log_is_sealed(world, logged):
    ran = logged
    assert ran.code == 8
    assert (ran.receipt.outcome, ran.receipt.exit_status) == (Outcome.EXITED, 42)
    sealed = (ran.folder / "log.age").read_bytes()
    assert world.identity("bob").age.open(sealed) == b"sorry\n"
    log = ran.folder / "log.age"
    assert f"bob reads the log: strongroom open {log} --identity bob.identity" in ran.text


def test_a_run_is_seen_while_it_goes_on_and_its_states_are_kept(done):
    ran, seen = done
    assert ran.code == 0, ran.text
    assert {"booting", "running"} <= {state for _, state in seen}
    one = runs.read(ran.folder)
    assert (one.state, one.good, one.run_id) == (State.DONE, True, ran.receipt.run_id)
    ways = ["starting", "booting", "attesting", "released", "running", "sealing", "recording", "done"]
    assert list(one.times) == ways
    assert sorted(one.times.values()) == list(one.times.values())


def test_out_of_memory(world):
    script = "for place in shm/a shm/b; do dd if=/dev/zero of=/dev/$place bs=1M count=200; done; dd if=/dev/zero of=/tmp/c bs=1M count=200; exit 5"
    ran = world.run(world.contract(script))
    assert ran.receipt.outcome is Outcome.OUT_OF_MEMORY
    assert ran.receipt.outputs == ()


def test_out_of_time(world):
    ran = world.run(world.contract("echo early > /out/x; sleep 100", "--wall-seconds", 2))
    assert ran.receipt.outcome is Outcome.TIMED_OUT
    assert 1 <= (ran.receipt.ended - ran.receipt.started).total_seconds() <= 30
    assert ran.receipt.outputs == ()
    assert not (ran.folder / "out-0.tar.age").exists()


def test_killed_by_a_signal(world):
    ran = world.run(world.contract("kill -SEGV $$", "--exact-exit-status"))
    assert (ran.receipt.outcome, ran.receipt.exit_status) == (Outcome.KILLED, 11)


@pytest.mark.soak  # the next one's room ends so, too
def test_output_larger_than_agreed_stays(world):
    ran = world.run(world.contract("head -c 5000 /dev/zero > /out/x", "--max-output", 4000))
    assert ran.receipt.outcome is Outcome.OUTPUT_TOO_LARGE
    assert not (ran.folder / "out-0.tar.age").exists()


def test_disk_full_in_out_is_the_programs_to_see(world):
    script = "dd if=/dev/zero of=/out/x bs=1M count=40 2>/dev/null || exit 28"
    ran = world.run(world.contract(script, "--max-output", 1 << 20, "--exact-exit-status"))
    assert (ran.receipt.exit_status, ran.receipt.outcome) == (28, Outcome.OUTPUT_TOO_LARGE)
    assert not (ran.folder / "out-0.tar.age").exists()


@pytest.mark.parametrize("user", ["1000:1000", "0:0"])
def test_no_network_no_devices_no_rights(world, user):
    """Whoever the image says that its program is: system_calls.py lists what it tries, one call after the other."""
    name = f"user-{user.partition(':')[0]}"
    calls = tuple(call for call, _ in system_calls.FORBIDDEN)
    probe = system_calls.program(calls)
    real_rooms.convert_busybox(world.root, name, user=user, files={"bin/probe": probe})
    script = (
        "ls /sys/class/net /dev > /out/ls 2>&1; cat /proc/net/dev > /out/net; cat /proc/self/status > /out/status;"
        " /bin/probe > /out/calls; id > /out/id; head -c 1 /proc/kcore /proc/kmsg 2>/dev/null | grep -v == > /out/kernel;"
        " echo b > /proc/sysrq-trigger; cat /proc/self/uid_map > /out/map; echo x >> /etc/passwd && echo grown > /out/grown;"
        f" {{ {kernel_view.SCRIPT}\n}} > /out/view; exit 0"
    )
    ran = world.run(world.contract(script, image=name), image=name)
    files = ran.output(world.identity("bob"))
    assert files["id"].startswith(f"uid={user.partition(':')[0]}(".encode())
    returned = system_calls.answers(calls, files["calls"])
    allowed = {
        call.name: returned[call.name]
        for call, errors in system_calls.FORBIDDEN
        if returned[call.name] not in errors
    }
    assert allowed == {}
    assert files["kernel"].strip() == b""  # and no key of the keyboard started the machine anew
    assert b"vport" not in files["ls"]
    assert b"vda" not in files["ls"]
    assert b"tpm" not in files["ls"]
    interfaces = {line.split(b":")[0].strip() for line in files["net"].splitlines()[2:]}
    assert interfaces == {b"lo"}
    status = dict(line.split(b":", 1) for line in files["status"].splitlines())
    capabilities = {name: value.strip() for name, value in status.items() if name.startswith(b"Cap")}
    assert set(capabilities.values()) == {b"0" * 16}
    assert len(capabilities) == 5
    assert status[b"NoNewPrivs"].strip() == b"1"
    assert kernel_view.beyond(files["view"].decode()) == []
    # Another's uid 0 than the kernel's; and the image's own files are its own, to change in memory.
    assert files["map"].split() == [b"0", b"2147483648", b"2147483647"]
    assert ("grown" in files) == (user == "0:0")


def find(world, disk: str, marker: bytes) -> int:
    place = world.path(disk).read_bytes().find(marker)
    assert place > 0
    return place


def test_one_changed_byte_of_the_dataset_is_found_and_nothing_leaves(world):
    world.damaged("flights", "flipped", 8 * 4096 + 17)
    ran = world.run(world.contract("wc -l < /data/flights/table.csv > /out/n; exit 0"), dataset="flipped")
    assert ran.code == 8
    assert ran.receipt.outcome is Outcome.DATA_CORRUPTED
    assert ran.receipt.details == ("data-0-corrupted",)
    assert "dm-verity" in ran.text
    assert ran.receipt.outputs == ()
    assert not (ran.folder / "out-0.tar.age").exists()


@pytest.mark.soak  # a byte of the dataset and one of the program are changed in the tests beside it
def test_a_changed_superblock_is_found_before_the_program(world):
    world.damaged("flights", "headless", 1024)
    ran = world.run(world.contract("exit 0"), dataset="headless")
    assert ran.receipt.outcome is Outcome.DATA_CORRUPTED
    assert "program-started" not in ran.phases


def test_a_changed_program_never_runs(world):
    world.damaged("query", "evil", find(world, "query.disk", b"\x7fELF") + 64)
    ran = world.run(world.contract("echo x > /out/x"), image="evil")
    assert ran.receipt.outcome is Outcome.DATA_CORRUPTED
    assert ran.receipt.details == ("image-corrupted",)


@pytest.mark.soak
def test_what_the_image_lacks_is_not_started(world):
    ran = world.run(world.contract("exec /bin/absent || exit 9"))
    assert ran.receipt.outcome is Outcome.EXITED


@pytest.mark.soak
def test_a_room_sees_what_runtimes_make_of_strange_layers(world, tmp_path):
    """A fifo works, hard-linked whiteouts hide, an opaque mark empties the directory that replaced a link."""
    layout = kit.Layout(tmp_path / "layout")
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as out:
            out.add(world.path("image"), ".")
        busybox = buffer.getvalue()
    lower = (
        kit.entry(b"opt/a", b"1")
        + kit.entry(b"opt/list", b"2")
        + kit.symlink(b"link", b"target")
        + kit.entry(b"target/keep", b"kept")
        + kit.entry(b"dev/console", flag=b"3")
    )
    upper = (
        kit.hardlink(b"opt/.wh.a", b"opt/list")
        + kit.folder(b"link/")
        + kit.entry(b"link/.wh..wh..opq")
        + kit.entry(b"link/new", b"new")
        + kit.pax({b"SCHILY.xattr.com.apple.provenance": b"x"})
        + kit.entry(b"var/pipe", flag=b"6", mode=0o666)
    )
    settings = {"Entrypoint": ["/bin/sh"], "User": "1000:1000", "WorkingDir": "/", "Env": ["PATH=/bin"]}
    layout.index(layout.image(busybox, lower, upper, b"", config=settings))
    real_rooms.strongroom(
        "convert", layout.path, "-i", world.path("bob.identity"), "--name", "strange", "--out", world.root
    )
    script = (
        "test -p /var/pipe && { echo through > /var/pipe & cat /var/pipe > /out/pipe; }; "
        "for place in opt link target dev; do ls /$place > /out/$place; done"
    )
    ran = world.run(world.contract(script, image="strange"), image="strange")
    assert ran.code == 0, ran.text
    files = ran.output(world.identity("bob"))
    assert files["pipe"] == b"through\n"
    assert (files["opt"], files["link"], files["target"]) == (b"list\n", b"new\n", b"keep\n")
    assert b"console" not in files["dev"]


def test_certificates_are_there_for_the_program_alone(world):
    script = "cat /run/strongroom/tls/chains/alice.pem > /out/chain; head -n1 /run/strongroom/tls/key.pem > /out/key; ls -lnL /run/strongroom/tls > /out/ls"
    ran = world.run(world.contract(script, "--certificate-name", "query.example.org"))
    assert ran.code == 0, ran.text
    files = ran.output(world.identity("bob"))
    assert files["chain"].count(b"BEGIN CERTIFICATE") == 3  # leaf, the contract's issuer, root
    assert b"PRIVATE KEY" in files["key"]
    assert b"-r--------" in files["ls"]


LINKS = {
    "tmp": "var/tmp",
    "run": "/tmp",
    "data": "/srv/data",
    "out": "../../srv/out",
    "proc": "srv/proc",
    "dev": "/srv/dev",
}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "files", "links", "entrypoint", "runs"),
    [
        ("program-in-data", {"data/sh": None}, {}, "/data/sh", False),
        ("interpreter-in-tmp", {"tmp/sh": None, "bin/probe": b"#!/tmp/sh\n"}, {}, "/bin/probe", False),
        ("mounts-by-links", {"etc/x": b""}, LINKS, "/bin/sh", True),
    ],
)
def test_preflights_word_is_what_happens(world, name, files, links, entrypoint, runs):
    contents = {
        path: real_rooms.BUSYBOX.read_bytes() if content is None else content
        for path, content in files.items()
    }
    real_rooms.convert_busybox(
        world.root, name, user="1000", files=contents, links=links, entrypoint=entrypoint
    )
    told = real_rooms.strongroom(
        "preflight", world.path(f"{name}.tree"), "--config", world.path(f"{name}.config.json"),
        "--platform", "local", check=False,
    )  # fmt: skip
    assert (told.returncode == 0) is runs, told.stdout
    script = "wc -l < /data/flights/table.csv > /out/rows; ls /run/strongroom/tls > /out/tls; echo x > /tmp/x && cat /var/tmp/x > /out/x"
    ran = world.run(world.contract(script, "--certificate-name", "query.example.org", image=name), image=name)
    if runs:
        assert ran.code == 0, ran.text
        files = ran.output(world.identity("bob"))
        assert files == {"rows": b"%d\n" % real_rooms.ROWS, "tls": b"chains\nkey.pem\n", "x": b"x\n"}
    else:
        assert ran.receipt.outcome is Outcome.NOT_STARTED
        assert ran.receipt.details == ("program-missing",)
