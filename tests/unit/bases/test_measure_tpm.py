"""PCR 0 predicted from a launch record is what a real TPM holds after the H-CRTM event."""

import pytest

from strongroom.bases.measure import tpm
from strongroom_testing.vendors import fake_tpm
from tests.samples import NOW
from tests.unit.evidence import swtpm


@pytest.fixture(scope="module")
def machine() -> swtpm.Machine:
    return swtpm.Machine(NOW)


@swtpm.needs_swtpm
@pytest.mark.parametrize("guarded", [True, False])
def test_a_real_tpm_holds_what_is_predicted(machine, guarded):
    record = tpm.launch_record(
        firmware=b"f", kernel=b"k", initrd=b"i", cmdline=b"c", machine="q35", memory_guard=guarded
    )
    with swtpm._booted(machine._state, record.encode()) as device:
        assert device.read_pcr(0) == tpm.hcrtm_pcr0(record.encode())
        assert device.read_pcr(0) != tpm.hcrtm_pcr0(fake_tpm.RECORD.encode())
        assert device.read_pcr(12) == bytes(32)


def test_the_record_comes_back_from_its_registers():
    record = tpm.launch_record(
        firmware=b"f", kernel=b"k", initrd=b"i", cmdline=b"c", machine="q35", memory_guard=False
    )
    assert tpm.from_reference(record.reference(), memory_guard=False) == record
    guarded = tpm.from_reference(record.reference(), memory_guard=True)
    assert tpm.hcrtm_pcr0(guarded.encode()) != tpm.hcrtm_pcr0(record.encode())
