"""Will this image run in a room? Findings for each platform; nothing of the image is executed.

    report = examine.examine(ImageLocation(path=…), scratch=folder, platforms=("local",), memory_mib=512)
    report.will_run

The image is read as `convert` reads it: what `convert` refuses is a finding that blocks, with its fix. Then each
part is looked at on its own: settings and files (`settings`), whether the program would start
(`program`), whose rights it takes (`user`), memory (`memory`). A finding that is the same on every platform is printed once.
What cannot be seen from outside: what a program asks of the network, loads while it runs, or needs in memory for its data.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.errors import Malformed, Misuse, NotFound, Refused
from strongroom.images import load as image
from strongroom.images import oci
from strongroom.images.preflight import memory, program, settings, user
from strongroom.images.preflight.findings import Finding, Severity, blocks, fine, warns
from strongroom.images.preflight.program import ExaminedImage
from strongroom.model.room import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.images.layers import Tree
    from strongroom.images.load import Changes, Loaded, Progress
    from strongroom.model.room.mounts import Placed

# Profiles of the base, as the glossary calls them; users of preflight know them as platforms of a room.
PLATFORMS = ("local", "uki", "snp", "tdx", "nitro")
_NOT_OF_THE_IMAGE = ("no-such-file", "no-zstd")  # nothing to examine, or nothing to do it with
_ORDER = {Severity.BLOCKS: 0, Severity.WARNS: 1, Severity.FINE: 2}


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """All findings, worst first; each with the platforms it holds for.

    `image` is the image's digest, or empty where it could not be read.
    """

    image: str
    platforms: tuple[str, ...]
    findings: tuple[tuple[Finding, tuple[str, ...]], ...]

    def runs_on(self, platform: str) -> bool:
        """Whether nothing blocks there."""
        return not any(
            finding.severity is Severity.BLOCKS and platform in platforms
            for finding, platforms in self.findings
        )

    @property
    def will_run(self) -> bool:
        """Whether nothing blocks on any platform that was asked about."""
        return all(self.runs_on(platform) for platform in self.platforms)

    def require(self) -> None:
        """Raise `Refused` unless it will run on every platform that was asked about."""
        if not self.will_run:
            raise Refused(
                "it will not run in a room as it is",
                code="would-not-run",
                hint="mend each finding that blocks, as it says, and run preflight again",
            )

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "image": self.image or None,
            "platforms": {platform: self.runs_on(platform) for platform in self.platforms},
            "will_run": self.will_run,
            "findings": [
                {**finding.to_json(), "platforms": list(platforms)} for finding, platforms in self.findings
            ],
        }


@dataclass(frozen=True, kw_only=True)
class ImageLocation:
    """Where the image lies, and which of several is meant: as `load.load` takes it."""

    path: Path
    digest: str | None = None
    architecture: oci.ImagePlatform = image.PLATFORM
    config: bytes | None = None


def examine(
    source: ImageLocation,
    *,
    scratch: Path | None,
    platforms: tuple[str, ...] = PLATFORMS,
    memory_mib: int,
    changes: Changes = lambda config: config,
    before: tuple[Finding, ...] = (),
    progress: Progress = lambda _done, _total: None,
) -> PreflightReport:
    """Examine an image.

    `scratch`: a folder with room for the unpacked image; None is the system's for temporary files. `changes` puts other settings in place of the image's (a compose file's); `before` are that file's findings. Raises
    `Misuse` and `Unavailable` for a call that cannot be carried out; everything else is a finding.
    """
    for platform in platforms:
        if platform not in PLATFORMS:
            raise Misuse(
                f"--platform {platform[:40]!r}: no platform of a room", hint=f"one of {', '.join(PLATFORMS)}"
            )
    try:
        with image.load(
            source.path,
            scratch=scratch or Path(tempfile.gettempdir()),
            digest=source.digest,
            platform=source.architecture,
            config=source.config,
            changes=changes,
            progress=progress,
        ) as loaded:
            placed, mount_findings = _placed(loaded.tree)
            tree = loaded.tree.mounted(placed)
            findings = {
                platform: [*mount_findings, *_examine(loaded, tree, placed, platform, memory_mib)]
                for platform in platforms
            }
            name = loaded.digest
    except (Malformed, Refused, NotFound) as cause:
        if cause.code in _NOT_OF_THE_IMAGE:
            raise
        refusal = blocks(
            f"convert-{cause.code}",
            source.path.name,
            cause.message,
            cause.hint or "mend the image, or fetch it again",
        )
        findings, name = {platform: [refusal] for platform in platforms}, ""
    return merge({platform: [*before, *own] for platform, own in findings.items()}, name)


def merge(by_platform: dict[str, list[Finding]], name: str = "") -> PreflightReport:
    """One report of the findings of each platform. name: the image's digest, empty where it could not be read."""
    where: dict[Finding, list[str]] = {}
    for platform, findings in by_platform.items():
        for finding in dict.fromkeys(findings):
            where.setdefault(finding, []).append(platform)
    rows = sorted(
        where.items(), key=lambda row: (_ORDER[row[0].severity], row[0].check, row[0].line, row[0].where)
    )
    return PreflightReport(
        image=name,
        platforms=tuple(by_platform),
        findings=tuple((finding, tuple(platforms)) for finding, platforms in rows),
    )


def _placed(tree: Tree) -> tuple[tuple[Placed, ...], list[Finding]]:
    """Where a room's mounts go in the image, certificates among them; without those, a finding says why."""
    try:
        return tree.placed(certificates=True), []
    except Refused as cause:
        finding = warns(
            "mount-points",
            mounts.TLS.shown,
            f"{cause.message}; no contract with certificate names will do",
            cause.hint,
        )
        return tree.placed(certificates=False), [finding]


def _level(made_for: oci.ImagePlatform, platform: str) -> Iterator[Finding]:
    """The processor level that the image states. What its programs state is examined in `program`."""
    # x86-64-v1 to v4, as OCI's variant says it.
    has = program.LEVELS.get(platform, program.TEE_LEVEL)
    wanted = oci.ImagePlatform(os="linux", architecture="amd64", variant=f"v{has}")
    if not made_for.variant or not wanted.agrees(replace(made_for, variant="")):
        return
    if wanted.suits(made_for):
        yield fine("cpu-level", "image", f"made for {made_for}, which a {platform} room's processor is")
    else:
        yield warns(
            "cpu-level",
            "image",
            f"made for {made_for}; a {platform} room's processor has {wanted.variant}",
            "choose the image of the index that is for a lower level, or for none",
        )


def _examine(
    loaded: Loaded, tree: Tree, placed: tuple[Placed, ...], platform: str, memory_mib: int
) -> list[Finding]:
    subject = ExaminedImage(
        image=loaded.tree, placed=placed, tree=tree, settings=loaded.settings, platform=platform
    )
    return [
        *_level(loaded.platform, platform),
        *program.examine(subject),
        *user.examine(subject),
        *settings.examine(subject, loaded.config),
        *(fine("left-out", "image", note) for note in loaded.tree.notes),
        *memory.examine(subject, memory_mib=memory_mib, content_bytes=loaded.summary.content_bytes),
    ]
