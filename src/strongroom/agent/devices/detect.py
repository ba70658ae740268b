"""Which TEE this is: decided by what is there, never by a word of the host's.

Looked at, in this order:

  1 /dev/nsm                              an AWS Nitro enclave
  2 /dev/sev-guest, /dev/tdx_guest, and   SEV-SNP or TDX
    the provider of configfs-tsm
  3 a TPM with the HCL report             an Azure confidential VM, whose paravisor keeps the TPM and the processor's report
  4 a TPM with Google's key templates     a Google VM; with 2 its report goes along
  5 any other TPM                         a local room; beside 2 it is the host's and is left alone

What cannot be of one machine is refused (`contradictory`): an enclave with a TPM or another TEE's device; SEV-SNP and
TDX at once; a driver and a provider that disagree; an HCL report beside a device of the processor's own, which a
paravisor hides. Nothing at all is refused too (`no-tee`).
The host decides what a guest sees, and so what it is taken for. It gains nothing: contracts name the TEE, and each
verifies by its own vendor's root. A machine that hides its TEE is denied by every broker that asks for it.
A device's file is loaded when it is the one, so that a room does not wait for the others.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strongroom.errors import Refused, StrongroomError, Unavailable

if TYPE_CHECKING:
    from strongroom.agent import room, tpm
    from strongroom.agent.devices.character import Caller
    from strongroom.agent.devices.snp import SnpAttester
    from strongroom.agent.devices.tdx import TdxAttester
    from strongroom.agent.devices.tsm import Tsm

NSM, SEV, TDX, TPM = "/dev/nsm", "/dev/sev-guest", "/dev/tdx_guest", "/dev/tpmrm0"
TSM = "/sys/kernel/config/tsm/report"
HCL_NV = 0x01400001
GOOGLE_NV = (0x01C10001, 0x01C10003)
SEV_PROVIDER, TDX_PROVIDER = "sev_guest", "tdx_guest"  # of configfs-tsm
_PROVIDERS = {SEV_PROVIDER: SEV, TDX_PROVIDER: TDX}


class MachineView(Protocol):
    """What the agent can see of its machine. Tests give another."""

    def has(self, path: str) -> bool:
        """Whether there is something at `path`."""
        ...

    def device(self, path: str) -> Caller:
        """The device at `path`, opened."""
        ...

    def tsm(self) -> Tsm:
        """configfs-tsm."""
        ...

    def tpm(self) -> tpm.Tpm:
        """The TPM."""
        ...


class RealKernel:
    """The machine that this process runs on."""

    def has(self, path: str) -> bool:
        """Whether there is something at `path`."""
        return os.path.exists(path)

    def device(self, path: str) -> Caller:
        """The device at `path`, opened."""
        from strongroom.agent.devices import character  # noqa: PLC0415

        return character.CharacterDevice(path)

    def tsm(self) -> Tsm:
        """configfs-tsm."""
        from strongroom.agent.devices import tsm  # noqa: PLC0415

        return tsm.Tsm(files=tsm.ConfigfsFiles())

    def tpm(self) -> tpm.Tpm:
        """The TPM."""
        from strongroom.agent import tpm  # noqa: PLC0415

        return tpm.Tpm(tpm.TpmDevice())


@dataclass(frozen=True, kw_only=True)
class SeenDevices:
    """What is there. provider: of configfs-tsm, empty without it."""

    devices: frozenset[str]
    provider: str

    @property
    def processors(self) -> frozenset[str]:
        """The devices of processors' TEEs, by whichever way they are seen."""
        return self.devices & {SEV, TDX} | ({_PROVIDERS[self.provider]} if self.provider else frozenset())


def survey(kernel: MachineView) -> SeenDevices:
    """What this machine has. Raises `Refused` for a provider that this version does not know."""
    devices = frozenset(path for path in (NSM, SEV, TDX, TPM) if kernel.has(path))
    provider = _provider(kernel) if kernel.has(TSM) else ""
    return SeenDevices(devices=devices, provider=provider)


def hardware(kernel: MachineView) -> room.Hardware:
    """The one TEE of this machine. Raises `Refused`, `Unavailable`."""
    seen = survey(kernel)
    if NSM in seen.devices:  # 1
        if seen.devices != {NSM} or seen.provider:
            raise _contradictory(seen, "an enclave has no TPM and no other TEE's device")
        from strongroom.agent.devices.nitro import NitroAttester  # noqa: PLC0415

        return NitroAttester(device=kernel.device(NSM))
    if len(seen.processors) > 1:  # 2
        raise _contradictory(seen, "one processor has one TEE")
    if TPM not in seen.devices:
        if not seen.processors:
            raise Refused(
                "no TEE is here: no /dev/nsm, SEV-SNP or TDX guest device, configfs-tsm or TPM",
                code="no-tee",
                hint="the machine is no TEE, or the base's kernel has not its driver",
            )
        return _processor(kernel, seen)
    client = kernel.tpm()
    indices = client.nv_indices()
    if HCL_NV in indices:  # 3
        if seen.processors:
            raise _contradictory(seen, "a paravisor that keeps an HCL report hides the processor's device")
        from strongroom.agent.devices.azure import AzureAttester  # noqa: PLC0415

        return AzureAttester(client)
    if indices & set(GOOGLE_NV):  # 4
        from strongroom.agent.devices.gcp import GcpAttester  # noqa: PLC0415

        return GcpAttester(client, indices, hardware=_processor(kernel, seen) if seen.processors else None)
    if seen.processors:  # 5
        return _processor(kernel, seen)
    from strongroom.agent.devices.tpm import TpmAttester  # noqa: PLC0415

    return TpmAttester(client)


def _processor(kernel: MachineView, seen: SeenDevices) -> SnpAttester | TdxAttester:
    if SEV in seen.processors:
        return _snp(kernel, seen)
    from strongroom.agent.devices.tdx import TdxAttester  # noqa: PLC0415

    if not seen.provider or TDX not in seen.devices:
        raise Unavailable(
            f"TDX: {'no configfs-tsm' if TDX in seen.devices else 'no /dev/tdx_guest'}, so that nothing can be proved",
            code="no-quote",
            hint="the base's kernel must be 6.7 or later, with TSM_REPORTS and TDX_GUEST_DRIVER",
        )
    interface = kernel.tsm()
    return TdxAttester(device=kernel.device(TDX), source=lambda data: interface.ask(data).out)


def _snp(kernel: MachineView, seen: SeenDevices) -> SnpAttester:
    from strongroom.agent.devices.snp import SnpAttester  # noqa: PLC0415

    if seen.provider:
        interface = kernel.tsm()

        def ask(data: bytes) -> tuple[bytes, bytes]:
            answer = interface.ask(data)
            return answer.out, answer.aux

        return SnpAttester(source=ask)
    from strongroom.agent.devices import sev_guest  # noqa: PLC0415

    device = kernel.device(SEV)
    return SnpAttester(source=lambda data: sev_guest.ask(device, data))


def _provider(kernel: MachineView) -> str:
    """Who makes the reports of configfs-tsm; empty where it is there and nobody does."""
    try:
        name = kernel.tsm().provider()
    except StrongroomError as cause:
        if cause.code == "tsm-failed":
            return ""
        raise
    if name not in _PROVIDERS:
        raise Refused(
            f"configfs-tsm: its provider is {name[:40]!r}, which this version does not know",
            code="unknown-tee",
            hint="an unknown kind of TEE never counts",
        )
    return name


def _contradictory(seen: SeenDevices, why: str) -> Refused:
    there = [*sorted(seen.devices), *([f"configfs-tsm of {seen.provider}"] if seen.provider else [])]
    return Refused(
        f"this machine shows {', '.join(there)}: {why}",
        code="contradictory",
        hint="somebody puts devices before the room that no real machine has together; nothing is attested",
    )
