"""Two things side by side, each by its path: a base's folder, a sealed disk or its manifest, an image, a contract."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.bases import document as base_document
from strongroom.compare import base, compare, contract, image
from strongroom.encoding import canonical
from strongroom.errors import Misuse, of_file
from strongroom.model import manifest as manifest_model
from strongroom.model.contracts import agreement
from strongroom.model.contracts import contract as contract_model
from strongroom.seal import dataset, disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.compare.compare import ComparedSide, Difference

_MAX_DOCUMENT = 4 * contract_model.MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between two things of one kind, the most important first. registers: by part, those that change with it."""

    kind: str
    differences: tuple[Difference, ...]
    registers: dict[str, tuple[str, ...]]


def compare_paths(
    old: Path, new: Path, *, settings: tuple[bytes | None, bytes | None] = (None, None)
) -> Comparison:
    """Compare what lies at two paths. settings: configurations of root file systems, which bring none.

    Raises `Misuse` for two of different kinds, and `Malformed`, `NotFound`, `Refused` for what cannot be read.
    """
    with contextlib.ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        left, right = (
            opened.enter_context(_side(path, scratch, config))
            for path, config in zip((old, new), settings, strict=True)
        )
        if left.kind != right.kind:
            raise Misuse(
                f"{old} is of kind {left.kind}, {new} of kind {right.kind}",
                code="unlike",
                hint="name two of one kind: two bases, two images, two datasets or two contracts",
            )
        return Comparison(
            kind=left.kind,
            differences=compare.compare(left, right),
            registers=compare.changed_registers(left, right),
        )


@contextlib.contextmanager
def _side(path: Path, scratch: Path, config: bytes | None) -> Iterator[ComparedSide]:
    if (path / base_document.KERNEL).is_file():
        yield base.subject(path)
    elif path.suffix == disk.SUFFIX and path.is_file():
        _, manifest = files.parsed(
            dataset.manifest_of(path, None, hint=dataset.NO_OPTION),
            manifest_model.parse_envelope,
            max_bytes=manifest_model.MAX_ENVELOPE,
        )
        with image.from_disk(path, manifest) as side:
            yield side
    elif path.is_file() and _is_document(path):
        with of_file(path), _document(path) as side:
            yield side
    else:
        with image.from_source(path, scratch=scratch, config=config) as side:
            yield side


def _is_document(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"{"


@contextlib.contextmanager
def _document(path: Path) -> Iterator[ComparedSide]:
    """A signed contract or a signed manifest; which of the two, its payload's type says."""
    data = files.read(path, max_bytes=_MAX_DOCUMENT)
    value = canonical.loads(data, what=str(path), max_bytes=_MAX_DOCUMENT)
    if isinstance(value, dict) and value.get("payloadType") == manifest_model.PAYLOAD_TYPE:
        with image.from_disk(None, manifest_model.parse_envelope(data)[1]) as side:
            yield side
        return
    yield contract.subject(agreement.read(data).contract)
