"""A base, built again from what its packages.json records, and compared byte for byte.

Taken as recorded: profile, debugging console, name, version and digest of every package. Taken from here: the agent's
source and the wheels, which must have the recorded digests, and the builder, which may be another: what counts is whether
the same bytes come out. Debian's packages come from earlier builds, from apt while it offers them, or from a folder that
holds what Debian's archive of old packages has; those last are known by their digest alone, and are listed apart.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import strongroom
from strongroom.bases import build, document, inputs
from strongroom.bases import cache as base_cache
from strongroom.bases import members as base_members
from strongroom.bases import profile as base_profile
from strongroom.bases.formats import eif
from strongroom.bases.packages import debs as base_debs
from strongroom.bases.packages import wheels
from strongroom.errors import Malformed, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from strongroom.bases.document import Base, Package
    from strongroom.bases.packages.debs import Deb
    from strongroom.bases.packages.wheels import Wheel
    from strongroom.bases.profile import Profile

ARCHIVE = "https://snapshot.debian.org/package"
_OTHER = "another version of Strongroom built the base, or it was altered: rebuild with that version, or build a base anew"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+:~-]{0,127}")
# What apt says of a version that its archives do not have, or have no more; anything else is trouble on the way there.
_GONE = re.compile(
    r"was not found|Unable to locate|no installation candidate|no file of digest|find a source| 404 "
)
_SUITES = (base_profile.RELEASE, base_profile.BACKPORTS)


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What came out. `differences` name files and, where they have some, members; empty when all is the same.

    `by_digest` are packages that no signed list of Debian's vouched for. `other_builder`: this Strongroom's builder is
    not the recorded one, which says nothing about the bytes. `signed`: the image for Nitro has a signature, which is not
    judged here.
    """

    differences: tuple[str, ...]
    by_digest: tuple[str, ...]
    other_builder: bool
    signed: bool

    def require(self, folder: Path) -> None:
        """Raise `Refused` unless all is the same as in `folder`."""
        if self.differences:
            more = len(self.differences) - 1
            raise Refused(
                f"{folder}: built again, it is not the same: {self.differences[0]}"
                + (f" (and {more} more)" if more else ""),
                code="rebuild-differs",
                hint="if only documents differ, another library wrote them; otherwise do not use this base",
            )


def rebuild(
    folder: Path,
    cache: Path,
    progress: Callable[[str], None],
    *,
    packages: Path | None = None,
    firmware: Path = inputs.FIRMWARE,
) -> Rebuilt:
    """Build again what `folder` holds, and compare. `packages` is a folder of .deb files for what apt no longer offers.

    Raises `Unavailable` naming the packages that cannot be had, `Refused` when this Strongroom's agent or wheels are
    others than recorded, `Malformed` and `NotFound` when the folder is no base.
    """
    stored = document.load(folder)
    recorded = document.parse_packages(document.read(folder / document.PACKAGES, document.MAX_PACKAGES))
    sources = _sources(stored, recorded, firmware)
    with base_cache.locked(cache):
        by_digest = _gather(sources.debs, cache, packages)
        parts, newest = build.make(sources, cache, progress)
    progress("comparing")
    recorded_parts = {
        name: document.read(folder / name, document.MAX_PART)
        for name in (*document.parts_of(stored.profile), *document.DOCUMENTS)
    }
    signed = _signed(recorded_parts.get(document.EIF))
    if signed and _same_but_signed(recorded_parts[document.EIF], parts[document.EIF]):
        parts[document.EIF] = recorded_parts[document.EIF]  # nobody but the signer can make that part again
    rebuilt = build.documented(sources, parts, newest=newest)
    return Rebuilt(
        differences=_differences(recorded_parts, rebuilt),
        by_digest=by_digest,
        other_builder=sources.builder != inputs.builder_digest(),
        signed=signed,
    )


def _differences(recorded_parts: dict[str, bytes], rebuilt: dict[str, bytes]) -> tuple[str, ...]:
    out: list[str] = []
    for name, content in recorded_parts.items():
        if content == rebuilt[name]:
            continue
        if name == document.BASE:
            differing = document.differences(document.parse(content), document.parse(rebuilt[name]))
            out += [f"{name}: {what} (recorded {left}, rebuilt {right})" for what, left, right in differing]
        else:
            members = base_members.differing(name, content, rebuilt[name], rebuilt)
            out += [f"{name}: {member}" for member in members]
    return tuple(out)


def _sources(stored: Base, recorded: tuple[Package, ...], firmware: Path) -> inputs.Sources:
    """The recorded sources, those that are here compared with the record."""
    own = inputs.own_agent()
    agents, builders = _of(recorded, "source"), _of(recorded, "builder")
    if len(agents) != 1 or len(builders) != 1:
        raise Malformed(
            f"{document.PACKAGES}: expected one agent and one builder, got {len(agents)} and {len(builders)}",
            code="bad-packages",
            hint=_OTHER,
        )
    agent, builder = agents[0], builders[0]
    if agent.digest != inputs.agent_digest(own):
        raise Refused(
            f"the agent's source here ({strongroom.__version__}) is not the one in the base ({agent.version}): "
            f"expected {agent.digest}, got {inputs.agent_digest(own)}",
            code="other-source",
            hint=f"use Strongroom {agent.version}, as it was when the base was built",
        )
    return inputs.Sources(
        debs=_debs(_of(recorded, "deb"), stored.profile),
        wheels=_wheels(_of(recorded, "wheel")),
        agent=own,
        firmware=inputs.firmware_of(stored.profile, firmware),
        debug=stored.debug,
        profile=stored.profile,
        builder=builder.digest,
    )


def _of(recorded: tuple[Package, ...], kind: str) -> list[Package]:
    return [package for package in recorded if package.kind == kind]


def _debs(recorded: list[Package], profile: Profile) -> tuple[Deb, ...]:
    """The packages that a base of this profile has, no other, and one kernel."""
    debs = tuple(sorted(map(_deb, recorded), key=lambda deb: deb.name))
    kernels = [deb for deb in debs if profile.kernel.pattern.fullmatch(deb.name)]
    others = sorted(deb.name for deb in debs if deb not in kernels)
    suites = {deb.suite for deb in debs if deb not in kernels}
    if (
        [deb.suite for deb in kernels] != [profile.kernel.suite]
        or others != sorted(base_debs.names_of(profile))
        or suites != {base_profile.RELEASE}
    ):
        raise Malformed(
            f"{document.PACKAGES}: does not name exactly the packages of a base for {profile.name}",
            code="bad-packages",
            hint=_OTHER,
        )
    return debs


def _deb(package: Package) -> Deb:
    named = _NAME.fullmatch(package.name) and _VERSION.fullmatch(package.version)
    if not named or package.suite not in _SUITES:
        raise Malformed(
            f"{document.PACKAGES}: {package.name[:60]!r} {package.version[:60]!r} of "
            f"{package.suite[:60]!r} is no package of a base",
            code="bad-packages",
            hint=_OTHER,
        )
    return base_debs.Deb(
        name=package.name, version=package.version, digest=package.digest, size=0, suite=package.suite
    )


def _wheels(recorded: list[Package]) -> tuple[Wheel, ...]:
    installed = wheels.collect()
    installed_by_name = {wheel.name: wheel for wheel in installed}
    for package in recorded:
        wheel_here = installed_by_name.pop(package.name, None)
        if wheel_here is None or (wheel_here.version, wheel_here.digest) != (package.version, package.digest):
            got = f"{wheel_here.version}, {wheel_here.digest}" if wheel_here else "none"
            raise Refused(
                f"the wheel {package.name} is not the one in the base: expected {package.version}, {package.digest}, got {got}",
                code="other-wheel",
                hint=f"pip install {package.name}=={package.version}",
            )
    if installed_by_name:
        raise Malformed(
            f"{document.PACKAGES}: names no wheel {', '.join(sorted(installed_by_name))}",
            code="bad-packages",
            hint=_OTHER,
        )
    return installed


def _gather(debs: tuple[Deb, ...], cache: Path, packages: Path | None) -> tuple[str, ...]:
    """See that every package is in the cache; names of those that are known by their digest alone."""
    store = cache / "debs"
    store.mkdir(parents=True, exist_ok=True)
    placed: list[str] = []
    missing: list[Deb] = []
    files = _files(packages)
    archives = inputs.archives(cache)
    for deb in debs:
        target = store / f"{deb.digest.removeprefix('sha256:')}.deb"
        if target.is_file():
            continue
        if _download(deb, store, archives):
            continue
        if deb.digest in files:
            shutil.copyfile(files[deb.digest], target.with_name(f".{target.name}.part"))
            target.with_name(f".{target.name}.part").replace(target)
            placed.append(f"{deb.name} {deb.version}")
        else:
            missing.append(deb)
    if missing:
        named = ", ".join(f"{package.name} {package.version} ({package.digest})" for package in missing)
        raise Unavailable(
            f"no longer offered: {named}",
            code="package-gone",
            hint=f"Debian keeps old packages: {ARCHIVE}/{missing[0].name}/ ; put the files into a folder and name it "
            "with --packages",
        )
    return tuple(placed)


def _download(deb: Deb, store: Path, archives: base_debs.Archives) -> bool:
    """Whether apt brought exactly this package: the machine's, or Strongroom's own configuration. Raises `Unavailable`."""
    for own in (False, True) if deb.suite == base_profile.RELEASE else (False,):
        try:
            base_debs.fetch([deb], store, replace(archives, own=own))
        except Unavailable as cause:
            if _GONE.search(cause.message) is None:
                raise
        else:
            return True
    return False


def _files(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    return {base_debs.digest_of(path): path for path in sorted(folder.glob("*.deb"))}


def _signed(image: bytes | None) -> bool:
    try:
        return image is not None and eif.parse(image).signature is not None
    except Malformed:
        return False


def _same_but_signed(stored: bytes, built: bytes) -> bool:
    image = eif.parse(stored)
    bare = eif.build(
        kernel=image.kernel, cmdline=image.cmdline, ramdisks=image.ramdisks, metadata=image.metadata
    )
    return bare == built
