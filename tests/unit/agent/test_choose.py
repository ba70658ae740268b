"""Which TEE a machine is taken for: by what is there, in one order, and never where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from strongroom.agent.devices import detect, nitro, sev_guest, snp, tdx, tsm
from strongroom.encoding import tpm2
from strongroom.errors import Malformed, Refused, Unavailable
from strongroom_testing.vendors import fake_devices as fakes
from strongroom_testing.vendors.fake_amd import FakeAmd, Guest

NOW = datetime(2026, 11, 28, tzinfo=UTC)
HCL, ECC_CERTIFICATE, ECC_TEMPLATE, RSA_TEMPLATE = 0x01400001, 0x01C10002, 0x01C10003, 0x01C10001


class Tpm:
    """A TPM that tells which NV indices it has, and nothing else."""

    def __init__(self, *indices: int) -> None:
        self.indices = indices

    def exchange(self, command: bytes) -> bytes:
        assert command == tpm2.list_nv()
        body = b"\0" + tpm2.u32(1) + tpm2.u32(len(self.indices)) + b"".join(map(tpm2.u32, self.indices))
        return tpm2.u16(0x8001) + tpm2.u32(10 + len(body)) + tpm2.u32(0) + body


class Silent:
    def call(self, request, argument):
        raise AssertionError("nothing is asked")


def kernel(*devices, provider=None, tpm=None):
    files = None if provider is None else fakes.FakeTsmFiles(provider, lambda _data, _level: (b"", b""))
    transport = None if tpm is None else Tpm(*tpm)
    return fakes.FakeKernel(devices={path: Silent() for path in devices}, files=files, transport=transport)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (kernel(detect.NSM), "NitroAttester"),
        (kernel(detect.SEV), "SnpAttester"),
        (kernel(detect.SEV, provider=detect.SEV_PROVIDER), "SnpAttester"),
        (kernel(provider=detect.SEV_PROVIDER), "SnpAttester"),
        (kernel(detect.TDX, provider=detect.TDX_PROVIDER), "TdxAttester"),
        (kernel(tpm=(HCL, 0x01400002)), "AzureAttester"),
        (kernel(tpm=(ECC_CERTIFICATE, ECC_TEMPLATE)), "GcpAttester"),
        (kernel(tpm=(RSA_TEMPLATE,)), "GcpAttester"),
        (kernel(detect.SEV, tpm=(ECC_TEMPLATE,)), "GcpAttester"),
        (kernel(detect.TDX, provider=detect.TDX_PROVIDER, tpm=(ECC_TEMPLATE,)), "GcpAttester"),
        # A TPM of the host's beside the processor's own device is left alone.
        (kernel(detect.SEV, tpm=()), "SnpAttester"),
        (kernel(detect.SEV, tpm=(ECC_CERTIFICATE,)), "SnpAttester"),
        (kernel(tpm=(ECC_CERTIFICATE,)), "TpmAttester"),  # a local room's
        (kernel(tpm=()), "TpmAttester"),
        (kernel(provider="", tpm=()), "TpmAttester"),  # configfs-tsm without a driver
    ],
)
def test_what_is_there_decides(machine, expected):
    assert type(detect.hardware(machine)).__name__ == expected


@pytest.mark.parametrize(
    ("machine", "code"),
    [
        (kernel(), "no-tee"),
        (kernel(provider=""), "no-tee"),
        (kernel(detect.NSM, detect.SEV), "contradictory"),
        (kernel(detect.NSM, tpm=()), "contradictory"),
        (kernel(detect.NSM, provider=detect.SEV_PROVIDER), "contradictory"),
        (kernel(detect.SEV, detect.TDX), "contradictory"),
        (kernel(detect.SEV, provider=detect.TDX_PROVIDER), "contradictory"),
        (kernel(detect.TDX, provider=detect.SEV_PROVIDER), "contradictory"),
        (kernel(detect.SEV, tpm=(HCL,)), "contradictory"),
        (kernel(provider=detect.SEV_PROVIDER, tpm=(HCL,)), "contradictory"),
        (kernel(provider="arm_cca_guest"), "unknown-tee"),
        (kernel(provider="sev_guest2"), "unknown-tee"),
        (kernel(detect.TDX), "no-quote"),
        (kernel(provider=detect.TDX_PROVIDER), "no-quote"),
        (kernel(detect.TDX, tpm=(ECC_TEMPLATE,)), "no-quote"),
    ],
)
def test_what_cannot_be_or_cannot_prove_anything_is_refused(machine, code):
    with pytest.raises((Refused, Unavailable)) as caught:
        detect.hardware(machine)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)


def test_only_the_device_in_use_is_loaded():
    code = (
        "import sys; from tests.unit.agent.test_choose import kernel; from strongroom.agent.devices import detect;"
        "[sys.modules.pop(m) for m in list(sys.modules) if m.startswith('strongroom.agent.devices.') and m[25:] != 'detect'];"
        "detect.hardware(kernel(tpm=()));"
        "print(sorted(m[25:] for m in sys.modules if m.startswith('strongroom.agent.devices.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['detect', 'pcr', 'tpm']"


def test_the_real_machine_is_looked_at():
    real = detect.RealKernel()
    assert real.has("/proc/self")
    assert not real.has("/dev/absent")
    with pytest.raises(Unavailable) as caught:
        real.device("/dev/absent")
    assert caught.value.code == "no-device"
    assert real.tsm().root == tsm.ROOT


def test_configfs_by_the_file_operations_of_a_real_file_system(tmp_path):
    files = tsm.ConfigfsFiles()
    files.make(str(tmp_path / "entry"))
    (tmp_path / "entry/inblob").write_bytes(b"")
    files.write(str(tmp_path / "entry/inblob"), b"x" * 64)
    assert files.read(str(tmp_path / "entry/inblob"), 64) == b"x" * 64
    assert files.read(str(tmp_path / "entry/inblob"), 10) == b"x" * 11
    (tmp_path / "entry/inblob").unlink()
    files.remove(str(tmp_path / "entry"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unavailable) as caught:
        tsm.Tsm(files=files, root="/absent").ask(bytes(64))
    assert caught.value.code == "tsm-failed"


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        ("outblob", "outblob is longer than"),
        ("generation", "generation is longer than 64 bytes"),
        ("provider", "provider is longer than 64 bytes"),
    ],
)
def test_attributes_are_bounded_and_numbers_are_numbers(blob, why):
    class Odd(fakes.FakeTsmFiles):
        def read(self, path, limit):
            return b"9x" * (limit + 1) if path.endswith(blob) else super().read(path, limit)

    odd = Odd(detect.SEV_PROVIDER, lambda _data, _level: (b"", b""))
    with pytest.raises(Malformed, match=why):
        tsm.Tsm(files=odd).ask(bytes(64))
    assert odd.entries == {}  # whatever happens, nothing is left


def test_the_numbers_of_the_ioctls_are_the_kernels():
    assert (sev_guest.GET_REPORT, sev_guest.GET_EXT_REPORT) == (0xC0205300, 0xC0205302)
    assert tdx.GET_REPORT == 0xC4405401
    assert nitro.RAW == 0xC0200A00


def test_a_guest_device_that_refuses_every_level_is_unavailable():
    made = fakes.FakeSevGuest(chip=FakeAmd(now=NOW), guest=Guest(), floor=4)
    with pytest.raises(Unavailable) as caught:
        sev_guest.ask(made, bytes(64))
    assert caught.value.code == "sev-guest-failed"


def test_a_host_that_hands_out_more_than_fits_is_asked_without():
    made = fakes.FakeSevGuest(chip=FakeAmd(now=NOW), guest=Guest(), table=bytes(20_000))
    report, table = sev_guest.ask(made, bytes(64))
    assert (len(report), table) == (1184, b"")


@pytest.mark.parametrize(
    "quote", [b"", b"\x04\0", bytes(700), b"\x05\0" + bytes(46) + b"\xff" * 6, b"\x04\0" + b"\xff" * 2000]
)
def test_what_is_no_quote_is_left_as_it_is(quote):
    assert tdx.trimmed(quote) in (quote, quote[:636])


@pytest.mark.parametrize(
    ("size", "why"),
    [(0, "0 bytes, expected 1184"), (1183, "1183 bytes, expected 1184"), (1185, "1185 bytes, expected 1184")],
)
def test_a_report_of_another_size_is_refused(size, why):
    with pytest.raises(Malformed, match=why):
        snp.SnpAttester(source=lambda _data: (bytes(size), b"")).bind_contract("sha256:" + "ab" * 32)


class Answering:
    """An NSM that answers whatever it is told to."""

    def __init__(self, answer: bytes, *, length: int | None = None) -> None:
        self.answer, self.length = answer, length

    def call(self, request, argument):
        import ctypes

        place = int.from_bytes(argument[16:24], "little")
        ctypes.memmove(place, self.answer, len(self.answer))
        told = len(self.answer) if self.length is None else self.length
        argument[24:32] = told.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ends too soon"),
        (b"\xff", "a break outside of an item of indefinite length"),
        (b"\xf6", "it answered another question"),
        (b"\xa0", "it answered another question"),
        (b"\xa1\x65Error\x6cInvalidIndex", "it answered InvalidIndex"),
        (b"\xa1\x69GetRandom\xa0", "key 'random' is missing"),
        (b"\x69GetRandom", "key 'random' is missing"),
        (b"\xa1\x65Error\x01", "it answered another question"),
    ],
)
def test_an_nsm_that_babbles_is_refused(answer, why):
    with pytest.raises((Malformed, Unavailable), match=why):
        nitro.NitroAttester(device=Answering(answer)).entropy()
    # Asked for something else, an answer to GetRandom is none.
    asked = "it answered another question" if why == "key 'random' is missing" else why
    with pytest.raises((Malformed, Unavailable), match=asked):
        nitro.NitroAttester(device=Answering(answer)).bind_contract("sha256:" + "ab" * 32)


def test_an_nsm_that_says_more_than_there_is_room_is_refused():
    with pytest.raises(Malformed, match="longer than its buffer"):
        nitro.NitroAttester(device=Answering(b"", length=1 << 40)).entropy()
