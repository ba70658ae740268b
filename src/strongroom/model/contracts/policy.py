"""What the parties demand of a platform beside its kind, roots, machines and registers: the policy language.

Part of a contract's platform, `platforms[].policy`, and of policy files. No code, no patterns: names and values.
Every key may be absent, and then the strict default below holds; a key that is not known is refused; an empty
list accepts nothing. See docs/policy.md.

Rules (each can only take acceptance away)::

    "profile": "strict" | "physical-attacker"
    "tcb": {component: least}                 claims.tcb, each component by itself
    "facts": {fact: value | [value, …]}       claims.facts, the same type and value
    "products_denied": [line, …]              appraisal/profiles.py names the lines
    "revocation": "checked"                   default: checked wherever the vendor publishes lists
    "devices": {"count", "roots": [digest], "machines": [text], "facts",    default: no devices at all
                "references": [{register: value}], "registers"}             as a platform's own, of each device

Allowances (each stands in place of a strict default)::

    "status": {status: null | end}            default: {"UpToDate": null}
    "advisories": {advisory: end}             default: {}, none
    "vmpl": 0..3                              default: 0
    "max_age_seconds": 1..86400               default: 300, where the TEE states a time
    "waived": [name of a default fact, …]     default: none is waived
    "any_value": [register, …]                default: every register is compared
    "registers": {register: [value, …]}       listed values of a register that references leave out; where they name
                                              it too, both must hold

Ends are times (`YYYY-MM-DDTHH:MM:SSZ`): from then on the allowance is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.encoding import fields, unexpected
from strongroom.errors import Malformed
from strongroom.model.evidence import MAX_DEVICES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

STRICT = "strict"
PHYSICAL_ATTACKER = "physical-attacker"
PROFILES = (STRICT, PHYSICAL_ATTACKER)
CHECKED = "checked"
NOT_COMPARED = "not compared"
"""The value of facts that a verifier had nothing to compare with. No policy takes it for a pass."""

ANY_MACHINE = "any"  # alone in a list of machines: whichever the roots vouch for
MAX_ENTRIES = 64
MAX_VALUES = 64
MAX_TEXT = 400
MAX_DEVICE_REGISTERS = 255  # SPDM's; verdicts tell of all of them in one check
MAX_SVN = (1 << 53) - 1

Value = str | int | bool


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The attached devices that a room has: how many, under which roots, which, and what each must be.

    references are alternatives, each a set of register values; registers are listed values of those that a reference
    leaves out. Every register of a device is compared; where there are neither, none was, which is no pass.
    """

    count: int
    roots: tuple[str, ...]
    machines: tuple[str, ...]
    facts: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    references: tuple[dict[str, str], ...] = ()
    registers: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The object form."""
        document: dict[str, object] = {
            "count": self.count,
            "roots": list(self.roots),
            "machines": list(self.machines),
            "facts": _facts_json(self.facts),
        }
        if self.references:
            document["references"] = [dict(registers) for registers in self.references]
        if self.registers:
            document["registers"] = {name: list(values) for name, values in self.registers.items()}
        return document


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A platform's policy. None and empty mean: the key was absent, the strict default holds.

    An empty `status` (not None) accepts no status. See the file's docstring for the meaning of each.
    """

    profile: str = ""
    tcb: dict[str, int] = field(default_factory=dict)
    facts: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    registers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    products_denied: tuple[str, ...] = ()
    revocation: str = ""
    devices: Devices | None = None
    status: dict[str, datetime | None] | None = None
    advisories: dict[str, datetime] = field(default_factory=dict)
    vmpl: int | None = None
    max_age_seconds: int | None = None
    waived: tuple[str, ...] = ()
    any_value: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The object form, without the keys that are absent."""
        document: dict[str, object] = {
            "profile": self.profile or None,
            "tcb": dict(self.tcb) or None,
            "facts": _facts_json(self.facts) or None,
            "products_denied": list(self.products_denied) or None,
            "revocation": self.revocation or None,
            "devices": None if self.devices is None else self.devices.to_json(),
            "status": None if self.status is None else _ends_json(self.status),
            "advisories": _ends_json(self.advisories) or None,
            "vmpl": self.vmpl,
            "max_age_seconds": self.max_age_seconds,
            "waived": list(self.waived) or None,
            "any_value": list(self.any_value) or None,
            "registers": {name: list(values) for name, values in self.registers.items()} or None,
        }
        return {key: value for key, value in document.items() if value is not None}


DEFAULT = Policy()
"""Of a platform that has no `policy`: every strict default."""


def read(source: fields.Fields) -> Policy:
    """Read the object form. Raises `Malformed`."""
    has = set(source.names())
    policy = Policy(
        profile=source.choice("profile", PROFILES) if "profile" in has else "",
        tcb=read_minimums(source.object("tcb")) if "tcb" in has else {},
        facts=_facts(source.object("facts")) if "facts" in has else {},
        registers=_registers(source.object("registers")) if "registers" in has else {},
        products_denied=_texts(source, "products_denied") if "products_denied" in has else (),
        revocation=source.choice("revocation", (CHECKED,)) if "revocation" in has else "",
        devices=_devices(source.object("devices")) if "devices" in has else None,
        status=_status(source.object("status")) if "status" in has else None,
        advisories=_advisories(source.object("advisories")) if "advisories" in has else {},
        vmpl=source.integer("vmpl", low=0, high=3) if "vmpl" in has else None,
        max_age_seconds=source.integer("max_age_seconds", low=1, high=86_400)
        if "max_age_seconds" in has
        else None,
        waived=_texts(source, "waived") if "waived" in has else (),
        any_value=_texts(source, "any_value") if "any_value" in has else (),
    )
    source.done()
    if not policy.products_denied and "products_denied" in has:
        raise Malformed(
            f"{source.what}.products_denied: empty; leave it out where no product line is denied",
            code="empty",
        )
    return policy


def _texts(source: fields.Fields, key: str) -> tuple[str, ...]:
    return source.texts(key, max_items=MAX_ENTRIES, max_length=64)


def _names(source: fields.Fields, *, most: int = MAX_ENTRIES) -> tuple[str, ...]:
    """The keys of an object whose keys are names: bounded in number, length and alphabet."""
    names = source.names()
    if len(names) > most:
        raise Malformed(f"{source.what}: {len(names)} entries, at most {most} allowed", code="too-many")
    for name in names:
        if fields.NAME.fullmatch(name) is None:
            raise Malformed(
                f"{source.what}: expected {fields.NAME_LIKE}, got {unexpected.quoted(name)}", code="bad-name"
            )
    return names


def read_minimums(source: fields.Fields) -> dict[str, int]:
    """Read least values by component. Raises `Malformed`."""
    return {name: source.integer(name, low=0, high=MAX_SVN) for name in _names(source)}


def _facts(source: fields.Fields) -> dict[str, tuple[Value, ...]]:
    out: dict[str, tuple[Value, ...]] = {}
    for name in _names(source):
        value = source.value(name)
        listed = value if isinstance(value, list) else [value]
        if len(listed) > MAX_VALUES:
            raise Malformed(
                f"{source.what}.{name}: {len(listed)} values, at most {MAX_VALUES} allowed", code="too-many"
            )
        for alternative in listed:
            if not isinstance(alternative, str | int) or (
                isinstance(alternative, str) and len(alternative) > MAX_TEXT
            ):
                wanted = f"text of at most {MAX_TEXT} characters, an integer, true or false"
                raise Malformed(
                    f"{source.what}.{name}: expected {wanted}, got {unexpected.kind(alternative)}",
                    code="bad-value",
                )
            if alternative == NOT_COMPARED:
                raise Malformed(
                    f"{source.what}.{name}: {NOT_COMPARED!r} says that nothing was checked, which no policy can demand",
                    code="bad-value",
                )
        out[name] = tuple(listed)
    return out


def read_reference(source: fields.Fields, *, most: int) -> dict[str, str]:
    """Read one alternative of 1 to `most` register values by name. Raises `Malformed`."""
    names = _names(source, most=most)
    if not names:
        raise Malformed(
            f"{source.what}: expected the value of at least one register: an empty reference would accept anything"
        )
    return {name: source.text(name, max_length=MAX_TEXT) for name in names}


def _registers(source: fields.Fields, *, most: int = MAX_ENTRIES) -> dict[str, tuple[str, ...]]:
    names = _names(source, most=most)
    return {name: source.texts(name, max_items=MAX_VALUES, max_length=MAX_TEXT) for name in names}


def _status(source: fields.Fields) -> dict[str, datetime | None]:
    out: dict[str, datetime | None] = {}
    for name in _labels(source):
        value = source.value(name)
        out[name] = (
            None if value is None else fields.Fields({name: value}, source.what, quoting=True).time(name)
        )
    return out


def _advisories(source: fields.Fields) -> dict[str, datetime]:
    return {name: source.time(name) for name in _labels(source)}


def _labels(source: fields.Fields) -> tuple[str, ...]:
    """Vendors' own words: `UpToDate`, `INTEL-SA-00615`."""
    names = source.names()
    if len(names) > MAX_ENTRIES or any(not 0 < len(name) <= 64 or not name.isascii() for name in names):
        wanted = f"at most {MAX_ENTRIES} names of 1 to 64 ASCII characters"
        longest = max(names, key=lambda name: (not name.isascii(), not name, len(name)))
        raise Malformed(
            f"{source.what}: expected {wanted}, got {len(names)}, among them {unexpected.quoted(longest)}",
            code="bad-name",
        )
    return names


def _devices(source: fields.Fields) -> Devices:
    has, most = set(source.names()), MAX_DEVICE_REGISTERS
    listed = source.objects("references", max_items=MAX_VALUES) if "references" in has else []
    devices = Devices(
        count=source.integer("count", low=0, high=MAX_DEVICES),
        roots=source.texts("roots", max_items=16, pattern=fields.DIGEST),
        machines=source.texts("machines", max_items=1024, max_length=200),
        facts=_facts(source.object("facts")) if "facts" in has else {},
        references=tuple(read_reference(reference, most=most) for reference in listed),
        registers=_registers(source.object("registers"), most=most) if "registers" in has else {},
    )
    source.done()
    return devices


def _ends_json(ends: Mapping[str, datetime | None]) -> dict[str, object]:
    return {name: None if end is None else fields.format_time(end) for name, end in ends.items()}


def _facts_json(facts: dict[str, tuple[Value, ...]]) -> dict[str, object]:
    return {name: values[0] if len(values) == 1 else list(values) for name, values in facts.items()}
