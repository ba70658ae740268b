"""One of several parties makes what a Compose file needs of it: identity and party file, sealed data, converted images, a broker; and
whoever runs the rooms a node and a base.

Everything lies beside the file, under the names that the file has for it, and is made once: what is there already stays. Who has data
gets a broker, which keeps the keys of it; who gives an image in the clear needs none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.bases import build as bases
from strongroom.bases import cache as base_cache
from strongroom.bases import profile as base_profile
from strongroom.encoding import canonical
from strongroom.errors import Misuse, of_file
from strongroom.fetch import images as fetch_images
from strongroom.images import convert, load
from strongroom.images.convert import LocatedImage
from strongroom.node.vtpm import create, state
from strongroom.parties import identity as identities
from strongroom.parties import papers
from strongroom.project import file
from strongroom.seal import dataset, disk
from strongroom.wiring import broker, owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom.model.identifiers import PartyName
    from strongroom.model.identity import Identity
    from strongroom.project.model import Project, ProjectService
    from strongroom.project.prepare import Surroundings

BROKER = ".broker"


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What was made, each with what it is: for the party itself, and to hand around."""

    kept: tuple[Path, ...]
    handed_around: tuple[Path, ...]
    broker: Path | None


def join(
    compose: Path,
    project: Project,
    party: PartyName,
    *,
    passphrase: Callable[[], bytes],
    listen: str,
    url: str | None,
    operate: bool,
    around: Surroundings,
) -> Joined:
    """Make what is missing of the party `party`. operate: it runs the rooms, too. listen, url: of its broker.

    Raises `Misuse` for a name that is no party of the file, and like what it calls; what was made before a failure stays, and is found again.
    """
    with of_file(compose):
        file.refuse_blocked(project)
    known = project.parties.get(party)
    if known is None:
        raise Misuse(
            f"--as {party[:64]}: {compose} names no such party",
            code="unknown-party",
            hint=f"it names {', '.join(project.parties) or 'none: one owner types `strongroom up`'}",
        )
    place = compose.resolve().parent
    public = place / known.file
    private = public.with_name(f"{party}.identity")
    joining = _Joining(
        place=place, project=project, party=party, public=public, private=private, around=around
    )
    identity = joining.identity(passphrase)
    sealed = list(joining.seal(identity))
    converted = list(joining.convert(identity))
    own_broker = joining.broker(identity, sealed, passphrase, listen=listen, url=url) if sealed else None
    manifests = [*sealed, *converted]
    handed = [public, *manifests]
    if not operate:  # whoever runs the rooms needs the disks, too
        handed += [path.with_name(f"{_name(path)}{disk.SUFFIX}") for path in manifests]
    if operate:
        handed += joining.operate()
    return Joined(
        kept=(private, *(() if own_broker is None else (own_broker,))),
        handed_around=tuple(handed),
        broker=own_broker,
    )


@dataclass(frozen=True, kw_only=True)
class _Joining:
    place: Path
    project: Project
    party: PartyName
    public: Path
    private: Path
    around: Surroundings

    def identity(self, passphrase: Callable[[], bytes]) -> Identity:
        if self.private.exists():
            return papers.open_identity(self.private, passphrase=passphrase)
        self.around.say(f"making the identity of {self.party}")
        if self.public != papers.party_file(self.private, self.party):
            raise Misuse(
                f"{self.public.name}: expected {self.party}.party.json",
                code="other-party",
                hint=f"write file: {self.party}.party.json, the name that every party file has",
            )
        created = identities.new_identity(self.party, passphrase=passphrase, out=self.private.parent)
        return created.identity

    def seal(self, identity: Identity) -> Iterator[Path]:
        """The manifests of its datasets."""
        for name, source in self.project.parties[self.party].seals.items():
            manifest = self.place / self.project.datasets[name]
            if not manifest.exists():
                self.around.say(f"sealing {name}")
                dataset.seal_files(
                    [self.place / source],
                    name=_name(manifest),
                    owner=identity,
                    out=manifest.parent,
                    steps=self.around.steps,
                )
            yield manifest

    def convert(self, identity: Identity) -> Iterator[Path]:
        """The manifests of its images."""
        for service in self.project.services:
            manifest = self.place / service.manifest_path
            if service.owner != self.party:
                continue
            if not manifest.exists():
                self.around.say(f"converting the image of {service.name}")
                with fetch_images.layouts(self.around.cache) as into:
                    convert.convert(
                        self._image(service, into),
                        name=_name(manifest),
                        owner=identity,
                        out=manifest.parent,
                        cache=fetch_images.converted(self.around.cache),
                        steps=self.around.steps,
                    )
            yield manifest

    def _image(self, service: ProjectService, into: Path) -> LocatedImage:
        """Where it lies: where the file says, or in its registry."""
        settings = service.settings
        if service.image:
            return LocatedImage(
                path=self.place / service.image, digest=settings.digest or None, service=settings
            )
        located = fetch_images.find_image(
            settings.image,
            from_=None,
            digest=None,
            platform=load.PLATFORM,
            reach=self.around.reach,
            into=into,
            strict=True,
            steps=self.around.steps,
        )
        return replace(located, service=settings)

    def broker(
        self,
        identity: Identity,
        sealed: list[Path],
        passphrase: Callable[[], bytes],
        *,
        listen: str,
        url: str | None,
    ) -> Path:
        """Its broker, which has the keys of its data."""
        folder = self.private.with_name(f"{self.party}{BROKER}")
        if not (folder / broker.SETTINGS).exists():
            self.around.say(f"making the broker of {self.party}")
            broker.set_up_broker(
                folder,
                identity.party(),
                listen=listen,
                url=url,
                party_file=self.public,
                passphrase=passphrase,
            )
        for manifest in sealed:
            owner.add_disk(
                folder,
                manifest=manifest,
                key=manifest.with_name(f"{_name(manifest)}{disk.KEY_SUFFIX}"),
                identity=lambda: identity,
                passphrase=passphrase,
            )
        return folder

    def operate(self) -> Iterator[Path]:
        """The node's description and the base, where the file has them; the node's folder is beside its description."""
        for path in self.project.platforms.nodes[:1]:
            described = self.place / path
            folder = described.with_suffix("")
            if not folder.exists():
                self.around.say("making a node")
                create.create(folder, _node_name(folder), now=self.around.now)
            if not described.exists():
                files.write(described, canonical.dumps(state.load(folder).to_json()) + b"\n")
            yield described
        for path in self.project.platforms.bases[:1]:
            base = self.place / path
            if not base.exists():
                self.around.say("looking for the base")
                (built,) = bases.build_bases(
                    base_profile.named(base_profile.LOCAL.name),
                    cache=self.around.cache,
                    progress=self.around.say,
                )
                base_cache.copy(built.folder, base, force=False)
            yield base


def _name(manifest: Path) -> str:
    return manifest.name.removesuffix(disk.MANIFEST_SUFFIX)


def _node_name(folder: Path) -> str:
    return folder.name.lower() or "node"
