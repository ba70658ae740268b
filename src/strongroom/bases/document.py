"""The documents beside a base: `base.json` and `packages.json`. The third, the bill of materials, is `sbom`'s.

`base.json` is canonical JSON (format "strongroom-base/2")::

    format      "strongroom-base/2"
    profile     "local", "uki", "snp", "tdx" or "nitro" (base_profile)
    debug       true when the command line opens a console; such a base has other registers than its sibling
    files       {name: {bytes, digest}} of bzImage, initrd, cmdline, base.disk, and what the profile makes of them
    root_hash   of the base's disk, as the command line names it
    packages    digest of packages.json

and of profile "local" only, since other platforms' registers depend on more than these files (`bases/measure`)::

    reference   the registers that a contract's reference names: firmware, kernel, initrd, cmdline, machine
    pcr0        predicted start of PCR 0, {guarded, unguarded}: with and without the memory guard

`packages.json` is a list of {kind, name, version, digest, origin, suite}, all that somebody needs to build the same again:
what to ask for, where, and what must come.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.bases import disk as base_disk
from strongroom.bases import initramfs
from strongroom.bases import profile as base_profile
from strongroom.bases.formats import disk_image, eif, uki
from strongroom.bases.measure import tpm
from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from strongroom.bases.profile import Profile

FORMAT = "strongroom-base/2"
MACHINE = "q35"
KERNEL, INITRD, CMDLINE, DISK = "bzImage", "initrd", "cmdline", "base.disk"
PARTS = (KERNEL, INITRD, CMDLINE, DISK)
EFI, IMAGE, EIF = "strongroom.efi", "strongroom.img", "strongroom.eif"
BASE, PACKAGES, SBOM = "base.json", "packages.json", "sbom.cdx.json"
DOCUMENTS = (BASE, PACKAGES, SBOM)
MAX_BYTES = 64 * 1024
MAX_PACKAGES = 256 * 1024
MAX_PART = 1 << 30
_MAX_PACKAGES = 256
_KINDS = re.compile("deb|wheel|source|builder")
MAX_CMDLINE = 2047  # the x86 boot protocol's COMMAND_LINE_SIZE, without its NUL
ROOT_KEY = "strongroom.root="
BLOCKS_KEY = "strongroom.blocks="
NO_CONSOLE = "console=none"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One thing that went into a base. `kind` is "deb", "wheel", "source" (the agent's) or "builder".

    `digest` is of a package's file; of a wheel's or source's paths and contents. `suite` is Debian's.
    """

    kind: str
    name: str
    version: str
    digest: str
    origin: str = ""
    suite: str = ""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A parsed base.json; the documentation of the fields is at the top of this file."""

    profile: Profile
    debug: bool
    reference: dict[str, str]
    files: dict[str, tuple[int, str]]
    root_hash: str
    pcr0: dict[str, str]
    packages: str

    def to_json(self) -> dict[str, object]:
        """The object form."""
        local = {"reference": self.reference, "pcr0": self.pcr0} if self.reference else {}
        return {
            "format": FORMAT,
            "profile": self.profile.name,
            "debug": self.debug,
            "files": {name: {"bytes": size, "digest": what} for name, (size, what) in self.files.items()},
            "root_hash": self.root_hash,
            "packages": self.packages,
            **local,
        }

    def encode(self) -> bytes:
        """The canonical bytes."""
        return canonical.dumps(self.to_json())

    @property
    def total_bytes(self) -> int:
        """What a room loads: kernel, initrd, command line and disk."""
        return sum(self.files[name][0] for name in PARTS)


def parse(data: bytes) -> Base:
    """Parse base.json. Raises `Malformed`."""
    top = fields.Fields(canonical.loads(data, what=BASE, max_bytes=MAX_BYTES), BASE)
    top.constant("format", FORMAT)
    profile = base_profile.PROFILES.get(top.text("profile", max_length=16))
    if profile is None:
        raise Malformed(
            f"{BASE}: a profile that is not known: expected one of {', '.join(base_profile.PROFILES)}",
            code="bad-profile",
            hint="a newer Strongroom built it: use that version, or build the base again",
        )
    files = top.object("files")
    sizes: dict[str, tuple[int, str]] = {}
    for name in parts_of(profile):
        size = files.object(name)
        sizes[name] = (size.integer("bytes", low=1, high=MAX_PART), size.digest("digest"))
        size.done()
    files.done()
    local = profile is base_profile.LOCAL
    base = Base(
        profile=profile,
        debug=top.boolean("debug"),
        reference=_reference(top.object("reference")) if local else {},
        files=sizes,
        root_hash=top.digest("root_hash"),
        pcr0=_pcr0_of(top.object("pcr0")) if local else {},
        packages=top.digest("packages"),
    )
    top.done()
    return base


def _reference(fields_: fields.Fields) -> dict[str, str]:
    out = {name: fields_.digest(name) for name in ("firmware", "kernel", "initrd", "cmdline")}
    out["machine"] = fields_.text("machine", max_length=64)
    fields_.done()
    return out


def _pcr0_of(fields_: fields.Fields) -> dict[str, str]:
    out = {name: fields_.digest(name) for name in ("guarded", "unguarded")}
    fields_.done()
    return out


def parts_of(profile: Profile) -> tuple[str, ...]:
    """The names of a base's files, without its documents."""
    return (*PARTS, *((EFI, IMAGE) if profile.uki else ()), *((EIF,) if profile.eif else ()))


def describe(
    parts: dict[str, bytes],
    *,
    firmware: bytes,
    packages: bytes,
    profile: Profile = base_profile.LOCAL,
) -> Base:
    """base.json computed from the bytes alone. Raises `Malformed` when they are no base of the profile."""
    cmdline = parts[CMDLINE]
    if len(cmdline) > MAX_CMDLINE or not cmdline.isascii() or b"\n" in cmdline or b"\x00" in cmdline:
        raise Malformed(
            f"{CMDLINE}: expected one line of at most {MAX_CMDLINE} ASCII characters",
            code="bad-cmdline",
            hint="build the base again",
        )
    words = cmdline.decode().split(" ")
    named = [word.removeprefix(ROOT_KEY) for word in words if word.startswith(ROOT_KEY)]
    counted = [word.removeprefix(BLOCKS_KEY) for word in words if word.startswith(BLOCKS_KEY)]
    disk = base_disk.root_hash(parts[DISK])
    if disk is None:
        raise Malformed(
            f"{DISK}: its hash tree is not that of its data", code="disk-corrupt", hint="build the base again"
        )
    root, blocks = disk
    if named != [root.hex()] or counted != [str(blocks)]:
        raise Malformed(
            f"{CMDLINE}: names another disk; expected root hash {root.hex()} and {blocks} blocks",
            code="disk-corrupt",
            hint="build the base again",
        )
    _check_images(parts, profile)
    reference = _measured(parts, firmware) if profile is base_profile.LOCAL else {}
    return Base(
        profile=profile,
        debug=NO_CONSOLE not in words,
        reference=reference,
        files={name: (len(parts[name]), digest.sha256(parts[name])) for name in parts_of(profile)},
        root_hash="sha256:" + root.hex(),
        pcr0={
            name: _pcr0(reference, memory_guard=name == "guarded")
            for name in (("guarded", "unguarded") if reference else ())
        },
        packages=digest.sha256(packages),
    )


def _measured(parts: dict[str, bytes], firmware: bytes) -> dict[str, str]:
    record = tpm.launch_record(
        firmware=firmware,
        kernel=parts[KERNEL],
        initrd=parts[INITRD],
        cmdline=parts[CMDLINE],
        machine=MACHINE,
        memory_guard=True,
    )
    return record.reference()


def _check_images(parts: dict[str, bytes], profile: Profile) -> None:
    """What a platform starts consists of the files beside it. Raises `Malformed`."""
    if profile.uki:
        sections = uki.parse(parts[EFI]).sections
        for section, name in ((".linux", KERNEL), (".initrd", INITRD), (".cmdline", CMDLINE)):
            if sections[section] != parts[name]:
                raise _stranger(EFI, name)
        if parts[IMAGE] != disk_image.build(uki=parts[EFI], base_disk=parts[DISK]):
            raise _stranger(IMAGE, f"{EFI} and {DISK}")
    if profile.eif:
        image = eif.parse(parts[EIF])
        wanted = (parts[KERNEL], parts[CMDLINE], (parts[INITRD], initramfs.ramdisk(parts[DISK])))
        if (image.kernel, image.cmdline, image.ramdisks) != wanted:
            raise _stranger(EIF, ", ".join(PARTS))


def _stranger(image: str, name: str) -> Malformed:
    return Malformed(
        f"{image}: does not hold what stands beside it as {name}",
        code="image-corrupt",
        hint="build the base again",
    )


def load(folder: Path) -> Base:
    """The base.json in a folder. Raises `NotFound` or `Malformed`."""
    return parse(read(folder / BASE, MAX_BYTES))


def measure(folder: Path, *, firmware: Path) -> Base:
    """base.json computed anew from the files in `folder`; of the stored one only the profile's name is believed.

    Raises as `describe`. `firmware` is read for profile "local" alone.
    """
    profile = load(folder).profile
    parts = {name: read(folder / name, MAX_PART) for name in parts_of(profile)}
    return describe(
        parts,
        firmware=read(firmware, MAX_PART) if profile is base_profile.LOCAL else b"",
        packages=read(folder / PACKAGES, MAX_PACKAGES),
        profile=profile,
    )


def check(folder: Path, *, firmware: Path) -> Base:
    """base.json computed anew, as `measure` does. Raises `Refused` where anything of it is not what the stored one says."""
    stored, measured = load(folder), measure(folder, firmware=firmware)
    differing = differences(stored, measured)
    if differing:
        name, expected, got = differing[0]
        raise Refused(
            f"{folder}: {name} is not what {BASE} says: expected {expected}, got {got}"
            + (f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""),
            code="base-differs",
            hint="build the base again; if only the firmware differs, this machine's SeaBIOS is another version",
        )
    return measured


def differences(stored: Base, rebuilt: Base) -> tuple[tuple[str, str, str], ...]:
    """What differs as (name, stored, rebuilt), files first; empty when nothing does."""
    left, right = _flat(stored), _flat(rebuilt)
    return tuple(
        (name, left.get(name, "nothing"), right.get(name, "nothing"))
        for name in left
        if left[name] != right.get(name)
    )


def read(path: Path, max_bytes: int) -> bytes:
    """A whole file of bounded size. Raises `NotFound` or `Malformed`."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError:
        raise NotFound(
            f"{path}: not there, or not readable",
            code="no-base",
            hint="name a base's folder, as `strongroom base build` makes it",
        ) from None
    if len(data) > max_bytes:
        raise Malformed(
            f"{path}: larger than {max_bytes} bytes",
            code="too-large",
            hint="no base's file is so large: is it the right folder? If so, build the base again",
        )
    return data


def packages_json(packages: Iterable[Package]) -> bytes:
    """packages.json: sorted, canonical."""
    ordered = sorted(packages, key=lambda package: (package.kind, package.name))
    return canonical.dumps(
        [
            {
                "kind": package.kind,
                "name": package.name,
                "version": package.version,
                "digest": package.digest,
                "origin": package.origin,
                "suite": package.suite,
            }
            for package in ordered
        ]
    )


def parse_packages(data: bytes) -> tuple[Package, ...]:
    """Parse packages.json. Raises `Malformed`."""
    value = canonical.loads(data, what=PACKAGES, max_bytes=MAX_PACKAGES)
    top = fields.Fields({"packages": value}, PACKAGES)
    out = []
    for entry in top.objects("packages", max_items=_MAX_PACKAGES):
        where = entry.text_map_of(("origin", "suite"), max_length=64)
        package = Package(
            kind=entry.text("kind", pattern=_KINDS),
            name=entry.text("name", max_length=200),
            version=entry.text("version", max_length=200),
            digest=entry.digest("digest"),
            origin=where["origin"],
            suite=where["suite"],
        )
        entry.done()
        out.append(package)
    return tuple(out)


def _pcr0(reference: dict[str, str], *, memory_guard: bool) -> str:
    record = tpm.from_reference(reference, memory_guard=memory_guard)
    return "sha256:" + tpm.hcrtm_pcr0(record.encode()).hex()


def _flat(base: Base) -> dict[str, str]:
    out = {name: f"{what} ({size} bytes)" for name, (size, what) in base.files.items()}
    out |= {PACKAGES: base.packages, "root hash": base.root_hash, "debug": str(base.debug).lower()}
    out |= {"profile": base.profile.name}
    out |= {f"reference.{name}": value for name, value in base.reference.items()}
    out |= {f"pcr0.{name}": value for name, value in base.pcr0.items()}
    return out
