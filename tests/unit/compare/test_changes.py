"""Why did it change: each kind of change is told, once, with the registers that measure its part."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from strongroom.bases import build, initramfs
from strongroom.bases import disk as base_disk
from strongroom.bases import document as base_document
from strongroom.bases.files import File
from strongroom.bases.formats import eif
from strongroom.compare import base as changes_base
from strongroom.compare import compare, contract
from strongroom.compare import image as changes_image
from strongroom.compare.compare import Topic
from strongroom.errors import Malformed
from strongroom.model import manifest as manifest_model
from strongroom.seal.tree import Entry, EntryKind
from tests import samples
from tests.unit.bases import efi, enclave
from tests.unit.compare.base_documents import document
from tests.unit.seal.sealed import IMAGE, seal

KERNEL = (
    bytes(0x202) + b"HdrS" + bytes(8) + (0x300).to_bytes(2, "little") + bytes(0x2F0) + b"6.1.0-54 (builder)\0"
)
INITRD = {
    "init": File(content=b"#!/bin/sh", executable=True),
    "lib/modules/6.1.0/erofs.ko": File(content=b"a module"),
}
DISK = {"usr/bin/python3": File(content=b"python", executable=True), "etc/passwd": File(content=b"root")}
PACKAGES = (base_document.Package(kind="deb", name="libc6", version="2.36-9", digest="sha256:" + "1" * 64),)


def folder(
    where, *, kernel=KERNEL, initrd=INITRD, disk=DISK, packages=PACKAGES, cmdline=None, profile="local"
):
    where.mkdir()
    written = base_disk.write(disk, folders=())
    line = build.command_line(written, debug=False) if cmdline is None else cmdline
    (where / base_document.KERNEL).write_bytes(kernel)
    (where / base_document.INITRD).write_bytes(initramfs.archive(initrd))
    (where / base_document.CMDLINE).write_text(line)
    (where / base_document.DISK).write_bytes(written.content)
    (where / base_document.PACKAGES).write_bytes(base_document.packages_json(packages))
    (where / base_document.BASE).write_bytes(document(profile))
    return where


def told(tmp_path, **changed):
    profile = changed.get("profile", "local")
    old = changes_base.subject(folder(tmp_path / "old", profile=profile))
    new = changes_base.subject(folder(tmp_path / "new", **changed))
    return compare.compare(old, new), compare.changed_registers(old, new)


def only(found, topic):
    (one,) = [each for each in found if each.topic is topic]
    return one


def test_the_same_is_the_same(tmp_path):
    assert told(tmp_path) == ((), {})


def test_a_kernel_is_told_by_its_release(tmp_path):
    found, registers = told(tmp_path, kernel=KERNEL.replace(b"6.1.0-54", b"6.1.0-56"))
    assert only(found, Topic.KERNEL).before == "6.1.0-54"
    assert only(found, Topic.KERNEL).after == "6.1.0-56"
    assert registers == {"kernel": ("kernel", "pcr0")}


def test_a_kernel_of_the_same_release_with_other_bytes_is_told_too(tmp_path):
    found, _ = told(tmp_path, kernel=KERNEL + b"!")
    assert (only(found, Topic.BYTES).name, only(found, Topic.BYTES).registers) == (
        "kernel",
        ("kernel", "pcr0"),
    )


def test_the_command_line_is_told_word_by_word(tmp_path):
    line = "quiet console=none a=1 b root=2"
    old = changes_base.subject(folder(tmp_path / "old", cmdline=line))
    new = changes_base.subject(folder(tmp_path / "new", cmdline="quiet console=ttyS0 a=1 c root=2"))
    found = [one for one in compare.compare(old, new) if one.topic is Topic.CMDLINE]
    assert [(one.name, one.before, one.after) for one in found] == [
        ("b", "b", None),
        ("c", None, "c"),
        ("console", "none", "ttyS0"),
    ]
    assert compare.compare(old, new)[0].topic is Topic.DEBUG
    assert "FOR EVERYBODY" in str(compare.compare(old, new)[0].after)


def test_words_in_another_order_are_told(tmp_path):
    old = changes_base.subject(folder(tmp_path / "old", cmdline="a console=none b"))
    new = changes_base.subject(folder(tmp_path / "new", cmdline="b console=none a"))
    assert only(compare.compare(old, new), Topic.CMDLINE).name == "order of the words"


def test_a_word_that_is_there_twice_is_no_value_of_one(tmp_path):
    old = changes_base.subject(folder(tmp_path / "old", cmdline="x=1 x=2 console=none"))
    new = changes_base.subject(folder(tmp_path / "new", cmdline="x=1 x=3 console=none"))
    found = [one for one in compare.compare(old, new) if one.topic is Topic.CMDLINE]
    assert {(one.before, one.after) for one in found} == {("2", "3")} or len(found) == 2


def test_packages_are_told_by_version(tmp_path):
    other = (replace(PACKAGES[0], version="2.36-10"), replace(PACKAGES[0], name="zlib1g"))
    found, registers = told(tmp_path, packages=other)
    added, changed = [one for one in found if one.topic is Topic.PACKAGE]
    assert (changed.name, changed.before is not None, changed.after is not None) == (
        "libc6 (deb)",
        True,
        True,
    )
    assert (added.name, added.before) == ("zlib1g (deb)", None)
    assert registers == {}


def test_a_module_is_told_as_one(tmp_path):
    found, registers = told(tmp_path, initrd={**INITRD, "lib/modules/6.1.0/tsm.ko": File(content=b"m")})
    assert (only(found, Topic.MODULE).name, only(found, Topic.MODULE).before) == ("tsm", None)
    assert registers == {"initrd": ("initrd", "pcr0")}


def test_files_are_told_with_size_mode_and_digest(tmp_path):
    disk = {**DISK, "etc/passwd": File(content=b"more"), "etc/new": File(content=b"n")}
    found, _ = told(tmp_path, disk=disk)
    names = {one.name: one for one in found if one.topic is Topic.FILE}
    assert names.keys() == {"disk: etc/passwd", "disk: etc/new"}
    passwd = names["disk: etc/passwd"]
    assert passwd.before != passwd.after
    assert "4 bytes, sha256:" in str(passwd.before)
    assert passwd.registers == ("cmdline", "pcr0")  # the root hash stands in the command line
    assert "strongroom.root" in [one.name for one in found if one.topic is Topic.CMDLINE]


@pytest.mark.parametrize(
    ("profile", "registers"),
    [
        ("snp", ("measurement",)),
        ("tdx", ("rtmr2",)),
        ("nitro", ("pcr0", "pcr1")),
        ("uki", ("pcr4", "pcr9", "pcr11")),
    ],
)
def test_each_platform_names_its_own_registers(tmp_path, profile, registers):
    initrd = {**INITRD, "init": File(content=b"#!/bin/other")}
    assert told(tmp_path, initrd=initrd, profile=profile)[1] == {"initrd": registers}


def test_a_unified_kernel_image_is_told_by_what_is_around_the_kernel(tmp_path):
    if not efi.STUB.exists():
        pytest.skip("systemd-boot-efi is not installed")
    subjects = []
    for name, osrel in (("old", efi.OSREL), ("new", efi.OSREL + b"BUILD_ID=2\n")):
        where = folder(tmp_path / name, profile="uki")
        (where / base_document.EFI).write_bytes(efi.small(osrel=osrel))
        subjects.append(changes_base.subject(where))
    (found,) = compare.compare(*subjects)
    assert (found.topic, found.name, found.registers) == (Topic.SETTING, "section .osrel", ("pcr4", "pcr11"))


def test_another_signer_of_an_enclave_image_is_told(tmp_path):
    subjects = []
    for name, signer in (("old", None), ("new", enclave.signer())):
        where = folder(tmp_path / name, profile="nitro")
        described = eif.metadata(name="n", version="1", kernel="6", tool_version="1")
        image = eif.build(kernel=b"k", cmdline=b"c", ramdisks=(b"r",), metadata=described, signer=signer)
        (where / base_document.EIF).write_bytes(image)
        subjects.append(changes_base.subject(where))
    (found,) = compare.compare(*subjects)
    assert (found.before, found.registers) == ("nobody", ("pcr8",))


def test_a_disk_that_is_not_whole_is_no_subject(tmp_path):
    where = folder(tmp_path / "old")
    disk = bytearray((where / base_document.DISK).read_bytes())
    disk[0x2000] ^= 1
    (where / base_document.DISK).write_bytes(disk)
    with pytest.raises(Malformed, match="its hash tree is not that of its data"):
        changes_base.subject(where)


def file(path, content=b"x", **more):
    return Entry(
        path=path,
        kind=EntryKind.FILE,
        mode=more.pop("mode", 0o644),
        size=len(content),
        open=lambda: io.BytesIO(content),
        **more,
    )


def image(*entries, settings=IMAGE):
    folders = {b""}
    for one in entries:
        parts = one.path.split(b"/")[:-1]
        folders |= {b"/".join(parts[: count + 1]) for count in range(len(parts))}
    made = [
        Entry(path=path, kind=EntryKind.DIRECTORY, mode=0o755)
        for path in folders
        if path not in {e.path for e in entries}
    ]
    return changes_image._subject(settings, None, (*made, *entries))


def test_a_file_that_gains_rights_is_told_before_all_files():
    old = image(file(b"bin/su", mode=0o755), file(b"a"))
    new = image(file(b"bin/su", mode=0o4755), file(b"a", b"y"))
    found = compare.compare(old, new)
    assert [one.topic for one in found] == [Topic.RIGHTS, Topic.FILE, Topic.FILE]
    assert (found[0].before, found[0].after) == (None, "set-uid, owner 0:0")


def test_capabilities_are_rights():
    old = image(file(b"bin/ping"))
    new = image(file(b"bin/ping", xattrs={b"security.capability": b"\1"}))
    assert only(compare.compare(old, new), Topic.RIGHTS).after == "capabilities, owner 0:0"


def test_dates_alone_are_one_line():
    old = image(file(b"a"), file(b"b"))
    new = image(file(b"a", mtime=9), file(b"b", mtime=9))
    (found,) = compare.compare(old, new)
    assert (found.topic, found.after) == (Topic.DATE, "2 files with other dates and nothing else")


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"entrypoint": ("/bin/y",)}, "entrypoint"),
        ({"command": ("--all",)}, "arguments"),
        ({"environment": {"LD_PRELOAD": "/x.so"}}, "environment LD_PRELOAD"),
        ({"working_directory": "/tmp"}, "working directory"),
        ({"uid": 1}, "user"),
        ({"groups": (5,)}, "groups"),
    ],
)
def test_how_an_image_runs_is_told(changed, name):
    found = compare.compare(image(), image(settings=replace(IMAGE, **changed)))
    assert [(one.topic, one.name) for one in found] == [(Topic.SETTING, name)]
    assert found[0].registers == ("image.manifest",)


DPKG = b"Package: openssl\nStatus: install ok installed\nVersion: %b\nDescription: x\n Version: not this\n\n"


def test_an_images_packages_are_those_of_its_databases():
    def entries(openssl, busybox, numpy):
        return (
            file(b"var/lib/dpkg/status", DPKG % openssl),
            file(b"lib/apk/db/installed", b"C:x\nP:busybox\nV:%b\n\n" % busybox),
            Entry(path=b"usr/numpy-%b.dist-info" % numpy, kind=EntryKind.DIRECTORY, mode=0o755),
        )

    found = compare.compare(
        image(*entries(b"3.0.15", b"1.36", b"1.0")), image(*entries(b"3.0.17", b"1.37", b"2.0"))
    )
    packages = {(one.name, one.before, one.after) for one in found if one.topic is Topic.PACKAGE}
    assert packages == {
        ("openssl (deb)", "3.0.15", "3.0.17"),
        ("busybox (apk)", "1.36", "1.37"),
        ("numpy (python)", "1.0", "2.0"),
    }


def test_a_sealed_disk_is_compared_by_its_files_and_an_encrypted_one_by_its_manifest(tmp_path):
    for name, key in (("plain", None), ("secret", bytes(range(64)))):
        subjects = []
        for side, content in enumerate((b"x", b"y")):
            entries = (Entry(path=b"", kind=EntryKind.DIRECTORY, mode=0o755), file(b"a", content))
            target = tmp_path / f"{name}{side}.disk"
            manifest = seal(target, entries, key=key, kind="image")
            subjects.append(changes_image.from_disk(target, manifest))
        with subjects[0] as old, subjects[1] as new:
            found = compare.compare(old, new)
        topic = Topic.FILE if key is None else Topic.BYTES
        assert [(one.topic, one.registers) for one in found] == [(topic, ("image.manifest",))]
    assert manifest_model.KINDS


def test_contracts_are_compared_register_by_register():
    one = samples.a_contract()
    platform = one.platforms[0]
    reference = {**platform.references[0], "kernel": "sha256:" + "9" * 64}
    other = replace(one, platforms=(replace(platform, references=(reference,)),))
    found = compare.compare(contract.subject(one), contract.subject(other))
    assert [(each.topic, each.registers) for each in found] == [(Topic.REFERENCE, ("kernel",))]
