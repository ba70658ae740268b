"""What `strongroom evidence` reads: evidence of any kind, endorsements, policies, references, bindings, times."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strongroom import files
from strongroom.cli import options
from strongroom.encoding import fields
from strongroom.errors import Misuse
from strongroom.evidence import roots
from strongroom.evidence.wrappings import recognise, recognise_endorsements
from strongroom.model import endorsements as endorsements_model
from strongroom.model import party as party_model
from strongroom.model.binding import Preset
from strongroom.model.contracts import policy_file
from strongroom.model.endorsements import Endorsements
from strongroom.model.identifiers import ContractDigest

if TYPE_CHECKING:
    from strongroom.evidence.wrappings.recognise import Recognised
    from strongroom.model.contracts.policy_file import Extra, PolicyFile
    from strongroom.model.evidence import Evidence


def expected(
    report_data: str | None,
    extra_data: str | None,
    nonce: str | None,
    user_data: str | None,
    public_key: str | None,
    contract: str | None,
) -> Preset:
    """What the evidence must be bound to, as options say it in hexadecimal. Raises `Misuse` when nothing is."""
    given = {
        "report_data": report_data,
        "extra_data": extra_data,
        "nonce": nonce,
        "user_data": user_data,
        "public_key": public_key,
    }
    values = {
        name: _hexadecimal(f"--{name.replace('_', '-')}", text)
        for name, text in given.items()
        if text is not None
    }
    if len(values.get("report_data", bytes(64))) != 64:
        raise Misuse(
            f"--report-data: {len(values['report_data'])} bytes, expected 64",
            hint="give all 128 hexadecimal digits: nothing is padded or cut here",
        )
    if not values:
        raise Misuse(
            "no option says what the evidence must be bound to",
            hint="give --report-data, --extra-data, --nonce or --user-data: what you asked for, in hexadecimal",
        )
    if contract is not None:
        values["contract"] = bytes.fromhex(contract_digest(contract).removeprefix("sha256:"))
    return Preset(values=values)


def contract_digest(text: str) -> ContractDigest:
    """What --contract says. Raises `Misuse`."""
    if fields.DIGEST.fullmatch(text) is None:
        raise Misuse(
            f"--contract: expected sha256: and 64 lower-case hexadecimal digits, got {text[:100]!r}",
            hint="`strongroom contract verify FILE` prints a contract's digest",
        )
    return ContractDigest(text)


def evidence(path: Path, place: str | None = None) -> Recognised:
    """The evidence in a file of any kind. place: which of several pieces."""
    return files.parsed(
        path, lambda data: recognise.recognise(data, place=place), max_bytes=recognise.MAX_FILE
    )


def pieces(path: Path, place: str | None = None) -> tuple[Recognised, ...]:
    """Every piece of evidence in a file of any kind; the one at `place` alone where one is asked for."""
    if place is not None:
        return (evidence(path, place),)
    return files.parsed(path, recognise.pieces, max_bytes=recognise.MAX_FILE)


def with_devices(one: Evidence, devices: list[Path]) -> Evidence:
    """The evidence, with that of attached devices out of files of any kind, all that are in each, after those that it has."""
    added = tuple(piece.evidence for path in devices for piece in pieces(path))
    return replace(one, devices=(*one.devices, *added))


def endorsements(path: Path | None, found: Recognised) -> Endorsements:
    """Those of a file or folder, with what came beside the evidence where they lack it.

    Files are read as vendors and their tools give them, whatever they are called; a file that is named for a part
    (`vek.der`, `device-0.ocsp-1.der` for the device at place 0) is that part. All of them are judged by the verifier, wherever
    they come from.
    """
    parts = dict(found.endorsements)
    if path is not None:
        given = (
            {one.name: one for one in path.iterdir() if one.is_file()} if path.is_dir() else {path.name: path}
        )
        files_read = {
            name: files.read(one, max_bytes=2 * endorsements_model.MAX_BYTES) for name, one in given.items()
        }
        parts.update(recognise_endorsements.parts(files_read, evidence=found.evidence))
    return Endorsements(parts=parts)


def policy(
    path: Path, references: list[Path], trust: list[Path], *, vouch: list[Path], tee: str, now: datetime
) -> PolicyFile:
    """The policy, with what signed reference files add to it.

    vouch: unsigned CoRIM files that the user vouches for.
    """
    keys = [
        files.parsed(one, party_model.parse, max_bytes=party_model.MAX_BYTES).signing_key for one in trust
    ]
    extra = tuple(
        added
        for one in [*references, *vouch]
        for added in _references(one, keys, tee=tee, vouched=one in vouch, now=now)
    )

    def parse(data: bytes) -> PolicyFile:
        return policy_file.parse(data, pinned=lambda one: roots.HARDWARE.get(one, frozenset()), extra=extra)

    return files.parsed(path, parse, max_bytes=policy_file.MAX_BYTES)


def _references(path: Path, keys: list[Any], *, tee: str, vouched: bool, now: datetime) -> tuple[Extra, ...]:
    from strongroom.appraisal import intoto
    from strongroom.appraisal.reference import corim as reference_corim
    from strongroom.appraisal.reference import values as reference

    def read(data: bytes) -> tuple[Extra, ...]:
        if data.lstrip()[:1] == b"{":
            made = reference.open_signed(data.strip(), trusted=keys, now=now)
            return tuple(one.extra() for one in made.platforms)
        corim = reference_corim.open_corim(data, tee=tee, trusted=keys, unsigned_is_trusted=vouched, now=now)
        return (corim.extra(),)

    return files.parsed(path, read, max_bytes=intoto.MAX_FILE)


def moment(text: str | None, option: str = "--at") -> datetime:
    """A time in UTC, now where none is given."""
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    if fields.TIME.fullmatch(text) is None:
        raise Misuse(
            f"{option}: expected a time such as 2026-11-24T12:00:00Z, got {text[:40]!r}",
            hint="give date and time to the second, in UTC, with T between them and Z at the end",
        )
    with options.value_of(option, takes="a time like 2026-11-24T12:00:00Z"):
        return fields.Fields({"time": text}, option).time("time")


def _hexadecimal(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise Misuse(
            f"{option}: expected hexadecimal digits, two for each byte, got {text[:40]!r}",
            hint=f"for example {option} 0a1b2c",
        ) from None
