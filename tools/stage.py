"""Where the demo's story plays: commands run as typed, acts told with what was seen, one closing table."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONSOLE = Console(highlight=False)
STRONGROOM = str(Path(sys.executable).with_name("strongroom"))
PASSPHRASE = "the demo's passphrase"
RUNS = 8


class ActFailedError(Exception):
    """An act did not go as the story says."""


@dataclass
class Stage:
    """Where the story plays: a folder, and the results so far."""

    folder: Path
    base: Path = Path()
    rows: list[tuple[str, str, float]] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "STRONGROOM_PASSPHRASE": PASSPHRASE, "COLUMNS": "160"}

    def run(self, *words: object, fails: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command; `fails` is the exit code that the story expects."""
        command = [str(word) for word in words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), text=True, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=900, check=False,
        )  # fmt: skip
        with (self.folder / "demo.log").open("a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}exit {done.returncode}\n\n")
        if done.returncode != fails:
            raise ActFailedError(
                f"{' '.join(command)}\nexit {done.returncode}, the story expects {fails}\n"
                f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
            )
        return done

    def strongroom(self, *words: object, fails: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(STRONGROOM, *words, fails=fails)

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Start a command that goes on; it is ended with the stage."""
        log = (self.folder / "background.log").open("a")
        process = subprocess.Popen(
            [str(word) for word in words], cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        self.running.append(process)
        return process

    def room(
        self,
        out: str,
        *,
        base: Path | None = None,
        data: str = "flights.disk",
        program: str = "query.disk",
        contract: str = "contract.json",
        anyway: bool = False,
    ) -> list[object]:
        """The operator's command for one run. anyway: of an operator who cheats, and does not ask first."""
        return [
            "run", contract, "--node", "node", "--base", base or self.base,
            "--disk", data, "--disk", program, "--out", out, *(["--start-anyway"] if anyway else []),
        ]  # fmt: skip

    @contextlib.contextmanager
    def act(self, title: str, who: str) -> Iterator[Callable[[str], None]]:
        """One act: a heading, what was seen, and its last line and time in the closing table."""
        CONSOLE.print(f"\n[bold]{len(self.rows) + 1}. {title}[/bold]\n   [dim]{who}[/dim]")
        started = time.monotonic()
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            CONSOLE.print(f"   {line}", markup=False)

        with CONSOLE.status("   working…"):
            yield say
        self.rows.append((title, said[-1] if said else "done", time.monotonic() - started))

    def close(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def write_contract(stage: Stage, name: str, program: str) -> None:
    stage.strongroom(
        "contract", "new", "flights", "--out", name, "--party", "data-owner=alice.party.json",
        "--party", "program-owner=bob.party.json", "--image", program, "--dataset", "flights=flights.manifest.json",
        "--output", "/out=bob", "--base", stage.base, "--node", "node.json", "--simulated", "--runs", RUNS,
        "--certificate-name", "room.flights.example", "--memory-mib", 768,
    )  # fmt: skip


def table(stage: Stage, seconds: float) -> None:
    shown = Table(title="\nThe story in one table")
    for heading in ("act", "result", "seconds"):
        shown.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for title, result, taken in stage.rows:
        shown.add_row(title, result, f"{taken:.1f}")
    CONSOLE.print(shown)
    CONSOLE.print(f"[bold green]All {len(stage.rows)} acts went as told[/bold green], in {seconds:.0f} s.")
