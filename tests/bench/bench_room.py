"""Rooms: from the start of `strongroom run` to the program's first instruction, beside a bare boot of the same kernel in
the same run; and where a room's start goes, phase by phase.

A bare boot is the same machine with an init of a few lines in the agent's place, started by the node's own code. The phases
are those of the base's own init and agent, with marks on a serial port between them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import statistics
import tempfile
import time
from pathlib import Path

from strongroom.bases import initramfs
from strongroom.errors import StrongroomError
from strongroom.node import children, launch_record, room
from strongroom.node.qemu import accelerator
from strongroom.node.qemu import machine as qemu
from strongroom.node.vtpm import create, state, swtpm
from tests import samples
from tests.bench.turns import row
from tests.e2e import real_rooms, tiny

ROUNDS = 3
MEMORY_MIB = 512
PAUSE = 0.005  # between two looks at the marks
PROMPT = 'phase "up"\n' + tiny.DONE
# Marks of the phases in the order of the boot: what has just ended.
PHASES = (
    ("kernel", "firmware, kernel and unpacking"),
    ("modules", "modules"),
    ("verity", "record of reads, verity and mounts"),
    ("interpreter", "interpreter"),
    ("imports", "imports"),
    ("hello", "TEE, channel and hello"),
)
# What a room tells of itself, in its order: what has just ended, since what stands above.
ACTS = (
    ("booted", "from `run` to hello"),
    ("contract-bound", "contract bound"),
    ("attested:alice", "checks, keys, attestation and release"),
    ("disks-open", "disks opened"),
    ("program-started", "container and program"),
)
# The agent's own acts up to hello, with marks.
AGENT = """
import os, sys
mark = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
os.write(mark, b"interpreter\\n")
from strongroom.agent import value_classes
sys.modules["dataclasses"] = value_classes
from strongroom.agent import channel, init, kernel, launcher, room
from strongroom.agent.devices import detect
from strongroom.agent.disks import reads
os.write(mark, b"imports\\n")
init.set_up()
launcher.spawn()
port = channel.open_any()
reads.inherited()
detect.hardware(detect.RealKernel())
port.send_control("hello")
os.write(mark, b"hello\\n")
import time
time.sleep(100)
"""


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    if real_rooms.missing():
        raise SystemExit(real_rooms.missing())
    root = Path(tempfile.mkdtemp(prefix="strongroom-bench-"))
    world = real_rooms.prepare(root)
    try:
        told, totals, bare, phases = _measured(world, root)
    finally:
        world.close()
        shutil.rmtree(root)
    rows = []
    for guarded, how in ((False, "plain"), (True, "guarded")):
        boot = statistics.median(bare[guarded])
        first = statistics.median(at["program-started"] for at in told[guarded])
        rows += [
            row(f"bare boot of the kernel, {how}, s", f"{boot:.2f}"),
            row(f"`run` to the first instruction, {how}, s", f"{first:.2f}"),
            row(f"ratio of the two, {how}", f"{first / boot:.2f}", "≤ 1.7"),
            row(f"a whole run of `exit 0`, {how}, s", f"{statistics.median(totals[guarded]):.2f}"),
        ]
        before = ""
        for name, what in ACTS:
            took = statistics.median(at[name] - at.get(before, 0.0) for at in told[guarded])
            rows.append(row(f"act: {what}, {how}, of a bare boot", f"{took / boot:.2f}"))
            before = name
    boot = statistics.median(bare[False])
    return rows + [
        row(f"phase: {what}, of a bare boot", f"{statistics.median(times) / boot:.2f}")
        for (_, what), times in zip(PHASES, phases, strict=True)
    ]


def _measured(
    world: real_rooms.World, root: Path
) -> tuple[
    dict[bool, list[dict[str, float]]], dict[bool, list[float]], dict[bool, list[float]], list[list[float]]
]:
    contract = world.contract("exit 0", "--runs", 4 * ROUNDS, "--memory-mib", MEMORY_MIB)
    node = create.create(root / "bare-node", "bare", now=samples.NOW, random=secrets.token_bytes)
    tiny.build(root / "bare", root / "base", PROMPT)
    marked = _marked(root / "base", root / "marked")
    told: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    totals: dict[bool, list[float]] = {False: [], True: []}
    bare: dict[bool, list[float]] = {False: [], True: []}
    phases: list[list[float]] = [[] for _ in PHASES]
    for number in range(ROUNDS):
        for guarded in (False, True):  # in turns, so that a noisy neighbour hits all
            bare[guarded].append(
                _bare(node, root / "bare", root / f"bare-{number}-{guarded}", guarded=guarded)
            )
            folder = root / f"bench-{number}-{guarded}"
            done = real_rooms.strongroom(
                "run", contract, "--node", root / "node", "--base", root / "base",
                "--disk", root / "query.disk", "--disk", root / "flights.disk", "--out", folder,
                *(() if guarded else ("--no-memory-guard",)),
            )  # fmt: skip
            status = real_rooms.Ran(code=done.returncode, text="", folder=folder).status
            told[guarded].append({one["name"]: one["milliseconds"] / 1000 for one in status["phases"]})
            totals[guarded].append(status["total_milliseconds"] / 1000)
        for times, took in zip(phases, _phases(node, root / "base", marked), strict=True):
            times.append(took)
    return told, totals, bare, phases


def _bare(node: state.VtpmNode, base: Path, out: Path, *, guarded: bool) -> float:
    """Seconds from the start of a room's machine to the first word of an init of a few lines."""
    out.mkdir()
    heard: list[float] = []
    agreement = samples.signed(samples.a_contract(memory_mib=MEMORY_MIB))
    order = room.Order(
        room="main", node=node, base=base, agreement=agreement, drives=(), manifests={}, out=out, guarded=guarded,
    )  # fmt: skip
    one = room.Room(order=order, on_phase=lambda _name, _moment: heard.append(time.monotonic()))
    began = time.monotonic()
    with contextlib.suppress(StrongroomError):  # it has no receipt to show
        one.run()
    return heard[0] - began


def _marked(base: Path, folder: Path) -> Path:
    """An initrd as the base's, whose init and agent mark their phases."""
    folder.mkdir()
    init = re.search(
        rb"#!/bin/busybox sh\n.*?\nexec \$b env [^\n]*\n", (base / "initrd").read_bytes(), re.DOTALL
    )
    assert init is not None
    lines = []
    for line in init[0].decode().splitlines():
        if "modprobe -a" in line:
            lines.append("exec 4>/dev/ttyS0; echo kernel >&4")
        lines.append(line)
        if "modules_disabled" in line:
            lines.append("echo modules >&4")
        if line == "cd /root":
            lines.append("echo verity >&4")
    script = "\n".join(lines).replace("-m strongroom.agent", f"-c '{AGENT}'") + "\n"
    archive = tiny.Cpio()
    archive.file("init", script.encode(), 0o755)
    path = folder / "initrd"
    path.write_bytes((base / "initrd").read_bytes() + archive.done())
    return path


def _phases(node: state.VtpmNode, base: Path, initrd: Path) -> list[float]:
    """Seconds of each phase, in a machine as a room's, with a serial port for the marks."""
    chip = os.memfd_create("tpm-state")
    os.write(chip, node.tpm_state())
    control, tpm_control = socket.socketpair()
    link, qemu_link = socket.socketpair()
    marks = initrd.with_name("marks")
    serial = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    cmdline = (base / "cmdline").read_bytes().replace(b"8250.nr_uarts=0", b"8250.nr_uarts=1")
    opened = [os.open(path, os.O_RDONLY) for path in (launch_record.FIRMWARE, base / "bzImage", initrd)]
    machine = qemu.Machine(
        accelerator=accelerator.choose(guarded=True), memory_mib=MEMORY_MIB,
        firmware=opened[0], kernel=opened[1], initrd=opened[2], cmdline=cmdline,
        tpm=control.fileno(), channel=qemu_link.fileno(), serial=serial,
        drives=(qemu.Drive(serial=initramfs.SERIAL, path=base / "base.disk"),),
    )  # fmt: skip
    began = time.monotonic()
    tpm = children.start(
        swtpm.arguments(chip, tpm_control.fileno()), descriptors=(chip, tpm_control.fileno()), guarded=False
    )
    guest = children.start(qemu.arguments(machine), descriptors=machine.descriptors, guarded=False)
    os.close(serial)
    took: list[float] = []
    try:
        while len(took) < len(PHASES):
            assert guest.wait(PAUSE) is None, guest.complaint()
            for _ in range(marks.read_bytes().count(b"\n") - len(took)):
                now = time.monotonic()
                took.append(now - began)
                began = now
    finally:
        guest.stop()
        tpm.stop()
        for one in (control, tpm_control, link, qemu_link):
            one.close()
        for descriptor in (chip, *opened):
            os.close(descriptor)
    assert marks.read_text().split() == [name for name, _ in PHASES]
    return took


def main() -> None:
    """Print the rows."""
    for one in run():
        print(f"{one['what']:52} {one['value']!s:>8}  {one['aim']}")


if __name__ == "__main__":
    main()
