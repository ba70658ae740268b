"""The guest devices of SEV-SNP, TDX and Nitro in memory, by the ABI of the kernel's drivers, over the fake vendors.

A `FakeKernel` is what the real agent sees instead of its machine (`agent/devices/detect.py`): its devices answer the
same ioctls with the same structures, pointers included, and its configfs-tsm behaves as the kernel's does, operation by
operation. What they answer is signed by the fake vendor, so that the real verifiers take it for the vendor's own.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cbor2

from strongroom.agent import tpm as agent_tpm
from strongroom.agent.devices import detect, nitro, sev_guest, tdx, tsm
from strongroom.model.binding import Preset
from strongroom_testing.vendors import fake_amd, fake_aws

if TYPE_CHECKING:
    from collections.abc import Callable

    from strongroom.agent.devices.character import Caller
    from strongroom_testing.vendors.fake_amd import FakeAmd
    from strongroom_testing.vendors.fake_aws import FakeAws
    from strongroom_testing.vendors.fake_intel import FakeIntel

VCEK_GUID = "63da758de6644564adc5f4b93be8accd"
VLEK_GUID = "a8074bc2a25a483eaae639c045a0b8a1"
ASK_GUID = "4ab7b379bbac4fe4a02f05aef327c782"


@dataclass(kw_only=True)
class FakeKernel:
    """A machine with these devices, this configfs-tsm and this TPM, each of them or none."""

    devices: dict[str, Caller] = field(default_factory=dict)
    files: FakeTsmFiles | None = None
    transport: agent_tpm.Transport | None = None
    opened: list[str] = field(default_factory=list)

    def has(self, path: str) -> bool:
        if path == detect.TSM:
            return self.files is not None
        if path == detect.TPM:
            return self.transport is not None
        return path in self.devices

    def device(self, path: str) -> Caller:
        self.opened.append(path)
        return self.devices[path]

    def tsm(self) -> tsm.Tsm:
        if self.files is None:
            raise AssertionError("there is no configfs-tsm")
        return tsm.Tsm(files=self.files)

    def tpm(self) -> agent_tpm.Tpm:
        if self.transport is None:
            raise AssertionError("there is no TPM")
        return agent_tpm.Tpm(self.transport)


class FakeTsmFiles(tsm.ConfigfsFiles):
    """configfs-tsm of one provider. make_report: (inblob, level) to (outblob, auxblob).

    floor: the most privileged level, None for a driver without levels. race: somebody else writes in between.
    """

    def __init__(
        self,
        provider: str,
        make_report: Callable[[bytes, int], tuple[bytes, bytes]],
        *,
        floor: int | None = None,
        race: bool = False,
    ) -> None:
        self.provider, self._make, self._floor, self._race = provider, make_report, floor, race
        self.entries: dict[str, dict[str, Any]] = {}
        self.reports = 0

    def make(self, folder: str) -> None:
        if not self.provider:
            raise OSError(errno.ENXIO, "No such device or address")
        if folder in self.entries:
            raise FileExistsError(errno.EEXIST, "File exists")
        self.entries[folder] = {"generation": 0, "level": 0, "inblob": None, "read": None}

    def remove(self, folder: str) -> None:
        del self.entries[folder]

    def write(self, path: str, data: bytes) -> None:
        entry, name = self._at(path)
        if name == "inblob":
            if not 0 < len(data) <= 64:
                raise OSError(errno.EINVAL, "Invalid argument")
            entry["inblob"] = data
        elif name == "privlevel" and self._floor is not None:
            if int(data) not in range(self._floor, 4):
                raise OSError(errno.EINVAL, "Invalid argument")
            entry["level"] = int(data)
        else:
            raise PermissionError(errno.EACCES, "Permission denied")
        entry["generation"] += 1

    def read(self, path: str, limit: int) -> bytes:
        entry, name = self._at(path)
        if name == "provider":
            return f"{self.provider}\n".encode()
        if name == "generation":
            return f"{entry['generation']}\n".encode()
        if name == "privlevel_floor" and self._floor is not None:
            return f"{self._floor}\n".encode()
        if name in {"outblob", "auxblob"}:
            out, aux = self._report(entry)
            if name == "auxblob" and not aux:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            return (out if name == "outblob" else aux)[: limit + 1]
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    def _report(self, entry: dict[str, Any]) -> tuple[bytes, bytes]:
        if entry["inblob"] is None:
            raise OSError(errno.EINVAL, "Invalid argument")
        if self._race:
            entry["generation"] += 1
        if entry["read"] is None or entry["read"][0] != entry["generation"]:
            self.reports += 1
            entry["read"] = (
                entry["generation"],
                *self._make(entry["inblob"].ljust(64, b"\0"), entry["level"]),
            )
        return entry["read"][1], entry["read"][2]

    def _at(self, path: str) -> tuple[dict[str, Any], str]:
        folder, _, name = path.rpartition("/")
        if folder not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.entries[folder], name


def certificates(chip: FakeAmd) -> bytes:
    """The table that a host hands out with a report: the chip's or the provider's certificate, and another."""
    blobs = [
        (ASK_GUID, chip.endorsements().parts["issuers"][:1024]),
        (VLEK_GUID if chip.vlek else VCEK_GUID, chip.endorsements().parts["vek"]),
    ]
    table, data, start = b"", b"", 24 * (len(blobs) + 1)
    for guid, blob in blobs:
        table += bytes.fromhex(guid) + struct.pack("<II", start + len(data), len(blob))
        data += blob
    return table + bytes(24) + data


@dataclass(kw_only=True)
class FakeSevGuest:
    """`/dev/sev-guest` of a guest on `chip`. table: what the host hands out, None where it knows no extended request.

    floor: reports for more privileged levels are refused, as under a paravisor.
    """

    chip: FakeAmd
    guest: fake_amd.Guest
    table: bytes | None = None
    floor: int = 0
    fault: fake_amd.Fault | None = None

    def report(self, data: bytes, level: int) -> tuple[bytes, bytes]:
        """What the firmware answers."""
        guest = fake_amd.Guest(**{**self.guest.__dict__, "vmpl": max(level, self.guest.vmpl)})
        return self.chip.report(data, guest=guest, fault=self.fault), self.table or b""

    def files(self, **options: Any) -> FakeTsmFiles:
        """The same guest by configfs-tsm."""
        return FakeTsmFiles(detect.SEV_PROVIDER, self.report, floor=self.floor, **options)

    def call(self, request: int, argument: bytearray) -> None:
        version, asked, response, _ = struct.unpack("<QQQQ", argument)
        if version != 1 or request not in (sev_guest.GET_REPORT, sev_guest.GET_EXT_REPORT):
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        data, level, reserved = struct.unpack("<64sI28s", ctypes.string_at(asked, 96))
        if any(reserved) or level < self.floor:
            argument[24:32] = struct.pack("<Q", 0x16)  # INVALID_PARAM
            raise OSError(errno.EIO, "Input/output error")
        report, table = self.report(data, level)
        if request == sev_guest.GET_EXT_REPORT:
            if self.table is None:
                raise OSError(errno.EINVAL, "Invalid argument")
            place, room = struct.unpack("<QI", ctypes.string_at(asked + 96, 12))
            if len(table) > room:
                argument[24:32] = struct.pack("<Q", 1 << 32)  # SNP_GUEST_VMM_ERR_INVALID_LEN
                raise OSError(errno.ENOSPC, "No space left on device")
            ctypes.memmove(place, table, len(table))
        answer = struct.pack("<II24x", 0, len(report)) + report
        ctypes.memmove(response, answer, len(answer))


@dataclass(kw_only=True)
class FakeTdxGuest:
    """`/dev/tdx_guest` and configfs-tsm of a trust domain on `platform`. body: fields of its report that are its own.

    padded: the host's quoting service hands out its whole buffer.
    """

    platform: FakeIntel
    body: dict[str, bytes] = field(default_factory=dict)
    version: int = 4
    padded: bool = False

    def files(self, **options: Any) -> FakeTsmFiles:
        """Its configfs-tsm."""
        return FakeTsmFiles(detect.TDX_PROVIDER, self._quote, **options)

    def call(self, request: int, argument: bytearray) -> None:
        if request != tdx.GET_REPORT or len(argument) != 1088:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        report = bytearray(1024)
        report[128:192] = argument[:64]
        report[576:624] = self.body.get("mr_config_id", bytes(48))
        argument[64:] = report

    def _quote(self, data: bytes, _level: int) -> tuple[bytes, bytes]:
        bound = Preset(values={"report_data": data})
        quote = self.platform.evidence(bound, version=self.version, body=self.body).parts["quote"]
        return quote + bytes(4096 if self.padded else 0), b""


@dataclass(kw_only=True)
class FakeNsm:
    """`/dev/nsm` of an enclave in a fake region. lies: says that it locked, and does not."""

    region: FakeAws
    pcrs: dict[int, bytes] = field(default_factory=lambda: dict(fake_aws.PCRS))
    locked: set[int] = field(default_factory=set)
    lies: bool = False
    fault: fake_aws.Fault | None = None

    def call(self, request: int, argument: bytearray) -> None:
        if request != nitro.RAW:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        asked, length, response, room = struct.unpack("<QQQQ", argument)
        if length > nitro.MAX_REQUEST:
            raise OSError(errno.EMSGSIZE, "Message too long")
        answer = cbor2.dumps(self._answer(cbor2.loads(ctypes.string_at(asked, length))))
        if len(answer) > room:
            raise OSError(errno.EMSGSIZE, "Message too long")
        ctypes.memmove(response, answer, len(answer))
        argument[24:32] = struct.pack("<Q", len(answer))

    def _answer(self, request: Any) -> Any:
        if request == "GetRandom":
            return {"GetRandom": {"random": hashlib.sha512(b"nsm").digest() * 4}}
        ((name, values),) = request.items()
        index = values.get("index")
        if name == "Attestation":
            return {name: {"document": self._document(values)}}
        if index not in range(32):
            return {"Error": "InvalidIndex"}
        value = self.pcrs.get(index, bytes(48))
        if name == "DescribePCR":
            return {name: {"lock": index in self.locked, "data": value}}
        if index < 16 or index in self.locked:
            return {"Error": "ReadOnlyIndex"}
        if name == "LockPCR":
            if not self.lies:
                self.locked.add(index)
            return name
        if name == "ExtendPCR":
            self.pcrs[index] = hashlib.sha384(value + values["data"]).digest()
            return {name: {"data": self.pcrs[index]}}
        return {"Error": "InvalidOperation"}

    def _document(self, values: dict[str, Any]) -> bytes:
        bound = Preset(values={"user_data": values["user_data"] or b"", "nonce": values["nonce"] or b""})
        return self.region.evidence(bound, pcrs=self.pcrs, fault=self.fault).parts["document"]


def snp_kernel(made: FakeSevGuest, *, configfs: bool = True, **options: Any) -> FakeKernel:
    """A machine that is this guest; without configfs-tsm as on older kernels."""
    files = made.files(**options) if configfs else None
    return FakeKernel(devices={detect.SEV: made}, files=files)


def tdx_kernel(made: FakeTdxGuest, **options: Any) -> FakeKernel:
    """A machine that is this trust domain."""
    return FakeKernel(devices={detect.TDX: made}, files=made.files(**options))


def nitro_kernel(made: FakeNsm) -> FakeKernel:
    """A machine that is this enclave."""
    return FakeKernel(devices={detect.NSM: made})
