"""Evidence by files of any kind, for whoever relies on it: shown, compared, judged by a policy, and judged again by newer endorsements.

Nothing here reads a clock or asks the network: endorsements are files that the caller has (`fetch.endorsements` gets them).
What one of these functions needs alone is imported in it: each is a process of its own on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.appraisal import evaluate, standing
from strongroom.errors import PolicyDenied
from strongroom.evidence import roots
from strongroom.evidence.wrappings import recognise, recognise_endorsements
from strongroom.model import endorsements as endorsements_model
from strongroom.model.contracts import policy_file
from strongroom.model.endorsements import Endorsements
from strongroom.parties import papers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from strongroom.appraisal.evaluate import Appraisal
    from strongroom.appraisal.forecast import Forecast
    from strongroom.crypto.sign import VerifyingKey
    from strongroom.evidence.describe.show import ShownField
    from strongroom.evidence.wrappings.recognise import Recognised
    from strongroom.model.binding import Preset
    from strongroom.model.contracts.policy_file import Extra, PolicyFile
    from strongroom.model.evidence import Evidence
    from strongroom.model.identifiers import ContractDigest


@dataclass(frozen=True, kw_only=True)
class ShownEvidence:
    """What a piece of evidence says of itself, nothing of it verified."""

    recognised: Recognised
    fields: tuple[ShownField, ...]


@dataclass(frozen=True, kw_only=True)
class ChangedField:
    """A field by its part and name, before and after; None where one of the two pieces lacks it."""

    field: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """A policy, and signed reference files that add to it when a party of `trust` signed them.

    vouched: unsigned CoRIM files that the caller vouches for.
    """

    path: Path
    references: Sequence[Path] = ()
    vouched: Sequence[Path] = ()
    trust: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class JudgedEvidence:
    """Evidence with the verdict on it. known: what is known of it whatever the policy says (`appraisal.standing`). policy: its name.

    nonce: the question that it answers, as its binding has it: the nonce, or else the report data; empty where the binding has neither.
    """

    evidence: Evidence
    verdict: Appraisal
    known: str
    policy: str
    nonce: bytes = b""

    def require(self) -> None:
        """Raise `PolicyDenied` with the verdict unless it accepts."""
        if not self.verdict.accepted:
            raise PolicyDenied(
                "the evidence is not accepted",
                verdict=self.verdict,
                hint="do what is said with each check that failed",
            )


def load_evidence(path: Path, *, place: str | None = None) -> Recognised:
    """The evidence in a file of any kind. place: which of several pieces. Raises `Malformed`."""
    return files.parsed(
        path, lambda data: recognise.recognise(data, place=place), max_bytes=recognise.MAX_FILE
    )


def load_pieces(path: Path, *, place: str | None = None) -> tuple[Recognised, ...]:
    """Every piece of evidence in a file of any kind; the one at `place` alone where one is asked for. Raises `Malformed`."""
    if place is not None:
        return (load_evidence(path, place=place),)
    return files.parsed(path, recognise.pieces, max_bytes=recognise.MAX_FILE)


def load_endorsements(path: Path | None, recognised: Recognised) -> Endorsements:
    """Those of a file or folder, with what came beside the evidence where they lack it. Raises `Malformed`.

    Files are read as vendors and their tools give them, whatever they are called; a file that is named for a part
    (`vek.der`, `device-0.ocsp-1.der` for the device at place 0) is that part. All of them are judged by the verifier, wherever
    they come from.
    """
    parts = dict(recognised.endorsements)
    if path is not None:
        paths = (
            {file.name: file for file in path.iterdir() if file.is_file()}
            if path.is_dir()
            else {path.name: path}
        )
        contents = {
            name: files.read(file, max_bytes=2 * endorsements_model.MAX_BYTES) for name, file in paths.items()
        }
        parts.update(recognise_endorsements.parts(contents, evidence=recognised.evidence))
    return Endorsements(parts=parts)


def load_policy(policy: PolicyFiles, *, tee: str, now: datetime) -> PolicyFile:
    """The policy for evidence of `tee`, with what reference files add to it. Raises `Malformed`, `Refused`."""
    keys = [papers.load_party(path).signing_key for path in policy.trust]
    extra = tuple(
        added
        for path in (*policy.references, *policy.vouched)
        for added in _references(path, keys, tee=tee, vouched=path in policy.vouched, now=now)
    )

    def parse(data: bytes) -> PolicyFile:
        return policy_file.parse(data, pinned=lambda of: roots.HARDWARE.get(of, frozenset()), extra=extra)

    return files.parsed(policy.path, parse, max_bytes=policy_file.MAX_BYTES)


def show_evidence(path: Path, *, place: str | None = None) -> tuple[ShownEvidence, ...]:
    """Every piece of evidence in a file, field by field; the one at `place` alone where one is asked for."""
    from strongroom.evidence.describe import show  # noqa: PLC0415 - reads every format, and judging reads one

    return tuple(
        ShownEvidence(
            recognised=piece,
            fields=show.describe(piece.evidence),
        )
        for piece in load_pieces(path, place=place)
    )


def compare_evidence(first: Path, second: Path, *, place: str | None = None) -> tuple[ChangedField, ...]:
    """The fields in which two pieces differ, those of the first before those that only the second has. Nothing is verified."""
    before, after = (_by_field(load_evidence(path, place=place)) for path in (first, second))
    return tuple(
        ChangedField(field=field, before=before.get(field), after=after.get(field))
        for field in dict.fromkeys((*before, *after))
        if before.get(field) != after.get(field)
    )


def judge_evidence(
    path: Path,
    *,
    policy: PolicyFiles,
    binding: Preset,
    now: datetime,
    place: str | None = None,
    devices: Iterable[Path] = (),
    endorsements: Path | None = None,
    contract_digest: ContractDigest | None = None,
) -> JudgedEvidence:
    """Verify the evidence in a file and judge it. A denial is a verdict, not an error; files that do not parse raise `Malformed`.

    devices: files with evidence of attached devices; all pieces of each count, after those that the evidence has. endorsements: a file
    or a folder. contract_digest: of a contract that the room must have measured.
    """
    recognised = load_evidence(path, place=place)
    attached = tuple(piece.evidence for file in devices for piece in load_pieces(file))
    evidence = replace(recognised.evidence, devices=(*recognised.evidence.devices, *attached))
    rules = load_policy(policy, tee=evidence.tee, now=now)
    endorsed = load_endorsements(endorsements, recognised)
    verdict = evaluate.evaluate(
        evidence, endorsed, rules, binding=binding, now=now, contract_digest=contract_digest
    )
    known = standing.word(verdict.claims, vouched=endorsements_model.vouches(endorsed, evidence.tee))
    nonce = binding.values.get("nonce", b"") or binding.values.get("report_data", b"")
    return JudgedEvidence(evidence=evidence, verdict=verdict, known=known, policy=rules.name, nonce=nonce)


def forecast_evidence(
    path: Path,
    *,
    policy: PolicyFiles,
    binding: Preset,
    endorsements: Path,
    newer: Path,
    then: datetime,
    later: datetime,
    place: str | None = None,
) -> Forecast:
    """Judge the evidence in a file by `endorsements` at `then`, and by `newer` ones at `later`. Raises `Malformed` for its files."""
    from strongroom.appraisal import forecast as forecasting  # noqa: PLC0415 - nothing else here needs it

    recognised = load_evidence(path, place=place)
    rules = load_policy(policy, tee=recognised.evidence.tee, now=then)
    return forecasting.forecast(
        recognised.evidence,
        load_endorsements(endorsements, recognised),
        load_endorsements(newer, recognised),
        rules,
        binding=binding,
        then=then,
        later=later,
    )


def _references(
    path: Path, keys: Sequence[VerifyingKey], *, tee: str, vouched: bool, now: datetime
) -> tuple[Extra, ...]:
    from strongroom.appraisal import intoto  # noqa: PLC0415 - most policies come without reference files
    from strongroom.appraisal.reference import corim  # noqa: PLC0415
    from strongroom.appraisal.reference import values as reference_values  # noqa: PLC0415

    def read(data: bytes) -> tuple[Extra, ...]:
        if data.lstrip()[:1] == b"{":
            release = reference_values.open_signed(data.strip(), trusted=keys, now=now)
            return tuple(platform.extra() for platform in release.platforms)
        return (corim.open_corim(data, tee=tee, trusted=keys, unsigned_is_trusted=vouched, now=now).extra(),)

    return files.parsed(path, read, max_bytes=intoto.MAX_FILE)


def _by_field(recognised: Recognised) -> dict[str, str]:
    """Each field's value by its part and name; a name that comes again is numbered."""
    from strongroom.evidence.describe import show  # noqa: PLC0415 - as above

    values = {"kind": recognised.kind}
    for shown in show.describe(recognised.evidence):
        field = first = f"{shown.part}: {shown.name}"
        number = 1
        while field in values:
            number += 1
            field = f"{first} ({number})"
        values[field] = shown.value
    return values
