"""A policy file: platforms as contracts have them, for those who judge evidence without a contract.

::

    {"format": "strongroom-policy/1", "name": name, "platforms": [as in a contract]}

In a file `roots` may be ["pinned"], which stands for the pinned vendors' roots of that TEE; `simulated` and
`memory_guard` may be absent and are then false; `references` may be absent or empty when signed reference files are
given beside it. Everything else is as strict as in contracts. TOML says the same: a file is read as TOML when it
does not begin with `{`, and its dates may be TOML's. The digest is over the canonical JSON of what was read, so that
both forms of one policy have one digest.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from strongroom.crypto import digest
from strongroom.encoding import canonical, fields, unexpected
from strongroom.errors import Malformed
from strongroom.model.contracts import contract as contract_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strongroom.model.contracts.contract import Platform

FORMAT = "strongroom-policy/1"
MAX_BYTES = 1024 * 1024
MAX_PLATFORMS = 16
PINNED = "pinned"
_MAX_DEPTH = 16


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What a signed reference file adds to the platforms of its TEE: alternatives, minimums, and facts that hold for all."""

    tee: str
    references: tuple[dict[str, str], ...]
    tcb: Mapping[str, int]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """A parsed policy file. `digest` names it, with what reference files added."""

    name: str
    digest: str
    platforms: tuple[Platform, ...]


def parse(
    data: bytes, *, pinned: Callable[[str], frozenset[str]], extra: tuple[Extra, ...] = ()
) -> PolicyFile:
    """Parse a policy file, JSON or TOML. Raises `Malformed`.

    pinned: the digests of a TEE's pinned roots, for files that say "pinned". extra: of signed reference files, whose
    alternatives are added and whose minimums hold besides the file's own, whichever is higher.
    """
    value = _decode(data)
    if not isinstance(value, dict):
        raise Malformed(f"policy: expected an object, got {unexpected.kind(value)}", code="not-object")
    platforms = value.get("platforms")
    if isinstance(platforms, list):
        value = {**value, "platforms": [_completed(platform, pinned, extra) for platform in platforms]}
    canonical_bytes = canonical.dumps(value)
    top = fields.Fields(value, "policy", quoting=True)
    top.constant("format", FORMAT)
    policy_file = PolicyFile(
        name=top.name("name"),
        digest=digest.sha256(canonical_bytes),
        platforms=tuple(
            contract_model.read_platform(item) for item in top.objects("platforms", max_items=MAX_PLATFORMS)
        ),
    )
    top.done()
    if not policy_file.platforms:
        raise Malformed("policy.platforms: empty, so that nothing is accepted", code="empty")
    return policy_file


def _decode(data: bytes) -> Any:
    if data.lstrip()[:1] == b"{":
        return canonical.loads(data, what="policy", max_bytes=MAX_BYTES)
    if len(data) > MAX_BYTES:
        raise Malformed(f"policy: {len(data)} bytes, at most {MAX_BYTES} allowed", code="too-large")
    try:
        value = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise Malformed(f"policy: neither JSON nor TOML: {str(cause)[:200]}", code="not-toml") from None
    return canonical.loads(
        canonical.dumps(_plain(value, "policy", 0)), what="policy", max_bytes=2 * MAX_BYTES
    )


def _plain(value: object, at: str, depth: int) -> object:
    """TOML's values as JSON's: its dates and times, which must have a zone, as texts."""
    if depth > _MAX_DEPTH:
        raise Malformed(f"policy: nested too deeply: at most {_MAX_DEPTH} levels allowed", code="too-deep")
    if isinstance(value, dict):
        return {key: _plain(item, f"{at}.{key[:40]}", depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Malformed(
                f"{at}: a time without its zone; write it like 2026-12-31T00:00:00Z", code="bad-value"
            )
        return fields.format_time(value)
    if isinstance(value, str | int):
        return value
    wanted = "text, an integer, true, false, or a time with date and zone"
    raise Malformed(f"{at}: expected {wanted}, got {unexpected.kind(value)}", code="bad-type")


def _completed(platform: object, pinned: Callable[[str], frozenset[str]], extra: tuple[Extra, ...]) -> object:
    """A platform with what files may leave out."""
    if not isinstance(platform, dict):
        return platform
    completed = {"simulated": False, "memory_guard": False, "references": [], **platform}
    tee = completed.get("tee")
    if completed.get("roots") == [PINNED]:
        completed["roots"] = sorted(pinned(tee)) if isinstance(tee, str) else []
    fitting = [each for each in extra if each.tee == tee]
    if fitting and isinstance(completed["references"], list):
        completed["references"] = [
            *completed["references"],
            *(dict(registers) for file in fitting for registers in file.references),
        ]
        completed["policy"] = _tightened(completed.get("policy", {}), fitting)
    return completed


def _tightened(policy: object, fitting: list[Extra]) -> object:
    """The policy with what reference files demand: of two minimums for a component the higher, and every fact."""
    own = policy.get("tcb", {}) if isinstance(policy, dict) else None
    facts = policy.get("facts", {}) if isinstance(policy, dict) else None
    if not isinstance(policy, dict) or not isinstance(own, dict) or not isinstance(facts, dict):
        return policy
    least, tightened = dict(own), dict(facts)
    for file in fitting:
        for name, value in file.tcb.items():
            if type(least.get(name, 0)) is int:
                least[name] = max(value, least.get(name, 0))
        for name, wanted in file.facts.items():
            listed = tightened.get(name, wanted)
            if wanted not in (listed if isinstance(listed, list) else [listed]):
                accepted = listed if isinstance(listed, list) else [listed]
                accepted_list = ", ".join(repr(value)[:160] for value in accepted[:3]) or "nothing"
                raise Malformed(
                    f"policy: the fact {name[:64]}: a reference file demands {wanted[:160]!r}, the policy or another file accepts {accepted_list}",
                    code="contradiction",
                    hint="two files, or file and policy, leave no value of this fact: name those that belong together",
                )
            tightened[name] = wanted
    return {**policy, **({"tcb": least} if least else {}), **({"facts": tightened} if tightened else {})}
