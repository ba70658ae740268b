"""What rooms are started with: the accelerator's choice, values computed beside, children."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from strongroom.errors import NotFound, Unavailable
from strongroom.node import children
from strongroom.node.background import Later
from strongroom.node.qemu import accelerator


def test_kvm_needs_processor_and_device(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vme\n")
    assert not accelerator.kvm_usable(cpuinfo=str(cpuinfo))
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vmx vme\n")
    assert not accelerator.kvm_usable(cpuinfo=str(cpuinfo), device=str(tmp_path / "absent"))
    # Something that opens but is no KVM device.
    assert not accelerator.kvm_usable(cpuinfo=str(cpuinfo), device="/dev/null")
    assert not accelerator.kvm_usable(cpuinfo=str(tmp_path / "absent"))


def test_the_guard_rules_kvm_out(monkeypatch):
    monkeypatch.setattr(accelerator, "kvm_usable", lambda: True)
    assert accelerator.choose(guarded=False) == "kvm"
    assert accelerator.choose(guarded=True) == "tcg"
    monkeypatch.setattr(accelerator, "kvm_usable", lambda: False)
    assert accelerator.choose(guarded=False) == "tcg"


def test_later_returns_and_raises():
    gate = threading.Event()

    def work():
        assert gate.wait(60)
        return 7

    value = Later(work)
    gate.set()
    assert (value.result(), value.result()) == (7, 7)
    failing = Later(lambda: {}["absent"])
    failing.wait()
    for _ in range(2):
        with pytest.raises(KeyError):
            failing.result()


def test_a_child_that_ends_is_told_by_its_descriptor_and_keeps_its_words():
    child = children.start(
        ["sh", "-c", "echo first >&2; printf 'last\\033[1m\\n' >&2; exit 5"], descriptors=(), guarded=False
    )
    try:
        assert child.wait(60) == 5
        assert child.complaint() == "last?[1m"
    finally:
        child.stop()
    child.stop()  # harmless


@pytest.mark.parametrize("guarded", [False, True])
def test_children_inherit_what_they_are_given_and_nothing_else(guarded, monkeypatch):
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "secret")
    kept, other = os.memfd_create("kept"), os.memfd_create("other")
    os.set_inheritable(other, True)
    out = os.memfd_create("out")
    script = f"exec >/dev/fd/{out}; env; [ -e /dev/fd/{kept} ] && echo kept; [ -e /dev/fd/{other} ] || echo no other; cat /dev/stdin"
    child = children.start(["sh", "-c", script], descriptors=(kept, out), guarded=guarded)
    try:
        assert child.wait(60) == 0
        said = os.pread(out, 4096, 0).decode()
        assert "kept\nno other\n" in said
        assert "secret" not in said
        assert "PATH=/usr" in said
    finally:
        child.stop()
        for fd in (kept, other, out):
            os.close(fd)


@pytest.mark.parametrize("guarded", [False, True])
def test_a_child_is_stopped_for_good(guarded):
    child = children.start(["sleep", "1000"], descriptors=(), guarded=guarded)
    pid = child.pid
    assert child.wait(0.05) is None
    child.stop()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_is_not_installed_is_named_with_its_package():
    with pytest.raises(NotFound, match="qemu-system-none") as caught:
        children.start(["qemu-system-none"], descriptors=(), guarded=False)
    assert "apt-get install" in caught.value.hint


def test_no_guard_here_is_a_refusal_never_a_run_without(monkeypatch):
    monkeypatch.setattr(children.launch, "supported", lambda: "the kernel has no memfd_secret")

    def fail(*_arguments, **_options):
        raise Unavailable("starting a guarded program: no", code="guard-failed")

    monkeypatch.setattr(children.launch, "spawn", fail)
    with pytest.raises(Unavailable, match="no memfd_secret") as caught:
        children.start(["sleep", "1"], descriptors=(), guarded=True)
    assert caught.value.code == "no-memory-guard"
    assert "--no-memory-guard" in caught.value.hint
