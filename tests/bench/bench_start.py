"""How long the tool takes to begin: each verb's `--help`, and verbs that ask nobody, each in a fresh process.

"ours" is the median processor time of the whole process (user and system, until it was waited for) less that of
`python -c pass` of the same interpreter in the same turns: imports, the parser of the command line, the work itself and
the way out. The clock stands beside it, less nothing. Bytecode is compiled before, as installers leave it. What a
passphrase costs is left out of the aim: it is meant to cost. A busy machine makes all of it dearer, in one ratio: read each
row beside that of `import typer`, which no verb can be below.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from strongroom.cli.main import VERBS
from tests.bench.turns import row, show

ROUNDS = 5
AIM = "< 150 ms"
STRONGROOM = str(Path(sys.executable).with_name("strongroom"))
BARE = "python -c pass"
TYPER = "import typer, its share of each"
SQLALCHEMY = "import sqlalchemy, its share of brokers' verbs"
JUDGE = "--endorsements snp.endorsements.json --at 2026-11-24T12:00:00Z --report-data " + "ab" * 64
# What is typed without a server, in the folder of `world`.
TYPED = (
    "identity show alice.party.json",
    "inspect flights.disk",
    "verify flights.disk --owner carol.party.json",
    "contract show run/agreement.json",
    "contract verify run/agreement.json",
    "evidence show report.bin",
    f"evidence verify report.bin --policy policy.json {JUDGE}",
    "proof verify run.proof --trust alice.party.json",
    "runs",
    "doctor",
    "broker party broker",
)
WITH_PASSPHRASE = (
    "seal flights -i carol.identity --name again --out {fresh}",
    "broker init {fresh}b -i carol.identity --party {fresh}.json --listen 127.0.0.1:0",
    "broker status broker",
)


@dataclass(frozen=True, kw_only=True)
class Took:
    """Milliseconds of one process: its processor time, and the clock's."""

    processor: float
    clock: float


def one(command: list[str], folder: Path) -> Took:
    """A fresh process, whose output nobody reads. Raises `SystemExit` where it fails: a refusal is no measure."""
    begun = time.perf_counter()
    environment = os.environ | {"STRONGROOM_PASSPHRASE": "correct horse"}
    environment.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # in many a container; it makes each start compile everything anew
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    clock = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode and command[1:2] != [
        "doctor"
    ]:  # which leaves with 1 where a machine lacks something
        raise SystemExit(f"{command}: {process.returncode}: {said.decode()[-300:]}")
    return Took(processor=1000 * (usage.ru_utime + usage.ru_stime), clock=1000 * clock)


def world(folder: Path) -> None:
    """Parties, a disk, a contract, evidence with endorsements, and a proof pack."""
    for module in ("packs", "evidence_folder"):
        subprocess.run([sys.executable, "-m", f"strongroom_testing.{module}", "."], cwd=folder, check=True)
    (folder / "flights").mkdir()
    (folder / "flights/flights.csv").write_text("a,b\n")
    one([STRONGROOM, "proof", "export", "run", "--out", "run.proof"], folder)
    one([STRONGROOM, "identity", "new", "carol"], folder)
    one([STRONGROOM, "broker", "init", "broker", "-i", "carol.identity", "--listen", "127.0.0.1:0"], folder)
    one([STRONGROOM, "seal", "flights", "-i", "carol.identity", "--name", "flights", "--out", "."], folder)


def measure(folder: Path) -> dict[str, Took]:
    """The medians of every command, taken in turns."""
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        TYPER: [sys.executable, "-c", "import typer"],
        SQLALCHEMY: [sys.executable, "-c", "import sqlalchemy.dialects.sqlite"],
        "strongroom --help": [STRONGROOM, "--help"],
    }
    commands |= {f"{verb} --help": [STRONGROOM, verb, "--help"] for verb in VERBS}
    commands |= {text: [STRONGROOM, *text.split()] for text in TYPED + WITH_PASSPHRASE}
    took: dict[str, list[Took]] = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            result = one([word.format(fresh=f"out{turn}") for word in command], folder)
            if turn:  # the first compiles bytecode and fills the page cache
                took[name].append(result)
    return {
        name: Took(
            processor=statistics.median(each.processor for each in measured),
            clock=statistics.median(each.clock for each in measured),
        )
        for name, measured in took.items()
    }


def run() -> list[dict[str, object]]:
    """Rows (what, processor time of ours and the clock of all, aim)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world(folder)
        took = measure(folder)
    bare = took.pop(BARE)
    rows = [row(BARE, f"{bare.processor:.0f} ms, clock {bare.clock:.0f} ms")]
    for name, each in took.items():
        aim = "" if name in (TYPER, SQLALCHEMY, *WITH_PASSPHRASE) else AIM
        ours = each.processor - bare.processor
        rows.append(row(name.split(" --endors")[0], f"{ours:.0f} ms ours, clock {each.clock:.0f} ms", aim))
    return rows


if __name__ == "__main__":
    show(run())
