"""NVIDIA's RIM service: reference measurements of drivers and firmware, by their names.

Spec: NVIDIA attestation, RIM service API v1 (`/v1/rim/ID`): JSON with the RIM in base64 and its SHA-256.
No verifier here compares with a RIM (claims say "not compared"), and the RIM's own XML signature is not verified:
what is kept is bounded, of the name that was asked for, and for a relying party's own tools.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed, Misuse
from strongroom.evidence.formats import nvgpu_spdm
from strongroom.fetch.endorsements.statement import OTHER_VERSION, StatementRequest, StatementTerms
from strongroom.fetch.http.client import Service

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.fetch.endorsements.statement import Statement
    from strongroom.model.evidence import Evidence

RIMS = Service(base="https://rim.attestation.nvidia.com")
MAX_ANSWER = 768 * 1024
# NVIDIA states no end of a RIM: it is of one version for good, but its certificates may be revoked meanwhile.
KEPT = timedelta(days=30)
_ID = re.compile(r"NV_[A-Za-z0-9_.-]{1,120}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_TEXT = re.compile(rb"[A-Za-z0-9.-]{1,40}")
_DRIVER, _VBIOS, _SKU, _PROJECT, _PROJECT_SKU = 3, 6, 15, 17, 18


def rim(service: Service, name: str) -> StatementRequest:
    """The RIM of that id."""
    if _ID.fullmatch(name) is None:
        raise Misuse(
            f"{name[:100]!r}: not the id of a RIM: expected NV_ and letters, digits, _, . and -",
            code="bad-rim",
            hint="an id reads like NV_GPU_DRIVER_GH100_535.104.05",
        )
    return StatementRequest(
        key=f"nvidia/rim/{name}",
        service=service,
        path=f"/v1/rim/{name}",
        types=frozenset({"application/json"}),
        take=lambda answer: {"answer": answer.body},
        max_bytes=MAX_ANSWER,
    )


def named(evidence: Evidence) -> tuple[str, ...]:
    """The ids of the RIMs of a Hopper GPU's driver and VBIOS, by what its report says of itself. Raises `Malformed`."""
    opaque = nvgpu_spdm.parse(evidence.part("report")).opaque
    out = []
    driver = opaque.get(_DRIVER, b"").rstrip(b"\0")
    if _TEXT.fullmatch(driver):
        out.append(f"NV_GPU_DRIVER_GH100_{driver.decode()}")
    texts = [opaque.get(number, b"").rstrip(b"\0") for number in (_PROJECT, _PROJECT_SKU, _SKU)]
    vbios = opaque.get(_VBIOS, b"")
    if all(_TEXT.fullmatch(text) for text in texts) and len(vbios) == 8:
        version = bytes((vbios[3], vbios[2], vbios[1], vbios[0], vbios[4])).hex().upper()
        out.append("_".join(("NV_GPU_VBIOS", *(text.decode() for text in texts), version)))
    return tuple(out)


def document(statement: Statement) -> bytes:
    """The RIM itself. Raises `Malformed`."""
    what = "RIM service"
    top = fields.Fields(canonical.loads(statement.parts["answer"], what=what, max_bytes=MAX_ANSWER), what)
    if top.text("id", max_length=128) != statement.key.rpartition("/")[2]:
        raise Malformed(
            f"{what}: the RIM of another id than {statement.key.rpartition('/')[2]}", code="not-the-vendors"
        )
    try:
        data = base64.b64decode(top.text("rim", max_length=MAX_ANSWER), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{what}: the RIM is not base64") from None
    stated = top.value("sha256") if "sha256" in top.names() else ""
    if (
        isinstance(stated, str)
        and _HEX.fullmatch(stated)
        and stated.lower() != hashlib.sha256(data).hexdigest()
    ):
        raise Malformed(f"{what}: the RIM has another SHA-256 than the service says")
    return data


def judge(statement: Statement, path: list[str], *, roots: frozenset[str], now: datetime) -> StatementTerms:  # noqa: ARG001 - a RIM is not verified
    """See `validate`."""
    if (
        len(path) != 2
        or path[0] != "rim"
        or _ID.fullmatch(path[1]) is None
        or statement.parts.keys() != {"answer"}
    ):
        raise Malformed(
            f"{statement.key[:100]!r}: no statement of NVIDIA's", code="unknown-statement", hint=OTHER_VERSION
        )
    document(statement)
    return StatementTerms(issued=statement.fetched, until=statement.fetched + KEPT)
