"""`strongroom measure diff A B`: why did it change? Leaves with 0 when nothing did, and with 7 when something did."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom import files
from strongroom.cli.images import image_source
from strongroom.cli.printable import printable
from strongroom.errors import Misuse, of_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.compare.compare import ComparedSide, Difference

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
    from strongroom.compare import compare

    configs = [image_source.settings(path) for path in config]
    if len(configs) not in (0, 2):
        raise Misuse(
            f"--config: expected none or two, got {len(configs)}",
            hint="give the first file system's, then the second's: --config OLD.json --config NEW.json",
        )
    with contextlib.ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        left, right = (
            opened.enter_context(_subject(path, scratch, configs[side] if configs else None))
            for side, path in enumerate((old, new))
        )
        if left.kind != right.kind:
            raise Misuse(
                f"{old} is of kind {left.kind}, {new} of kind {right.kind}",
                code="unlike",
                hint="name two of one kind: two bases, two images, two datasets or two contracts",
            )
        found = compare.compare(left, right)
        registers = compare.changed_registers(left, right)
    if as_json:
        document = {
            "kind": left.kind,
            "same": not found,
            "registers": {part: list(names) for part, names in registers.items()},
            "changes": [one.to_json() for one in found],
        }
        print(json.dumps(document))
    else:
        _tell(left.kind, found, registers, everything=everything)
    if found:
        sys.exit(EXIT_DIFFERENT)


@contextlib.contextmanager
def _subject(path: Path, scratch: Path, config: bytes | None) -> Iterator[ComparedSide]:
    from strongroom.bases import document as base_document
    from strongroom.compare import base, image
    from strongroom.seal import disk

    if (path / base_document.KERNEL).is_file():
        yield base.subject(path)
    elif path.suffix == disk.SUFFIX and path.is_file():
        from strongroom.model import manifest as manifest_model
        from strongroom.seal.dataset import MAX_MANIFEST, NO_OPTION, manifest_of

        _, manifest = files.parsed(
            manifest_of(path, None, hint=NO_OPTION), manifest_model.parse_envelope, max_bytes=MAX_MANIFEST
        )
        with image.from_disk(path, manifest) as found:
            yield found
    elif path.is_file() and _is_document(path):
        with of_file(path), _document(path) as found:
            yield found
    else:
        with image.from_source(path, scratch=scratch, config=config) as found:
            yield found


def _is_document(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{"


@contextlib.contextmanager
def _document(path: Path) -> Iterator[ComparedSide]:
    """A signed contract or a signed manifest; which of the two, its payload's type says."""
    from strongroom.compare import contract, image
    from strongroom.encoding import canonical
    from strongroom.model import manifest as manifest_model
    from strongroom.model.contracts import agreement
    from strongroom.model.contracts import contract as contract_model

    data = files.read(path, max_bytes=4 * contract_model.MAX_BYTES)
    value = canonical.loads(data, what=str(path), max_bytes=4 * contract_model.MAX_BYTES)
    if isinstance(value, dict) and value.get("payloadType") == manifest_model.PAYLOAD_TYPE:
        with image.from_disk(None, manifest_model.parse_envelope(data)[1]) as found:
            yield found
        return
    yield contract.subject(agreement.read(data).contract)


def _tell(
    kind: str, found: tuple[Difference, ...], registers: dict[str, tuple[str, ...]], *, everything: bool
) -> None:
    if not found:
        print(f"same        the two say and hold the same ({kind})")
        return
    for part, names in registers.items():
        print(f"measured    {part}: {', '.join(names) or 'by nothing'} will differ")
    shown: dict[str, int] = {}
    for one in found:
        topic = one.topic.value
        shown[topic] = shown.get(topic, 0) + 1
        if everything or shown[topic] <= SHOWN:
            print(f"{topic:<12}{_line(one)}")
    for topic, count in shown.items():
        if count > SHOWN and not everything:
            print(f"{topic:<12}and {count - SHOWN} more (--all shows them)")


def _line(change: Difference) -> str:
    name, before, after = (
        None if text is None else printable(text if len(text) <= _WIDE else text[:_WIDE] + "…")
        for text in (change.name, change.before, change.after)
    )
    if before is None:
        told = f"+ {name}" if after == name else f"+ {name}: {after}"
    elif after is None:
        told = f"- {name}" if before == name else f"- {name}: {before}"
    else:
        told = f"{name}: {before} -> {after}" if before else f"{name}: {after}"
    return told + (f"  [{', '.join(change.registers)}]" if change.registers else "")
