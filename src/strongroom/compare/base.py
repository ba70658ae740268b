"""A base's folder as a `ComparedSide`: its command line, kernel, packages, modules and the files of initrd and base disk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.bases import cpio, document
from strongroom.bases import disk as base_disk
from strongroom.bases.formats import eif, pe, uki
from strongroom.compare.compare import ComparedSide, Topic
from strongroom.crypto import digest
from strongroom.errors import Malformed
from strongroom.seal import browse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from strongroom.seal.tree import Entry

_RELEASE_AT = 0x20E  # in a bzImage: where its release stands, counted from byte 0x200
_RELEASE = re.compile(rb"[0-9A-Za-z.+~_-]{1,64}")
_MODULE = re.compile(rb"lib/modules/[^/]+/(?:.+/)?([^/]+)\.ko(?:\.[a-z0-9]+)?")

# Which registers measure which part, by profile. The base disk's root hash stands in the command line.
_SNP = ("measurement",)
_UKI = ("pcr4", "pcr11")
REGISTERS: dict[str, dict[str, tuple[str, ...]]] = {
    "local": {
        "kernel": ("kernel", "pcr0"),
        "initrd": ("initrd", "pcr0"),
        "cmdline": ("cmdline", "pcr0"),
        "disk": ("cmdline", "pcr0"),
    },
    "snp": dict.fromkeys(("kernel", "initrd", "cmdline", "disk"), _SNP),
    "tdx": {"kernel": ("rtmr1",), "initrd": ("rtmr2",), "cmdline": ("rtmr2",), "disk": ("rtmr2",)},
    "nitro": {
        "kernel": ("pcr0", "pcr1"),
        "initrd": ("pcr0", "pcr1"),
        "cmdline": ("pcr0", "pcr1"),
        "disk": ("pcr0", "pcr1", "pcr2"),
        "signature": ("pcr8",),
    },
    "uki": {
        "kernel": _UKI,
        "initrd": ("pcr4", "pcr9", "pcr11"),
        "cmdline": ("pcr4", "pcr9", "pcr11"),
        "disk": ("pcr4", "pcr9", "pcr11"),
        "image": _UKI,
    },
}


def subject(folder: Path) -> ComparedSide:
    """The base in `folder`; base.json and packages.json are read where they are. Raises `Malformed`, `NotFound`."""
    read = document.read
    kernel = read(folder / document.KERNEL, document.MAX_PART)
    initrd = read(folder / document.INITRD, document.MAX_PART)
    cmdline = read(folder / document.CMDLINE, document.MAX_CMDLINE)
    words = tuple(cmdline.decode("ascii", "backslashreplace").split(" "))
    parts = {
        "kernel": digest.sha256(kernel),
        "initrd": digest.sha256(initrd),
        "cmdline": digest.sha256(cmdline),
    }
    profile = _profile(folder)
    silent = document.NO_CONSOLE in words
    facts = {
        (Topic.PLATFORM, "", "profile"): profile,
        (Topic.DEBUG, "cmdline", "what the room prints"): "for nobody" if silent else "FOR EVERYBODY to read",
        (Topic.KERNEL, "kernel", "release"): release(kernel),
    }
    for package in _packages(folder):
        # Its digest too: a package can change without a new version.
        facts[Topic.PACKAGE, "", f"{package.name} ({package.kind})"] = (
            f"{package.version} ({package.digest[:19]}…)"
        )
    files = cpio.tree(initrd)
    trees = {"initrd": tuple(entry for entry in files if _MODULE.fullmatch(entry.path) is None)}
    for entry in files:
        module = _MODULE.fullmatch(entry.path)
        if module is not None and entry.open is not None:
            with entry.open() as content:
                name = module[1].decode("ascii", "backslashreplace")
                facts[Topic.MODULE, "initrd", name] = digest.sha256(content.read())[:19] + "…"
    if (folder / document.DISK).is_file():
        disk = read(folder / document.DISK, document.MAX_PART)
        parts["disk"] = digest.sha256(disk)
        trees["disk"] = _disk(disk)
    for part, settings, part_digest in (*_efi(folder), *_enclave(folder)):
        parts[part] = part_digest
        facts |= {(Topic.SETTING, part, name): value for name, value in settings.items()}
    return ComparedSide(
        kind="base",
        parts=parts,
        facts=facts,
        words=words,
        trees=trees,
        registers=REGISTERS.get(profile, {}),
    )


def _efi(folder: Path) -> Iterator[tuple[str, dict[str, str], str]]:
    """What a unified kernel image holds beside kernel, initrd and command line."""
    file = folder / document.EFI
    if not file.is_file():
        return
    data = document.read(file, document.MAX_PART)
    image, parsed = pe.parse(data), uki.parse(data)
    around = [section for section in image.sections if section.name not in (".linux", ".initrd", ".cmdline")]
    facts = {"stub of systemd": str(parsed.stub)}
    facts |= {
        f"section {name}": parsed.sections[name].decode("utf-8", "backslashreplace").strip()
        for name in (".osrel", ".uname", ".sbat")
        if name in parsed.sections
    }
    yield (
        "image",
        facts,
        digest.sha256(b"".join(section.name.encode() + image.content(section) for section in around)),
    )


def _enclave(folder: Path) -> Iterator[tuple[str, dict[str, str], str]]:
    """Who signed an enclave image: its PCR 8."""
    file = folder / document.EIF
    if not file.is_file():
        return
    signature = eif.parse(document.read(file, document.MAX_PART)).signature
    signer = "nobody" if signature is None else digest.sha256(signature.certificate)
    yield "signature", {"enclave image signed by": signer}, signer


def release(kernel: bytes) -> str:
    """The release that a bzImage names, or "not a bzImage"."""
    start = 0x200 + int.from_bytes(kernel[_RELEASE_AT : _RELEASE_AT + 2], "little")
    text = _RELEASE.match(kernel, start) if kernel[0x202:0x206] == b"HdrS" else None
    return text[0].decode() if text else "not a bzImage"


def _disk(disk: bytes) -> tuple[Entry, ...]:
    tree = base_disk.root_hash(disk)
    if tree is None:
        raise Malformed(
            f"{document.DISK}: its hash tree is not that of its data",
            code="disk-corrupt",
            hint="the base is damaged: build it again, or copy it anew",
        )

    def read(first: int, count: int) -> bytes:
        return disk[first * browse.BLOCK : (first + count) * browse.BLOCK]

    return browse.tree(read, tree[1] * browse.BLOCK)


def _profile(folder: Path) -> str:
    return document.load(folder).profile.name if (folder / document.BASE).is_file() else "not said"


def _packages(folder: Path) -> tuple[document.Package, ...]:
    file = folder / document.PACKAGES
    if not file.is_file():
        return ()
    return document.parse_packages(document.read(file, document.MAX_PACKAGES))
