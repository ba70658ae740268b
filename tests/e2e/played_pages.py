"""Plays a page's console blocks, and its Python where the page says so, as a reader would: one shell, one folder, in the page's order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.pages import reading

PASSPHRASE = "only for this tutorial"  # as docs/tutorial.md has it; other pages go on in its folder
VENV = Path(sys.executable).parent
ACTIVATION = ". .venv/bin/activate"


def play(page: Path, folder: Path, *, seconds: int = 300) -> None:
    """Run the page's commands in `folder`; fails with the first whose status or lines are not the page's."""
    commands = reading.played(page)
    assert commands, f"{page}: no console block"
    environment = {**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE, "COLUMNS": "200"}
    if any(one.command.startswith(ACTIVATION) for one in commands):
        (folder / ".venv").symlink_to(VENV.parent)
        environment["PATH"] = os.pathsep.join(
            one for one in os.environ["PATH"].split(os.pathsep) if Path(one) != VENV
        )
    else:
        environment["PATH"] = f"{VENV}{os.pathsep}{os.environ['PATH']}"
    told = folder / ".told"
    told.mkdir()
    subprocess.run(
        ["/bin/bash", "--noprofile", "--norc"],
        input=script(commands, told),
        text=True,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
    )
    for number, one in enumerate(commands):
        out, status = told / f"{number}.out", told / f"{number}.status"
        said = out.read_text() if out.exists() else ""
        left = status.read_text().strip() if status.exists() else "nothing: it did not end"
        assert left == str(one.status), (
            f"{one.where}: $ {one.command}\nleft with {left}, expected {one.status}\n{said}"
        )
        missing = unseen(one.prints, said)
        assert not missing, f"{one.where}: $ {one.command}\ndid not print {missing!r}\n{said}"


def script(commands: list[reading.Typed], told: Path) -> str:
    """For the shell: each command with where its words and its status go; the first unexpected one is the last."""
    lines = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
    for number, one in enumerate(commands):
        out, status = (shlex.quote(str(told / f"{number}.{name}")) for name in ("out", "status"))
        lines.append(f"{{ {one.command}\n}} >{out} 2>&1 </dev/null; left=$?")
        if one.command.rstrip().endswith("&"):
            lines.append(f"until grep -q ready {out}; do kill -0 $! || exit 1; sleep 0.05; done")
        lines += [f"echo $left >{status}", f"[ $left = {one.status} ] || exit 1"]
    return "\n".join([*lines, ""])


def unseen(prints: tuple[str, ...], said: str) -> str:
    """The first of the page's lines that was not printed, in that order; `…` is for anything."""
    lines = iter([" ".join(line.split()) for line in said.splitlines()])
    for wanted in prints:
        if wanted == "…":
            continue
        pattern = ".*".join(re.escape(part) for part in " ".join(wanted.split()).split("…"))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return ""
