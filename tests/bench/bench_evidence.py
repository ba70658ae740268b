"""What the evidence library costs beside verification: loading it, reaching a verdict.

Loading: a new process imports `evidence.verify` and one TEE's file, with all that they load (`cryptography` most of all), its
bytecode compiled before, as installers leave it. The interpreter's own start is not counted. "processor": the same in
processor time, which says more than the clock on a busy machine. Verdicts: "first" means that certificates, launch
record, event log and contract signatures have not been seen before, "again" that only the quote and the binding are
new, as for the next room of a contract.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from datetime import timedelta

from strongroom.appraisal import judge
from strongroom.crypto.pki import x509
from strongroom.evidence import tpm, verify
from strongroom.model.binding import Binding, RoomKeys
from strongroom.model.endorsements import NONE
from strongroom.model.verdict import Accepted, Check
from strongroom_testing import contracts
from strongroom_testing.vendors import fake_tpm
from tests.bench import turns

ROUNDS = 300
LOADS = 9
GATES = (Check(name="nonce", expected="fresh", got="fresh", ok=True),)
LOAD = """
import time
clock, processor = time.perf_counter(), time.process_time()
import {modules}
print(time.perf_counter() - clock, time.process_time() - processor)
"""


def forget(_: int) -> None:
    x509._path.cache_clear()
    tpm._predict.cache_clear()
    tpm._launched.cache_clear()


def loading() -> list[dict[str, object]]:
    """Milliseconds to load `evidence.verify` with each TEE's file, and `cryptography`'s X.509 alone."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def load(modules: str) -> tuple[float, float]:
            program = LOAD.format(modules=modules)
            took = []
            for _ in range(LOADS + 1):  # the first one compiles
                done = subprocess.run(
                    [sys.executable, "-c", program],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                took.append([1e3 * float(one) for one in done.stdout.split()])
            return tuple(statistics.median(one[at] for one in took[1:]) for at in (0, 1))

        for tee in verify.VERIFIERS:
            clock, processor = load(f"strongroom.evidence.verify, strongroom.evidence.{tee}")
            what = f"loading the evidence library with {tee}, ms (processor)"
            rows.append(turns.row(what, f"{clock:.0f} ({processor:.0f})", "< 150"))
        clock, processor = load("cryptography.x509")
        rows.append(
            turns.row("loading cryptography.x509 alone, ms (processor)", f"{clock:.0f} ({processor:.0f})")
        )
    return rows


def verdicts(algorithm: str) -> list[dict[str, object]]:
    """Microseconds to verify and to judge evidence of a local room with such a key."""
    scene = contracts.scene(tpm=fake_tpm.FakeTpm(now=contracts.NOW, algorithm=algorithm))
    agreement, roots = scene.agreement(), frozenset({scene.tpm.root})
    cases = []
    for index in range(ROUNDS):
        bound = Binding(
            nonce=index.to_bytes(32, "big"),
            contract_digest=agreement.contract.digest,
            keys=RoomKeys(signing=b"s" * 32, tls=b"t" * 91, kem=b"k" * 1216),
            role="main",
            audience=fake_tpm.digest("audience"),
        )
        cases.append((bound, scene.tpm.evidence(bound)))

    def verified(index: int) -> object:
        bound, evidence = cases[index]
        return verify.verify(evidence, NONE, binding=bound, roots=roots, now=scene.now)

    def decide(index: int) -> object:
        bound, evidence = cases[index]
        return judge.judge(
            agreement,
            evidence,
            NONE,
            binding=bound,
            gates=GATES,
            runs_used=0,
            now=scene.now,
            lifetime=timedelta(hours=1),
        )

    if not isinstance(decide(0), Accepted):
        raise SystemExit("the evidence must be accepted, or this measures a refusal")

    def fresh(index: int) -> None:
        forget(index)
        vars(agreement).pop("_signers", None)

    rows = []
    for name, step in (("verify", verified), ("judge", decide)):
        first = turns.medians({"first": turns.Step(step, fresh)}, ROUNDS)["first"]
        again = turns.medians({"again": turns.Step(step)}, ROUNDS)["again"]
        rows += [
            turns.row(f"{name} tpm {algorithm}, first, µs", round(first)),
            turns.row(f"{name} tpm {algorithm}, again, µs", round(again), "< 1000"),
        ]
    return rows


def run() -> list[dict[str, object]]:
    """Rows for the table of `make bench`."""
    return [*loading(), *verdicts("ecdsa"), *verdicts("rsa")]


if __name__ == "__main__":
    turns.show(run())
