"""The bill of materials of a base: CycloneDX 1.6 (ECMA-424), by the library `cyclonedx-python-lib` (extra `build`).

The same packages give the same bytes: the serial number follows from the subject, the time is an argument, and components
are in the library's sorted order.
"""

from __future__ import annotations

import importlib
import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from strongroom.encoding import canonical
from strongroom.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.bases.document import Package

MAX_BYTES = 1024 * 1024
_SPACE = uuid.UUID("6a0c9a44-27e1-5f0e-9d8a-3b7b1d0e5c21")  # of this project's bills, once and for all


def purl(package: Package) -> str:
    """Its package URL."""
    tail = f"{quote(package.name)}@{quote(package.version)}"
    match package.kind:
        case "deb":
            return f"pkg:deb/debian/{tail}?arch=amd64&distro={quote(package.suite or 'bookworm')}"
        case "wheel":
            return f"pkg:pypi/{tail}"
    return f"pkg:generic/{tail}"


def is_file(package: Package) -> bool:
    """Whether the package's digest is of one file, and not of a tree."""
    return package.kind == "deb"


def in_order(packages: Iterable[Package]) -> list[Package]:
    """Every package once, sorted by all its fields."""
    return sorted(
        set(packages),
        key=lambda package: (package.kind, package.name, package.version, package.digest, package.suite),
    )


def encode(packages: Iterable[Package], *, about: str, newest: int) -> bytes:
    """The file beside a base. newest: seconds since 1970 that stand for its time of creation."""
    moment = datetime.fromtimestamp(newest, UTC)
    document = write(packages, name="strongroom-base", version="1", about=about, moment=moment)
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write(
    packages: Iterable[Package], *, name: str, version: str, about: str, moment: datetime
) -> dict[str, Any]:
    """The document. about: the digest that names what was built. Raises `NotFound` without the library."""
    bom, component, model, urls = (
        _library(part)
        for part in ("cyclonedx.model.bom", "cyclonedx.model.component", "cyclonedx.model", "packageurl")
    )
    base = component.Component(
        name=name,
        version=version,
        type=component.ComponentType.OPERATING_SYSTEM,
        bom_ref=f"urn:strongroom:base:{about.removeprefix('sha256:')}",
    )
    parts = []
    for package in in_order(packages):
        hashed = [
            model.HashType(alg=model.HashAlgorithm.SHA_256, content=package.digest.removeprefix("sha256:"))
        ]
        parts.append(
            component.Component(
                name=package.name,
                version=package.version,
                type=component.ComponentType.LIBRARY,
                bom_ref=f"{package.kind}:{purl(package)}",
                purl=urls.PackageURL.from_string(purl(package)),
                hashes=hashed if is_file(package) else (),
            )
        )
    bill = bom.Bom(
        serial_number=uuid.uuid5(_SPACE, about),
        metadata=bom.BomMetaData(timestamp=moment, component=base),
        components=parts,
    )
    bill.register_dependency(base, parts)
    output, schema = _library("cyclonedx.output"), _library("cyclonedx.schema")
    text = output.make_outputter(bill, schema.OutputFormat.JSON, schema.SchemaVersion.V1_6).output_as_string()
    document: dict[str, Any] = canonical.loads(text.encode(), what="bill of materials", max_bytes=MAX_BYTES)
    return document


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise NotFound(
            "bill of materials: the library `cyclonedx-python-lib` is not installed",
            code="no-cyclonedx",
            hint="pip install 'strongroom[build]'",
        ) from None
