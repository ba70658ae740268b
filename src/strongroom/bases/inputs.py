"""All that decides a base's bytes: packages, wheels, the agent's source, this builder's, and the parameters.

Whoever writes documents about a build (bill of materials, provenance) finds its facts here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import strongroom
from strongroom import files
from strongroom.bases import cache as base_cache
from strongroom.bases import document
from strongroom.bases.document import Package
from strongroom.bases.files import File
from strongroom.bases.packages import debs as base_debs
from strongroom.bases.packages import wheels as base_wheels
from strongroom.bases.profile import LOCAL
from strongroom.crypto import digest, image_signer
from strongroom.encoding import canonical
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.bases.packages.debs import Archives, Deb
    from strongroom.bases.packages.wheels import Wheel
    from strongroom.bases.profile import Profile
    from strongroom.crypto.image_signer import ImageSigner

FIRMWARE = Path("/usr/share/seabios/bios-256k.bin")
# The agent's code: these packages whole, and the two modules above them. Nothing else of Strongroom is in the room.
AGENT_PACKAGES = ("agent", "crypto", "encoding", "model", "spiffe", "streams")
# Of the ledger, what it takes to verify a proof; of tunnels, a room's end.
AGENT_MODULES = (
    "__init__.py",
    "errors.py",
    "ledger/__init__.py",
    "ledger/checkpoint.py",
    "ledger/merkle.py",
    "ledger/proof.py",
    "tunnel/__init__.py",
    "tunnel/entry.py",
    "tunnel/handshake.py",
    "tunnel/link.py",
    "tunnel/loop.py",
    "tunnel/process.py",
    "tunnel/records.py",
    "tunnel/tls.py",
)
OWN = "strongroom"
BUILDER = "strongroom-builder"
_MAX_PEM = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What one base is built from. `firmware` is that of local rooms, empty for other profiles."""

    debs: tuple[Deb, ...]
    wheels: tuple[Wheel, ...]
    agent: dict[str, File]
    firmware: bytes
    debug: bool
    profile: Profile = LOCAL
    builder: str = ""
    signer: ImageSigner | None = None

    @property
    def packages(self) -> tuple[Package, ...]:
        """What packages.json lists: everything that somebody needs to build the same again."""
        own = Package(
            kind="source",
            name=OWN,
            version=strongroom.__version__,
            digest=agent_digest(self.agent),
            origin="strongroom",
        )
        builder = Package(
            kind="builder",
            name=BUILDER,
            version=strongroom.__version__,
            digest=self.builder or builder_digest(),
            origin="strongroom",
        )
        debs = [
            Package(
                kind="deb",
                name=package.name,
                version=package.version,
                digest=package.digest,
                origin="debian",
                suite=package.suite,
            )
            for package in self.debs
        ]
        wheels = [
            Package(
                kind="wheel", name=package.name, version=package.version, digest=package.digest, origin="pypi"
            )
            for package in self.wheels
        ]
        return (own, builder, *debs, *wheels)

    @property
    def parameters(self) -> dict[str, str | bool]:
        """What was asked of the build, beside its packages."""
        signer = digest.sha256(self.signer.certificate) if self.signer else ""
        return {"profile": self.profile.name, "debug": self.debug, "signer": signer}

    @property
    def key(self) -> str:
        """64 hexadecimal digits: the base's name in the cache."""
        inputs = canonical.dumps(
            {
                "packages": digest.sha256(document.packages_json(self.packages)),
                "builder": builder_digest(),
                "firmware": digest.sha256(self.firmware),
                "parameters": self.parameters,
            }
        )
        return digest.sha256(inputs).removeprefix("sha256:")


def sources(
    *,
    profile: Profile = LOCAL,
    debug: bool = False,
    package: Path | None = None,
    firmware: Path = FIRMWARE,
    cache: Path | None = None,
    signer: ImageSigner | None = None,
) -> Sources:
    """What a base built now consists of. `package` is the folder of Strongroom's source; its own by default.

    Raises `NotFound` and `Unavailable` for what is missing.
    """
    return Sources(
        debs=base_debs.candidates(profile, archives(cache or base_cache.default(dict(os.environ)))),
        wheels=base_wheels.collect(),
        agent=agent(package) if package else own_agent(),
        firmware=firmware_of(profile, firmware),
        debug=debug,
        profile=profile,
        signer=signer if profile.eif else None,
    )


def archives(cache: Path) -> Archives:
    """Where a build asks for packages."""
    return base_debs.Archives(lists=cache / "apt")


def firmware_of(profile: Profile, firmware: Path = FIRMWARE) -> bytes:
    """The firmware that a profile's registers cover: none, where it is the platform's."""
    return document.read(firmware, 16 << 20) if profile is LOCAL else b""


def own_agent() -> dict[str, File]:
    """The source of this Strongroom's agent."""
    return agent(Path(strongroom.__file__).parent)


def agent(package: Path) -> dict[str, File]:
    """The agent's source by path below the library."""
    paths = [package / name for name in AGENT_MODULES]
    for name in AGENT_PACKAGES:
        paths += sorted((package / name).rglob("*.py"))
    out = {
        f"strongroom/{path.relative_to(package).as_posix()}": File(content=path.read_bytes())
        for path in paths
    }
    if "strongroom/agent/__main__.py" not in out:
        raise Misuse(
            f"{package}: there is no agent",
            code="no-agent",
            hint="install Strongroom again: its package is incomplete",
        )
    return out


def agent_digest(files: dict[str, File]) -> str:
    """The agent's digest in packages.json: over its paths and their digests."""
    return digest.sha256(canonical.dumps({path: digest.sha256(file.content) for path, file in files.items()}))


def load_signer(key: Path, certificate: Path) -> ImageSigner:
    """Who signs images for Nitro, from the files (PEM) of a P-384 key without a passphrase and its certificate. Raises `Malformed`."""
    return image_signer.load(files.read(key, max_bytes=_MAX_PEM), files.read(certificate, max_bytes=_MAX_PEM))


def builder_digest() -> str:
    """The digest of what builds: this code decides bytes as much as any package."""
    folder = Path(__file__).parent
    mine = [folder / "measure/tpm.py"]  # the rest of measure, and release files, look at a base that is built
    mine += [
        path
        for path in sorted(folder.rglob("*.py"))
        if path.parent.name != "measure" and path.name != "release_file.py"
    ]
    mine += [
        folder.parent / f"{name}.py"
        for name in ("seal/erofs", "seal/tree", "seal/verity", "model/room/launch")
    ]
    return digest.sha256(canonical.dumps([digest.sha256(path.read_bytes()) for path in mine]))
