"""SEV-SNP launch digests against sev-snp-measure, over every option of it that is used, and real firmware."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.bases.measure import ovmf, snp
from strongroom.errors import Malformed, Misuse
from strongroom_testing import firmware

guest = pytest.importorskip("sevsnpmeasure.guest")
from sevsnpmeasure import id_block, sev_hashes, vcpu_types, vmm_types  # noqa: E402
from sevsnpmeasure.sev_mode import SevMode  # noqa: E402

DEBIAN = Path("/usr/share/ovmf/OVMF.fd")
KERNEL = snp.DirectBoot(
    kernel=b"a kernel" * 99, initrd=b"an initrd" * 77, cmdline=b"console=none strongroom.root=ab"
)
AMDSEV = firmware.build(firmware.Shape())
VMMS = {snp.Vmm.QEMU: "QEMU", snp.Vmm.EC2: "ec2", snp.Vmm.GCE: "gce"}
LAUNCH = snp.LaunchInputs(
    firmware=ovmf.parse(AMDSEV), vcpus=2, signature=snp.signature("EPYC-Milan"), kernel=KERNEL
)


def peer(folder, launch):
    paths = {"kernel": "", "initrd": "", "append": ""}
    if launch.kernel is not None:
        for name in ("kernel", "initrd"):
            (folder / name).write_bytes(getattr(launch.kernel, name))
            paths[name] = str(folder / name)
        paths["append"] = launch.kernel.cmdline.decode()
    (folder / "fw").write_bytes(launch.firmware.data)
    return guest.calc_launch_digest(
        SevMode.SEV_SNP,
        launch.vcpus,
        launch.signature,
        str(folder / "fw"),
        paths["kernel"],
        paths["initrd"],
        paths["append"],
        launch.features,
        "",
        vmm_types.VMMType[VMMS[launch.vmm]],
    )


@pytest.mark.parametrize(
    ("vmm", "vcpus", "features", "kernel"),
    list(itertools.product(snp.Vmm, (1, 2, 17), (0x1, 0x21), (None, KERNEL))),
)
def test_digests_equal_the_peers(tmp_path, vmm, vcpus, features, kernel):
    launch = replace(LAUNCH, vmm=vmm, vcpus=vcpus, features=features, kernel=kernel)
    assert snp.digest(launch) == peer(tmp_path, launch)


@pytest.mark.parametrize("vmm", snp.Vmm)
def test_digests_of_debians_firmware_equal_the_peers(tmp_path, vmm):
    launch = replace(LAUNCH, firmware=ovmf.parse(DEBIAN.read_bytes()), kernel=None, vmm=vmm, vcpus=3)
    assert snp.digest(launch) == peer(tmp_path, launch)


@pytest.mark.parametrize("empty", ["initrd", "cmdline"])
def test_an_empty_part_counts_as_the_peer_counts_it(tmp_path, empty):
    launch = replace(LAUNCH, kernel=replace(KERNEL, **{empty: b""}))
    assert snp.digest(launch) == peer(tmp_path, launch)


@pytest.mark.parametrize("model", sorted(vcpu_types.CPU_SIGS))
def test_every_processor_type_of_the_peer_has_its_signature(model):
    assert snp.signature(model) == vcpu_types.CPU_SIGS[model]


def test_the_peers_precalculated_firmware_hash_leads_to_the_same_digest(tmp_path):
    (tmp_path / "fw").write_bytes(AMDSEV)
    ready = guest.calc_snp_ovmf_hash(str(tmp_path / "fw")).hex()
    launch = replace(LAUNCH, kernel=None)
    continued = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        2,
        launch.signature,
        str(tmp_path / "fw"),
        "",
        "",
        "",
        1,
        ready,
        vmm_types.VMMType.QEMU,
    )
    assert snp.digest(launch) == continued


def test_the_table_of_hashes_equals_the_peers(tmp_path):
    (tmp_path / "k").write_bytes(KERNEL.kernel)
    (tmp_path / "i").write_bytes(KERNEL.initrd)
    theirs = sev_hashes.SevHashes(str(tmp_path / "k"), str(tmp_path / "i"), KERNEL.cmdline.decode())
    assert snp.hashes(KERNEL) == theirs.construct_table()


def spki(curve):
    key = ec.generate_private_key(curve)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key, key.public_key().public_bytes(serialization.Encoding.DER, form)


def test_key_digests_equal_the_peers():
    key, der = spki(ec.SECP384R1())
    assert snp.key_digest(der) == id_block.pub_to_digest(key).hex()


@pytest.mark.parametrize("der", [b"", spki(ec.SECP256R1())[1], spki(ec.SECP384R1())[1] + b"!"])
def test_only_keys_on_p_384_have_a_digest(der):
    with pytest.raises(Malformed, match="expected a public key on P-384"):
        snp.key_digest(der)


@pytest.mark.parametrize(
    "other",
    [
        replace(LAUNCH, vcpus=3),
        replace(LAUNCH, signature=snp.signature("EPYC-Genoa")),
        replace(LAUNCH, features=0x3),
        replace(LAUNCH, kernel=None),
        replace(LAUNCH, kernel=replace(KERNEL, kernel=b"b kernel" * 99)),
        replace(LAUNCH, kernel=replace(KERNEL, initrd=b"an initrd" * 76)),
        replace(LAUNCH, kernel=replace(KERNEL, cmdline=KERNEL.cmdline + b" debug")),
        replace(LAUNCH, firmware=ovmf.parse(AMDSEV[:4096] + bytes([AMDSEV[4096] ^ 1]) + AMDSEV[4097:])),
    ],
)
def test_rule_26_whatever_the_host_changes_changes_the_digest(other):
    assert snp.digest(other) != snp.digest(LAUNCH)


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (firmware.Shape(hashes=None), "no-kernel-hashes"),
        (firmware.Shape(sev=firmware.AMDSEV[:-1]), "no-kernel-hashes"),
        (firmware.Shape(hashes=(0x810FF0, 0x400)), "no-kernel-hashes"),  # over the page's end
        (firmware.Shape(hashes=(0x900000, 0x400)), "no-kernel-hashes"),  # on another page
        (firmware.Shape(hashes=(0x810C00, 0x10)), "no-kernel-hashes"),  # too small
        (firmware.Shape(sev=()), "no-sev-metadata"),
        (firmware.Shape(reset=None), "no-reset-block"),
    ],
)
def test_firmware_that_would_boot_any_kernel_is_refused(shape, code):
    with pytest.raises(Malformed) as refused:
        snp.digest(replace(LAUNCH, firmware=ovmf.parse(firmware.build(shape))))
    assert refused.value.code == code


def test_debians_ovmf_fd_has_no_place_for_kernel_hashes():
    with pytest.raises(Malformed) as refused:
        snp.digest(replace(LAUNCH, firmware=ovmf.parse(DEBIAN.read_bytes())))
    assert refused.value.code == "no-kernel-hashes"


@pytest.mark.parametrize("model", ["", "EPYC-Naples", "EPYC-v0", "EPYC-Milan-v10", "epyc", "host"])
def test_an_unknown_processor_type_is_no_guess(model):
    with pytest.raises(Misuse) as refused:
        snp.signature(model)
    assert refused.value.code == "bad-vcpu-type"


@pytest.mark.parametrize("vcpus", [0, -1, snp.MAX_VCPUS + 1])
def test_the_number_of_processors_is_bounded(vcpus):
    with pytest.raises(Misuse, match="expected 1 to 1024"):
        snp.digest(replace(LAUNCH, vcpus=vcpus))
