"""What one owner needs for a file's rooms is made, where it is not there: identity, broker, node, base, disks, contract, plan.

Each thing is made once and kept in the folder under a name that says of what it was made, so that the next time only what changed is
made anew: an image by its digest and the settings that are sealed with it, data by names, sizes and times of its files. The
contract gets a next version where its terms differ, or where it ends soon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.bases import build as bases
from strongroom.bases import cache as base_cache
from strongroom.bases import profile as base_profile
from strongroom.crypto import digest
from strongroom.encoding import canonical
from strongroom.errors import Misuse, of_file
from strongroom.fetch import images as fetch_images
from strongroom.images import convert, load
from strongroom.images.convert import LocatedImage
from strongroom.model.contracts import contract as contract_model
from strongroom.node.vtpm import create, state
from strongroom.parties import draft as drafts
from strongroom.parties import identity as identities
from strongroom.parties import papers
from strongroom.parties import sign as signing
from strongroom.project import draft as drafting
from strongroom.project import file, network, refusals
from strongroom.project import folder as folders
from strongroom.project import plan as plans
from strongroom.project.plan import ENDED, ChildState, Plan, PlannedRoom
from strongroom.seal import dataset, disk
from strongroom.seal.progress import silently
from strongroom.wiring import broker, owner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from strongroom.fetch.images import Reach
    from strongroom.model.contracts.agreement import Agreement
    from strongroom.model.contracts.contract import Contract
    from strongroom.model.identity import Identity
    from strongroom.project.folder import StateFolder
    from strongroom.project.model import Project, ProjectService
    from strongroom.seal.progress import Steps

RUNS = 1_000_000  # of each room under one version, where the file does not say
SOON = 0.25  # of a contract's time: with less of it left the next version is made
LISTEN = "127.0.0.1:0"
_NAME_BYTES = 16  # hexadecimal digits of a digest in names of folders
_PROGRAM_OWNER = contract_model.Role.PROGRAM_OWNER


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is to be kept up now. contract: its file, and what it says. drafted: whether a version was made. changed: rooms that are started anew."""

    folder: StateFolder
    contract_file: Path
    contract: Contract
    drafted: bool
    plan: Plan
    changed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is not of the file. cache: of bases, fetched images and converted disks. say: called with each step's name as it begins."""

    cache: Path
    now: datetime
    say: Callable[[str], None] = lambda _step: None
    steps: Steps = silently
    reach: Reach = fetch_images.by_default


def prepare(compose: Path, project: Project, *, around: Surroundings) -> Prepared:
    """Make all that is missing, and write the plan. Raises `Misuse` for a file of several parties, `Refused` for one that cannot become rooms,
    `NotFound` for paths that lead nowhere, `Unavailable` for ports that another program has: all that before anything is made.

    Otherwise like what it calls; what was made before a failure stays, and is found the next time.
    """
    with of_file(compose):
        file.refuse_blocked(project)
    refusals.refuse_other_ways(compose, project)
    refusals.refuse_missing(compose, project)
    folder = folders.beside(compose)
    refusals.refuse_taken_ports(folder, project)
    folder.make()
    with folder.changed():
        return _Preparation(compose, project, folder, around).prepare()


@dataclass
class _Preparation:
    compose: Path
    project: Project
    folder: StateFolder
    around: Surroundings

    @property
    def place(self) -> Path:
        """Where the file lies, and its paths begin."""
        return self.compose.resolve().parent

    def prepare(self) -> Prepared:
        identity = self._identity()
        self._broker(identity)
        node = self._node()
        base = self._base()
        images: dict[str, Path] = {
            service.name: self._image(service, identity) for service in self.project.services
        }
        data = {name: self._dataset(name, path, identity) for name, path in self.project.datasets.items()}
        member = contract_model.Member(party=papers.load_party(self.folder.party), role=_PROGRAM_OWNER)
        platform = drafts.local_platform(
            nodes=[node],
            bases=[base],
            simulated=True,
            memory_guard=self.project.platforms.memory_guard,
            any_machine=self.project.platforms.any_machine,
        )
        draft = drafting.draft(
            self.project,
            folder=self.place,
            members=(member,),
            disks=drafting.ProjectDisks(images=images, datasets=data),
            platforms=(platform,),
            runs=self.project.runs or RUNS,
        )
        contract_file, contract, drafted = self._contract(draft, identity)
        disks: dict[str, tuple[Path, ...]] = {
            service.name: (images[service.name], *(data[name] for name in service.datasets))
            for service in self.project.services
        }
        plan, changed = self._plan(contract_file, contract, base, disks)
        return Prepared(
            folder=self.folder,
            contract_file=contract_file,
            contract=contract,
            drafted=drafted,
            plan=plan,
            changed=changed,
        )

    def _identity(self) -> Identity:
        passphrase = self.folder.passphrase()
        if self.folder.identity.exists():
            return papers.open_identity(self.folder.identity, passphrase=passphrase)
        self.around.say("making an identity")
        created = identities.new_identity(folders.OWNER, passphrase=passphrase, out=self.folder.path)
        return created.identity

    def _broker(self, identity: Identity) -> None:
        if (self.folder.broker / broker.SETTINGS).exists():
            return
        self.around.say("making a broker")
        broker.set_up_broker(
            self.folder.broker,
            identity.party(),
            listen=LISTEN,
            url=None,
            party_file=self.folder.party,
            passphrase=self.folder.passphrase,
        )

    def _node(self) -> state.VtpmNode:
        if not self.folder.node.exists():
            self.around.say("making a node")
            create.create(self.folder.node, "here", now=self.around.now)
        return state.load(self.folder.node)

    def _base(self) -> Path:
        """The base that this version builds, copied: a cache may lose it while its rooms run."""
        self.around.say("looking for the base")
        (built,) = bases.build_bases(
            base_profile.named(base_profile.LOCAL.name),
            cache=self.around.cache,
            progress=self.around.say,
        )
        kept = self.folder.path / "bases" / built.folder.name[:_NAME_BYTES]
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            base_cache.copy(built.folder, kept, force=False)
        return kept

    def _image(self, service: ProjectService, identity: Identity) -> Path:
        """The signed manifest of a service's image, which is converted where that was not done before."""
        settings = service.settings
        named: LocatedImage | None = None
        chosen = settings.digest
        if service.image:
            path = self.place / service.image
            with of_file(path):
                read = load.identify(path.resolve(), digest=settings.digest or None, platform=load.PLATFORM)
            if read is None:
                raise Misuse(
                    f"{path}: is no image of a registry's form",
                    code="not-an-image",
                    hint="an OCI layout, or an OCI or `docker save` archive",
                )
            chosen = read.digest
            named = LocatedImage(path=path, digest=chosen, service=settings)
        name = service.name
        key = _key(
            {
                "image": chosen,
                "entrypoint": None if settings.entrypoint is None else list(settings.entrypoint),
                "user": settings.user,
                "working_directory": settings.working_directory,
            }
        )
        manifest = self.folder.path / "images" / key / f"{name}{disk.MANIFEST_SUFFIX}"
        if not manifest.exists():
            self.around.say(f"converting the image of {name}")
            with self._appearing(manifest.parent) as out, fetch_images.layouts(self.around.cache) as into:
                convert.convert(
                    named or self._fetched(service, into),
                    name=name,
                    owner=identity,
                    out=out,
                    cache=fetch_images.converted(self.around.cache),
                    steps=self.around.steps,
                )
            self._give(manifest, identity)
        return manifest

    def _fetched(self, service: ProjectService, into: Path) -> LocatedImage:
        """The image from its registry."""
        located = fetch_images.find_image(
            service.settings.image,
            from_=None,
            digest=None,
            platform=load.PLATFORM,
            reach=self.around.reach,
            into=into,
            strict=True,
            steps=self.around.steps,
        )
        return replace(located, service=service.settings)

    def _dataset(self, name: str, path: str, identity: Identity) -> Path:
        """The signed manifest of a dataset, which is sealed where its files changed."""
        source = self.place / path
        key = _key({"name": name, "files": _listing(source)})
        manifest = self.folder.path / "datasets" / key / f"{name}{disk.MANIFEST_SUFFIX}"
        if not manifest.exists():
            self.around.say(f"sealing {name}")
            with self._appearing(manifest.parent) as out:
                dataset.seal_files([source], name=name, owner=identity, out=out, steps=self.around.steps)
            self._give(manifest, identity)
        return manifest

    @contextlib.contextmanager
    def _appearing(self, target: Path) -> Any:
        """A folder whose files are at `target` once the block ends well, and nowhere otherwise."""
        target.parent.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
        try:
            yield part
            if target.exists():  # of another name
                for path in part.iterdir():
                    path.replace(target / path.name)
                part.rmdir()
            else:
                part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _give(self, manifest: Path, identity: Identity) -> None:
        """Give the broker a disk, with its key where it has one."""
        key = disk.beside(
            manifest.with_name(manifest.name.removesuffix(disk.MANIFEST_SUFFIX) + disk.SUFFIX),
            disk.KEY_SUFFIX,
        )
        owner.add_disk(
            self.folder.broker,
            manifest=manifest,
            key=key if key.exists() else None,
            identity=lambda: identity,
            passphrase=self.folder.passphrase,
        )

    def _contract(self, draft: drafts.Draft, identity: Identity) -> tuple[Path, Contract, bool]:
        """(file, contract, whether it is new): the last version where it says the same and has time left, else the next."""
        known = self.folder.contract_files()
        last = papers.load_agreement(known[-1]) if known else None
        same_id = last is not None and last.contract.id == draft.id
        if same_id:
            draft = replace(draft, replaces=known[-1])
        with of_file(self.compose):
            agreement = drafts.draft_contract(draft, now=self.around.now)
        if last is not None and same_id and _holds(last, agreement, self.around.now):
            return known[-1], last.contract, False
        self.around.say(f"signing version {agreement.contract.version} of the contract")
        signed = signing.sign_contract(
            agreement,
            identity=identity,
            own=papers.load_party(self.folder.party),
            previous=last if same_id else None,
        )
        number = int(known[-1].stem) + 1 if known else 1
        path = self.folder.contracts / f"{number}.json"
        papers.save_agreement(signed, out=path)
        try:
            owner.admit_contract(self.folder.broker, path, passphrase=self.folder.passphrase)
        except BaseException:
            path.unlink()  # the next time tries again
            raise
        return path, signed.contract, True

    def _idle(self) -> set[str]:
        """Rooms that do not go on by themselves: what failed, services that ended, and all of them where nobody keeps them up."""
        if not self.folder.is_supervised():
            return {service.name for service in self.project.services}
        status = plans.read_status(self.folder)
        jobs = {service.name for service in self.project.services if service.is_job}
        return {
            child.name
            for child in (() if status is None else status.rooms)
            if child.state is ChildState.FAILED or (child.state in ENDED and child.name not in jobs)
        }

    def _plan(
        self, contract_file: Path, contract: Contract, base: Path, disks: Mapping[str, tuple[Path, ...]]
    ) -> tuple[Plan, tuple[str, ...]]:
        before: Plan | None = None
        with contextlib.suppress(OSError):
            before = plans.read_plan(self.folder)
        idle = self._idle()
        peers = {peer.service for service in self.project.services for peer in service.peers}
        rooms, changed = [], []
        for service in self.project.services:
            # Rooms prove themselves to each other under one version of the contract: those that talk change together.
            talks = bool(service.peers) or service.name in peers
            reached = network.places(self.project, service)
            identity = digest.sha256(
                canonical.dumps(
                    {
                        "terms": contract.room(service.name).to_json(),
                        "base": base.name,
                        "guard": self.project.platforms.memory_guard,
                        "published": reached.published,
                        "tunnels": reached.tunnels,
                        "peers": reached.peers,
                        "contract": contract.digest if talks else "",
                    }
                )
            )
            known = None if before is None or before.down else before.room(service.name)
            same = known is not None and known.room_identity == identity and service.name not in idle
            earlier = 0 if before is None else max((room.generation for room in before.rooms), default=0)
            if not same:
                changed.append(service.name)
            rooms.append(
                PlannedRoom(
                    name=service.name,
                    contract=contract_file.relative_to(self.folder.path),
                    contract_digest=contract.digest,
                    base=base.relative_to(self.folder.path),
                    disks=tuple(
                        path.with_name(
                            path.name.removesuffix(disk.MANIFEST_SUFFIX) + disk.SUFFIX
                        ).relative_to(self.folder.path)
                        for path in disks[service.name]
                    ),
                    is_job=service.is_job,
                    restart=service.restart,
                    memory_guard=self.project.platforms.memory_guard,
                    depends_on=service.depends_on,
                    published=reached.published,
                    tunnels=reached.tunnels,
                    peers=reached.peers,
                    room_identity=identity,
                    generation=known.generation if same and known is not None else earlier + 1,
                )
            )
        address = broker.read_settings(self.folder.broker).address.url
        plan = Plan(broker=address, rooms=tuple(rooms))
        plans.write_plan(self.folder, plan)
        return plan, tuple(changed)


def _holds(last: Agreement, new: Agreement, now: datetime) -> bool:
    """Whether the last version says the same as a new one would, and does not end soon."""
    before, after = last.contract, new.contract
    same = replace(
        after,
        raw=before.raw,
        version=before.version,
        replaces=before.replaces,
        limits=replace(after.limits, not_before=before.limits.not_before, not_after=before.limits.not_after),
    )
    whole: timedelta = after.limits.not_after - after.limits.not_before
    return same == before and last.approved() and before.limits.not_after - now > whole * SOON


def _key(made_of: dict[str, object]) -> str:
    return digest.sha256(canonical.dumps(made_of)).removeprefix("sha256:")[: 2 * _NAME_BYTES]


def _listing(source: Path) -> list[str]:
    """What tells whether files changed, without reading them: names, sizes, times of change, modes."""
    lines = [_line(".", source.lstat())]
    for parent, names, file_names in os.walk(source):
        names.sort()
        for name in sorted([*file_names, *names]):
            path = Path(parent) / name
            lines.append(_line(str(path.relative_to(source)), path.lstat()))
    return [digest.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))]


def _line(name: str, entry: os.stat_result) -> str:
    return f"{name!r} {entry.st_mode:o} {entry.st_size} {entry.st_mtime_ns}"
