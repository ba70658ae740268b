"""Files on their way into a base, and the cache of what was unpacked: content by digest, checked when read."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INDEX = "index.json"
_MAX_INDEX = 16 << 20
_MAX_FILES = 1 << 16
_MAX_LINKS = 16


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file: its content, and whether it may be executed."""

    content: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        """The permission bits that it gets in the base, whatever they were before."""
        return 0o755 if self.executable else 0o644


def store(folder: Path, files: Mapping[str, File], *, newest: int) -> None:
    """Keep `files` as `folder`, which appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:16]}-"))
    try:
        index = []
        for path, file in sorted(files.items()):
            name = digest.sha256(file.content)
            (part / name.removeprefix("sha256:")).write_bytes(file.content)
            index.append({"path": path, "digest": name, "executable": file.executable})
        (part / _INDEX).write_bytes(canonical.dumps({"newest": newest, "files": index}))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def load(folder: Path) -> tuple[dict[str, File], int] | None:
    """What `store` kept, with its newest time; or None when that is missing or damaged."""
    try:
        data = (folder / _INDEX).read_bytes()
        top = fields.Fields(canonical.loads(data, what="index", max_bytes=_MAX_INDEX), "index")
        newest = top.integer("newest", low=0, high=1 << 40)
        files: dict[str, File] = {}
        for entry in top.objects("files", max_items=_MAX_FILES):
            name = entry.digest("digest")
            content = (folder / name.removeprefix("sha256:")).read_bytes()
            if digest.sha256(content) != name:
                return None
            files[entry.text("path", max_length=4096)] = File(
                content=content, executable=entry.boolean("executable")
            )
    except (OSError, Malformed):
        return None
    return files, newest


def write_tree(folder: Path, files: Mapping[str, File]) -> None:
    """Lay `files` out under `folder`, for a program that wants to see them there."""
    for path, file in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)


def follow(
    regular: Mapping[str, tuple[int, bytes]], links: Mapping[str, str], wanted: Callable[[str], bool]
) -> dict[str, File]:
    """Regular files and links that lead to them, as plain files; only those whose path is wanted.

    A link that leads to nothing here is left out: whoever needs it misses it by name.
    """
    files = {
        path: File(content=data, executable=bool(mode))
        for path, (mode, data) in regular.items()
        if wanted(path)
    }
    for path in filter(wanted, links):
        target, steps = path, 0
        while target in links and steps < _MAX_LINKS:
            target, steps = links[target], steps + 1
        if target in regular:
            mode, data = regular[target]
            files[path] = File(content=data, executable=bool(mode))
    return files
