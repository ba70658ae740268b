"""What a genuine platform will report for a base: every register by the name that claims give it, from files alone.

A register that depends on something which is not in the files has no value, and the reason beside it; nothing is guessed,
and nothing is read back from a machine. `references` gives what a contract's platform names; its caller may leave a
register out of it by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from strongroom.bases.formats import uki as image
from strongroom.bases.measure import direct_boot, edk2, nitro, ovmf, snp, tdx, tpm, uki
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

MACHINE = "q35"
_NO_ACPI = (
    "QEMU generates the ACPI tables from its version, machine, processors, memory and devices: give the three files of its "
    "fw_cfg (etc/table-loader, etc/acpi/rsdp, etc/acpi/tables) as a folder with --acpi"
)
_OTHER_EVENTS = "this build of the firmware measures other events than edk2-stable202302 to 202502 does, which alone are known here"
_OLD_STUB = "the kernel's EFI stub does not know RTMRs (Linux before 6.9): command line and initrd would not be measured"
_STUB = 'Linux\'s EFI stub, which is given the command line with " initrd=initrd" behind it'


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A base's files. Empty: not there."""

    kernel: bytes = b""
    initrd: bytes = b""
    cmdline: bytes = b""
    eif: bytes = b""
    uki: bytes = b""


@dataclass(frozen=True, kw_only=True)
class MachineShape:
    """What the operator chooses. None: not stated, which matters only where a register depends on it.

    id_key, author_key: public keys (DER) that sign the guest's ID block, for the claims in `Prediction.beside`.
    """

    firmware: bytes | None = None
    vcpus: int | None = None
    signature: int | None = None
    features: int = 1
    memory: int | None = None
    vmm: snp.Vmm = snp.Vmm.QEMU
    order: tdx.PageOrder = tdx.PageOrder.EACH
    edits_kernel: bool = False
    id_key: bytes | None = None
    author_key: bytes | None = None
    acpi: tdx.Acpi | None = None


@dataclass(frozen=True, kw_only=True)
class Register:
    """One register. value: as claims state it; None where it cannot be predicted, and then `why`. covers: what it measures.

    depends: what else decides it. spare: what a contract loses without it; empty where no contract may leave it out.
    """

    name: str
    value: str | None
    covers: str
    depends: str = ""
    why: str = ""
    spare: str = ""

    def to_json(self) -> dict[str, str | None]:
        """The object form."""
        return {
            "name": self.name,
            "value": self.value,
            "covers": self.covers,
            "depends": self.depends,
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """All registers of one profile. beside: further values for people, which a contract's reference does not need.

    tee: of the evidence; empty where several kinds of evidence state these registers (a unified kernel image runs in any
    cloud).
    """

    profile: str
    tee: str
    registers: tuple[Register, ...]
    beside: tuple[Register, ...] = field(default=())

    def references(self, *, without: Iterable[str] = ()) -> dict[str, str]:
        """One alternative of a contract's references. Raises `Misuse` for a register that has no value, unless it is
        named in `without`: the contract then accepts any value of it.
        """
        left_out = frozenset(without)
        if unknown := left_out - {register.name for register in self.registers}:
            raise Misuse(
                f"--without {min(unknown)}: {self.profile} has no register {min(unknown)!r}",
                code="no-such-register",
                hint=f"one of {', '.join(register.name for register in self.registers if register.spare)}"
                if any(register.spare for register in self.registers)
                else "leave --without out: none of its registers can be spared",
            )
        out = {}
        for register in self.registers:
            if register.name in left_out and not register.spare:
                raise Misuse(
                    f"{register.name} measures what runs: a contract without it would accept anything",
                    code="not-spare",
                    hint=f"leave --without {register.name} out",
                )
            if register.name in left_out:
                continue
            if register.value is None:
                waive = f"; or say --without {register.name}, and the contract accepts any value of it"
                raise Misuse(
                    f"{register.name} cannot be predicted: {register.why}",
                    code="not-predicted",
                    hint=f"give what is missing{waive if register.spare else ''}",
                )
            out[register.name] = register.value
        return out


def predict(profile: str, parts: Parts, shape: MachineShape) -> Prediction:
    """The registers of `profile`. Raises `Misuse` when an input is missing, `Malformed` when one is unfit."""
    if profile not in _PROFILES:
        raise Misuse(f"no profile is called {profile[:40]!r}", hint=f"one of {', '.join(PROFILES)}")
    return _PROFILES[profile](parts, shape)


def _local(parts: Parts, shape: MachineShape) -> Prediction:
    firmware = _given(shape.firmware, "the firmware (--firmware)")
    reference = tpm.launch_record(
        firmware=firmware,
        kernel=_part(parts.kernel, "kernel"),
        initrd=_part(parts.initrd, "initrd"),
        cmdline=_line(parts),
        machine=MACHINE,
        memory_guard=True,
    ).reference()
    covers = {
        "firmware": "SeaBIOS, the whole file",
        "kernel": "the whole file",
        "initrd": "the whole file",
        "cmdline": "the kernel's command line, in which the base disk's root hash stands",
        "machine": "QEMU's machine type",
    }
    starts = tuple(
        Register(
            name="pcr0",
            value=tpm.hcrtm_pcr0(tpm.from_reference(reference, memory_guard=guard).encode()).hex(),
            covers="all of the above, before the guest's first instruction; SeaBIOS extends it by its own events",
            depends=f"whether the memory guard is on; here it is {word}",
        )
        for word, guard in (("on", True), ("off", False))
    )
    return Prediction(
        profile="local",
        tee="tpm",
        registers=tuple(
            Register(name=name, value=value, covers=covers[name]) for name, value in reference.items()
        ),
        beside=starts,
    )


def _snp(parts: Parts, shape: MachineShape) -> Prediction:
    firmware = ovmf.parse(_given(shape.firmware, "the firmware (--ovmf)"))
    vcpus = _given(shape.vcpus, "the number of virtual processors (--vcpus)")
    qemu = shape.vmm is snp.Vmm.QEMU
    # Only QEMU gives the firmware digests to compare with, and only there the processor's type is in its first state.
    signature = (
        _given(shape.signature, "the processor's type (--vcpu-type)") if qemu else shape.signature or 0
    )
    kernel = None
    if qemu:
        kernel = snp.DirectBoot(
            kernel=_part(parts.kernel, "kernel"),
            initrd=_part(parts.initrd, "initrd"),
            cmdline=_line(parts),
        )
    value = snp.digest(
        snp.LaunchInputs(
            firmware=firmware,
            vcpus=vcpus,
            signature=signature,
            features=shape.features,
            vmm=shape.vmm,
            kernel=kernel,
        )
    )
    covers = "firmware, digests of kernel, initrd and command line, first state of every processor"
    if not qemu:
        covers = "firmware and first state of every processor; NOT kernel, initrd and command line"
    return Prediction(
        profile="snp",
        tee="snp",
        registers=(
            Register(
                name=snp.REGISTER,
                value=value.hex(),
                covers=covers,
                depends="number and type of processors, hypervisor, guest features; not memory, devices or host",
            ),
        ),
        beside=tuple(
            Register(
                name=f"{name}_key_digest",
                value=snp.key_digest(key),
                covers=f"the {name} key, a fact of claims",
            )
            for name, key in (("id", shape.id_key), ("author", shape.author_key))
            if key is not None
        ),
    )


def _tdx(parts: Parts, shape: MachineShape) -> Prediction:
    if shape.vmm is not snp.Vmm.QEMU:
        raise Misuse(
            "TDX is predicted for QEMU alone",
            code="bad-vmm",
            hint="other hypervisors start their own firmware; compare with what they publish",
        )
    data = _given(shape.firmware, "the firmware (--ovmf)")
    firmware, events = ovmf.parse(data), edk2.events(data)
    if events is edk2.Events.NONE:
        raise Malformed(
            "firmware: extends no RTMR, so that no kernel, initrd or command line would be measured",
            code="measures-nothing",
            hint="Debian 12's OVMF.fd is such a build; take edk2 2023.02 or newer, like Debian 13's OVMF.fd",
        )
    kernel, initrd = _part(parts.kernel, "kernel"), _part(parts.initrd, "initrd")
    cmdline = _line(parts)
    knows = edk2.knows_rtmrs(kernel)
    return Prediction(
        profile="tdx",
        tee="tdx",
        registers=(
            Register(
                name="mr_td",
                value=tdx.mrtd(firmware, shape.order).hex(),
                covers="the firmware's code, and where it lies",
                depends="the order in which KVM extends (--page-order); not processors, memory or devices",
            ),
            _rtmr0(firmware, events, shape),
            Register(
                name="rtmr1",
                value=tdx.rtmr1(_handed(kernel, initrd, shape)),
                covers="the kernel (Authenticode), and that boot services ended",
                depends="QEMU before 10.0, which edits the kernel's header by memory and initrd"
                if shape.edits_kernel
                else "QEMU 10.0 or newer, which gives the firmware the kernel as it is",
            ),
            Register(
                name="rtmr2",
                value=tdx.rtmr2(cmdline=cmdline, initrd=initrd) if knows else None,
                covers="command line and initrd",
                depends=_STUB if knows else "",
                why="" if knows else _OLD_STUB,
            ),
            Register(
                name="rtmr3",
                value=tdx.ZEROS,
                covers="nothing: the application's own, and zeros before it",
                spare="nobody sees what extends it",
            ),
        ),
    )


def _rtmr0(firmware: ovmf.Firmware, events: edk2.Events, shape: MachineShape) -> Register:
    why = ""
    if events is not edk2.Events.EDK2_202302:
        why = _OTHER_EVENTS
    elif shape.memory is None:
        why = "the TD HOB holds the memory's size: give it with --memory"
    elif shape.acpi is None:
        why = _NO_ACPI
    value = None
    if not why and shape.memory is not None and shape.acpi is not None:
        value = tdx.rtmr0(firmware, shape.memory, shape.acpi)
    return Register(
        name="rtmr0",
        value=value,
        covers="memory size, configuration volume, secure boot (off, no keys), ACPI tables, boot order",
        depends="memory size and, through the ACPI tables, QEMU's version, machine, processors and devices",
        why=why,
        spare="whatever ACPI bytecode the host writes runs in the guest's kernel, unseen by anybody",
    )


def _handed(kernel: bytes, initrd: bytes, shape: MachineShape) -> bytes:
    """The kernel as QEMU hands it to the firmware."""
    if not shape.edits_kernel:
        return kernel
    memory = _given(shape.memory, "the memory (--memory), by which QEMU before 10.0 edits the kernel")
    return direct_boot.patched(kernel, len(initrd), memory >> 20)


def _uki(parts: Parts, _: MachineShape) -> Prediction:
    measurement = uki.measure(_part(parts.uki, "unified kernel image"))
    covers = {
        "pcr4": "the image and the kernel in it (Authenticode), and that they were started",
        "pcr9": "command line and initrd, by the kernel",
        "pcr11": "each section of the image, by its stub",
    }
    secure_boot_off, no_variable = measurement.pcr7_without_secure_boot
    beside = (
        Register(name="pcr7", value=secure_boot_off, covers="secure boot off, no keys enrolled"),
        Register(name="pcr7", value=no_variable, covers="firmware built without secure boot"),
        Register(
            name="pcr12",
            value=measurement.pcr12,
            covers="nothing from outside; the agent extends the contract",
        ),
    )
    return Prediction(
        profile="uki",
        tee="",
        registers=tuple(
            Register(name=name, value=value, covers=covers[name])
            for name, value in measurement.reference().items()
        ),
        beside=beside,
    )


def _nitro(parts: Parts, _: MachineShape) -> Prediction:
    pcrs = nitro.measure(_part(parts.eif, "enclave image file")).reference()
    covers = {
        "pcr0": "kernel, command line, all ramdisks",
        "pcr1": "kernel, command line, the first ramdisk",
        "pcr2": "the ramdisks but the first",
        "pcr8": "the certificate that signed the image",
    }
    return Prediction(
        profile="nitro",
        tee="nitro",
        registers=tuple(
            Register(
                name=name,
                value=value,
                covers=covers[name],
                spare="whoever signed the image" if name == "pcr8" else "",
            )
            for name, value in pcrs.items()
        ),
    )


def _part(part: bytes, what: str) -> bytes:
    if not part:
        raise Misuse(
            f"the base has no {what}",
            code="no-part",
            hint="a file of the base is empty: build it again with `strongroom base build`",
        )
    return part


def _line(parts: Parts) -> bytes:
    """The command line. Raises `Malformed` for what loaders would not all take for the same."""
    line = _part(parts.cmdline, "command line")
    image.check_text("command line", line)
    return line


def _given(value: T | None, what: str) -> T:
    if value is None:
        raise Misuse(
            f"the prediction depends on {what}",
            code="not-given",
            hint="give that option; docs/measure.md says which firmware fits",
        )
    return value


_PROFILES: dict[str, Callable[[Parts, MachineShape], Prediction]] = {
    "local": _local,
    "snp": _snp,
    "tdx": _tdx,
    "nitro": _nitro,
    "uki": _uki,
}
PROFILES = tuple(_PROFILES)
