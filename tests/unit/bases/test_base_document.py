"""base.json and its companions: computed from bytes, read strictly, different when anything is."""

import hashlib
import json

import pytest
from cyclonedx.schema import SchemaVersion

from strongroom.bases import build, document, initramfs, sbom
from strongroom.bases import disk as base_disk
from strongroom.bases.document import CMDLINE, DISK, INITRD, KERNEL, Package
from strongroom.bases.files import File
from strongroom.bases.formats import disk_image, eif
from strongroom.bases.measure import tpm
from strongroom.bases.profile import NITRO, UKI
from strongroom.errors import Malformed
from strongroom.model.room import launch
from tests.unit.bases import efi

FIRMWARE = b"firmware"
PACKAGES = (
    Package(kind="wheel", name="pyrage", version="1.4.0", digest="sha256:" + "1" * 64),
    Package(kind="deb", name="zlib1g", version="1:1.2.13+x", digest="sha256:" + "2" * 64),
    Package(kind="deb", name="libc6", version="2.36-9", digest="sha256:" + "3" * 64),
)


def parts(*, debug=False, content=b"x") -> dict[str, bytes]:
    disk = base_disk.write({"file": File(content=content * 5000)}, folders=())
    return {
        KERNEL: b"kernel",
        INITRD: b"initrd",
        CMDLINE: build.command_line(disk, debug=debug).encode(),
        DISK: disk.content,
    }


def describe(changed=None, firmware=FIRMWARE):
    return document.describe(
        {**parts(), **(changed or {})}, firmware=firmware, packages=document.packages_json(PACKAGES)
    )


def test_it_reads_what_it_writes():
    made = describe()
    assert document.parse(made.encode()) == made
    assert not made.debug


def test_the_reference_is_that_of_the_launch_record_and_pcr0_follows_from_it():
    made, files = describe(), parts()
    for guarded in (True, False):
        record = launch.LaunchRecord(
            firmware="sha256:" + hashlib.sha256(FIRMWARE).hexdigest(),
            kernel="sha256:" + hashlib.sha256(files[KERNEL]).hexdigest(),
            initrd="sha256:" + hashlib.sha256(files[INITRD]).hexdigest(),
            cmdline="sha256:" + hashlib.sha256(files[CMDLINE]).hexdigest(),
            machine="q35",
            memory_guard=guarded,
        )
        assert made.reference == record.reference()
        value = hashlib.sha256(bytes(31) + b"\x04" + hashlib.sha256(record.encode()).digest()).hexdigest()
        assert made.pcr0["guarded" if guarded else "unguarded"] == "sha256:" + value
        assert tpm.hcrtm_pcr0(record.encode()).hex() == value


@pytest.mark.parametrize("name", [KERNEL, INITRD])
def test_one_changed_byte_changes_the_measurement(name):
    changed = describe({name: parts()[name] + b"!"})
    assert {what for what, _, _ in document.differences(describe(), changed)} >= {
        name,
        f"reference.{ {KERNEL: 'kernel', INITRD: 'initrd'}[name] }",
        "pcr0.guarded",
        "pcr0.unguarded",
    }


def test_a_changed_option_or_firmware_changes_the_measurement():
    cmdline = parts()[CMDLINE].replace(b"oops=panic", b"oops=xxxxx")
    names = {what for what, _, _ in document.differences(describe(), describe({CMDLINE: cmdline}))}
    assert {CMDLINE, "reference.cmdline", "pcr0.guarded"} <= names
    names = {what for what, _, _ in document.differences(describe(), describe(firmware=b"other"))}
    assert names == {"reference.firmware", "pcr0.guarded", "pcr0.unguarded"}


def test_a_disk_is_bound_by_the_command_line():
    other = parts(content=b"y")
    with pytest.raises(
        Malformed, match="names another disk; expected root hash"
    ):  # another disk under the same command line
        describe({DISK: other[DISK]})
    assert describe({DISK: other[DISK], CMDLINE: other[CMDLINE]}).reference != describe().reference
    flipped = bytearray(parts()[DISK])
    flipped[-1] ^= 1
    with pytest.raises(Malformed, match="its hash tree is not that of its data"):
        describe({DISK: bytes(flipped)})


def test_the_debugging_console_is_measured_and_said():
    talking = document.describe(
        parts(debug=True), firmware=FIRMWARE, packages=document.packages_json(PACKAGES)
    )
    assert talking.debug
    assert talking.reference["cmdline"] != describe().reference["cmdline"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "names another disk; expected root hash"),
        (b"quiet\n", "expected one line of at most 2047 ASCII characters"),
        (b"a" * 3000, "expected one line of at most 2047 ASCII characters"),
        (b"\xff", "expected one line of at most 2047 ASCII characters"),
        (
            b"strongroom.root=00 strongroom.root=00 strongroom.blocks=1",
            "names another disk; expected root hash",
        ),
    ],
)
def test_a_command_line_that_names_no_disk_is_refused(line, why):
    with pytest.raises(Malformed, match=why):
        describe({CMDLINE: line})


def test_two_root_hashes_are_refused():
    with pytest.raises(Malformed, match="names another disk; expected root hash"):
        describe({CMDLINE: parts()[CMDLINE] + b" strongroom.root=" + b"0" * 64})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "strongroom-base/1"}, "format: expected 'strongroom-base/2'"),
        ({"profile": "sgx"}, "a profile that is not known"),
        ({"profile": "snp"}, "unknown key 'pcr0', 'reference'"),
        ({"profile": "uki"}, "key 'strongroom.efi' is missing"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"debug": "no"}, "debug: expected true or false"),
        ({"root_hash": "sha256:1"}, "root_hash: expected sha256: and 64"),
        ({"reference": {}}, "key 'firmware' is missing"),
        ({"files": {}}, "key 'bzImage' is missing"),
        ({"pcr0": {"guarded": "sha256:" + "0" * 64}}, "key 'unguarded' is missing"),
    ],
)
def test_documents_of_another_shape_are_refused(change, why):
    value = json.loads(describe().encode()) | change
    with pytest.raises(Malformed, match=why):
        document.parse(json.dumps(value).encode())


def test_the_command_line_leaves_no_console_and_ends_on_trouble():
    words = parts()[CMDLINE].decode().split(" ")
    assert [word for word in words if word.startswith("console=")] == ["console=none"]
    assert {"8250.nr_uarts=0", "panic=-1", "oops=panic", "lockdown=integrity"} <= set(words)


def test_the_bill_of_materials_is_cyclonedx_and_always_the_same():
    from cyclonedx.validation.json import (
        JsonStrictValidator,  # it makes forty grammars: seconds, of every worker
    )

    first = sbom.encode(PACKAGES, about="sha256:" + "a" * 64, newest=1_700_000_000)
    assert first == sbom.encode(tuple(reversed(PACKAGES)), about="sha256:" + "a" * 64, newest=1_700_000_000)
    assert first != sbom.encode(PACKAGES, about="sha256:" + "b" * 64, newest=1_700_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(first.decode()) is None
    value = json.loads(first)
    assert value["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert {one["name"] for one in value["components"]} == {"libc6", "zlib1g", "pyrage"}


def test_packages_are_listed_in_one_order():
    listed = document.packages_json(PACKAGES)
    assert listed == document.packages_json(tuple(reversed(PACKAGES)))
    assert [one["name"] for one in json.loads(listed)] == ["libc6", "zlib1g", "pyrage"]


def enclave_parts():
    made = parts()
    metadata = eif.metadata(name="x", version="1", kernel="6.12", tool_version="1")
    ramdisks = (made[INITRD], initramfs.ramdisk(made[DISK]))
    image = eif.build(kernel=made[KERNEL], cmdline=made[CMDLINE], ramdisks=ramdisks, metadata=metadata)
    return {**made, document.EIF: image}


def test_a_base_for_hardware_names_its_profile_and_no_registers_of_local_rooms():
    listed = document.packages_json(PACKAGES)
    made = document.describe(enclave_parts(), firmware=b"", packages=listed, profile=NITRO)
    assert document.parse(made.encode()) == made
    assert made.profile is NITRO
    assert (made.reference, made.pcr0) == ({}, {})
    value = json.loads(made.encode())
    assert not {"reference", "pcr0"} & set(value)  # a contract finds none, rather than some
    with pytest.raises(Malformed, match="unknown key 'reference'"):
        document.parse(json.dumps(value | {"reference": {}}).encode())


def test_an_image_that_holds_other_files_is_refused(tmp_path):
    listed = document.packages_json(PACKAGES)
    for name in (KERNEL, INITRD):
        changed = {**enclave_parts(), name: b"another"}
        with pytest.raises(Malformed) as caught:
            document.describe(changed, firmware=b"", packages=listed, profile=NITRO)
        assert caught.value.code == "image-corrupt"
    good = enclave_parts()
    made = document.describe(good, firmware=b"", packages=listed, profile=NITRO)
    for name, content in {**good, document.BASE: made.encode(), document.PACKAGES: listed}.items():
        (tmp_path / name).write_bytes(content)
    assert document.measure(tmp_path, firmware=tmp_path / "none") == made


@efi.needs_stub
@pytest.mark.parametrize("name", [KERNEL, INITRD, document.IMAGE])
def test_a_program_or_disk_image_that_holds_other_files_is_refused(name):
    made = {**parts(), KERNEL: efi.stub()}
    program = efi.small(initrd=made[INITRD], cmdline=made[CMDLINE])
    image = disk_image.build(uki=program, base_disk=made[DISK])
    whole = {**made, document.EFI: program, document.IMAGE: image}
    listed = document.packages_json(PACKAGES)
    found = document.describe(whole, firmware=b"", packages=listed, profile=UKI)
    assert set(found.files) == set(whole)
    with pytest.raises(Malformed) as caught:
        document.describe({**whole, name: whole[name] + b"!"}, firmware=b"", packages=listed, profile=UKI)
    assert caught.value.code == "image-corrupt"


def test_a_list_of_packages_reads_back_and_one_of_another_shape_does_not():
    listed = document.packages_json(PACKAGES)
    assert set(document.parse_packages(listed)) == set(PACKAGES)
    good = json.loads(listed)
    for change, why in (
        ({"kind": "rpm"}, "kind: expected text that matches"),
        ({"digest": "sha256:1"}, "digest: expected sha256: and 64"),
        ({"name": ""}, "name: expected text of 1 to 200 characters"),
        ({"extra": "x"}, "unknown key 'extra'"),
        ({"suite": 7}, "suite: expected text of at most 64 characters"),
    ):
        with pytest.raises(Malformed, match=why):
            document.parse_packages(json.dumps([good[0] | change, *good[1:]]).encode())
    for junk, why in (
        (b"", "not JSON"),
        (b"{}", "packages: expected a list of at most 256"),
        (b"7", "packages: expected a list of at most 256"),
        (json.dumps(good * 200).encode(), "packages: expected a list of at most 256"),
    ):
        with pytest.raises(Malformed, match=why):
            document.parse_packages(junk)
