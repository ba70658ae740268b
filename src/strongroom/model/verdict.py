"""A verdict: `Accepted` or `Denied`, with every check, in order.

`issue()` and `release()` take `Accepted`, so that code which forgets to decide does not type-check.
Only `appraisal` makes one (an architecture test holds that).

`to_json` is the record form, which ledgers and proof packs keep for ever: names and data, no sentence. What a check
means is put into words, by its name and data, where somebody reads it (`appraisal.wording`), so that no wording is compared.
In one version of the record form a check's name, and the form of its data, never change their meaning; see
docs/verdicts.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from strongroom.encoding import fields, unexpected
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from strongroom.model.binding import Binding
    from strongroom.model.claims import Claims
    from strongroom.model.identifiers import ContractDigest

VERSION = 1
Data: TypeAlias = "str | int | bool | Sequence[Data] | Mapping[str, Data] | None"
MAX_CHECKS = 256
MAX_TEXT = 4096
_MAX_ITEMS = 256
_MAX_DEPTH = 4
LATER: frozenset[str] = frozenset()
"""What judgement learnt to ask and to claim after records of this version were first kept, by name: a check
(`platform.age`), all checks of a family (`platform.age.`), a claim (`claims.status`, `claims.facts.product`).

A record from before lacks these, and still is what judging again gives. Nothing is ever taken out of this list.
"""
_WORDS = ("expected", "got", "hint", "source")


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a check says to people. source: a public specification's section, or a page of this project's.

    Texts longer than `MAX_TEXT` are cut: they may quote what a stranger wrote.
    """

    expected: str
    got: str
    hint: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        for key in _WORDS:
            object.__setattr__(self, key, getattr(self, key)[:MAX_TEXT])

    def texts(self) -> dict[str, str]:
        """Each text by its name."""
        return {key: getattr(self, key) for key in _WORDS}


@dataclass(frozen=True, kw_only=True)
class Explained(Words):
    """A check as people read it. `hint` says what to do where it failed."""

    name: str
    ok: bool

    def to_json(self) -> dict[str, object]:
        """The object form, for people's programs; never recorded."""
        return {"name": self.name, "ok": self.ok, **self.texts()}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. `name` is stable (`contract.approvals`); so are `expected` and `got`, which are data.

    Data are digests, numbers, times, names, lists and objects of those, and codes (`unsigned`); None is nothing.
    words: what a verifier of evidence found wrong, in its own words. They are for whoever asked, and never recorded:
    they may quote what a stranger wrote into the evidence.
    """

    name: str
    expected: Data
    got: Data
    ok: bool
    words: Words | None = None

    @classmethod
    def judged(cls, name: str, *, expected: Data, got: Data, ok: bool) -> Check:
        """A check that holds where `ok` says so."""
        return cls(name=name, expected=expected, got=got, ok=ok)

    @classmethod
    def equal(cls, name: str, expected: Data, got: Data) -> Check:
        """A check that holds where what was got is what was expected."""
        return cls(name=name, expected=expected, got=got, ok=expected == got)

    @classmethod
    def passed(cls, name: str, *, expected: Data, got: Data) -> Check:
        """A check that holds: what would have failed it was raised before."""
        return cls(name=name, expected=expected, got=got, ok=True)

    @classmethod
    def failed(cls, name: str, *, expected: Data, got: Data, words: Words | None = None) -> Check:
        """A check that fails, whatever was got."""
        return cls(name=name, expected=expected, got=got, ok=False, words=words)

    def to_json(self) -> dict[str, object]:
        """The record form."""
        return {"name": self.name, "expected": self.expected, "got": self.got, "ok": self.ok}

    def to_message(self) -> dict[str, object]:
        """The record form, and the verifier's words where there are any."""
        return self.to_json() if self.words is None else {**self.to_json(), "words": self.words.texts()}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Everything held. Valid until `expires`; for exactly this binding."""

    contract_digest: ContractDigest
    binding: Binding
    claims: Claims
    checks: tuple[Check, ...]
    decided: datetime
    expires: datetime

    def to_json(self) -> dict[str, object]:
        """The record form."""
        return {
            "version": VERSION,
            "result": "accepted",
            "contract": self.contract_digest,
            "decided": fields.format_time(self.decided),
            "expires": fields.format_time(self.expires),
            "claims": self.claims.to_record(),
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True, kw_only=True)
class Denied:
    """At least one check failed. `claims` is None when the evidence itself did not verify."""

    contract_digest: ContractDigest
    claims: Claims | None
    checks: tuple[Check, ...]
    decided: datetime

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, in order."""
        return tuple(check for check in self.checks if not check.ok)

    def to_json(self) -> dict[str, object]:
        """The record form."""
        return {
            "version": VERSION,
            "result": "denied",
            "contract": self.contract_digest,
            "decided": fields.format_time(self.decided),
            "claims": None if self.claims is None else self.claims.to_record(),
            "checks": [check.to_json() for check in self.checks],
        }

    def words(self) -> dict[str, Words]:
        """What those who refused said, by the check's name: for whoever asked, and for nobody else."""
        return {check.name: check.words for check in self.checks if check.words is not None}


Verdict = Accepted | Denied


def read_checks(source: fields.Fields) -> tuple[Check, ...]:
    """Read the `checks` list of a verdict's record form, or of checks in message form. Raises `Malformed`."""
    checks = []
    for item in source.objects("checks", max_items=MAX_CHECKS):
        name = item.text_map_of(("name",), max_length=MAX_TEXT)["name"]
        expected, got = (_data(item.value(key), f"{item.what}.{key}") for key in ("expected", "got"))
        words = _words(item.object("words")) if "words" in item.names() else None
        checks.append(Check(name=name, expected=expected, got=got, ok=item.boolean("ok"), words=words))
        item.done()
    return tuple(checks)


def read_words(source: fields.Fields) -> dict[str, Words]:
    """Read the object form of `Denied.words`. Raises `Malformed`."""
    names = source.names()[:MAX_CHECKS]
    words = {name[:MAX_TEXT]: _words(source.object(name)) for name in names}
    source.done()
    return words


def _words(source: fields.Fields) -> Words:
    words = Words(**source.text_map_of(_WORDS, max_length=MAX_TEXT))
    source.done()
    return words


def as_recorded(replayed: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict's record form, without those of `LATER` that `recorded` lacks: what its maker could have recorded.

    Raises `Malformed` where `recorded` is of another version of the record form.
    """
    version = recorded.get("version")
    if version != VERSION or isinstance(version, bool):
        raise Malformed(
            f"verdict: its record form is version {str(recorded.get('version'))[:20]}, this program judges {VERSION}",
            code="unknown-version",
            hint="verify it with the version of this program that made it, or a later one",
        )
    checks = read_checks(fields.Fields(dict(recorded), "verdict"))
    names = {check.name for check in checks}
    kept = [check for check in replayed["checks"] if check["name"] in names or not _later(check["name"])]
    return {
        **replayed,
        "checks": kept,
        "claims": _claims(replayed["claims"], recorded.get("claims"), "claims."),
    }


def _claims(replayed: Any, recorded: Any, at: str) -> Any:
    if not isinstance(replayed, dict) or not isinstance(recorded, dict):
        return replayed
    return {
        name: _claims(value, recorded.get(name), f"{at}{name}.")
        for name, value in replayed.items()
        if name in recorded or not _later(at + name)
    }


def _later(name: str) -> bool:
    return name in LATER or any(name.startswith(family) for family in LATER if family.endswith("."))


def _data(value: object, what: str, depth: int = 0) -> Data:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    if depth < _MAX_DEPTH and isinstance(value, list | dict) and len(value) <= _MAX_ITEMS:
        if isinstance(value, list):
            return [_data(item, what, depth + 1) for item in value]
        return {key[:MAX_TEXT]: _data(item, what, depth + 1) for key, item in value.items()}
    wanted = (
        f"text of at most {MAX_TEXT} characters, an integer, true, false, null, or a list or object of at most "
        f"{_MAX_ITEMS} of them, nested {_MAX_DEPTH} deep at most"
    )
    raise Malformed(f"{what}: expected {wanted}, got {unexpected.kind(value)}", code="bad-value")
