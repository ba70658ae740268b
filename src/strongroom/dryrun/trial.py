"""An image is tried: its disk and its data's are made, its program runs under a room's conditions (`run`), and what would leave a room is written out.

Why the program failed is said by `preflight`, where that could be seen before. Nothing is sealed, measured or proved.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from strongroom.dryrun import disks, run
from strongroom.errors import Misuse
from strongroom.fetch import images as finding
from strongroom.images import convert, load, results
from strongroom.images.preflight import examine
from strongroom.images.preflight.findings import Severity
from strongroom.seal import extract
from strongroom.seal.progress import silently

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from strongroom.dryrun.run import DryRunResult, Trial
    from strongroom.fetch.images import Reach
    from strongroom.images.cache import Cache
    from strongroom.images.convert import LocatedImage
    from strongroom.images.oci import ImagePlatform
    from strongroom.images.preflight.findings import Finding
    from strongroom.seal.progress import Steps
    from strongroom.seal.tree import Entry

SCRATCH = "try"  # in a cache's folder
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TrialTerms:
    """What a contract would say. arguments: None keeps the image's own. datasets: folders, by the names that the program finds them under."""

    datasets: Mapping[str, Path] = field(default_factory=dict)
    arguments: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    memory_mib: int = 512
    wall_seconds: int = 600
    max_output_mib: int = 16


@dataclass(frozen=True, kw_only=True)
class TriedImage:
    """How a trial ended: what would leave a room, and, where the program failed, what `preflight` finds in the image."""

    result: DryRunResult
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def check_empty(out: Path | None) -> None:
    """Raise `Misuse` for a folder that holds something, before the run: a result that has no place would be lost."""
    if out is not None and os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise Misuse(
            f"--out {out}: exists and is not an empty folder",
            code="exists",
            hint="remove it, or name another",
        )


def try_image(  # noqa: PLR0913 - by name, and most of them with a default
    image: str,
    *,
    terms: TrialTerms,
    out: Path | None,
    log: int,
    cache: Path,
    digest: str | None = None,
    platform: ImagePlatform = load.PLATFORM,
    config: Path | None = None,
    from_: Path | None = None,
    reach: Reach = finding.by_default,
    steps: Steps = silently,
) -> TriedImage:
    """Run an image to its end under a room's conditions, in the clear. Needs root; a signal ends the program before this process.

    image, digest, platform, config, from_, reach: as `fetch.images.convert_image`. out: a new or empty folder for what would leave; None writes it
    nowhere. log: a descriptor for what the program prints. cache: a folder for what is fetched, converted and worked with.
    Raises `Unavailable` where this machine cannot, and like `convert_image`.
    """
    check_empty(out)
    with finding.layouts(cache) as into:
        located = finding.find_image(
            image,
            from_=from_,
            digest=digest,
            platform=platform,
            reach=reach,
            into=into,
            strict=True,
            steps=steps,
        )
        return try_located(
            located,
            platform=platform,
            settings=None if config is None else convert.load_settings(config),
            terms=terms,
            out=out,
            scratch=cache / SCRATCH,
            cache=finding.converted(cache),
            log=log,
            steps=steps,
        )


def try_located(  # noqa: PLR0913 - by name, and most of them with a default
    image: LocatedImage,
    *,
    platform: ImagePlatform,
    settings: bytes | None,
    terms: TrialTerms,
    out: Path | None,
    scratch: Path,
    cache: Cache | None,
    log: int,
    steps: Steps = silently,
) -> TriedImage:
    """The same for an image that was found.

    settings: a root file system's configuration. out: a new or empty folder for what would leave; None writes it nowhere. scratch: a folder with room for the
    disks. log: a descriptor for what the program prints. Raises `Unavailable` where this machine cannot, and like `images.load`.
    """
    check_empty(out)
    with contextlib.ExitStack() as opened:
        leaving = opened.enter_context(tempfile.TemporaryFile())
        wanted = disks.Wanted(
            path=image.needed(),
            digest=image.digest,
            platform=platform,
            config=settings,
            sealed=image.sealed,
        )
        with image.named():
            disk = disks.image(wanted, cache=cache, scratch=scratch, steps=steps)
        opened.callback(os.close, disk.fd)
        datasets = {}
        for name, path in terms.datasets.items():
            with steps(f"reading {name}") as progress:
                datasets[name] = disks.dataset([path], scratch=scratch, progress=progress)
            opened.callback(os.close, datasets[name])
        own = image.run(disk.config)
        trial = run.Trial(
            image=disk.fd,
            settings=disk.settings,
            datasets=datasets,
            arguments=own.command if terms.arguments is None else terms.arguments,
            environment={**own.environment, **terms.environment},
            memory=terms.memory_mib * _MIB,
            wall_seconds=terms.wall_seconds,
            out_bytes=terms.max_output_mib * _MIB,
            log=log,
            results=leaving.fileno(),
        )
        sys.stdout.flush()  # what is buffered would be written twice: a child goes on from here
        sys.stderr.flush()
        result = run.run(trial)
        entries: tuple[Entry, ...] = ()
        if result.leaves:
            entries = results.tree(trial.results, os.fstat(trial.results).st_size, what="outputs")
            if out is not None:
                with extract.staged(out) as stage, steps("writing the outputs") as progress:
                    extract.write(entries, stage, foreign_links=False, progress=progress)
        findings = _foreseen(image, wanted, trial, scratch) if result.failed else ()
        return TriedImage(result=result, entries=entries, findings=findings)


def _foreseen(image: LocatedImage, wanted: disks.Wanted, trial: Trial, scratch: Path) -> tuple[Finding, ...]:
    """What `preflight` says against this image and command: why it failed, where that could be seen before."""
    report = examine.examine(
        examine.ImageLocation(
            path=wanted.path,
            digest=wanted.digest,
            architecture=wanted.platform,
            config=wanted.config,
        ),
        scratch=scratch,
        platforms=("local",),
        memory_mib=trial.memory // _MIB,
        changes=lambda ours: replace(
            image.run(ours), command=trial.arguments, environment={**ours.environment, **trial.environment}
        ),
    )
    return tuple(
        finding
        for finding, _ in report.findings
        if finding.severity is Severity.BLOCKS
        or (finding.check == "user" and finding.severity is Severity.WARNS)
    )
