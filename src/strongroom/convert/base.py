"""The base: kernel, initrd, command line and disk that every room boots, built from Debian packages, wheels and the agent.

The order of a build:
  1 ask apt for today's packages, check the wheels, hash the agent's and this builder's source: together, the key
  2 a base of that key in the cache is the answer
  3 download and unpack the packages (kept by their digests)
  4 the modules that the agent reaches, compiled by the base's own Python (kept by content)
  5 tree → disk → root hash → command line; initrd; documents
  6 everything appears in the cache under its key, whole or not at all

Nothing of the machine that builds gets in: no time, no path, no order of a folder, no tool's version. The same packages
give the same bytes. One build at a time per cache; others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import strongroom
from strongroom.convert import (
    base_debs,
    base_disk,
    base_document,
    base_files,
    base_python,
    base_wheels,
    initramfs,
)
from strongroom.convert.base_document import Base, Package
from strongroom.convert.base_files import File
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Misuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.convert.base_debs import Deb
    from strongroom.convert.base_wheels import Wheel

    Progress = Callable[[str], None]

FIRMWARE = Path("/usr/share/seabios/bios-256k.bin")
# The agent's code: these packages whole, and the two modules above them. Nothing else of Strongroom is in the room.
AGENT_PACKAGES = ("agent", "crypto", "encoding", "model")
AGENT_MODULES = ("__init__.py", "errors.py")
AGENT = initramfs.Agent(command=("/usr/bin/python3.11", "-I", "-S", "-B", "-m", "strongroom.agent"))
FOLDERS = ("dev", "proc", "run", "sys", "tmp")
# panic, oops: any trouble of the kernel ends the machine (QEMU runs with -no-reboot).
# lockdown: not even root in the room reads kernel memory, or loads unsigned modules.
OPTIONS = "quiet loglevel=0 panic=-1 oops=panic lockdown=confidentiality cryptomgr.notests audit=0"
# No serial port, and a console that does not exist: nothing the kernel prints can leave.
SILENT = f"8250.nr_uarts=0 {base_document.NO_CONSOLE}"
TALKING = "8250.nr_uarts=1 console=ttyS0 ignore_loglevel"

_RUNTIME_LIBRARIES = (
    *("libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1", "libssl.so.3", "libcrypto.so.3", "libffi.so.8"),
    *("libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"),
)
_LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu/", "usr/lib/x86_64-linux-gnu/")
_KERNEL = re.compile(r"boot/vmlinuz-.+")
_CURRENT = "current"
# How many old results a cache keeps; every change of the agent makes a base, and each is some 60 MB.
_KEPT = {"base": 4, "unpacked": 2}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A base that is there: its folder, its document, and whether it came from the cache."""

    folder: Path
    base: Base
    cached: bool


@dataclass(frozen=True, kw_only=True)
class Sources:
    """All that decides a base's bytes."""

    debs: tuple[Deb, ...]
    wheels: tuple[Wheel, ...]
    agent: dict[str, File]
    firmware: bytes
    debug: bool

    @property
    def packages(self) -> tuple[Package, ...]:
        """What packages.json lists."""
        listing = canonical.dumps({path: digest.sha256(file.content) for path, file in self.agent.items()})
        own = Package(
            kind="source", name="strongroom", version=strongroom.__version__, digest=digest.sha256(listing)
        )
        debs = [
            Package(kind="deb", name=one.name, version=one.version, digest=one.digest) for one in self.debs
        ]
        wheels = [
            Package(kind="wheel", name=one.name, version=one.version, digest=one.digest)
            for one in self.wheels
        ]
        return (own, *debs, *wheels)

    @property
    def key(self) -> str:
        """64 hexadecimal digits: the base's name in the cache."""
        whole = canonical.dumps(
            {
                "packages": digest.sha256(base_document.packages_json(self.packages)),
                "builder": _builder(),
                "firmware": digest.sha256(self.firmware),
                "debug": self.debug,
            }
        )
        return digest.sha256(whole).removeprefix("sha256:")


def default_cache(environment: dict[str, str]) -> Path:
    """$XDG_CACHE_HOME/strongroom, or ~/.cache/strongroom."""
    home = environment.get("XDG_CACHE_HOME", "")
    folder = Path(home) if home.startswith("/") else Path(environment.get("HOME") or "/root") / ".cache"
    return folder / "strongroom"


def sources(*, debug: bool = False, package: Path | None = None, firmware: Path = FIRMWARE) -> Sources:
    """What a base built now consists of. `package` is the folder of Strongroom's source; its own by default.

    Raises `NotFound` and `Unavailable` for what is missing.
    """
    return Sources(
        debs=base_debs.candidates(),
        wheels=base_wheels.collect(),
        agent=_agent(package or Path(strongroom.__file__).parent),
        firmware=base_document.read(firmware, 16 << 20),
        debug=debug,
    )


def build(
    given: Sources, cache: Path, progress: Progress, *, out: Path | None = None, force: bool = False
) -> Built:
    """Build, or take from the cache; then, if asked, put a copy at `out`.

    Raises `Misuse` when `out` exists and is not this base (unless `force`), `Unavailable` when packages cannot be
    had. After a failure there is no trace but the cache's downloads.
    """
    with _locked(cache):
        folder = cache / "base" / given.key
        found = None if force else _cached(folder)
        if found is None:
            made = assemble(given, cache, progress)
            _publish(folder, made)
            base = base_document.parse(made[base_document.BASE])
        else:
            base = found
        _point(cache / "base" / _CURRENT, given.key)
        _prune(cache, folder)
        if out is not None:
            _copy(folder, out, force=force)
    return Built(folder=out or folder, base=base, cached=found is not None)


def current(cache: Path) -> Path:
    """The folder of the base that was built or confirmed last."""
    return (cache / "base" / _CURRENT).resolve()


def assemble(given: Sources, cache: Path, progress: Progress) -> dict[str, bytes]:
    """Every file of the base by its name. Takes and leaves downloads and intermediate results in `cache`."""
    unpacked, newest = _unpacked(given, cache, progress)  # 3
    kernel = next((path for path in sorted(unpacked) if _KERNEL.fullmatch(path)), "")
    if not kernel:
        raise Malformed("base: the kernel's package has no kernel", code="bad-package")
    progress("compiling modules")
    tree = _tree(given, unpacked, cache)  # 4
    progress("writing the disk")
    disk = base_disk.write(tree, folders=FOLDERS)  # 5
    parts = {
        base_document.KERNEL: unpacked[kernel].content,
        base_document.INITRD: initramfs.build(unpacked, AGENT, console=given.debug),
        base_document.CMDLINE: command_line(disk, debug=given.debug).encode(),
        base_document.DISK: disk.content,
    }
    packages = base_document.packages_json(given.packages)
    base = base_document.describe(parts, firmware=given.firmware, packages=packages)
    return {
        **parts,
        base_document.BASE: base.encode(),
        base_document.PACKAGES: packages,
        base_document.SBOM: base_document.sbom(
            given.packages, name=digest.sha256(base.encode()), newest=newest
        ),
    }


def command_line(disk: base_disk.BaseDisk, *, debug: bool) -> str:
    """The kernel's command line for a disk."""
    root = f"{base_document.ROOT_KEY}{disk.root_hash.hex()} {base_document.BLOCKS_KEY}{disk.data_blocks}"
    return f"{OPTIONS} {TALKING if debug else SILENT} {root}"


def _unpacked(given: Sources, cache: Path, progress: Progress) -> tuple[dict[str, File], int]:
    identity = canonical.dumps({"debs": sorted(deb.digest for deb in given.debs), "builder": _builder()})
    folder = cache / "unpacked" / digest.sha256(identity).removeprefix("sha256:")
    kept = base_files.load(folder)
    if kept is not None:
        os.utime(folder)
        return kept
    progress("downloading packages")
    files = base_debs.fetch(given.debs, cache / "debs")
    progress("unpacking packages")
    regular: dict[str, tuple[int, bytes]] = {}
    links: dict[str, str] = {}
    newest = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for one, other, time in pool.map(
            lambda deb: base_debs.unpack(files[deb.name], deb, _near), given.debs
        ):
            regular |= one
            links |= other
            newest = max(newest, time)
    found = base_files.follow(regular, links, _wanted)
    modules = {path for _, path in initramfs.order_modules(found)[0]}
    found = {path: file for path, file in found.items() if not path.endswith(".ko") or path in modules}
    base_files.store(folder, found, newest=newest)
    return found, newest


def _near(path: str) -> bool:
    """Whether to read a file of a package: what is wanted, and what links to it may lead to."""
    return path.startswith(("lib/", "usr/lib/x86_64-linux-gnu/")) or _wanted(path)


def _wanted(path: str) -> bool:
    if path.endswith(".ko"):
        return path.startswith("lib/modules/")
    if path.startswith(base_python.LIBRARY + "/"):
        return path.endswith((".py", ".so"))
    if path.startswith(_LIBRARY_FOLDERS):
        return path.rpartition("/")[2] in {*_RUNTIME_LIBRARIES, *initramfs.LIBRARIES}
    single = {base_python.INTERPRETER, base_python.LOADER, initramfs.BUSYBOX, initramfs.DMSETUP}
    return path in single or _KERNEL.fullmatch(path) is not None


def _tree(given: Sources, unpacked: dict[str, File], cache: Path) -> dict[str, File]:
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
    packages = {path: file for wheel in given.wheels for path, file in wheel.files.items()} | given.agent
    if clash := sorted(set(packages) & set(library)):
        raise Malformed(f"base: {clash[0]} comes from two places", code="bad-package")
    with _scans(cache / "imports.json") as scans:
        names = [name for path in packages if (name := base_python.module_name(path)) is not None]
        modules = base_python.reachable({**library, **packages}, names, scans)
    sources_tree = {**runtime, **{prefix + path: file for path, file in library.items()}}
    compiled = base_python.compile_all(sources_tree, modules, cache / "compiled")
    tree = {**runtime, **{prefix + path: file for path, file in compiled.items()}}
    own = sorted(
        name for path in given.agent if (name := base_python.module_name(path)) and "__main__" not in name
    )
    base_python.check_imports(tree, own, cache / "compiled")
    return tree


def _agent(package: Path) -> dict[str, File]:
    """The agent's source by path below the library."""
    paths = [package / name for name in AGENT_MODULES]
    for name in AGENT_PACKAGES:
        paths += sorted((package / name).rglob("*.py"))
    out = {
        f"strongroom/{path.relative_to(package).as_posix()}": File(content=path.read_bytes())
        for path in paths
    }
    if "strongroom/agent/__main__.py" not in out:
        raise Misuse(f"{package}: there is no agent", code="no-agent")
    return out


def _builder() -> str:
    """The digest of what builds: this code decides bytes as much as any package."""
    folder = Path(__file__).parent
    mine = sorted([*folder.glob("base*.py"), folder / "initramfs.py", folder / "measure" / "tpm.py"])
    seal = folder.parent / "seal"
    mine += [seal / "erofs.py", seal / "tree.py", seal / "verity.py", folder.parent / "model" / "launch.py"]
    return digest.sha256(canonical.dumps([digest.sha256(path.read_bytes()) for path in mine]))


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    fd = os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _sweep(cache)
        yield
    finally:
        os.close(fd)


def _sweep(cache: Path) -> None:
    """Remove what an interrupted build left: only builds make these names, and only one runs."""
    for folder in (cache / "base", cache / "unpacked", cache / "debs", cache / "compiled"):
        for path in folder.glob(".*") if folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _prune(cache: Path, used: Path) -> None:
    """Remove all but the results used last, `used` being one of them."""
    os.utime(used)
    for name, count in _KEPT.items():
        paths = [path for path in (cache / name).glob("[0-9a-f]*") if path.is_dir() and not path.is_symlink()]
        for path in sorted(paths, key=lambda one: one.stat().st_mtime_ns, reverse=True)[count:]:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _scans(path: Path) -> Iterator[dict[str, list[str]]]:
    """The remembered imports of modules, by content."""
    scans: dict[str, list[str]] = {}
    with contextlib.suppress(OSError, Malformed):
        loaded = canonical.loads(path.read_bytes(), what=path.name, max_bytes=64 << 20)
        scans = {key: [str(name) for name in names] for key, names in loaded.items()}
    before = len(scans)
    yield scans
    if len(scans) != before:
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(canonical.dumps(scans))
        part.replace(path)


def _cached(folder: Path) -> Base | None:
    """The base in the cache, if every byte is what its document says."""
    try:
        base = base_document.load(folder)
        for name, (_, expected) in base.files.items():
            if digest.sha256(base_document.read(folder / name, base_document.MAX_PART)) != expected:
                return None
        if digest.sha256(base_document.read(folder / base_document.PACKAGES, 1 << 20)) != base.packages:
            return None
    except Exception:  # noqa: BLE001 - whatever is wrong with it, building again is the answer
        return None
    return base


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        for name, content in files.items():
            with (part / name).open("wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
        part.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _point(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def _copy(folder: Path, out: Path, *, force: bool) -> None:
    contents = {name: (folder / name).read_bytes() for name in base_document.ALL}
    if out.exists():
        with contextlib.suppress(OSError):
            if all((out / name).read_bytes() == content for name, content in contents.items()):
                return
        if not force:
            raise Misuse(
                f"{out}: exists already and is not this base", hint="name another folder, or give --force"
            )
        if not (out / base_document.BASE).is_file():
            raise Misuse(f"{out}: is not a base, so it is not replaced", hint="name another folder")
    _publish(out.absolute(), contents)
