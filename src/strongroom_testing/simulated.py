"""Simulated TEEs that fail on purpose: hear your own contract, policy or tooling say no before real hardware has to.

    from strongroom_testing import simulated

    machine = simulated.machine("snp", now=now)                       a sound one; `fault=` makes one that is not
    contract = …  # with machine.platform, or a platform of yours over machine.root
    room = machine.launch(contract.digest)                            as a node would start it
    room.hardware.bind_contract(contract.digest)                      the room's own agent, on the machine's devices
    evidence = room.evidence(binding)
    verdict = simulated.verdict(machine, agreement)                   or all of it at once, judged as a broker judges

Everything is signed for real by vendors that this process makes up, so that nothing is skipped because it is a test: give
the verifier the machine's root. Claims of such machines say `simulated`, and no policy accepts that unless it says so.

`DENIED_BY` names, for each TEE and fault, the check that denies it. A fault that a TEE cannot have is `KeyError` there.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from strongroom.agent.devices import detect
from strongroom.appraisal.judge import judge
from strongroom.crypto import digest, hpke, sign, tls
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.contracts.contract import Platform
from strongroom.model.contracts.policy import Devices, Policy
from strongroom.model.contracts.room_terms import DEFAULT_NAME
from strongroom.model.endorsements import NONE, Endorsements
from strongroom.model.room.channel import Start
from strongroom.model.verdict import Check
from strongroom_testing.vendors import fake_amd, fake_aws, fake_devices, fake_intel, fake_nvidia
from strongroom_testing.vendors.intel_faults import Fault as IntelFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.agent.room import Hardware
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.evidence import Evidence
    from strongroom.model.verdict import Verdict

TEES = ("snp", "tdx", "nitro")
DAY = timedelta(days=1)
GPU_MEASURED = {f"m{index}": fake_nvidia.measured(f"measurement {index}").hex() for index in range(1, 65)}


class Fault(enum.StrEnum):
    """What goes wrong."""

    DEBUG_ON = "debug-on"
    """The host may look in: the guest's policy, the trust domain's attributes or the enclave's mode says so."""
    OLD_TCB = "old-tcb"
    """Genuine, and behind: firmware below the contract's minimum (SNP), a level that Intel calls out of date (TDX)."""
    WRONG_VMPL = "wrong-vmpl"
    """The report is asked for from a less privileged level of the guest (SNP)."""
    STALE_COLLATERAL = "stale-collateral"
    """What the vendor says has ended: AMD's list, Intel's TCB info, the certificate of a Nitro document."""
    CLOCK_JUMP = "clock-jump"
    """A clock is wrong: the broker's, by 400 days ahead (SNP, TDX); the hypervisor's, by two hours (Nitro)."""
    SWAPPED_GPU = "swapped-gpu"
    """A genuine GPU of the same kind and state, which is not the one that the contract names."""


DENIED_BY: dict[tuple[str, Fault], str] = {
    ("snp", Fault.DEBUG_ON): "platform.debug",
    ("snp", Fault.OLD_TCB): "platform.tcb.committed.snp",
    ("snp", Fault.WRONG_VMPL): "platform.vmpl",
    ("snp", Fault.STALE_COLLATERAL): "evidence.revocation",
    ("snp", Fault.CLOCK_JUMP): "evidence.revocation",
    ("snp", Fault.SWAPPED_GPU): "platform.devices.machine",
    ("tdx", Fault.DEBUG_ON): "platform.debug",
    ("tdx", Fault.OLD_TCB): "platform.status",
    ("tdx", Fault.STALE_COLLATERAL): "evidence.tcb-info.validity",
    ("tdx", Fault.CLOCK_JUMP): "evidence.root-ca-crl.validity",
    ("tdx", Fault.SWAPPED_GPU): "platform.devices.machine",
    ("nitro", Fault.DEBUG_ON): "platform.debug",
    ("nitro", Fault.STALE_COLLATERAL): "evidence.chain.validity",
    ("nitro", Fault.CLOCK_JUMP): "evidence.time",
    ("nitro", Fault.SWAPPED_GPU): "platform.devices.machine",
}


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A room on a machine. hardware: the agent's own code over the machine's devices."""

    machine: Machine
    hardware: Hardware

    def evidence(self, binding: Binding) -> Evidence:
        """What the room shows for `binding`, that of its GPU included."""
        start = Start(agreement=b"", room=DEFAULT_NAME, launch_record=b"", issuers=b"", manifests={})
        made = self.hardware.evidence(binding, start)
        gpu = self.machine.attached
        return made if gpu is None else replace(made, devices=(gpu.evidence(binding),))

    def brought(self, evidence: Evidence) -> Endorsements:
        """The endorsements that the room sends along: what its host gave it, and those of its GPU."""
        gpu = self.machine.attached
        devices = (
            NONE if gpu is None else fake_nvidia.endorsements(zip((gpu,), evidence.devices, strict=True))
        )
        return Endorsements(parts={**self.hardware.brought.parts, **devices.parts})


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine with its vendor, sound or with one fault. It is a broker's `Endorser`, too.

    now: when to judge (a jumped clock shows there). root: of its vendor, for contracts. platform: a platform that
    accepts it when it is sound. gpu: the one that contracts name; attached: the one that is there.
    """

    tee: str
    now: datetime
    fault: Fault | None
    root: str
    platform: Platform
    gpu: fake_nvidia.FakeGpu | None
    attached: fake_nvidia.FakeGpu | None
    _vendor: _Vendor = field(repr=False)

    def launch(self, contract: str) -> Launched:
        """Start a room for the contract of that digest, as a node does: the host fills what the host fills."""
        kernel = self._vendor.kernel(digest.raw(contract))
        return Launched(machine=self, hardware=detect.hardware(kernel))

    def endorse(self, evidence: Evidence, *, now: datetime, vek: bytes | None = None) -> Endorsements:  # noqa: ARG002 - a vendor's answer depends on neither here
        """What the vendor says of the machine."""
        return self._vendor.endorsements()


def machine(
    tee: str, *, now: datetime | None = None, fault: Fault | None = None, gpu: bool = False
) -> Machine:
    """A machine of that TEE (one of `TEES`). gpu: with a GPU; a swapped one comes with one anyway.

    Raises `KeyError` for a TEE that there is not, or that cannot have that fault.
    """
    vendor = _VENDORS[tee]
    if fault is not None:
        DENIED_BY[tee, fault]
    at = (now or datetime.now(UTC)).replace(microsecond=0)
    made = vendor(at, fault)
    agreed, attached = _gpus(at, fault, wanted=gpu)
    devices = None
    if agreed is not None:
        devices = Devices(
            count=1,
            roots=(agreed.root,),
            machines=(agreed.machine,),
            facts={"model": ("GH100",)},
            references=(GPU_MEASURED,),
        )
    policy = Policy(tcb=made.minimum, devices=devices)
    jumped = fault is Fault.CLOCK_JUMP and tee != "nitro"
    return Machine(
        tee=tee,
        now=at + (400 * DAY if jumped else timedelta()),
        fault=fault,
        root=made.root,
        platform=Platform(
            tee=tee,
            simulated=True,
            memory_guard=False,
            roots=(made.root,),
            machines=("any",),
            references=(made.reference,),
            policy=policy,
        ),
        gpu=agreed,
        attached=attached,
        _vendor=made,
    )


def verdict(machine: Machine, agreement: Agreement, *, now: datetime | None = None) -> Verdict:
    """Launch a room for the agreement on `machine`, and judge it as a broker does, nonce and storage apart.

    The room's agent binds the contract first, and raises `Refused` where the machine was launched for another.
    """
    contract = agreement.contract.digest
    room = machine.launch(contract)
    room.hardware.bind_contract(contract)
    keys = RoomKeys(signing=sign.generate().public.raw, tls=tls.generate().spki, kem=hpke.generate().public)
    binding = Binding(
        nonce=secrets.token_bytes(32),
        contract_digest=contract,
        keys=keys,
        role=agreement.contract.rooms[0].name,
        audience=digest.sha256(b"broker"),
    )
    evidence = room.evidence(binding)
    at = now or machine.now
    parts = {**room.brought(evidence).parts, **machine.endorse(evidence, now=at).parts}
    gate = Check(name="nonce.fresh", expected="unused", got="unused", ok=True)
    return judge(
        agreement,
        evidence,
        Endorsements(parts=parts),
        binding=binding,
        gates=(gate,),
        runs_used=0,
        now=at,
        lifetime=timedelta(hours=1),
    )


class _Vendor(Protocol):
    """A vendor, and a machine of its making: what `machine` needs of each."""

    root: str
    reference: dict[str, str]
    minimum: dict[str, int]

    def kernel(self, contract: bytes) -> fake_devices.FakeKernel:
        """The machine, launched for that contract (its raw digest), as its guest sees it."""
        ...

    def endorsements(self) -> Endorsements:
        """What the vendor says."""
        ...


class _Snp:
    def __init__(self, now: datetime, fault: Fault | None) -> None:
        self._chip, self._fault = fake_amd.FakeAmd(now=now), fault
        self.root = self._chip.root
        self.reference = {"measurement": fake_amd.MEASUREMENT.hex()}
        self.minimum: dict[str, int] = {"committed.snp": self._chip.tcb[6]}

    def kernel(self, contract: bytes) -> fake_devices.FakeKernel:
        tcb = self._chip.tcb
        guest = fake_amd.Guest(
            host_data=contract,
            policy=0xB0000 if self._fault is Fault.DEBUG_ON else 0x30000,
            vmpl=2 if self._fault is Fault.WRONG_VMPL else 0,
            committed_tcb=tcb[:6] + bytes([tcb[6] - 1]) + tcb[7:] if self._fault is Fault.OLD_TCB else b"",
        )
        return fake_devices.snp_kernel(fake_devices.FakeSevGuest(chip=self._chip, guest=guest))

    def endorsements(self) -> Endorsements:
        stale = self._fault is Fault.STALE_COLLATERAL
        return self._chip.endorsements(fault=fake_amd.Fault.CRL_STALE if stale else None)


class _Tdx:
    def __init__(self, now: datetime, fault: Fault | None) -> None:
        old = bytes([5, 5, 2, 2]) + fake_intel.COMPONENTS[4:]
        self._fault = fault
        self._platform = (
            fake_intel.FakeIntel(now=now, components=old, pce_svn=fake_intel.PCE_SVN - 2)
            if fault is Fault.OLD_TCB
            else fake_intel.FakeIntel(now=now)
        )
        self.root = self._platform.root_digest
        measured = {
            "mr_td": b"firmware",
            "rtmr0": b"rtmr0",
            "rtmr1": b"rtmr1",
            "rtmr2": b"rtmr2",
            "mr_seam": b"module",
        }
        self.reference = {name: hashlib.sha384(what).hexdigest() for name, what in measured.items()}
        self.reference |= dict.fromkeys(("rtmr3", "mr_signer_seam", "mr_owner", "mr_owner_config"), "0" * 96)
        self.minimum: dict[str, int] = {}

    def kernel(self, contract: bytes) -> fake_devices.FakeKernel:
        body = {"mr_config_id": contract.ljust(48, b"\0")}
        if self._fault is Fault.DEBUG_ON:
            body["td_attributes"] = (1 << 28 | 1).to_bytes(8, "little")
        return fake_devices.tdx_kernel(fake_devices.FakeTdxGuest(platform=self._platform, body=body))

    def endorsements(self) -> Endorsements:
        stale = self._fault is Fault.STALE_COLLATERAL
        return self._platform.endorsements(fault=IntelFault.TCB_INFO_ENDED if stale else None)


class _Nitro:
    def __init__(self, now: datetime, fault: Fault | None) -> None:
        self._region, self._debug = fake_aws.FakeAws(now=now), fault is Fault.DEBUG_ON
        self._fault = {
            Fault.STALE_COLLATERAL: fake_aws.Fault.LEAF_ENDED,
            Fault.CLOCK_JUMP: fake_aws.Fault.FROM_THE_FUTURE,
        }.get(fault or Fault.DEBUG_ON)
        self.root = self._region.root
        self.reference = {f"pcr{index}": fake_aws.PCRS[index].hex() for index in range(3)}
        self.minimum: dict[str, int] = {}

    def kernel(self, contract: bytes) -> fake_devices.FakeKernel:  # noqa: ARG002 - PCR 16 is the agent's to extend
        pcrs = dict.fromkeys(range(16), bytes(48)) if self._debug else dict(fake_aws.PCRS)
        return fake_devices.nitro_kernel(
            fake_devices.FakeNsm(region=self._region, pcrs=pcrs, fault=self._fault)
        )

    def endorsements(self) -> Endorsements:
        return NONE


_VENDORS: dict[str, Callable[[datetime, Fault | None], _Vendor]] = {"snp": _Snp, "tdx": _Tdx, "nitro": _Nitro}


def _gpus(
    now: datetime, fault: Fault | None, *, wanted: bool
) -> tuple[fake_nvidia.FakeGpu | None, fake_nvidia.FakeGpu | None]:
    """The GPU that contracts name, and the one that is there."""
    if not wanted and fault is not Fault.SWAPPED_GPU:
        return None, None
    vendor = fake_nvidia.Authority(now=now)
    agreed = fake_nvidia.FakeGpu(now=now, authority=vendor)
    return agreed, fake_nvidia.FakeGpu(now=now, authority=vendor) if fault is Fault.SWAPPED_GPU else agreed
