"""A unified kernel image that UEFI firmware starts from a disk: its PCRs, predicted from the files.

Specs: TCG PC Client Platform Firmware Profile 1.06 (PCR 4, 5, 7); UAPI Group, "Linux TPM PCR Registry" (PCR 9, 11–13);
systemd-stub(7). Proved by booting: `tests/e2e/test_measured_boot.py`. ← what is extended, in order:

    PCR 4   ← boot attempt, separator, the image (Authenticode), the kernel in it (the stub has the firmware load it)
    PCR 5   ← separator, the disk's partition table, two events as the kernel takes over
    PCR 7   ← secure boot's variables, where it is off and no keys are enrolled
    PCR 9   ← the command line and the initrd, by the kernel
    PCR 11  ← name and content of each section that a stub of this version measures
    PCR 12, 13   zero: no command line, credential, or extension came from outside. The agent extends PCR 12 with the contract.

Not of the files: PCR 0, 2 and 3 (firmware, its version and memory layout, option ROMs), PCR 1 (boot variables), PCR 10 (the
kernel's aggregate of PCRs 0 to 9), PCR 7 with secure boot. PCR 5 holds only while nothing else about the machine's disks is
measured. A cloud's firmware may add events of its own to PCR 4 and 5; none can to PCR 9 or 11, unless it forges the boot.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.bases.formats import gpt, pe, uki
from strongroom.bases.measure import pcr
from strongroom.errors import Malformed

# By systemd's version, which of our sections its stub measures, in its order. From 256 on, stubs hand the kernel an
# archive of their own behind the initrd, which PCR 9 would have to follow: these are refused until somebody needs one.
_FIRST = (".linux", ".osrel", ".cmdline", ".initrd")
_MEASURED = {
    **dict.fromkeys((252, 253), _FIRST),
    **dict.fromkeys((254, 255), (*_FIRST, ".uname", ".sbat")),
}


@dataclass(frozen=True, kw_only=True)
class UkiRegisters:
    """Hexadecimal. pcr5 is None where no disk was given. pcr12 and pcr13 are before the agent extends anything."""

    bank: str
    pcr4: str
    pcr5: str | None
    pcr7_without_secure_boot: tuple[str, str]
    pcr9: str
    pcr11: str
    pcr12: str
    pcr13: str

    def reference(self) -> dict[str, str]:
        """What the files alone decide, by the names that claims and contracts give registers (`evidence/gcp.py`)."""
        return {"pcr4": self.pcr4, "pcr9": self.pcr9, "pcr11": self.pcr11}


def measure(image: bytes, *, bank: str = "sha256", disk: bytes | None = None) -> UkiRegisters:
    """The registers of an image. disk: the whole disk that it is started from. Raises `Malformed`."""
    parsed = uki.parse(image)
    sections = parsed.sections
    names = _MEASURED.get(parsed.stub)
    if names is None:
        raise Malformed(
            f"UKI: what the stub of systemd {parsed.stub} measures is not known",
            code="unknown-stub",
            hint=f"known are {', '.join(str(version) for version in sorted(_MEASURED))}",
        )
    events = [part for name in names if name in sections for part in (name.encode() + b"\0", sections[name])]
    separator = pcr.digest(bank, pcr.SEPARATOR)
    booted = [pcr.digest(bank, pcr.BOOT_ATTEMPT), separator]
    booted += [pe.authenticode(image, bank), pe.authenticode(sections[".linux"], bank)]
    zero = pcr.extended(bank, ())
    return UkiRegisters(
        bank=bank,
        pcr4=pcr.extended(bank, booted),
        pcr5=None if disk is None else partitions(disk, bank),
        pcr7_without_secure_boot=pcr.no_secure_boot(bank),
        pcr9=kernel_inputs(sections[".cmdline"], sections[".initrd"], bank),
        pcr11=pcr.extended(bank, [pcr.digest(bank, event) for event in events]),
        pcr12=zero,
        pcr13=zero,
    )


def kernel_inputs(cmdline: bytes, initrd: bytes, bank: str) -> str:
    """PCR 9: what Linux's EFI entry was given (since 6.1): its options in UTF-16 with their NUL, and the initrd.

    Raises `Malformed` for a command line that is not one line of ASCII.
    """
    uki.check_text("command line", cmdline)
    options = cmdline.decode("ascii").encode("utf-16-le") + b"\0\0"
    return pcr.extended(bank, [pcr.digest(bank, options), pcr.digest(bank, initrd)])


def partitions(disk: bytes | None, bank: str) -> str:
    """PCR 5 of a boot from `disk`; None: from no disk. Raises `Malformed`."""
    table = () if disk is None else (gpt.measured(disk),)
    events = (pcr.SEPARATOR, *table, *pcr.EXIT_BOOT_SERVICES)
    return pcr.extended(bank, [pcr.digest(bank, event) for event in events])
