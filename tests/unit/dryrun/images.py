"""Images with programs that really run, and what becomes of them in a dry run."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom.dryrun import disks, run
from strongroom.images import load as images
from tests.unit.images.kit import ACCOUNTS, END, entry, folder, simple, symlink

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from strongroom.images.cache import Cache

BUSYBOX = Path("/usr/bin/busybox")
MIB = 1 << 20


def busybox(path: bytes, mode: int = 0o755) -> bytes:
    """Busybox as a file: it is what its name says."""
    return entry(path, BUSYBOX.read_bytes(), mode=mode)


def base() -> bytes:
    names = (
        b"true",
        b"cat",
        b"id",
        b"ls",
        b"env",
        b"echo",
        b"sleep",
        b"head",
        b"stat",
        b"grep",
        b"ip",
        b"touch",
        b"mount",
    )
    links = b"".join(symlink(b"bin/" + name, b"sh") for name in names)
    return folder(b"bin/") + ACCOUNTS + busybox(b"bin/sh") + links


class _Silent:
    def __enter__(self) -> Any:
        return lambda _done, _total: None

    def __exit__(self, *_: object) -> None:
        return


def silent(_what: str) -> AbstractContextManager[Any]:
    return _Silent()


def layout(tmp_path: Path, *files: bytes, **config: Any) -> Path:
    settings = {"User": "1000:100", "Entrypoint": ["/bin/true"], "Env": ["PATH=/bin"], **config}
    return simple(tmp_path / "layout", b"".join(files) + END, config=settings).path


def attempt(
    path: Path,
    tmp_path: Path,
    *,
    data: dict[str, Path] | None = None,
    cache: Cache | None = None,
    **changes: Any,
) -> tuple[run.DryRunResult, str, bytes]:
    """How it ended, what it printed, and the tar of what would leave."""
    with ExitStack() as opened, tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as results:
        wanted = disks.Wanted(
            path=path, digest=None, platform=images.PLATFORM, config=None, sealed=lambda config: config
        )
        made = disks.image(wanted, cache=cache, scratch=tmp_path / "scratch", steps=silent)
        opened.callback(lambda: __import__("os").close(made.fd))
        sets = {}
        for name, place in (data or {}).items():
            sets[name] = disks.dataset([place], scratch=tmp_path / "scratch", progress=lambda _d, _t: None)
        trial = run.Trial(
            image=made.fd,
            settings=made.settings,
            datasets=sets,
            arguments=made.config.command,
            environment={},
            memory=256 * MIB,
            wall_seconds=60,
            out_bytes=8 * MIB,
            log=log.fileno(),
            results=results.fileno(),
        )
        result = run.run(replace(trial, **changes))
        log.seek(0)
        results.seek(0)
        return result, log.read().decode(), results.read()
