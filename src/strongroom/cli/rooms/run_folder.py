"""The folder of `strongroom run --out`: one run at a time, no result overwritten, and no failed attempt in the way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from strongroom.errors import Conflict, Malformed, Misuse
from strongroom.model.room import run_files
from strongroom.node import run_status, runs
from strongroom.node.run_status import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FAILED = (State.FAILED, State.INTERRUPTED)


@contextlib.contextmanager
def taken(out: Path) -> Iterator[None]:
    """Have the folder for one run; it is made where it is not there.

    What a failed or interrupted run left is moved into `attempt-N` within it. Raises `Misuse` for a folder with a result in it, or with
    files of something else, `Conflict` while another run uses it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(run_status.held(out))
        except BlockingIOError:
            raise Conflict(
                f"--out {out}: another run uses this folder",
                code="folder-in-use",
                hint="wait for its end, or name another folder; `strongroom runs` shows how far it is",
            ) from None
        _clear(out)
        yield


def _clear(out: Path) -> None:
    """Move what a failed attempt left out of the way."""
    left = [path for path in out.iterdir() if not path.name.startswith(runs.ATTEMPT)]
    if not left:
        return
    state = _state(out)
    if state == State.DONE or (state not in _FAILED and any(_is_result(path.name) for path in left)):
        raise Misuse(
            f"--out {out}: holds the result of a run, which is never written over",
            code="exists",
            hint="name another folder: every result has one of its own",
        )
    if state is None:
        raise Misuse(
            f"--out {out}: is not empty, and what is in it is of no run",
            code="exists",
            hint="name an empty folder, or one that is not there yet",
        )
    number = 1
    while (aside := out / f"{runs.ATTEMPT}{number}").exists():
        number += 1
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)


def _is_result(name: str) -> bool:
    return name in (run_files.RECEIPT, run_files.LOG) or run_files.output_of(name) is not None


def _state(out: Path) -> State | None:
    """How the run ended that wrote its status here; one that goes on was killed, since this process has the lock."""
    try:
        return runs.read(out).state
    except (OSError, Malformed):
        return None
