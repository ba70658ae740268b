"""The doctor finds what machines laid out by hand have and lack, and no back end stands in for another."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strongroom.errors import Misuse, Unavailable
from strongroom.node import backends, doctor
from tests import samples

SNP = {
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu svm sev sev_es sev_snp\n",
    "sys/module/kvm_amd/parameters/sev_snp": "Y\n",
    "dev/sev": "",
    "dev/kvm": "",
    "usr/bin/qemu-system-x86_64": "",
    "usr/share/ovmf/OVMF.amdsev.fd": "",
}
TDX = {
    "proc/cpuinfo": "flags\t\t: fpu vmx tdx_host_platform\n",
    "sys/module/kvm_intel/parameters/tdx": "Y\n",
    "dev/kvm": "",
    "usr/bin/qemu-system-x86_64": "",
    "usr/share/ovmf/OVMF.inteltdx.fd": "",
    "var/run/tdx-qgs/qgs.socket": "",
}
NITRO = {
    "dev/nitro_enclaves": "",
    "usr/bin/nitro-cli": "",
    "sys/module/nitro_enclaves/parameters/ne_cpus": "1,3\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
    "dev/vsock": "",
}
LOCAL = {
    "usr/bin/qemu-system-x86_64": "",
    "usr/bin/swtpm": "",
    "usr/bin/setpriv": "",
    "usr/share/seabios/bios-256k.bin": "",
}
MACHINES = {"qemu-snp": SNP, "qemu-tdx": TDX, "nitro": NITRO, "tpm": LOCAL}


def host(tmp_path, files, *, version="10.1.0", objects="sev-guest sev-snp-guest tdx-guest", kvm=True):
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def ask(line):
        return f"QEMU emulator version {version} (Debian)" if "--version" in line else f"List:\n  {objects}\n"

    return doctor.Host(root=tmp_path, ask=ask, kvm=lambda root: kvm and (root / "dev/kvm").exists())


@pytest.mark.parametrize("backend", MACHINES)
def test_a_machine_that_has_it_all_is_able_and_to_nothing_else(tmp_path, backend):
    found = {one.backend: one.able for one in doctor.examine(host(tmp_path, MACHINES[backend]))}
    assert found == {name: name == backend for name in backends.BACKENDS}


@pytest.mark.parametrize(
    ("backend", "lacks"),
    [(backend, name) for backend, files in MACHINES.items() for name in files],
)
def test_each_need_counts_and_names_its_fix(tmp_path, backend, lacks):
    files = {name: content for name, content in MACHINES[backend].items() if name != lacks}
    one = doctor.ability(host(tmp_path, files), backend)
    assert not one.able
    assert all(need.fix and need.found for need in one.missing)
    with pytest.raises(Unavailable) as caught:
        backends.require(backends.BACKENDS[backend], host(tmp_path, files))
    assert caught.value.code == "backend-unable"
    assert one.missing[0].name in caught.value.message


@pytest.mark.parametrize(
    ("backend", "changes", "need"),
    [
        ("qemu-snp", {"version": "9.0.2"}, "qemu-system-x86_64"),
        ("qemu-snp", {"version": "nonsense"}, "qemu-system-x86_64"),
        ("qemu-snp", {"objects": "sev-guest"}, "sev-snp-guest"),
        ("qemu-snp", {"kvm": False}, "/dev/kvm"),
        ("qemu-tdx", {"version": "10.0.2"}, "qemu-system-x86_64"),
        ("qemu-tdx", {"objects": "sev-snp-guest"}, "tdx-guest"),
    ],
)
def test_programs_are_asked_what_they_can(tmp_path, backend, changes, need):
    one = doctor.ability(host(tmp_path, MACHINES[backend], **changes), backend)
    assert [found.name for found in one.missing] == [need]


@pytest.mark.parametrize(
    ("backend", "path", "content"),
    [
        ("qemu-snp", "sys/module/kvm_amd/parameters/sev_snp", "N"),
        ("qemu-tdx", "sys/module/kvm_intel/parameters/tdx", "N"),
        ("nitro", "sys/module/nitro_enclaves/parameters/ne_cpus", "(null)"),
        ("nitro", "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"),
    ],
)
def test_what_is_switched_off_is_not_there(tmp_path, backend, path, content):
    assert not doctor.ability(host(tmp_path, MACHINES[backend] | {path: content}), backend).able


def test_a_virtual_machine_that_shows_the_flag_of_a_guest_is_no_host(tmp_path):
    files = TDX | {"proc/cpuinfo": "flags : fpu tdx_guest\n"}
    assert not doctor.ability(host(tmp_path, files), "qemu-tdx").able


def test_quoting_by_socket_or_by_vsock(tmp_path):
    made = host(tmp_path, TDX)
    assert made.quoting() == {"type": "unix", "path": "/var/run/tdx-qgs/qgs.socket"}
    (tmp_path / "var/run/tdx-qgs/qgs.socket").unlink()
    assert made.quoting() is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/qgs.conf").write_text("port = 4050\nnumber_threads = 4\n")
    assert made.quoting() is None
    (tmp_path / "dev/vsock").touch()
    assert made.quoting() == {"type": "vsock", "cid": "2", "port": "4050"}


def test_the_encryption_bit_is_read_from_the_processor(tmp_path):
    assert doctor.Host(root=tmp_path).encryption_bit() == (51, 1)
    (tmp_path / "dev/cpu/0").mkdir(parents=True)
    with (tmp_path / "dev/cpu/0/cpuid").open("wb") as file:
        file.truncate(0x8000001F)
        file.seek(0x8000001F)
        file.write(bytes(4) + (5 << 6 | 47).to_bytes(4, "little") + bytes(8))
    assert doctor.Host(root=tmp_path).encryption_bit() == (47, 5)


def test_for_programs(tmp_path):
    told = json.loads(json.dumps([one.to_json() for one in doctor.examine(host(tmp_path, SNP))]))
    assert [one["backend"] for one in told if one["able"]] == ["qemu-snp"]


def test_a_firmware_of_ones_own_needs_no_usual_one(tmp_path):
    files = {name: content for name, content in SNP.items() if "OVMF" not in name}
    backends.require(backends.BACKENDS["qemu-snp"], host(tmp_path, files), given=frozenset({"firmware"}))


def contract(*tees):
    made = samples.a_contract()
    return replace(made, platforms=tuple(replace(made.platforms[0], tee=tee) for tee in tees))


def test_local_is_the_default_only_where_the_contract_accepts_it():
    assert backends.choose(None, contract("snp", "tpm")).name == "tpm"
    for tees in (("snp",), ("snp", "tdx"), ("azure",)):
        with pytest.raises(Misuse) as caught:
            backends.choose(None, contract(*tees))
        assert caught.value.hint
    assert backends.choose("qemu-snp", contract("snp", "tpm")).tee == "snp"


@pytest.mark.parametrize(
    ("name", "tees", "why"),
    [
        ("qemu-tdx", ("snp",), "the contract names no platform tdx, only snp"),
        ("tpm", ("snp",), "the contract names no platform tpm, only snp"),
        ("qemu-sev", ("snp",), "no such back end"),
    ],
)
def test_a_back_end_that_every_broker_would_deny_is_not_started(name, tees, why):
    with pytest.raises(Misuse, match=why):
        backends.choose(name, contract(*tees))


def test_each_profile_of_a_base_has_its_folder(tmp_path):
    one = backends.BACKENDS["qemu-snp"]
    assert backends.base_folder(tmp_path, one) == tmp_path
    (tmp_path / "snp").mkdir()
    assert backends.base_folder(tmp_path, one) == tmp_path / "snp"
