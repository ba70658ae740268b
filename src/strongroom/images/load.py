"""An image to what `seal` takes: a tree of entries and the settings to run it with.

    with image.load(path, scratch=folder) as loaded:
        disk.seal(loaded.entries, …, image=loaded.settings)

In this order: recognise the source (`sources`), choose one image by digest and platform, check and
unpack every layer into a spool (an unnamed file, `blobs`), apply the layers (`layers`), add what a room needs, look
up how to run it. The same image digest gives the same entries, whatever form the image came in.

Added to every image, when missing: the empty directories `data`, `out`, `tmp` (mode 1777), `proc` and `dev`, over
which the room mounts, there or where a symbolic link of the image leads (`model/room/mounts`), `sys` and `run`, which programs
expect, and the working directory; all are root's, from 1970. Added to the environment, when missing, as container runtimes do: PATH and HOME.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.errors import Misuse, NotFound, Refused
from strongroom.images import accounts, blobs, files, layers, oci, rootfs, sources, tar
from strongroom.images.limits import LIMITS, SMALLER
from strongroom.images.summary import Summary
from strongroom.model.manifest import ImageSettings
from strongroom.model.room import mounts
from strongroom.seal.tree import EntryKind, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from strongroom.images.cache import Cache
    from strongroom.images.layers import Tree
    from strongroom.images.limits import ImageLimits
    from strongroom.seal.tree import Entry

    # Called with (bytes done, bytes in all).
    Progress = Callable[[int, int], None]
    # What the image says of itself → what somebody runs it with.
    Changes = Callable[[oci.ImageConfig], oci.ImageConfig]

PLATFORM = oci.ImagePlatform(os="linux", architecture="amd64")
EXPECTED = (b"sys", b"run")  # by programs; the room mounts nothing over them
# The PATH that container runtimes set where an image sets none.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An image ready to be sealed: what there is to tell of it, and its files.

    `entries` can be read while the `load` context is open, `tree` is the same files, to look things up in. `config` is
    what the image says of itself; `platform` is what it is for, as its index says, or else its configuration.
    """

    summary: Summary
    platform: oci.ImagePlatform
    entries: list[Entry]
    config: oci.ImageConfig
    tree: Tree

    @property
    def digest(self) -> str:
        """sha256:… that names the image: its manifest's, or its configuration's where it has none; a root file system's is over all of it."""
        return self.summary.digest

    @property
    def settings(self) -> ImageSettings:
        """How to run it."""
        return self.summary.settings


def identify(
    path: Path, *, digest: str | None, platform: oci.ImagePlatform, limits: ImageLimits = LIMITS
) -> sources.Chosen | None:
    """Which image `load` would load; its layers are not read.

    None for a root file system, and for an archive that is compressed as a whole: to name those, all of them must be read. Raises `NotFound` for no such path.
    """
    if not path.exists():
        raise _nothing_there(path)
    if path.is_dir() and not (path / "oci-layout").exists():
        return None
    if not path.is_dir() and files.is_compressed(path):
        return None
    with sources.OpenedImage(path, limits) as source:
        return source.choose(digest=digest, platform=platform)


def _nothing_there(typed: Path) -> NotFound:
    return NotFound(
        f"{typed}: no such file or folder",
        code="no-such-file",
        hint="give an OCI layout, an image archive or a folder; an image of a registry is named HOST/NAME@sha256:…, never by a tag",
    )


@contextmanager
def load(  # noqa: PLR0913 - by name, and most of them with a default
    path: Path,
    *,
    scratch: Path,
    digest: str | None = None,
    platform: oci.ImagePlatform = PLATFORM,
    config: bytes | None = None,
    changes: Changes = lambda config: config,
    cache: Cache | None = None,
    limits: ImageLimits = LIMITS,
    progress: Progress = lambda _done, _total: None,
) -> Iterator[Loaded]:
    """Load the image at `path`.

    `scratch` is a folder on a disk that can hold the uncompressed image; only unnamed files are
    made there. `digest` chooses among several images. `config` (the bytes of an OCI image
    configuration) is for a root file system, which brings none. `changes` may put other settings in place of
    the image's own (a compose file's). `cache` keeps unpacked layers. `progress` gets bytes of layers read, and in all. Raises `Malformed`, `Refused`, `NotFound`, `Misuse`, `Unavailable`.
    """
    typed = path  # messages name it as the user did
    try:
        path = path.resolve()
    except RuntimeError:  # Python before 3.13, of a link that leads to itself
        raise Misuse(
            f"{path}: a link that leads to itself",
            code="bad-path",
            hint="name the image that it should lead to",
        ) from None
    if not path.exists():
        raise _nothing_there(typed)
    with ExitStack() as opened:
        if path.is_dir() and not (path / "oci-layout").exists():
            if digest is not None:
                raise Misuse(
                    f"{typed}: a root file system has no digest to choose by", hint="leave --digest out"
                )
            chosen, tree = _from_folder(path, config, opened, scratch, limits, progress)
            yield _finish(chosen, changes(chosen.config), tree, limits)
            return
        if config is not None:
            raise Misuse(f"{typed}: an image brings its own configuration", hint="leave --config out")
        source = opened.enter_context(sources.OpenedImage(path, limits, scratch=scratch))
        chosen = source.choose(digest=digest, platform=platform)
        tree = layers.Tree(limits)
        total = 0
        count = _counter(progress, source.bytes_of(chosen))
        for layer in chosen.layers:
            spool = opened.enter_context(_unpacked(source, layer, scratch, cache, limits, count))
            total += spool.size
            if total > limits.total_bytes:
                raise Refused(f"image: more than {limits.total_bytes} bytes", code="too-large", hint=SMALLER)
            tree.apply(spool.read_at, spool.size, spool.open, what=layer.what)
        yield _finish(chosen, changes(chosen.config), tree, limits)


def _unpacked(
    source: sources.OpenedImage,
    layer: sources.Layer,
    scratch: Path,
    cache: Cache | None,
    limits: ImageLimits,
    count: Callable[[int], None],
) -> blobs.Spool:
    """A layer's uncompressed bytes, checked: unpacked before, or unpacked now."""
    kept = None if cache is None else cache.layer(layer.diff_id)
    if kept is not None:
        return kept
    with source.open(layer) as blob:
        if blobs.compression_of(blob) == "none":
            cache = None  # to keep the unpacked layer would save no work
        # A cache whose folder cannot be written gives no spool; the layer is then unpacked as without a cache.
        spool = (None if cache is None else cache.spool()) or blobs.Spool(scratch)
        try:
            blobs.unpack(
                blob,
                spool,
                digest=layer.digest,
                size=layer.size,
                diff_id=layer.diff_id,
                limits=limits,
                progress=count,
            )
        except BaseException:
            spool.close()
            raise
    if cache is not None:
        cache.keep_layer(layer.diff_id, spool)
    return spool


def _no_image_in_pieces(path: Path) -> None:
    """Raise `Refused` for a folder that holds an image in a form which is not read, so that it is taken for no root."""
    if not (path / "manifest.json").is_file():
        return
    if (path / "version").is_file():
        raise Refused(
            f"{path}: an image in skopeo's own form (dir:)",
            code="not-an-image",
            hint="copy it into a layout: `skopeo copy dir:FOLDER oci:OTHER`",
        )
    if (path / "repositories").is_file():
        raise Refused(
            f"{path}: an unpacked `docker save` archive", code="not-an-image", hint="give the archive itself"
        )


def _from_folder(
    path: Path,
    config: bytes | None,
    opened: ExitStack,
    scratch: Path,
    limits: ImageLimits,
    progress: Progress,
) -> tuple[sources.Chosen, layers.Tree]:
    """A root file system in a folder: described as an image without layers, and its tree."""
    _no_image_in_pieces(path)
    if config is None:
        raise Misuse(
            f"{path}: a root file system does not say what to run",
            code="no-config",
            hint='give --config with an OCI image configuration, like {"config": {"Entrypoint": ["/bin/program"]}}',
        )
    parsed = oci.parse_settings(config, what="config", limits=limits)
    spool = opened.enter_context(blobs.Spool(scratch))
    count = _counter(progress, rootfs.content_bytes(path))
    tree = layers.Tree(limits)
    members = list(rootfs.members(path, spool, limits=limits, progress=count, note=tree.note))
    tree.add(members, spool.open, what="root file system")
    chosen = sources.Chosen(
        kind="root file system",
        digest=rootfs.digest(members, spool, config),
        index=None,
        names=(),
        platform=parsed.platform,
        config=parsed,
        layers=(),
    )
    return chosen, tree


def _counter(progress: Progress, total: int) -> Callable[[int], None]:
    """What adds up the bytes of each call, and hands the sum to `progress`. The total may turn out too small: files grow."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, max(done, total))

    return count


def _finish(
    chosen: sources.Chosen, config: oci.ImageConfig, tree: layers.Tree, limits: ImageLimits
) -> Loaded:
    """Add what a room needs, and look up how to run it. config: the chosen image's own, after `changes`."""
    if not config.entrypoint and not config.command:
        raise Refused(
            f"image {chosen.digest}: neither ENTRYPOINT nor CMD, so nothing to run",
            code="nothing-to-run",
            hint="rebuild it with an ENTRYPOINT",
        )
    tree.settle()
    account = accounts.look_up(config.user, tree, limits)
    notes = list(tree.notes)
    notes += _make_mount_points(tree)
    folder = _working_directory(config.working_directory, tree, limits)
    notes += [f"{name} has no effect in a room" for name in config.ignored]
    environment = {"PATH": DEFAULT_PATH, "HOME": account.home} | config.environment
    program = (config.entrypoint or config.command)[0]
    if not _is_there(program, environment["PATH"], tree):
        notes.append(f"the program {program[:100]!r} is not in the image")
    # Whether a room has a certificate is the contract's to say, which there is none of yet.
    elif not _is_there(program, environment["PATH"], tree.mounted(tree.placed(certificates=False))):
        notes.append(f"the program {program[:100]!r} is where the room mounts its own: it will not be found")
    entries = tree.entries()
    summary = Summary(
        kind=chosen.kind,
        digest=chosen.digest,
        index=chosen.index,
        names=chosen.names,
        layers=max(1, len(chosen.layers)),  # a root file system counts as one
        entries=len(entries),
        content_bytes=sum(entry.size for entry in entries if entry.kind is EntryKind.FILE),
        settings=ImageSettings(
            source=chosen.digest,
            entrypoint=config.entrypoint,
            command=config.command,
            environment=environment,
            working_directory=folder,
            uid=account.uid,
            gid=account.gid,
            groups=account.groups,
        ),
        notes=tuple(notes),
    )
    return Loaded(summary=summary, platform=chosen.platform, entries=entries, config=config, tree=tree)


def _make_mount_points(tree: layers.Tree) -> Iterator[str]:
    """Make the directories that a room mounts over, and those of `EXPECTED`; give a note for each that covers files of the image."""
    placed = tree.placed(certificates=False)
    for placement in placed:
        if any(mounts.is_within(placement.place, other.place) for other in placed):
            continue  # lies within another mount, where the room makes it
        tree.make_directory(placement.place, mode=placement.mount.mode)
        node = tree.find(placement.place)
        if node is not None and node.children:
            place = show(b"/" + placement.place)[1:-1]  # without its quotes
            yield f"what the image has in {place} is covered by the room's own"
    for name in EXPECTED:
        if name not in tree.root.children:
            tree.make_directory(name)


def _is_there(program: str, search: str, tree: layers.Tree) -> bool:
    """Whether `tree` has the program, as execvp(3) searches. search: a PATH, of which 64 folders are looked into."""
    if "/" in program and not program.startswith("/"):
        return True  # relative to the working directory, which may be a mount of the room
    places = [program] if "/" in program else [f"{folder}/{program}" for folder in search.split(":")[:64]]
    return any(tree.find(place[:4096].encode()) is not None for place in places)  # PATH_MAX is 4096


def _working_directory(text: str, tree: layers.Tree, limits: ImageLimits) -> str:
    """The working directory as a clean absolute path, made in `tree` when missing. Empty, as in an image that sets none, is /."""
    text = text or "/"
    if not text.startswith("/"):
        raise Refused(
            f"image: WORKDIR {text[:100]!r} is not absolute",
            code="bad-working-directory",
            hint="set WORKDIR to a whole path, like /work",
        )
    path = tar.clean(text.encode(), "image: WORKDIR", limits)
    tree.make_directory(tree.resolve(path))
    return "/" + path.decode()
