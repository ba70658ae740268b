"""`python -m tests.mutants`: a seeded sample of mutants of the judging modules against the tests that reach them.

Exit code 0 when at least 97 % of the mutants that are not equivalent were killed and every survivor has its
reason in `reviewed.toml`. `--state FOLDER` keeps what was measured and every result: a run goes on where it ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests import judging, probes
from tests.mutants import mutate, review, session

ROOT = judging.ROOT
WANTED = 0.97
FOLDERS = (
    *(f"tests/unit/{name}" for name in ("model", "encoding", "crypto", "ledger", "evidence", "appraisal")),
    *(f"tests/unit/{name}" for name in ("broker", "authority", "agent/test_agreed.py")),
    *(
        f"tests/unit/images/test_{name}.py"
        for name in (
            "layers",
            "layer_forms",
            "strange_layers",
            "strange_images",
            "convert_tar",
            "convert_image",
        )
    ),
    *(f"tests/unit/images/test_{name}.py" for name in ("oci_blobs", "oci_documents")),
)


def _digest(patterns: tuple[str, ...]) -> str:
    state = hashlib.sha256(sys.version.encode())
    for path in sorted(one for pattern in patterns for one in ROOT.glob(pattern)):
        state.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:16]


def _sample(size: int, modules: list[str], seed: str) -> list[mutate.Mutant]:
    """Rounds of one mutant of each module until `size` are drawn that are not known to be equivalent."""
    queues = [
        mutate.drawn(mutate.mutants(module, judging.path(module).read_text()), seed) for module in modules
    ]
    out: list[mutate.Mutant] = []
    for turn in zip_longest(*queues):
        for mutant in filter(None, turn):
            if len(out) == size:
                return out
            if not review.equivalent(mutant):
                out.append(mutant)
    return out


def _reach(state: Path, *, keep: bool) -> dict:
    """Which tests reach which block: measured when sources or tests have changed since the last time."""
    path = state / f"reach-{_digest(('src/strongroom/**/*.py', 'tests/**/*.py'))}.json"
    older = sorted(state.glob("reach-*.json"), key=lambda one: one.stat().st_mtime)
    if keep and older:
        path = older[-1]
    if not path.exists():
        print("measuring which tests reach what, minutes", flush=True)

        def work() -> int:
            recorder = probes.Recorder()
            probes.install(recorder, blocks=True)
            pytest.main([*session.OPTIONS, *FOLDERS], plugins=[session.Reach(recorder, path)])
            return 0

        session.in_fork(work, 3 * 3600, state / "reach.log")
        if not path.exists():
            sys.exit(f"what tests reach was not measured; the end of {state / 'reach.log'} says why")
    return json.loads(path.read_text())


class _Results:
    """Results as they come, one JSON object a line, so that a run that was cut short goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict]:
        if not self.path.exists():
            return {}
        return {one["key"]: one for one in map(json.loads, self.path.read_text().splitlines())}

    def __call__(self, mutant: mutate.Mutant, work, tests: int, limit: float) -> None:
        log = self.path.with_suffix(f".{os.getpid()}.log")
        status = session.in_fork(work, limit, log) if tests else 0
        text = log.read_text(errors="replace") if tests else ""
        killer = next((line for line in text.splitlines() if "KILLER " in line), "").partition("KILLER ")[2]
        outcome = {None: "timeout", 0: "survived", 5: "survived", 98: "alone", 3: "broken", 4: "broken"}.get(
            status, "killed"
        )
        if outcome != "alone":
            entry = {"key": mutant.key, "outcome": outcome, "tests": tests, "killer": killer}
            with self.path.open("a") as out:
                out.write(json.dumps(entry) + "\n")
        log.unlink(missing_ok=True)


def _warm(mutants: list[mutate.Mutant], reach: dict, results: _Results) -> int:
    plugin = session.Warm(mutants, reach, results)
    return int(pytest.main([*session.OPTIONS, *FOLDERS], plugins=[plugin]))


def _share(mutants: list[mutate.Mutant], reach: dict, results: _Results, log: Path) -> None:
    """One job's mutants: those of functions in a warm session, then the others one by one."""
    done = results.read()
    session.in_fork(
        lambda: _warm([one for one in mutants if one.scope and one.key not in done], reach, results), 1e6, log
    )
    done = results.read()
    for mutant in mutants:
        if mutant.key not in done:
            session.alone(mutant, reach, results)


def _print(sample: list[mutate.Mutant], results: dict[str, dict]) -> bool:
    console = Console(width=150)
    counts: dict[str, Counter] = defaultdict(Counter)
    survivors = []
    for mutant in sample:
        outcome = results.get(mutant.key, {}).get("outcome", "not run")
        counts[mutant.module][outcome] += 1
        if outcome == "survived":
            survivors.append(mutant)
    table = Table(title="Mutants of the judging modules, equivalent ones left out")
    for column in ("module", "tried", "killed", "survived"):
        table.add_column(column, justify="left" if column == "module" else "right")
    total: Counter = Counter()
    for module, count in sorted(counts.items()):
        count["killed"] += count.pop("timeout", 0)
        total += count
        table.add_row(
            module, str(count["killed"] + count["survived"]), str(count["killed"]), str(count["survived"])
        )
    tried = total["killed"] + total["survived"]
    share = total["killed"] / tried if tried else 0.0
    table.add_section()
    table.add_row(f"all ({share:.1%})", str(tried), str(total["killed"]), str(total["survived"]))
    console.print(table)
    unexplained = 0
    for mutant in survivors:
        reason = review.reason(mutant)
        unexplained += not reason
        print(f"\n{mutant.key} {mutant.module}:{mutant.line} {mutant.scope} ({mutant.kind})")
        print(f"  - {mutate.plain(mutant.old)[:140]}\n  + {mutate.plain(mutant.new)[:140]}")
        print(f"  {reason or 'NO REASON in reviewed.toml: write a test that kills it'}")
    print(f"\n{tried} tried, {share:.1%} killed, {len(survivors)} survived, {unexplained} without a reason")
    if total["not run"]:
        print(f"{total['not run']} were not run")
    return share >= WANTED and not unexplained and not total["not run"]


def main() -> None:
    """Draw, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=600, help="how many that are not equivalent")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--module", action="append", help="only this one, like crypto.pki.x509 (repeat for more)"
    )
    parser.add_argument("--state", type=Path, default=ROOT / ".mutants")
    parser.add_argument(
        "--keep-reach", action="store_true", help="use what was measured before the last edits"
    )
    parser.add_argument("--again", action="store_true", help="try survivors of an earlier run again")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.dont_write_bytecode = True
    chosen.state.mkdir(exist_ok=True)
    modules = [f"strongroom.{name}" for name in chosen.module or ()] or list(judging.MODULES)
    if unknown := set(modules) - set(judging.MODULES):
        sys.exit(f"not a judging module: {', '.join(sorted(unknown))}")
    sample = _sample(chosen.sample, modules, chosen.seed)
    reach = _reach(chosen.state, keep=chosen.keep_reach)
    results = _Results(chosen.state / f"results-{_digest(('src/strongroom/**/*.py',))}.jsonl")
    if chosen.again and results.path.exists():
        kept = [json.dumps(one) for one in results.read().values() if one["outcome"] != "survived"]
        results.path.write_text("".join(line + "\n" for line in kept))
    children = []
    for job in range(chosen.jobs):
        child = os.fork()
        if child == 0:
            _share(sample[job :: chosen.jobs], reach, results, chosen.state / f"session-{job}.log")
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    sys.exit(0 if _print(sample, results.read()) else 1)


if __name__ == "__main__":
    main()
