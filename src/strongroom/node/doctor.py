"""What a machine can do: each back end's needs, looked for one by one, with the fix for what is missing.

Nothing is started and nothing is pretended: a back end is able when every one of its needs was found. Files are
looked for below `Host.root`, programs asked through `Host.ask`, so that tests lay out machines of their own.

  tpm        local rooms: software emulation, or KVM; simulated by its nature
  qemu-snp   AMD SEV-SNP: Linux 6.11 and QEMU 9.1 or later
  qemu-tdx   Intel TDX: Linux 6.16 and QEMU 10.1 or later
  nitro      AWS Nitro enclaves, from a parent instance
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.node.qemu import accelerator

if TYPE_CHECKING:
    from collections.abc import Callable

SNP_FIRMWARE = (
    "usr/share/ovmf/OVMF.amdsev.fd",
    "usr/share/OVMF/OVMF.amdsev.fd",
    "usr/share/edk2/ovmf/OVMF.amdsev.fd",
)
TDX_FIRMWARE = (
    "usr/share/ovmf/OVMF.inteltdx.fd",
    "usr/share/OVMF/OVMF.inteltdx.fd",
    "usr/share/edk2/ovmf/OVMF.inteltdx.fd",
)
QGS_SOCKET, QGS_CONF = "var/run/tdx-qgs/qgs.socket", "etc/qgs.conf"
QEMU = "qemu-system-x86_64"
_PATH = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/bin")
_MAX_FILE = 64 * 1024
_SECONDS = 10.0
_VERSION = re.compile(r"version (\d+)\.(\d+)")
_TRUE = frozenset({"1", "y"})


@dataclass(frozen=True, kw_only=True)
class Need:
    """One need. found: what was seen. optional: without it the back end works, with less."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    optional: bool = False

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Ability:
    """A back end and its needs, in the order in which to settle them."""

    backend: str
    about: str
    needs: tuple[Need, ...]

    @property
    def able(self) -> bool:
        """Whether every need that is not optional was found."""
        return all(need.ok or need.optional for need in self.needs)

    @property
    def missing(self) -> tuple[Need, ...]:
        """The needs that keep the back end from working."""
        return tuple(need for need in self.needs if not need.ok and not need.optional)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "backend": self.backend,
            "able": self.able,
            "needs": [need.to_json() for need in self.needs],
        }


def run_program(line: list[str]) -> str:
    """What a program prints, both ways; empty when it cannot be run."""
    try:
        done = subprocess.run(
            line, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr)[:_MAX_FILE].decode(errors="replace")


def _kvm_usable(root: Path) -> bool:
    return accelerator.kvm_usable(device=str(root / "dev/kvm"), cpuinfo=str(root / "proc/cpuinfo"))


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine looked at. ask: runs a program and returns what it printed. kvm: whether machines can be made."""

    root: Path = Path("/")
    ask: Callable[[list[str]], str] = field(default=run_program)
    kvm: Callable[[Path], bool] = field(default=_kvm_usable)

    def has(self, path: str) -> bool:
        """Whether there is something."""
        return os.path.lexists(self.root / path)

    def read(self, path: str) -> str:
        """A small file's text without the white space around it; empty when it is not there."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_MAX_FILE).decode(errors="replace").strip()
        except OSError:
            return ""

    def program(self, name: str) -> str:
        """Where a program is, or empty."""
        return next((f"/{folder}/{name}" for folder in _PATH if self.has(f"{folder}/{name}")), "")

    def flags(self) -> frozenset[str]:
        """The first processor's flags."""
        for line in self.read("proc/cpuinfo").splitlines():
            if line.startswith("flags"):
                return frozenset(line.split())
        return frozenset()

    def firmware(self, candidates: tuple[str, ...]) -> Path | None:
        """The first of `candidates` that is there."""
        return next((self.root / path for path in candidates if self.has(path)), None)

    def encryption_bit(self) -> tuple[int, int]:
        """Where SEV's bit is in an address, and by how many bits addresses shrink: CPUID 8000001Fh, EBX.

        Where /dev/cpu/0/cpuid is not there, 51 and 1, as all processors with SEV-SNP so far have it; QEMU refuses
        others.
        """
        try:
            with (self.root / "dev/cpu/0/cpuid").open("rb", buffering=0) as device:
                device.seek(0x8000001F)
                ebx = int.from_bytes(device.read(16)[4:8], "little")
        except OSError:
            ebx = 0
        return (ebx & 0x3F, ebx >> 6 & 0x3F) if ebx else (51, 1)

    def quoting(self) -> dict[str, str] | None:
        """Where the quote generation service answers, as QEMU's SocketAddress; None where there is none."""
        if self.has(QGS_SOCKET):
            return {"type": "unix", "path": f"/{QGS_SOCKET}"}
        port = re.search(r"^\s*port\s*=\s*(\d{1,5})\s*$", self.read(QGS_CONF), re.MULTILINE)
        return {"type": "vsock", "cid": "2", "port": port[1]} if port and self.has("dev/vsock") else None


def examine(host: Host) -> tuple[Ability, ...]:
    """Every back end."""
    return (_local(host), _snp(host), _tdx(host), _nitro(host))


def ability(host: Host, backend: str) -> Ability:
    """That back end's."""
    return next(row for row in examine(host) if row.backend == backend)


def _local(host: Host) -> Ability:
    secret = host.read("sys/module/secretmem/parameters/enable")
    needs = (
        _program(host, QEMU, "apt-get install qemu-system-x86 (Debian, Ubuntu)"),
        _program(host, "swtpm", "apt-get install swtpm (Debian, Ubuntu)"),
        _program(host, "setpriv", "apt-get install util-linux (Debian, Ubuntu)"),
        _file(
            host, "firmware", ("usr/share/seabios/bios-256k.bin",), "apt-get install seabios (Debian, Ubuntu)"
        ),
        _kvm(host, optional=True),
        Need(
            name="memory-guard",
            ok=secret.lower() in _TRUE,
            found=f"memfd_secret, enable={secret}"
            if secret
            else "no memfd_secret, or not for this user to see",
            fix="root, on a kernel with CONFIG_SECRETMEM (before Linux 6.5: secretmem.enable=1); else --no-memory-guard",
            optional=True,
        ),
    )
    return Ability(backend="tpm", about="local rooms, SIMULATED: no hardware isolates them", needs=needs)


def _snp(host: Host) -> Ability:
    flags = host.flags()
    parameter = host.read("sys/module/kvm_amd/parameters/sev_snp")
    needs = (
        _flag(
            flags,
            "sev_snp",
            "an AMD EPYC of the line 7003 or later, with SMEE, SEV-ES and SNP on in the firmware's setup",
        ),
        Need(
            name="kvm_amd",
            ok=parameter.lower() in _TRUE,
            found=f"sev_snp={parameter}" if parameter else "no parameter sev_snp",
            fix="Linux 6.11 or later, kvm_amd loaded with sev=1 sev_es=1 sev_snp=1, IOMMU on, and RMP memory reserved",
        ),
        _device(host, "dev/sev", "load the module ccp; the firmware must have the secure processor on"),
        _kvm(host),
        *_qemu(host, "sev-snp-guest", (9, 1)),
        _file(
            host,
            "firmware",
            SNP_FIRMWARE,
            "the AmdSev build of OVMF, which checks the kernel against the hashes that were measured (Debian 13: "
            "apt-get install ovmf-amdsev or ovmf); the general OVMF.fd does not check them",
        ),
    )
    return Ability(backend="qemu-snp", about="AMD SEV-SNP", needs=needs)


def _tdx(host: Host) -> Ability:
    flags = host.flags()
    parameter = host.read("sys/module/kvm_intel/parameters/tdx")
    quoting = host.quoting()
    needs = (
        _flag(
            flags,
            "tdx_host_platform",
            "a 4th generation Xeon (with TDX) or later, with TME-MT, TDX and SEAM loader on in the firmware's setup",
        ),
        Need(
            name="kvm_intel",
            ok=parameter.lower() in _TRUE,
            found=f"tdx={parameter}" if parameter else "no parameter tdx",
            fix="Linux 6.16 or later, with kvm_intel.tdx=1 on its command line",
        ),
        _kvm(host),
        *_qemu(host, "tdx-guest", (10, 1)),
        _file(host, "firmware", TDX_FIRMWARE, "an OVMF built with IntelTdxX64 (OVMF.inteltdx.fd)"),
        Need(
            name="quoting",
            ok=quoting is not None,
            found="no quote generation service" if quoting is None else "; ".join(quoting.values()),
            fix=f"install Intel's tdx-qgs and let it listen on /{QGS_SOCKET}, or by vsock (port = 4050 in /{QGS_CONF})",
        ),
    )
    return Ability(backend="qemu-tdx", about="Intel TDX", needs=needs)


def _nitro(host: Host) -> Ability:
    pages = host.read("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    large = host.read("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
    reserved = any(count.isdigit() and int(count) > 0 for count in (pages, large))
    processors = host.read("sys/module/nitro_enclaves/parameters/ne_cpus")
    needs = (
        _device(
            host,
            "dev/nitro_enclaves",
            "an EC2 instance that was started with --enclave-options Enabled=true, and the module nitro_enclaves",
        ),
        _program(host, "nitro-cli", "dnf install aws-nitro-enclaves-cli (Amazon Linux)"),
        Need(
            name="processors",
            ok=bool(processors) and processors != "(null)",
            found=processors or "none set aside",
            fix="cpu_count in /etc/nitro_enclaves/allocator.yaml, then systemctl restart nitro-enclaves-allocator",
        ),
        Need(
            name="memory",
            ok=reserved,
            found=f"{pages or 0} huge pages of 2 MiB, {large or 0} of 1 GiB",
            fix="memory_mib in /etc/nitro_enclaves/allocator.yaml, then systemctl restart nitro-enclaves-allocator",
        ),
        _device(host, "dev/vsock", "load the module vhost_vsock or vsock"),
    )
    return Ability(backend="nitro", about="AWS Nitro enclaves", needs=needs)


def _flag(flags: frozenset[str], name: str, fix: str) -> Need:
    there = name in flags
    return Need(
        name="processor", ok=there, found=name if there else f"no flag {name} in /proc/cpuinfo", fix=fix
    )


def _device(host: Host, path: str, fix: str) -> Need:
    there = host.has(path)
    return Need(name=f"/{path}", ok=there, found="there" if there else "not there", fix=fix)


def _kvm(host: Host, *, optional: bool = False) -> Need:
    usable = host.kvm(host.root)
    state = "usable" if usable else ("there, but makes no machine" if host.has("dev/kvm") else "not there")
    fix = "virtualisation on in the firmware's setup, the module kvm_amd or kvm_intel, membership in the group kvm"
    if optional:
        fix = "without it rooms are emulated, which is slow: " + fix
    return Need(name="/dev/kvm", ok=usable, found=state, fix=fix, optional=optional)


def _program(host: Host, name: str, fix: str) -> Need:
    program = host.program(name)
    return Need(name=name, ok=bool(program), found=program or "not installed", fix=fix)


def _file(host: Host, name: str, candidates: tuple[str, ...], fix: str) -> Need:
    path = host.firmware(candidates)
    shown = "none of " + ", ".join(f"/{candidate}" for candidate in candidates) if path is None else str(path)
    return Need(name=name, ok=path is not None, found=shown, fix=fix)


def _qemu(host: Host, kind: str, least: tuple[int, int]) -> tuple[Need, ...]:
    wanted = ".".join(str(number) for number in least)
    fix = f"QEMU {wanted} or later, built for KVM"
    path = host.program(QEMU)
    if not path:
        return (Need(name=QEMU, ok=False, found="not installed", fix=fix),)
    version = _VERSION.search(host.ask([path, "--version"]))
    stated = "an unknown version" if version is None else f"{version[1]}.{version[2]}"
    new = version is not None and (int(version[1]), int(version[2])) >= least
    known = kind in host.ask([path, "-object", "help"]).split()
    return (
        Need(name=QEMU, ok=new, found=f"version {stated}", fix=fix),
        Need(name=kind, ok=known, found="known to QEMU" if known else "QEMU knows no such object", fix=fix),
    )
