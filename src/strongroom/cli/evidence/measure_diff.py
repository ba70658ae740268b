"""`strongroom measure diff A B`: why did it change? Leaves with 0 when nothing did, and with 7 when something did."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.images import image_source
from strongroom.cli.printable import printable
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.compare.compare import Difference

EXIT_DIFFERENT = 7
SHOWN = 20  # of one topic, unless all are asked for
_WIDE = 200  # characters of one value


def diff(
    old: Annotated[
        Path, typer.Argument(help="A base's folder, a sealed disk or its manifest, an OCI image, a contract.")
    ],
    new: Annotated[Path, typer.Argument(help="Another of the same kind.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Show every change, not the first of each topic.")
    ] = False,
    config: Annotated[
        list[Path], typer.Option(help="For two root file systems: their OCI configurations, in order.")
    ] = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a measurement or an image changed, the most important first, and which registers change with it."""
    from strongroom.compare import paths

    configs = [image_source.settings(path) for path in config]
    if len(configs) not in (0, 2):
        raise Misuse(
            f"--config: expected none or two, got {len(configs)}",
            hint="give the first file system's, then the second's: --config OLD.json --config NEW.json",
        )
    first, second = configs or (None, None)
    compared = paths.compare_paths(old, new, settings=(first, second))
    if as_json:
        document = {
            "kind": compared.kind,
            "same": not compared.differences,
            "registers": {part: list(names) for part, names in compared.registers.items()},
            "changes": [difference.to_json() for difference in compared.differences],
        }
        print(json.dumps(document))
    else:
        _tell(compared.kind, compared.differences, compared.registers, everything=everything)
    if compared.differences:
        sys.exit(EXIT_DIFFERENT)


def _tell(
    kind: str, differences: tuple[Difference, ...], registers: dict[str, tuple[str, ...]], *, everything: bool
) -> None:
    if not differences:
        print(f"same        the two say and hold the same ({kind})")
        return
    for part, names in registers.items():
        print(f"measured    {part}: {', '.join(names) or 'by nothing'} will differ")
    shown: dict[str, int] = {}
    for difference in differences:
        topic = difference.topic.value
        shown[topic] = shown.get(topic, 0) + 1
        if everything or shown[topic] <= SHOWN:
            print(f"{topic:<12}{_line(difference)}")
    for topic, count in shown.items():
        if count > SHOWN and not everything:
            print(f"{topic:<12}and {count - SHOWN} more (--all shows them)")


def _line(change: Difference) -> str:
    name, before, after = (
        None if text is None else printable(text if len(text) <= _WIDE else text[:_WIDE] + "…")
        for text in (change.name, change.before, change.after)
    )
    if before is None:
        line = f"+ {name}" if after == name else f"+ {name}: {after}"
    elif after is None:
        line = f"- {name}" if before == name else f"- {name}: {before}"
    else:
        line = f"{name}: {before} -> {after}" if before else f"{name}: {after}"
    return line + (f"  [{', '.join(change.registers)}]" if change.registers else "")
