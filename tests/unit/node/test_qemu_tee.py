"""The command lines of hardware rooms, to the letter, and as far as the QEMU that is here can say."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import Malformed, Misuse
from strongroom.node.nitro import cli
from strongroom.node.qemu import machine as qemu
from strongroom.node.qemu import tee as qemu_tee

CONTRACT = "sha256:" + "ab" * 32
MACHINE = qemu.Machine(
    accelerator="kvm",
    memory_mib=512,
    firmware=3,
    kernel=4,
    initrd=5,
    cmdline=b"quiet room.root=ab",
    tpm=None,
    channel=7,
    drives=(qemu.Drive(serial="base", path=Path("/bases/one/snp/base.disk")),),
    tee=qemu_tee.Snp(contract_digest=CONTRACT, cbit=51, reduced=1),
)
SNP = "sev-snp-guest,id=tee,cbitpos=51,reduced-phys-bits=1,policy=0x30000"
TDX = (
    '{"qom-type": "tdx-guest", "id": "tee", '
    '"mrconfigid": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6sAAAAAAAAAAAAAAAAAAAAA", "sept-ve-disable": true, '
    '"quote-generation-socket": {"type": "vsock", "cid": "2", "port": "4050"}}'
)
DISK = (
    '{"driver": "raw", "node-name": "disk0", "read-only": true, "file": '
    '{"driver": "file", "filename": "/bases/one/snp/base.disk", "locking": "off"}}'
)
TAIL = [
    *("-m", "704M"),
    *("-nodefaults", "-no-user-config", "-no-reboot"),
    *("-display", "none"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    *("-rtc", "base=utc"),
    *("-bios", "/dev/fd/3"),
    *("-kernel", "/dev/fd/4"),
    *("-initrd", "/dev/fd/5"),
    *("-append", "quiet room.root=ab"),
    *("-chardev", "socket,id=relay,fd=7"),
    *("-device", "virtio-serial-pci,max_ports=2"),
    *("-device", "virtserialport,chardev=relay,name=strongroom"),
    *("-blockdev", DISK),
    *("-device", "virtio-blk-pci,drive=disk0,serial=base,addr=0x8.0,multifunction=on"),
]
BOARD = "q35,smm=off,sata=off,smbus=off,vmport=off"
MEMORY = "memory-backend-memfd,id=ram,size=704M,share=on,prealloc=off"


def test_golden_snp():
    assert qemu.arguments(MACHINE) == [
        "qemu-system-x86_64",
        *("-name", "strongroom"),
        *("-machine", f"{BOARD},confidential-guest-support=tee,memory-backend=ram"),
        *("-accel", "kvm"),
        *("-cpu", "EPYC-v4"),
        *("-object", MEMORY),
        "-object",
        f"{SNP},host-data=q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=,kernel-hashes=on",
        *TAIL,
    ]
    assert MACHINE.descriptors == (3, 4, 5, 7)


def test_golden_tdx():
    quoting = {"type": "vsock", "cid": "2", "port": "4050"}
    line = qemu.arguments(replace(MACHINE, tee=qemu_tee.Tdx(contract_digest=CONTRACT, quoting=quoting)))
    assert line == [
        "qemu-system-x86_64",
        *("-name", "strongroom"),
        "-machine",
        f"{BOARD},kernel-irqchip=split,confidential-guest-support=tee,memory-backend=ram",
        *("-accel", "kvm"),
        *("-cpu", "host"),
        *("-object", MEMORY),
        "-object",
        TDX,
        *TAIL,
    ]


def test_a_hardware_room_has_no_tpm_and_no_other_way_in_or_out():
    for tee in (MACHINE.tee, qemu_tee.Tdx(contract_digest=CONTRACT)):
        line = qemu.arguments(replace(MACHINE, tee=tee))
        for word in ("-tpmdev", "-netdev", "-nic", "-serial", "-monitor", "-qmp", "-vnc", "-gdb"):
            assert word not in line
        assert not any("debug" in word or "tpm" in word for word in line)


def test_the_guests_policy_allows_no_debugging_and_no_migration():
    assert qemu_tee.POLICY & (1 << 19 | 1 << 18) == 0
    assert qemu_tee.POLICY & 1 << 17


PEER = os.environ.get("STRONGROOM_QEMU") or shutil.which("qemu-system-x86_64") or ""
DATA = os.environ.get("STRONGROOM_QEMU_DATA", "")


def objects():
    if not PEER:
        pytest.skip("qemu-system-x86_64 is not installed")
    said = subprocess.run([PEER, "-object", "help"], capture_output=True, text=True, check=False)
    return said.stdout.split()


def tried(tee, change=lambda word: word):
    """What QEMU says to the command line, with KVM or without."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Path("/proc/self/exe").open("rb") as file:
        fd = file.fileno()
        machine = replace(
            MACHINE,
            firmware=fd,
            kernel=fd,
            initrd=fd,
            channel=theirs.fileno(),
            drives=(),
            tee=tee,
            accelerator="tcg",
        )
        line = [change(word) for word in qemu.arguments(machine)]
        line[0] = PEER
        line[line.index("-cpu") + 1] = "max"
        extra = [word for folder in DATA.split(":") if folder for word in ("-L", folder)]
        done = subprocess.run(
            [*line, *extra],
            capture_output=True,
            text=True,
            pass_fds=machine.descriptors,
            timeout=60,
            check=False,
        )
    assert done.returncode
    return done.stderr


@pytest.mark.parametrize(
    ("kind", "tee"),
    [("sev-snp-guest", MACHINE.tee), ("tdx-guest", qemu_tee.Tdx(contract_digest=CONTRACT))],
    ids=["snp", "tdx"],
)
def test_qemu_knows_every_option_or_not_the_tee_at_all(kind, tee):
    said = tried(tee)
    if kind in objects():
        # It has read the whole line, and stops at what only such a processor has.
        assert "KVM required" in said or "not supported" in said
        spoiled = tried(tee, lambda word: word.replace("policy=", "polity=").replace("sept-ve", "sept-we"))
        assert "polity" in spoiled or "sept-we" in spoiled
    else:
        assert f"does not accept value '{kind}'" in said


def test_golden_nitro():
    enclave = cli.Enclave(name="strongroom-1", eif=Path("/b/strongroom.eif"), memory_mib=1024, cid=77)
    assert cli.run_arguments(enclave) == [
        *("nitro-cli", "run-enclave"),
        *("--enclave-name", "strongroom-1"),
        *("--cpu-count", "2"),
        *("--memory", "1536"),
        *("--eif-path", "/b/strongroom.eif"),
        *("--enclave-cid", "77"),
    ]
    assert cli.terminate_arguments("i-1-enc2") == [
        "nitro-cli",
        "terminate-enclave",
        "--enclave-id",
        "i-1-enc2",
    ]
    for cid in (0, 3, 15, 1 << 16):
        with pytest.raises(Misuse, match="expected 16 to 65535"):
            cli.run_arguments(replace(enclave, cid=cid))


STARTED = {
    "EnclaveName": "x",
    "EnclaveID": "i-0123456789abcdef0-enc0123456789abcde",
    "EnclaveCID": 77,
    "CPUIDs": [1, 3],
}


def test_what_nitro_cli_answers():
    text = "Start allocating memory...\nStarted enclave with enclave-cid: 77\n" + json.dumps(STARTED)
    assert cli.parse_started(text, 77) == STARTED["EnclaveID"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "it started no enclave: 'nothing'"),
        ("[ E36 ] Enclave boot failure", "it started no enclave: '. E36 . Enclave boot failure'"),
        ("[]", "it started no enclave"),
        (json.dumps({**STARTED, "EnclaveCID": 78}), "names no enclave at the address asked for"),
        (json.dumps({**STARTED, "EnclaveID": "--help"}), "names no enclave at the address asked for"),
        (json.dumps({**STARTED, "EnclaveID": 1}), "names no enclave at the address asked for"),
        ("{" * 70_000, "its answer is too long"),
    ],
)
def test_nitro_cli_that_started_nothing(answer, why):
    with pytest.raises(Malformed, match=why):
        cli.parse_started(answer, 77)
