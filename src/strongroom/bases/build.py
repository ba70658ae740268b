"""The base: kernel, initrd, command line and disk that every room boots, built from Debian packages, wheels and the agent.

The order of a build:
  1 ask apt for today's packages, check the wheels, hash the agent's and this builder's source: together, the key
  2 a base of that key in the cache is the answer
  3 download and unpack the packages (kept by their digests)
  4 the modules that the agent reaches, compiled by the base's own Python (kept by content)
  5 tree → disk, the same for every profile → root hash → command line; initrd; what the platform starts; documents
  6 everything appears in the cache under its key, whole or not at all

Nothing of the machine that builds gets in: no time, no path, no order of a folder, no tool's version. The same packages
give the same bytes. One build at a time per cache; others wait.
"""

from __future__ import annotations

import lzma
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import strongroom
from strongroom.bases import cache as base_cache
from strongroom.bases import disk as base_disk
from strongroom.bases import document, initramfs, sbom
from strongroom.bases import files as base_files
from strongroom.bases import profile as base_profile
from strongroom.bases.files import File
from strongroom.bases.formats import disk_image, eif, uki
from strongroom.bases.inputs import (
    AGENT_MODULES,
    AGENT_PACKAGES,
    FIRMWARE,
    Sources,
    archives,
    builder_digest,
    sources,
)
from strongroom.bases.packages import debs as base_debs
from strongroom.bases.packages import modules as base_python
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from strongroom.bases.document import Base
    from strongroom.bases.packages.debs import Deb
    from strongroom.bases.profile import Profile
    from strongroom.crypto.image_signer import ImageSigner

    Progress = Callable[[str], None]

__all__ = (
    "AGENT_MODULES",
    "AGENT_PACKAGES",
    "FIRMWARE",
    "Sources",
    "assemble",
    "build",
    "build_bases",
    "current",
    "default_cache",
    "sources",
)

AGENT = initramfs.Agent(command=("/usr/bin/python3.11", "-I", "-S", "-B", "-m", "strongroom.agent"))
FOLDERS = ("dev", "proc", "run", "sys", "tmp")
# panic, oops: any trouble of the kernel ends the machine (QEMU runs with -no-reboot).
# lockdown: not even root in the room loads unsigned modules. The initrd raises it to confidentiality, under which root
# cannot read kernel memory either, once it has set up the record of failed reads: confidentiality would forbid that.
OPTIONS = "quiet loglevel=0 panic=-1 oops=panic lockdown=integrity cryptomgr.notests audit=0"
# No serial port, and a console that does not exist: nothing the kernel prints can leave.
SILENT = f"8250.nr_uarts=0 {document.NO_CONSOLE}"
TALKING = "8250.nr_uarts=1 console=ttyS0 ignore_loglevel"

_RUNTIME_LIBRARIES = (
    *("libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1", "libssl.so.3", "libcrypto.so.3", "libffi.so.8"),
    *("libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"),
)
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu/", "usr/lib/x86_64-linux-gnu/")
_KERNEL = re.compile(r"boot/vmlinuz-(.+)")
_PACKED = ".ko.xz"
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
_OS_RELEASE = 'ID=strongroom\nNAME="Strongroom"\nVERSION_ID="{version}"\n'

default_cache = base_cache.default


@dataclass(frozen=True, kw_only=True)
class BuiltBase:
    """A base that is there: its folder, its document, and whether it came from the cache."""

    folder: Path
    base: Base
    cached: bool


def build(
    sources: Sources, cache: Path, progress: Progress, *, out: Path | None = None, force: bool = False
) -> BuiltBase:
    """Build, or take from the cache; then, if asked, put a copy at `out`.

    Raises `Misuse` when `out` exists and is not this base (unless `force`), `Unavailable` when packages cannot be
    had. After a failure there is no trace but the cache's downloads.
    """
    with base_cache.locked(cache):
        folder = cache / "base" / sources.key
        cached = None if force else base_cache.cached(folder)
        if cached is None:
            parts = assemble(sources, cache, progress)
            base_cache.publish(folder, parts)
            base = document.parse(parts[document.BASE])
        else:
            base = cached
        base_cache.point(base_cache.pointer(cache, sources.profile.name), sources.key)
        base_cache.prune(cache, folder)
        if out is not None:
            base_cache.copy(folder, out, force=force)
    return BuiltBase(folder=out or folder, base=base, cached=cached is not None)


def build_bases(
    profiles: Sequence[Profile],
    *,
    cache: Path,
    out: Path | None = None,
    force: bool = False,
    debug: bool = False,
    signer: ImageSigner | None = None,
    progress: Progress = lambda _step: None,
) -> tuple[BuiltBase, ...]:
    """Build the base of each profile, or take it from `cache`; in the order of `profiles`.

    out: a new folder for a copy; of several profiles it gets a folder of each one's name. debug: a base that talks on a serial port.
    signer: of the image for Nitro. progress: called with each step as it begins. Raises like `build`; bases that were built before
    a failure stay.
    """
    built = []
    for profile in profiles:
        several = len(profiles) > 1
        progress(f"looking at packages ({profile.name})" if several else "looking at packages")
        target = out / profile.name if out and several else out
        base = build(
            sources(profile=profile, debug=debug, signer=signer), cache, progress, out=target, force=force
        )
        progress("taken from the cache" if base.cached else "built")
        built.append(base)
    return tuple(built)


def current(cache: Path, profile: Profile = base_profile.LOCAL) -> Path:
    """The folder of the base that was built or confirmed last for a profile."""
    return base_cache.pointer(cache, profile.name).resolve()


def assemble(sources: Sources, cache: Path, progress: Progress) -> dict[str, bytes]:
    """Every file of the base by its name. Downloads and intermediate results are looked for, and kept, in `cache`."""
    parts, newest = make(sources, cache, progress)
    return documented(sources, parts, newest=newest)


def make(sources: Sources, cache: Path, progress: Progress) -> tuple[dict[str, bytes], int]:
    """The base's files without documents, and the newest time in its packages (seconds since 1970)."""
    unpacked, newest = _unpacked(sources, cache, progress)  # 3
    progress("compiling modules")
    tree = _tree(sources, unpacked, cache)  # 4
    progress("writing the disk")
    disk = base_disk.write(tree, folders=FOLDERS)  # 5
    path, release = _kernel(unpacked)
    parts = {
        document.KERNEL: unpacked[path].content,
        document.INITRD: initramfs.build(unpacked, AGENT, sources.profile, console=sources.debug),
        document.CMDLINE: command_line(disk, debug=sources.debug, profile=sources.profile).encode(),
        document.DISK: disk.content,
    }
    stub = unpacked.get(STUB, File(content=b"")).content
    return parts | images(sources, parts, release=release, stub=stub), newest


def documented(sources: Sources, parts: dict[str, bytes], *, newest: int) -> dict[str, bytes]:
    """The files with the documents that stand beside them."""
    packages = document.packages_json(sources.packages)
    base = document.describe(parts, firmware=sources.firmware, packages=packages, profile=sources.profile)
    return {
        **parts,
        document.BASE: base.encode(),
        document.PACKAGES: packages,
        document.SBOM: sbom.encode(sources.packages, about=digest.sha256(base.encode()), newest=newest),
    }


def images(sources: Sources, parts: dict[str, bytes], *, release: str, stub: bytes) -> dict[str, bytes]:
    """What the profile's platform starts, made of `parts`; nothing where it takes them as they are."""
    kernel, initrd, cmdline, disk = (parts[name] for name in document.PARTS)
    version = strongroom.__version__
    out = {}
    if sources.profile.uki:
        out[document.EFI] = uki.build(
            stub=stub,
            kernel=kernel,
            initrd=initrd,
            cmdline=cmdline,
            osrel=_OS_RELEASE.format(version=version).encode(),
            uname=release.encode(),
        )
        out[document.IMAGE] = disk_image.build(uki=out[document.EFI], base_disk=disk)
    if sources.profile.eif:
        out[document.EIF] = eif.build(
            kernel=kernel,
            cmdline=cmdline,
            ramdisks=(initrd, initramfs.ramdisk(disk)),
            metadata=eif.metadata(name="strongroom", version=version, kernel=release, tool_version=version),
            signer=sources.signer,
        )
    return out


def command_line(disk: base_disk.BaseDisk, *, debug: bool, profile: Profile = base_profile.LOCAL) -> str:
    """The kernel's command line for a disk."""
    root = f"{document.ROOT_KEY}{disk.root_hash.hex()} {document.BLOCKS_KEY}{disk.data_blocks}"
    return " ".join([OPTIONS, *profile.options, TALKING if debug else SILENT, root])


def _kernel(unpacked: dict[str, File]) -> tuple[str, str]:
    """The kernel's path, and its release."""
    for path in sorted(unpacked):
        if (match := _KERNEL.fullmatch(path)) is not None:
            return path, match[1]
    raise Malformed(
        "base: the kernel's package has no kernel", code="bad-package", hint=base_debs.OTHER_PACKAGES
    )


def _unpacked(sources: Sources, cache: Path, progress: Progress) -> tuple[dict[str, File], int]:
    """The wanted files of all packages. Those of the tree, of the kernel and the stub are kept apart, for other profiles."""
    common = {*base_debs.RUNTIME, *base_debs.STARTUP}
    groups = [[deb for deb in sources.debs if deb.name in common]]
    groups += [[deb] for deb in sources.debs if deb.name not in common]
    unpacked: dict[str, File] = {}
    newest = 0
    for debs in groups:
        files, time = _group(debs, cache, progress)
        unpacked |= files
        newest = max(newest, time)
    return unpacked, newest


def _group(debs: list[Deb], cache: Path, progress: Progress) -> tuple[dict[str, File], int]:
    identity = canonical.dumps({"debs": sorted(deb.digest for deb in debs), "builder": builder_digest()})
    folder = cache / "unpacked" / digest.sha256(identity).removeprefix("sha256:")
    unpacked = base_files.load(folder)
    if unpacked is not None:
        os.utime(folder)
        return unpacked
    progress("downloading packages")
    files = base_debs.fetch(debs, cache / "debs", archives(cache))
    progress("unpacking packages")
    regular: dict[str, tuple[int, bytes]] = {}
    links: dict[str, str] = {}
    newest = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for more_regular, more_links, time in pool.map(
            lambda deb: base_debs.unpack(files[deb.name], deb, _near), debs
        ):
            regular |= more_regular
            links |= more_links
            newest = max(newest, time)
    modules = _modules(base_files.follow(regular, links, _wanted))
    base_files.store(folder, modules, newest=newest)
    return modules, newest


def _modules(files: dict[str, File]) -> dict[str, File]:
    """The files with kernel modules as the kernel takes them, and only those that some profile loads."""
    plain = {
        path.removesuffix(".xz"): _decompressed(file, path) if path.endswith(_PACKED) else file
        for path, file in files.items()
    }
    if not any(_KERNEL.fullmatch(path) for path in plain):
        return plain
    wanted: set[str] = set()
    for profile in base_profile.PROFILES.values():
        try:
            ordered, _ = initramfs.order_modules(plain, profile.all_modules)
        except Malformed:  # a profile of another kernel
            continue
        wanted |= {path for _, path in ordered}
    return {path: file for path, file in plain.items() if not path.endswith(".ko") or path in wanted}


def _decompressed(file: File, path: str) -> File:
    try:
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ)
        content = unpacker.decompress(file.content, max_length=base_debs.MAX_MEMBER)
    except lzma.LZMAError:
        raise Malformed(
            f"{path}: does not decompress", code="bad-package", hint=base_debs.OTHER_PACKAGES
        ) from None
    if not unpacker.eof or unpacker.unused_data:
        raise Malformed(
            f"{path}: is not one compressed module", code="bad-package", hint=base_debs.OTHER_PACKAGES
        )
    return replace(file, content=content)


def _near(path: str) -> bool:
    """Whether to read a file of a package: what is wanted, and what links to it may lead to."""
    return path.startswith(("lib/", "usr/lib/x86_64-linux-gnu/")) or _wanted(path)


def _wanted(path: str) -> bool:
    if path.endswith((".ko", _PACKED)):
        return path.startswith("lib/modules/")
    if path.startswith(base_python.LIBRARY + "/"):
        return path.endswith((".py", ".so"))
    if path.startswith(_LIBRARY_FOLDERS):
        return path.rpartition("/")[2] in {*_RUNTIME_LIBRARIES, *initramfs.LIBRARIES}
    single = {base_python.INTERPRETER, base_python.LOADER, initramfs.BUSYBOX, initramfs.DMSETUP, STUB}
    patterns = (_KERNEL, initramfs.BUILT_IN)
    return path in single or any(pattern.fullmatch(path) is not None for pattern in patterns)


def _tree(sources: Sources, unpacked: dict[str, File], cache: Path) -> dict[str, File]:
    """The base's tree by path: interpreter, libraries, modules."""
    runtime = {
        path: unpacked[path] for path in (base_python.INTERPRETER, base_python.LOADER) if path in unpacked
    }
    for path, file in unpacked.items():
        last = path.rpartition("/")[2]
        if path.startswith(_LIBRARY_FOLDERS) and last in _RUNTIME_LIBRARIES:
            runtime[f"{base_python.LIBRARIES}/{last}"] = file
    prefix = base_python.LIBRARY + "/"
    library = {path.removeprefix(prefix): file for path, file in unpacked.items() if path.startswith(prefix)}
    packages = {path: file for wheel in sources.wheels for path, file in wheel.files.items()} | sources.agent
    if clash := sorted(set(packages) & set(library)):
        raise Malformed(
            f"base: {clash[0]} comes from two places", code="bad-package", hint=base_debs.OTHER_PACKAGES
        )
    with base_cache.scans(cache / base_cache.SCANS) as scans:
        names = [name for path in packages if (name := base_python.module_name(path)) is not None]
        modules = base_python.reachable({**library, **packages}, names, scans)
    sources_tree = {**runtime, **{prefix + path: file for path, file in library.items()}}
    compiled = base_python.compile_all(sources_tree, modules, cache / "compiled")
    tree = {**runtime, **{prefix + path: file for path, file in compiled.items()}}
    own = sorted(
        name for path in sources.agent if (name := base_python.module_name(path)) and "__main__" not in name
    )
    base_python.check_imports(tree, own, cache / "compiled")
    return tree
