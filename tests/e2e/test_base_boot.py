"""Bases that boot, and bases that must not: plain QEMU, with a stand-in where the agent would be."""

import json
import shutil
from pathlib import Path

import pytest

import strongroom
from strongroom.bases import build, cache, document
from strongroom.bases import profile as base_profile
from tests.bench import bench_base
from tests.e2e.shared_cache import SHARED

pytestmark = [
    pytest.mark.room,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

STAND_IN = """
import os, sys
def say(text):
    port, = [name for name in os.listdir("/sys/class/virtio-ports")]
    fd = os.open("/dev/" + port, os.O_RDWR)
    os.write(fd, text.encode() + b"\\n")
def lines(path):
    with open(path) as file:
        return file.read().splitlines()
def main():
    mounts = {line.split()[1]: line.split()[0] + " " + line.split()[2] for line in lines("/proc/mounts")}
    facts = {
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "mounts": mounts,
        "argv": sys.orig_argv,
        "root": sorted(os.listdir("/")),
        "consoles": lines("/proc/consoles"),
        "serials": [name for name in os.listdir("/dev") if name.startswith("ttyS")],
        "disabled": lines("/proc/sys/kernel/modules_disabled"),
        "lockdown": lines("/sys/kernel/security/lockdown") if os.path.exists("/sys/kernel/security/lockdown") else [],
        "modules": sorted(line.split()[0] for line in lines("/proc/modules")),
        "outputs": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
        "record": os.readlink("/proc/self/fd/3"),
        "traces": os.listdir("/sys/kernel/tracing"),
        "busybox": os.path.exists("/bin/busybox"),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")) - sum(
            not lines(f"/proc/{name}/cmdline") for name in os.listdir("/proc") if name.isdigit()),
    }
    try:
        open("/usr/new", "w")
    except OSError as error:
        facts["write"] = error.errno
    import json
    say(json.dumps(facts))
    import time
    time.sleep(60)
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory) -> Path:
    """A base whose agent says what it finds."""
    return with_stand_in(tmp_path_factory, base_profile.LOCAL)


def with_stand_in(tmp_path_factory, profile) -> Path:
    package = tmp_path_factory.mktemp("package")
    for name in (*build.AGENT_MODULES, *(f"{folder}/__init__.py" for folder in build.AGENT_PACKAGES)):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("")
    # A base's Python has these in the place of its own dataclasses, whoever its agent is.
    shutil.copy(Path(strongroom.__file__).parent / "agent/value_classes.py", package / "agent")
    (package / "agent" / "__main__.py").write_text(STAND_IN)
    out = tmp_path_factory.mktemp("base") / "base"
    with cache.locked(SHARED):  # else another build takes what this one lays out for an interrupted one's
        made = build.assemble(build.sources(package=package, profile=profile), SHARED, lambda _: None)
    out.mkdir()
    for name, content in made.items():
        (out / name).write_bytes(content)
    return out


@pytest.fixture(scope="module")
def plain(stand_in) -> dict:
    """What it finds on a machine as nodes start it."""
    said = bench_base.boot(stand_in, until=b"\n")
    assert said is not None
    return json.loads(said.data)


def test_rule_26_what_no_register_covers_changes_nothing_for_the_agent(stand_in, plain, tmp_path):
    """SMBIOS strings and credentials, processors, memory, the clock, fw_cfg files and a further disk are the host's word."""
    (tmp_path / "other.disk").write_bytes(b"strongroom.root=0" * 4096)
    said = bench_base.boot(
        stand_in,
        until=b"\n",
        more=(
            *("-smp", "2", "-m", "640", "-rtc", "base=2001-01-01T00:00:00"),
            *("-smbios", "type=1,manufacturer=init=/bin/sh,serial=console=ttyS0"),
            *("-smbios", "type=11,value=io.systemd.credential:agent=evil"),
            *("-fw_cfg", "name=opt/strongroom/cmdline,string=console=ttyS0"),
            *("-drive", f"file={tmp_path}/other.disk,if=none,id=other,format=raw,readonly=on"),
            *("-device", "virtio-blk-pci,drive=other,serial=base2"),
        ),
    )
    assert said is not None
    assert json.loads(said.data) == plain


def evil_table(folder: Path) -> tuple[str, ...]:
    """An ACPI table whose bytecode ends QEMU as soon as the kernel runs it: it writes to a port that does so."""
    body = b"\x5b\x80EVLR\x01\x0b\x01\x05\x0a\x01"  # OperationRegion (EVLR, SystemIO, 0x501, 1)
    body += b"\x5b\x81\x0bEVLR\x01EVLF\x08"  # Field (EVLR, ByteAcc) { EVLF, 8 }
    body += b"\x70\x01EVLF"  # Store (One, EVLF)
    (folder / "evil").write_bytes(body)
    return (
        *("-acpitable", f"sig=SSDT,rev=2,oem_id=EVIL00,oem_table_id=EVIL0000,data={folder}/evil"),
        *("-device", "isa-debug-exit,iobase=0x501,iosize=1"),
    )


def test_rule_26_acpi_bytecode_of_the_host_does_not_run_in_the_base_for_snp(stand_in, tmp_path):
    """No register of SEV-SNP covers ACPI tables. In a local room the same bytecode runs: docs/limits.md says so."""
    for name in ("bzImage", "initrd", "base.disk", "base.json"):
        (tmp_path / name).symlink_to(stand_in / name)
    line = (stand_in / "cmdline").read_text()
    (tmp_path / "cmdline").write_text(" ".join((line, *base_profile.SNP.options)))
    more = evil_table(tmp_path)
    assert bench_base.boot(stand_in, until=b"\n", more=more) is None
    assert bench_base.boot(tmp_path, until=b"\n", more=more) is not None


def test_the_agent_finds_what_it_was_promised_and_no_more(plain):
    facts = json.loads(json.dumps(plain))
    assert facts["pid"] == 1
    assert facts["environment"].pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # set by Python itself
    assert facts["environment"] == {"PATH": "/usr/bin"}
    assert facts["argv"] == list(build.AGENT.command)
    assert facts["mounts"]["/"] == "/dev/dm-0 erofs"
    assert {"/proc", "/sys", "/dev", "/run", "/tmp"} <= set(facts["mounts"])
    assert facts["write"] == 30  # EROFS: the tree is read-only
    assert facts["root"] == ["dev", "lib", "lib64", "proc", "run", "sys", "tmp", "usr"]
    assert facts["consoles"] == []
    assert facts["serials"] == []
    assert facts["disabled"] == ["1"]
    assert {"dm_verity", "dm_crypt", "erofs", "overlay", "xts", "virtio_console"} <= set(facts["modules"])
    assert facts["outputs"] == ["/dev/null"] * 3
    assert not facts["busybox"]
    assert facts["record"].endswith("/trace_pipe")
    assert facts["traces"] == []
    assert facts["lockdown"] == ["none integrity [confidentiality]"]
    assert facts["processes"] == 1


@pytest.mark.parametrize("place", ["superblock", "library", "tree"])
def test_a_disk_with_one_changed_byte_does_not_boot(stand_in, tmp_path, place):
    content = bytearray((stand_in / "base.disk").read_bytes())
    offset = {
        "superblock": 1024,
        "library": content.index(b"GNU C Library (Debian GLIBC"),
        # The tree's top block lies right behind the superblock.
        "tree": int((stand_in / "cmdline").read_text().rpartition("=")[2]) * 4096 + 4096,
    }[place]
    content[offset] ^= 1
    (tmp_path / "base.disk").write_bytes(content)
    assert bench_base.boot(stand_in, disk=tmp_path / "base.disk", until=b"\n") is None


def test_a_machine_without_the_disk_powers_off(stand_in, tmp_path):
    (tmp_path / "other.disk").write_bytes(bytes(1 << 20))
    assert bench_base.boot(stand_in, disk=tmp_path / "other.disk", until=b"\n") is None
    assert bench_base.boot(stand_in, serial="image", until=b"\n") is None


def test_another_root_hash_does_not_boot(stand_in, tmp_path):
    for name in ("bzImage", "initrd", "base.disk", "base.json"):
        (tmp_path / name).symlink_to(stand_in / name)
    line = (stand_in / "cmdline").read_text()
    root = document.load(stand_in).root_hash.removeprefix("sha256:")
    (tmp_path / "cmdline").write_text(line.replace(root, "0" * 64))
    assert bench_base.boot(tmp_path, until=b"\n") is None


def test_the_real_agent_speaks():
    """The base as built, with every module of the agent: without a TPM it can only say why it ends."""
    built = build.build(build.sources(), SHARED, lambda _: None)
    assert bench_base.boot(built.folder) is not None


def test_the_debugging_base_talks_and_says_so(tmp_path):
    built = build.build(build.sources(debug=True), SHARED, lambda _: None)
    assert built.base.debug
    silent = build.build(build.sources(), SHARED, lambda _: None)
    assert not silent.base.debug
    assert built.base.reference["cmdline"] != silent.base.reference["cmdline"]
    log = tmp_path / "serial"
    more = ("-serial", f"file:{log}")
    assert bench_base.boot(built.folder, more=more) is not None
    assert b"Run /init as init process" in log.read_bytes()
    assert bench_base.boot(silent.folder, more=more) is not None
    assert log.read_bytes() == b""  # neither kernel, initrd nor agent has a way to the port


def test_the_base_for_snp_loads_what_evidence_needs_and_then_nothing_more(tmp_path_factory):
    """Kernel 6.12 without SEV: its guest driver refuses to load, and what it stands on is there for an agent that looks."""
    said = bench_base.boot(with_stand_in(tmp_path_factory, base_profile.SNP), until=b"\n")
    assert said is not None
    facts = json.loads(said.data)
    assert facts["mounts"]["/"] == "/dev/dm-0 erofs"
    assert {"tsm", "configfs", "dm_verity", "dm_crypt", "erofs", "overlay", "xts"} <= set(facts["modules"])
    assert "sev_guest" not in facts["modules"]
    assert facts["disabled"] == ["1"]
    assert facts["consoles"] == facts["serials"] == []
    assert facts["outputs"] == ["/dev/null"] * 3


def built(name: str) -> Path:
    return build.build(build.sources(profile=base_profile.PROFILES[name]), SHARED, lambda _: None).folder


@pytest.mark.soak  # test_measured_boot boots an image from a disk each time
def test_the_disk_image_boots_from_its_own_partition():
    """UEFI finds the program, the initrd the partition by its name; the agent then wants a TEE."""
    assert bench_base.boot(built("uki"), machine=bench_base.firmware) is not None


@pytest.mark.soak
@pytest.mark.parametrize(
    "controller",
    ["nvme,drive=disk,serial=x", "virtio-scsi-pci + scsi-hd,drive=disk"],
)
def test_the_disk_image_boots_from_the_controllers_of_clouds(controller):
    def machine(folder):
        return bench_base.firmware(folder, controller)

    assert bench_base.boot(built("uki"), machine=machine) is not None


@pytest.mark.soak
def test_a_disk_image_with_one_changed_byte_of_the_base_does_not_boot(tmp_path):
    folder = built("uki")
    content = bytearray((folder / "strongroom.img").read_bytes())
    content[content.index((folder / "base.disk").read_bytes()) + 1024] ^= 1
    (tmp_path / "strongroom.img").write_bytes(content)
    (tmp_path / "base.json").symlink_to(folder / "base.json")
    assert bench_base.boot(tmp_path, machine=bench_base.firmware) is None


@pytest.mark.soak
def test_the_base_for_tdx_boots():
    assert bench_base.boot(built("tdx")) is not None


@pytest.mark.soak
def test_the_image_for_nitro_finds_its_disk_in_memory(tmp_path):
    folder = built("nitro")
    for name in ("base.json", "bzImage", "strongroom.eif"):
        (tmp_path / name).symlink_to(folder / name)
    assert bench_base.boot(tmp_path, machine=bench_base.enclave) is not None
