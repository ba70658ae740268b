"""TCB info and enclave identities: what Intel says, signed, of platforms' security versions.

Specs: Intel SGX and TDX Provisioning Certification Service API v3 and v4, "Get TCB Info" and "Get QE Identity":
the structures (TCB info versions 2 and 3, identity version 2) and the published algorithm of comparison; for TD
reports 1.5 also Intel's quote verification library, section 4.1.2.4.17.4.3 of its comments (relaunch).

A document is `{"tcbInfo":{…},"signature":"…"}` or `{"enclaveIdentity":{…},"signature":"…"}`: the signature is over
the exact bytes of the inner object, which are taken out as they are and never written anew. Outside of them the
document has one form. Inside, keys that are not known are passed over, since Intel signed them; keys that stand
twice, wrong types, lists of another length than 16 are refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from strongroom.encoding import canonical, unexpected
from strongroom.errors import Malformed

MAX_DOCUMENT = 256 * 1024
MAX_LEVELS = 256
MAX_ADVISORIES = 512
COMPONENTS = 16

UP_TO_DATE: Final = "UpToDate"
SW_HARDENING: Final = "SWHardeningNeeded"
CONFIGURATION: Final = "ConfigurationNeeded"
CONFIGURATION_AND_SW: Final = "ConfigurationAndSWHardeningNeeded"
OUT_OF_DATE: Final = "OutOfDate"
OUT_OF_DATE_CONFIGURATION: Final = "OutOfDateConfigurationNeeded"
REVOKED: Final = "Revoked"
# Not in documents: what a comparison with a TD report 1.5 may come to.
RELAUNCH: Final = "TDRelaunchAdvised"
RELAUNCH_CONFIGURATION: Final = "TDRelaunchAdvisedConfigurationNeeded"
_STATUSES = frozenset(
    {
        UP_TO_DATE,
        SW_HARDENING,
        CONFIGURATION,
        CONFIGURATION_AND_SW,
        OUT_OF_DATE,
        OUT_OF_DATE_CONFIGURATION,
        REVOKED,
    }
)
_NEVER = 256  # above every SVN of one byte
_SIGNATURE_DIGITS = 128
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_ADVISORY = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Level:
    """A TCB level of a platform. sgx, tdx: 16 SVNs each; `tdx` is empty in documents about SGX."""

    sgx: bytes
    pce_svn: int
    tdx: bytes
    status: str
    date: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SvnLevel:
    """A TCB level of an enclave or of a TDX module: from `isv_svn` on."""

    isv_svn: int
    status: str
    date: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """A TDX module's identity. id: "TDX_01" and so on, empty for the one of version 0."""

    id: str
    mr_signer: bytes
    attributes: int
    mask: int
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """TCB info of one FMSPC. kind: "SGX" or "TDX"."""

    kind: str
    issued: datetime
    next_update: datetime
    fmspc: bytes
    pce_id: bytes
    evaluation: int
    levels: tuple[Level, ...]
    module: Module | None
    modules: tuple[Module, ...]


@dataclass(frozen=True, slots=True)
class EnclaveIdentity:
    """The identity of Intel's quoting enclave for SGX ("QE") or TDX ("TD_QE")."""

    id: str
    issued: datetime
    next_update: datetime
    evaluation: int
    misc_select: int
    misc_mask: int
    attributes: int
    attributes_mask: int
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[SvnLevel, ...]


@dataclass(frozen=True, slots=True)
class CoveringLevel:
    """The level that covers a platform, and what it came to. sgx: the status by the SGX components alone."""

    level: Level
    status: str
    sgx: str
    module: SvnLevel | None
    advisories: tuple[str, ...]


def split(document: bytes, key: str, *, what: str) -> tuple[bytes, bytes]:
    """The exact bytes of the inner object under `key`, and the signature (r ‖ s). Raises `Malformed`."""
    if len(document) > MAX_DOCUMENT:
        raise Malformed(f"{what}: {len(document)} bytes, at most {MAX_DOCUMENT} allowed", code="too-large")
    start = b'{"' + key.encode() + b'":'
    tail = b',"signature":"'
    cut = len(document) - _SIGNATURE_DIGITS - len(b'"}')
    if (
        cut < len(start) + len(tail)
        or not document.startswith(start)
        or not document.endswith(b'"}')
        or document[cut - len(tail) : cut] != tail
    ):
        raise Malformed(
            f'{what}: not {{"{key}":{{…}},"signature":"…"}} with nothing before, between or after'
        )
    digits = document[cut : cut + _SIGNATURE_DIGITS]
    if digits not in (digits.lower(), digits.upper()) or not digits.isalnum():
        raise Malformed(f"{what}: the signature is not {_SIGNATURE_DIGITS} hexadecimal digits of one case")
    try:
        return document[len(start) : cut - len(tail)], bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        raise Malformed(f"{what}: the signature is not hexadecimal") from None


def parse_tcb_info(inner: bytes) -> TcbInfo:
    """Read the inner object of TCB info. Raises `Malformed`."""
    what = "TCB info"
    top = _object(inner, what)
    version = _integer(top, "version", what, high=3)
    if version not in (2, 3):
        raise Malformed(f"{what}: version {version}, expected 2 or 3", code="unknown-version")
    kind = "SGX" if version == 2 else _text(top, "id", what)
    if kind not in ("SGX", "TDX"):
        raise Malformed(f"{what}.id: expected SGX or TDX, got {unexpected.quoted(kind)}")
    if compared := _integer(top, "tcbType", what, high=255):
        raise Malformed(f"{what}.tcbType: expected 0, whose rules of comparison are known, got {compared}")
    tdx = kind == "TDX"
    return TcbInfo(
        kind,
        _time(top, "issueDate", what),
        _time(top, "nextUpdate", what),
        _hex(top, "fmspc", 6, what),
        _hex(top, "pceId", 2, what),
        _integer(top, "tcbEvaluationDataNumber", what, high=2**31),
        tuple(_level(level, version, tdx=tdx) for level in _list(top, "tcbLevels", what, MAX_LEVELS)),
        _module(_inner(top, "tdxModule", what), named=False) if tdx else None,
        tuple(
            _module(module, named=True)
            for module in _list(top, "tdxModuleIdentities", what, MAX_LEVELS, least=0)
        )
        if tdx and "tdxModuleIdentities" in top
        else (),
    )


def parse_identity(inner: bytes) -> EnclaveIdentity:
    """Read the inner object of an enclave identity. Raises `Malformed`."""
    what = "QE identity"
    top = _object(inner, what)
    if (version := _integer(top, "version", what, high=255)) != 2:
        raise Malformed(f"{what}: version {version}, expected 2", code="unknown-version")
    return EnclaveIdentity(
        _text(top, "id", what),
        _time(top, "issueDate", what),
        _time(top, "nextUpdate", what),
        _integer(top, "tcbEvaluationDataNumber", what, high=2**31),
        _bits(top, "miscselect", 4, what),
        _bits(top, "miscselectMask", 4, what),
        _bits(top, "attributes", 16, what),
        _bits(top, "attributesMask", 16, what),
        _hex(top, "mrsigner", 32, what),
        _integer(top, "isvprodid", what, high=0xFFFF),
        tuple(_svn_level(level, what) for level in _list(top, "tcbLevels", what, MAX_LEVELS)),
    )


def match_svn(levels: tuple[SvnLevel, ...], isv_svn: int) -> SvnLevel | None:
    """The first level, from the newest, that `isv_svn` reaches. None: not even the oldest."""
    for level in levels:
        if isv_svn >= level.isv_svn:
            return level
    return None


def module_of(info: TcbInfo, version: int) -> Module | None:
    """The identity of the TDX module of that major version (TEE TCB SVN, byte 1)."""
    if version == 0:
        return info.module
    wanted = f"TDX_{version:02X}"
    return next((module for module in info.modules if module.id == wanted), None)


def match(info: TcbInfo, components: bytes, pce_svn: int, tee_tcb_svn: bytes | None) -> CoveringLevel | None:
    """The level that covers a platform, by Intel's algorithm; None when no level does.

    components: the 16 SVNs of the PCK certificate. tee_tcb_svn: of the TD report; None for SGX. The caller has
    compared FMSPC and PCE-ID, and for TDX the module's signer and attributes.
    """
    sgx: str | None = None
    for level in info.levels:
        if not (_covers(components, level.sgx) and pce_svn >= level.pce_svn):
            continue
        sgx = sgx or level.status
        if tee_tcb_svn is None:
            return CoveringLevel(level, level.status, sgx, None, level.advisories)
        # From version 1 on the module's own SVN (bytes 0 and 1) is judged by its identity instead.
        first = 2 if tee_tcb_svn[1] else 0
        if not _covers(tee_tcb_svn[first:], level.tdx[first:]):
            continue
        if not tee_tcb_svn[1]:
            return CoveringLevel(level, level.status, sgx, None, level.advisories)
        identity = module_of(info, tee_tcb_svn[1])
        module = match_svn(identity.levels, tee_tcb_svn[0]) if identity else None
        if module is None:
            return None
        return CoveringLevel(
            level, converge(level.status, module.status), sgx, module, level.advisories + module.advisories
        )
    return None


def converge(status: str, other: str) -> str:
    """A platform's status together with its quoting enclave's or its TDX module's."""
    if REVOKED in (status, other):
        return REVOKED
    if other in (OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION):
        if status in (UP_TO_DATE, SW_HARDENING):
            return other
        if status in (CONFIGURATION, CONFIGURATION_AND_SW):
            return OUT_OF_DATE_CONFIGURATION
    return status


def relaunch(info: TcbInfo, covering: CoveringLevel, qe_status: str, tee_tcb_svn2: bytes) -> str:
    """The status of a TD whose TDX module may have been updated beneath it since its launch.

    A TD report 1.5 has the SVNs of the launch and the present ones (`tee_tcb_svn2`). Where only the module of the
    launch is out of date, and the present one is not, starting the TD again would make it up to date.
    """
    if (
        qe_status in (OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION, REVOKED)
        or covering.sgx not in (UP_TO_DATE, SW_HARDENING, CONFIGURATION, CONFIGURATION_AND_SW)
        or covering.status not in (OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION)
        or covering.module is None
        or covering.module.status != OUT_OF_DATE
    ):
        return covering.status
    latest = info.levels[0].tdx
    if tee_tcb_svn2[1]:
        module = module_of(info, tee_tcb_svn2[1])
        newest = module.levels[0].isv_svn if module else _NEVER
    else:
        newest = latest[0]
    if tee_tcb_svn2[0] < newest or tee_tcb_svn2[2] < latest[2]:
        return covering.status
    needed = (CONFIGURATION, CONFIGURATION_AND_SW, OUT_OF_DATE_CONFIGURATION)
    return RELAUNCH_CONFIGURATION if covering.sgx in needed or covering.status in needed else RELAUNCH


def _covers(svns: bytes, least: bytes) -> bool:
    """Whether every SVN reaches its least; both are equally long, as the parsers see to."""
    return len(svns) == len(least) and all(map(int.__ge__, svns, least))


def _level(value: object, version: int, *, tdx: bool) -> Level:
    what = "TCB level"
    level = _as_object(value, what)
    tcb = _inner(level, "tcb", what)
    if version == 2:
        sgx = bytes(
            _integer(tcb, f"sgxtcbcomp{index:02d}svn", what, high=255) for index in range(1, COMPONENTS + 1)
        )
    else:
        sgx = _components(tcb, "sgxtcbcomponents")
    return Level(
        sgx,
        _integer(tcb, "pcesvn", what, high=0xFFFF),
        _components(tcb, "tdxtcbcomponents") if tdx else b"",
        _status(level, what),
        _date(level, what),
        _advisories(level, what),
    )


def _components(tcb: dict[str, Any], key: str) -> bytes:
    listed = _list(tcb, key, "TCB level", COMPONENTS, least=COMPONENTS)
    try:
        svns = [component["svn"] for component in listed]
        if {*map(type, svns)} == {int}:
            return bytes(svns)
    except (KeyError, TypeError, ValueError):
        pass
    raise Malformed(f"TCB level.{key}: expected an SVN from 0 to 255 in each", code="bad-value")


def _module(value: object, *, named: bool) -> Module:
    what = "TDX module identity"
    module = _as_object(value, what)
    return Module(
        _text(module, "id", what) if named else "",
        _hex(module, "mrsigner", 48, what),
        _bits(module, "attributes", 8, what),
        _bits(module, "attributesMask", 8, what),
        tuple(_svn_level(level, what) for level in _list(module, "tcbLevels", what, MAX_LEVELS))
        if named
        else (),
    )


def _svn_level(value: object, what: str) -> SvnLevel:
    level = _as_object(value, what)
    return SvnLevel(
        _integer(_inner(level, "tcb", what), "isvsvn", what, high=0xFFFF),
        _status(level, what),
        _date(level, what),
        _advisories(level, what),
    )


def _object(data: bytes, what: str) -> dict[str, Any]:
    """Decode strictly. The quick way first: a text that is its own compact encoding has no key twice."""
    try:
        text = data.decode("ascii")
        value = json.loads(text)
        if json.dumps(value, separators=(",", ":")) == text:
            return _as_object(value, what)
    except (ValueError, RecursionError):
        pass
    return _as_object(canonical.loads(data, what=what, max_bytes=MAX_DOCUMENT), what)


def _as_object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object, got {unexpected.kind(value)}", code="not-object")
    return value


def _get(value: dict[str, Any], key: str, what: str) -> Any:
    if key not in value:
        raise Malformed(f"{what}: key {key!r} is missing", code="missing-key")
    return value[key]


def _inner(value: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    return _as_object(_get(value, key, what), f"{what}.{key}")


def _list(value: dict[str, Any], key: str, what: str, most: int, *, least: int = 1) -> list[Any]:
    items = _get(value, key, what)
    if not isinstance(items, list) or not least <= len(items) <= most:
        raise Malformed(
            f"{what}.{key}: expected a list of {least} to {most}, got {unexpected.kind(items)}",
            code="bad-value",
        )
    return items


def _integer(value: dict[str, Any], key: str, what: str, *, high: int) -> int:
    number = _get(value, key, what)
    if type(number) is not int or not 0 <= number <= high:
        raise Malformed(
            f"{what}.{key}: expected an integer from 0 to {high}, got {unexpected.kind(number)}",
            code="bad-value",
        )
    return number


def _text(value: dict[str, Any], key: str, what: str) -> str:
    text = _get(value, key, what)
    if not isinstance(text, str) or not 0 < len(text) <= 64 or not text.isascii() or not text.isprintable():
        raise Malformed(
            f"{what}.{key}: expected 1 to 64 printable ASCII characters, got {unexpected.quoted(text)}",
            code="bad-value",
        )
    return text


def _hex(value: dict[str, Any], key: str, size: int, what: str) -> bytes:
    text = _get(value, key, what)
    if not isinstance(text, str) or len(text) != 2 * size or not text.isascii() or not text.isalnum():
        raise Malformed(
            f"{what}.{key}: expected {size} bytes in hexadecimal, got {unexpected.quoted(text)}",
            code="bad-value",
        )
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Malformed(
            f"{what}.{key}: expected {size} bytes in hexadecimal, got {unexpected.quoted(text)}",
            code="bad-value",
        ) from None


def _bits(value: dict[str, Any], key: str, size: int, what: str) -> int:
    return int.from_bytes(_hex(value, key, size, what), "big")


def _time(value: dict[str, Any], key: str, what: str) -> datetime:
    text = _get(value, key, what)
    if not isinstance(text, str) or _TIME.fullmatch(text) is None:
        raise Malformed(
            f"{what}.{key}: expected a UTC time like 2026-12-31T00:00:00Z, got {unexpected.quoted(text)}",
            code="bad-value",
        )
    try:
        return datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC)
    except ValueError:
        raise Malformed(
            f"{what}.{key}: expected a date and time that exist, got {unexpected.quoted(text)}",
            code="bad-value",
        ) from None


def _date(level: dict[str, Any], what: str) -> str:
    """The TCB date, which early documents lack."""
    return _text(level, "tcbDate", what) if "tcbDate" in level else ""


def _status(level: dict[str, Any], what: str) -> str:
    text = _text(level, "tcbStatus", what)
    if text not in _STATUSES:
        raise Malformed(
            f"{what}.tcbStatus: status {text!r} is not known, only {', '.join(sorted(_STATUSES))}",
            code="unknown-status",
        )
    return text


def _advisories(level: dict[str, Any], what: str) -> tuple[str, ...]:
    if "advisoryIDs" not in level:
        return ()
    advisories = _list(level, "advisoryIDs", what, MAX_ADVISORIES, least=0)
    for advisory in advisories:
        if not isinstance(advisory, str) or _ADVISORY.fullmatch(advisory) is None:
            raise Malformed(
                f"{what}.advisoryIDs: expected names like INTEL-SA-00615, got {unexpected.quoted(advisory)}",
                code="bad-value",
            )
    return tuple(advisories)
