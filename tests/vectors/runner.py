"""Every case of a folder of recorded evidence, verified at its `verify_at` and compared with its label.

    <folder>/<tee>/<case>/case.json and the files that it names; `adapters/<tee>.py` turns them into arguments

Outcomes have the words of the product (appraisal/standing.py): verified, simulated (by another root than a pinned one),
refused, cannot tell (no signature could be verified); none of them but the first two agrees with the label "accept".
A case agrees when verifying it and asking the default policy give `expected.verdict`, and, where given, `strict_verdict`
under strict options, `tcb_status` and `advisory_ids`. Nothing is skipped: a TEE without an adapter, an adapter that
fails, an error that is none of ours are mismatches. A disagreement that docs/evidence-disagreements.md argues, in a
heading "### `<tee>/<case>`: <our verdict>", is shown as argued, for the project's own folder alone.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.appraisal import standing
from strongroom.appraisal.default import default_policy
from strongroom.appraisal.wording.sentences import explain
from strongroom.errors import EvidenceRefused, Malformed, Refused
from strongroom.evidence import roots as pinned
from strongroom.evidence import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.model.claims import Claims
    from tests.vectors.loaded import Loaded

PROJECT = Path(__file__).parents[2]
DEFAULT = PROJECT.parent / "shared" / "vectors"
DISAGREEMENTS = PROJECT / "docs" / "evidence-disagreements.md"
AGREES, MISMATCH, ARGUED = "agrees", "mismatch", "argued"
SIGNED = frozenset({standing.VERIFIED, standing.SIMULATED})
AGREEING = {
    "accept": SIGNED,
    "accept-partial": SIGNED,
    "crypto_valid": SIGNED,
    "reject": frozenset({standing.REFUSED}),
    "unknown": frozenset({standing.CANNOT_TELL}),
}
"""The outcomes that agree with a label."""
_REFUSALS = (EvidenceRefused, Refused, Malformed)
_ARGUED = re.compile(r"^### `(?P<case>[^`]+)`: (?P<verdict>\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a verification: a word of `standing`, or `error` (ours). check: what refused, or the error."""

    verdict: str
    check: str = ""
    detail: str = ""
    claims: Claims | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One case compared with its label. `state` is agrees, mismatch or argued."""

    case: str
    tee: str
    state: str
    expected: str
    outcome: Outcome
    partial: bool = False
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def folder() -> Path:
    """The folder that the environment names, or the default one."""
    return Path(os.environ.get("STRONGROOM_VECTORS") or DEFAULT)


def run(root: Path) -> list[Result]:
    """Every case below `root`, in order of their names."""
    return [run_case(path) for path in cases(root)]


def run_case(path: Path) -> Result:
    """One case folder."""
    result = _case(path)
    if path.parents[1].resolve() != DEFAULT.resolve():
        return result
    return _argue(result, argued())


def cases(root: Path) -> Iterator[Path]:
    """The case folders; one without its case.json is a case too, and a mismatch."""
    yield from sorted(path for path in root.glob("*/*") if path.is_dir())


def argued() -> dict[str, str]:
    """Our verdict by case, for the cases that the page of disagreements argues."""
    if not DISAGREEMENTS.is_file():
        return {}
    return {found["case"]: found["verdict"] for found in _ARGUED.finditer(DISAGREEMENTS.read_text())}


def _argue(result: Result, known: dict[str, str]) -> Result:
    verdict = known.get(result.case)
    if verdict is None:
        return result
    if result.state == AGREES:
        detail = "the case agrees with its label: take its argument out of the page"
        return replace(result, state=MISMATCH, outcome=replace(result.outcome, check="argued", detail=detail))
    return replace(result, state=ARGUED) if result.outcome.verdict in AGREEING.get(verdict, ()) else result


def _case(path: Path) -> Result:
    name = f"{path.parent.name}/{path.name}"
    expected = "a case that can be read"
    began = time.perf_counter()
    partial, notes = False, ()
    try:
        case = json.loads((path / "case.json").read_bytes())
        expected = str(case["expected"]["verdict"])
        adapter = importlib.import_module(f"tests.vectors.adapters.{path.parent.name}")
        outcome, strict, partial, notes = _judge(adapter, path, case)
    except Exception as cause:  # noqa: BLE001 - whatever it is, the case is not silently passed over
        outcome, strict, case = _error(cause), None, {}
    state, outcome, expected = _compare(case.get("expected", {}), expected, outcome, strict)
    return Result(
        case=name,
        tee=path.parent.name,
        state=state,
        expected=expected,
        outcome=outcome,
        partial=partial,
        notes=notes,
        seconds=time.perf_counter() - began,
    )


def _judge(adapter, path: Path, case: dict) -> tuple[Outcome, Outcome | None, bool, tuple[str, ...]]:
    """The outcome by the default policy, the one by strict options, whether only a part was there, and notes."""
    try:
        loaded = adapter.load(path, case)
    except _REFUSALS as cause:
        return _refusal(cause), None, False, ()
    wanted = case["expected"]["verdict"]
    if (
        wanted == "unknown"
        or (wanted == "accept-partial" and loaded.evidence is None)
        or loaded.evidence is None
    ):
        return _part(loaded, wanted), None, True, loaded.notes
    outcome = _whole(loaded, policy=wanted != "crypto_valid")
    strict = _whole(loaded, strict=True) if "strict_verdict" in case["expected"] else None
    return outcome, strict, False, loaded.notes


def _whole(loaded: Loaded, *, policy: bool = True, strict: bool = False) -> Outcome:
    try:
        claims = verify.verify(
            loaded.evidence, loaded.endorsements, binding=loaded.binding, roots=loaded.roots, now=loaded.now
        )
    except _REFUSALS as cause:
        return _refusal(cause)
    except Exception as cause:  # noqa: BLE001 - a verifier raises nothing else: that is a finding, not a refusal
        return _error(cause)
    checks = default_policy(claims, simulated=loaded.roots != pinned.PINNED, strict=strict) if policy else ()
    for check in checks:
        if not check.ok:
            return Outcome(
                verdict=standing.REFUSED, check=check.name, detail=explain(check).got, claims=claims
            )
    for other in loaded.others:
        outcome = _whole(other, policy=policy, strict=strict)
        if outcome.verdict not in SIGNED:
            return outcome
    return Outcome(verdict=standing.word(claims, vouched=True), claims=claims)


def _part(loaded: Loaded, wanted: str) -> Outcome:
    """A case that is no whole evidence: what is there must hold, and the whole must not be accepted."""
    if loaded.partial is None:
        return Outcome(verdict="error", check="adapter", detail="gives neither evidence nor a part to verify")
    try:
        loaded.partial()
    except _REFUSALS as cause:
        return _refusal(cause)
    except Exception as cause:  # noqa: BLE001 - as above
        return _error(cause)
    if wanted == "unknown" and loaded.evidence is not None and _whole(loaded).verdict != standing.REFUSED:
        return Outcome(verdict="error", check="unknown", detail="not refused, though its key is nowhere")
    return Outcome(verdict=standing.VERIFIED if loaded.signed else standing.CANNOT_TELL)


def _refusal(cause: EvidenceRefused | Refused | Malformed) -> Outcome:
    check = cause.check if isinstance(cause, EvidenceRefused) else cause.code
    return Outcome(verdict=standing.REFUSED, check=check, detail=cause.message)


def _error(cause: Exception) -> Outcome:
    return Outcome(verdict="error", check=type(cause).__name__, detail=str(cause)[:400])


def _compare(
    labels: dict, expected: str, outcome: Outcome, strict: Outcome | None
) -> tuple[str, Outcome, str]:
    if outcome.verdict not in AGREEING.get(expected, ()):
        return MISMATCH, outcome, expected
    if strict is not None and strict.verdict not in AGREEING.get(labels["strict_verdict"], ()):
        return MISMATCH, strict, f"{labels['strict_verdict']} (strict)"
    if outcome.claims is not None:
        status = labels.get("tcb_status")
        if status is not None and outcome.claims.status != status:
            return (
                MISMATCH,
                replace(outcome, check="status", detail=outcome.claims.status),
                f"status {status}",
            )
        advisories = labels.get("advisory_ids")
        if advisories is not None and set(outcome.claims.advisories) != set(advisories):
            got = ", ".join(sorted(outcome.claims.advisories))
            return MISMATCH, replace(outcome, check="advisories", detail=got), ", ".join(sorted(advisories))
    return AGREES, outcome, expected
