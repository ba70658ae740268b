"""A place of a compose file: its name for people, its line, and what is found there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.images.compose import strict_yaml
from strongroom.images.preflight import findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.images.compose.strict_yaml import Path, Value, YamlDocument
    from strongroom.images.preflight.findings import Finding

_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class ComposePlace:
    """Where something stands in the file. `about`: the part of it that is meant, where the path does not say so."""

    document: YamlDocument
    path: Path
    about: str = ""

    def key(self, name: str | int) -> ComposePlace:
        """One key or item in it."""
        return replace(self, path=(*self.path, name), about="")

    def part(self, about: str) -> ComposePlace:
        """The same place, with the part of it that is meant."""
        return replace(self, about=about)

    @property
    def name(self) -> str:
        """As people write it: services.web.volumes[0] /data."""
        return f"{named(self.path)} {self.about}".strip()[:_LONGEST]

    @property
    def line(self) -> int:
        """Its line in the file."""
        return self.document.line(self.path)

    def items(self, value: Value) -> Iterator[tuple[Value, ComposePlace]]:
        """Each item of a list at this place, or the single value that is no list, without what is unclear."""
        for number, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if item is not strict_yaml.UNCLEAR:
                yield strict_yaml.known(item), self if number is None else self.key(number)

    def entries(self, value: Value) -> Iterator[tuple[str, Value, ComposePlace]]:
        """Each key of a mapping at this place, without keys whose value is unclear."""
        for key, item in value.items() if isinstance(value, dict) else ():
            if item is not strict_yaml.UNCLEAR:
                yield key, item, self.key(key)

    def blocks(self, check: str, what: str, fix: str) -> Finding:
        """It will not run."""
        return self.mark(findings.blocks(check, self.name, what, fix))

    def warns(self, check: str, what: str, fix: str) -> Finding:
        """It may not do what is expected."""
        return self.mark(findings.warns(check, self.name, what, fix))

    def fine(self, check: str, what: str) -> Finding:
        """Nothing to do."""
        return self.mark(findings.fine(check, self.name, what))

    def mark(self, finding: Finding) -> Finding:
        """The finding with this place's line."""
        return replace(finding, line=self.line)


def named(path: Path) -> str:
    """A path as people write it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
