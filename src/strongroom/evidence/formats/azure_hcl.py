"""Azure's HCL report, byte for byte: what the paravisor (HCL, OpenHCL) puts into a confidential VM's TPM.

Specs: Azure confidential computing, "Guest attestation for confidential VMs" (report and runtime data);
microsoft/openvmm, `openhcl_attestation_protocol/src/igvm_attest` (structures); RFC 7517 (JWK).
NV index 0x01400001 holds it, little-endian, with zeros after it:

offset  field                            offset         field
000     "HCLA"                           020            hardware report: SNP report, or TDREPORT and zeros
004     version u32, 1 or 2              4C0            bytes from here u32, version u32 = 1
008     bytes in all u32                 4C8            report type u32: 2 SNP, 4 TDX
00C     request u32 = 2                  4CC            hash type u32: 1 SHA-256, 2 SHA-384, 3 SHA-512
010     status u32 = 0, 12 zero          4D0, 4D4       bytes of runtime data u32, runtime data (JSON)

The runtime data name the public half of the TPM's attestation key (HCLAkPub), the VM's configuration and what the
guest wrote as user data. Their hash in the hardware's REPORT_DATA is all that vouches for them: see `bound`.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.crypto import public_key
from strongroom.encoding import canonical, unexpected
from strongroom.errors import Malformed

if TYPE_CHECKING:
    from strongroom.crypto.public_key import PublicKey

MAX_BYTES = 16 * 1024
MAX_KEYS = 8
MAX_SETTINGS = 64
MAX_USER_DATA = 64
AK = "HCLAkPub"

_HEADER = struct.Struct("<4sIIII12s")
_REPORT_BYTES = 1184
_REQUEST = struct.Struct("<IIIII")
_DATA = _HEADER.size + _REPORT_BYTES + _REQUEST.size
MIN_BYTES = _DATA + 1
_REQUEST_TYPE = 2
_TYPES = {2: "snp", 4: "tdx"}
_HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
_REPORT_DATA_BYTES = 64
# Of a TDREPORT: REPORTDATA in its REPORTMACSTRUCT, and where the structure ends.
_TD_REPORT_DATA = slice(128, 192)
_TD_REPORT = 1024
_SNP_REPORT_DATA = slice(0x50, 0x90)
_EXPONENT = b"\x01\x00\x01"
_MODULUS = (256, 512)  # bytes: RSA of 2048 to 4096 bits


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What the runtime data say. settings: the VM's configuration, each name after "vm.". user_data: raw bytes, or None."""

    ak: PublicKey
    settings: dict[str, str | int | bool]
    user_data: bytes | None


@dataclass(frozen=True, kw_only=True)
class Hcl:
    """A parsed HCL report, nothing of it believed.

    tee: `snp` or `tdx`. report: the hardware's own report (for TDX a TDREPORT, whose MAC counts on its machine
    alone). carried: the report data in it. bound: what report data must be, for `runtime` to be vouched for:
    the hash of the runtime data, with zeros after it.
    """

    version: int
    tee: str
    report: bytes = field(repr=False)
    carried: bytes
    bound: bytes
    hash: str
    runtime: Runtime


def parse(data: bytes) -> Hcl:
    """Parse an HCL report. Raises `Malformed`."""
    if not _DATA < len(data) <= MAX_BYTES:
        raise Malformed(
            f"HCL report: {len(data)} bytes, expected {_DATA + 1} to {MAX_BYTES}", code="bad-length"
        )
    magic, version, size, request, status, zeros = _HEADER.unpack_from(data)
    if magic != b"HCLA" or version not in (1, 2):
        raise Malformed(
            f"HCL report: expected HCLA and version 1 or 2, got {magic!r} and version {version}",
            code="bad-magic",
        )
    if request != _REQUEST_TYPE or status or any(zeros):
        raise Malformed(
            f"HCL report: expected an answer of type {_REQUEST_TYPE} and status 0, got type {request}, status {status}",
            code="bad-value",
        )
    inner, inner_version, kind, hash_type, length = _REQUEST.unpack_from(data, _HEADER.size + _REPORT_BYTES)
    end = _DATA + length
    if inner != _REQUEST.size + length or size != end or end > len(data):
        raise Malformed(
            f"HCL report: its lengths do not agree: {size} of {len(data)} bytes, of which {inner} and {length} within",
            code="bad-length",
        )
    if inner_version != 1 or kind not in _TYPES or hash_type not in _HASHES:
        raise Malformed(
            f"HCL report: version {inner_version}, report type {kind} and hash {hash_type}, expected 1, one of "
            f"{', '.join(map(str, sorted(_TYPES)))} and one of {', '.join(map(str, sorted(_HASHES)))}",
            code="bad-value",
        )
    if any(data[end:]):
        raise Malformed("HCL report: bytes other than zero after it", code="trailing-bytes")
    tee, hash_name, runtime = _TYPES[kind], _HASHES[hash_type], data[_DATA:end]
    report = data[_HEADER.size : _HEADER.size + _REPORT_BYTES]
    if tee == "tdx":
        if any(report[_TD_REPORT:]):
            raise Malformed("HCL report: bytes other than zero after the TDREPORT", code="trailing-bytes")
        report = report[:_TD_REPORT]
    return Hcl(
        version=version,
        tee=tee,
        report=report,
        carried=report[_TD_REPORT_DATA if tee == "tdx" else _SNP_REPORT_DATA],
        bound=hashlib.new(hash_name, runtime).digest().ljust(_REPORT_DATA_BYTES, b"\0"),
        hash=hash_name,
        runtime=parse_runtime(runtime),
    )


@functools.lru_cache(maxsize=256)
def parse_runtime(data: bytes) -> Runtime:
    """Parse runtime data: strict JSON with one attestation key. Members that are not read are let be, for the
    hash covers them. Raises `Malformed`.
    """
    value = canonical.loads(data, what="runtime data", max_bytes=MAX_BYTES)
    if not isinstance(value, dict):
        raise Malformed(f"runtime data: expected an object, got {unexpected.kind(value)}", code="not-object")
    user_data = value.get("user-data")
    return Runtime(
        ak=_ak(value.get("keys")),
        settings=_settings(value.get("vm-configuration")),
        user_data=None if user_data is None else _hex(user_data),
    )


def _ak(keys: Any) -> PublicKey:
    if not isinstance(keys, list) or len(keys) > MAX_KEYS or not all(isinstance(jwk, dict) for jwk in keys):
        raise Malformed(
            f"runtime data: keys: expected a list of at most {MAX_KEYS} objects", code="bad-value"
        )
    named = [jwk for jwk in keys if jwk.get("kid") == AK]
    if len(named) != 1:
        raise Malformed(f"runtime data: {len(named)} keys called {AK}, expected one", code="bad-value")
    key = named[0]
    modulus, exponent = _base64url(key, "n"), _base64url(key, "e")
    if key.get("kty") != "RSA" or exponent != _EXPONENT:
        raise Malformed(f"runtime data: {AK} is not RSA with exponent 65537", code="unknown-key")
    if not _MODULUS[0] <= len(modulus) <= _MODULUS[1] or modulus[0] < 0x80 or not modulus[-1] & 1:
        raise Malformed(f"runtime data: {AK} is not RSA of 2048 to 4096 bits", code="unknown-key")
    return public_key.key_of_modulus(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))


def _settings(value: Any) -> dict[str, str | int | bool]:
    if not isinstance(value, dict) or len(value) > MAX_SETTINGS:
        raise Malformed(
            f"runtime data: vm-configuration: expected an object of at most {MAX_SETTINGS} entries, got {unexpected.kind(value)}",
            code="bad-value",
        )
    out: dict[str, str | int | bool] = {}
    for name, setting in value.items():
        if len(name) > 64 or not name.isascii() or not name.replace("-", "").isalnum():
            wanted = "names of at most 64 letters, digits and dashes"
            raise Malformed(
                f"runtime data: vm-configuration: expected {wanted}, got {unexpected.quoted(name)}",
                code="bad-value",
            )
        if isinstance(setting, str) and (
            len(setting) > 256 or not (setting.isascii() and setting.isprintable())
        ):
            raise Malformed(
                f"runtime data: vm-configuration.{name}: expected printable ASCII of at most 256 characters, got {unexpected.quoted(setting)}",
                code="bad-value",
            )
        if isinstance(setting, str | int | bool):
            out[f"vm.{name}"] = setting
    return out


def _base64url(key: dict[str, Any], name: str) -> bytes:
    """A number of the key: base64url without padding, in its one form (RFC 7515, section 2)."""
    text = key.get(name)
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= 1024:
        raise Malformed(
            f"runtime data: {AK}.{name}: expected base64url of 1 to 1024 characters, got {unexpected.kind(text)}",
            code="bad-value",
        )
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"runtime data: {AK}.{name}: not base64url", code="bad-value") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise Malformed(f"runtime data: {AK}.{name}: not in the one form of base64url", code="bad-value")
    return raw


def _hex(text: Any) -> bytes:
    try:
        raw = bytes.fromhex(text) if isinstance(text, str) and text.isalnum() else b""
    except ValueError:
        raw = b""
    if len(raw) != MAX_USER_DATA:
        raise Malformed(
            f"runtime data: user-data: expected {MAX_USER_DATA} bytes in hexadecimal", code="bad-value"
        )
    return raw
