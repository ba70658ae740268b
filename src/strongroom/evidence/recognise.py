"""From a file of whatever kind to evidence: which TEE's it is, and how it was wrapped. Nothing of it is believed.

Recognised as they stand: our own JSON, SGX and TDX quotes (versions 3 to 5), SNP reports (alone, or in the answer
of the guest's driver), Nitro documents, CCA tokens, Azure's HCL reports, NVIDIA's SPDM exchanges, TPM quotes.
Unwrapped, also one inside another: white space, hexadecimal, base64, base64url, PEM, gzip; JSON (wrapped.py) of
Trustee, go-tpm-tools, Azure, or of anybody, where one value in it is recognised; go-tpm-tools' protocol buffers,
binary or as text; dstack's binary forms; YAML of any of these, and what tpm2_quote prints; buffers with room left.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.evidence import wrapped, wrapped_text
from strongroom.model import evidence as evidence_model
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FILE = 4 * 1024 * 1024
MAX_LAYERS = 6

KNOWN = (
    "our own JSON, SGX or TDX quote, SNP report, Nitro document, CCA token, HCL report, SPDM exchange, TPM quote; "
    "raw, hexadecimal, base64, PEM, gzip, in JSON of Trustee, go-tpm-tools or Azure, or by dstack"
)
_SNP_REPORT = 1184
_SNP_VERSIONS = range(2, 6)
_SNP_ANSWER = 32  # the head of MSG_REPORT_RSP: status, size, zeros
_DCAP_HEAD = struct.Struct("<HHI4s16s")
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_TEES = {0: "sgx", 0x81: "tdx"}
_HEX = re.compile(rb"(?:0[xX])?[0-9a-fA-F]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_SPACE = re.compile(rb"\s+")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a file is. kind: for people. layers: its wrappings, from the outside.

    evidence: in the verifier's parts, maybe not all of them. endorsements: parts of endorsements that were in the
    file beside it (`vek`).
    """

    kind: str
    evidence: Evidence
    layers: tuple[str, ...] = ()
    endorsements: dict[str, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The object form, without the evidence itself."""
        return {
            "kind": self.kind,
            "tee": self.evidence.tee,
            "layers": list(self.layers),
            "parts": sorted(self.evidence.parts),
            "endorsements": sorted(self.endorsements),
        }


def recognise(data: bytes) -> Recognised:
    """Tell what `data` is. Raises `Malformed` when it is nothing that this version knows."""
    if len(data) > MAX_FILE:
        raise Malformed(f"evidence: {len(data)} bytes, at most {MAX_FILE} allowed", code="too-large")
    found = _recognise(data, MAX_LAYERS)
    if found is None:
        raise Malformed(
            "evidence: of no kind that is known here", code="unknown-evidence", hint=f"known: {KNOWN}"
        )
    return found


def _recognise(data: bytes, layers: int) -> Recognised | None:
    if not data:
        return None
    bare = _bare(data)
    if bare is not None:
        return bare
    if layers == 0:
        return None
    for name, unwrap in _LAYERS:
        inner = unwrap(data)
        if inner is None:
            continue
        found = _recognise(inner, layers - 1)
        if found is not None:
            return replace(found, layers=(name, *found.layers))
    stripped = data.strip()
    if stripped[:1] in (b"{", b"["):
        return _json(stripped, layers)
    packed = wrapped.packed(data)
    if packed is not None:
        return _of_tree(packed, "MessagePack", layers)
    listed = wrapped.listed(stripped)
    if listed is not None:
        return _of_tree(listed, "YAML", layers)
    return _composed(wrapped.protocol_buffer(data), "protocol buffer") or _composed(
        wrapped.text_form(stripped), "protocol buffer as text"
    )


def _bare(data: bytes) -> Recognised | None:
    for kind, tee, part, matches in _KINDS:
        content = matches(data)
        if content is not None:
            return Recognised(kind=kind, evidence=Evidence(tee=tee, parts={part: content}))
    if len(data) > _DCAP_HEAD.size:
        version, _, tee_type, _, vendor = _DCAP_HEAD.unpack_from(data)
        if version in (3, 4, 5) and vendor == _INTEL_QE and tee_type in _TEES:
            tee = _TEES[tee_type]
            quote = wrapped.without_room(data)
            room = len(data) - len(quote)
            return Recognised(
                kind=f"{tee.upper()} quote, version {version}",
                evidence=Evidence(tee=tee, parts={"quote": quote}),
                layers=(f"a buffer with {room} zero bytes left after it",) if room else (),
            )
    return None


def _json(data: bytes, layers: int) -> Recognised | None:
    try:
        value = canonical.loads(data, what="evidence", max_bytes=MAX_FILE)
    except Malformed as cause:
        if cause.code == "duplicate-key":
            raise
        return None
    if isinstance(value, dict) and value.keys() - {"devices"} == {"tee", "parts"}:
        read = evidence_model.read(fields.Fields(value, "evidence"))
        attached = f" with {len(read.devices)} attached device(s)" if read.devices else ""
        return Recognised(kind=f"evidence of {read.tee}{attached}", evidence=read, layers=("our own JSON",))
    return _of_tree(value, "JSON", layers)


def _of_tree(value: object, layer: str, layers: int) -> Recognised | None:
    """The evidence in a value of objects and lists: in a form that is known, or anywhere in it."""
    broken = None
    try:
        composed = _composed(wrapped.composed(value), layer)
    except Malformed as cause:
        composed, broken = None, cause
    if composed is not None:
        return composed
    found = []
    for place, leaf in wrapped.leaves(value):
        inner = _recognise(leaf, layers - 1)
        if inner is not None:
            found.append(replace(inner, layers=(f"{layer}, {place}", *inner.layers)))
    # The report itself beside its fields will do; the quote of a virtual TPM does not stand for the hardware's report.
    if broken is not None and not {one.evidence.tee for one in found} - {"tpm"}:
        raise broken
    # Of several the most telling one: a quote of a virtual TPM says less than the hardware's report beside it.
    return min(found, key=lambda one: _ORDER.index(one.evidence.tee), default=None)


def _composed(made: wrapped.Composed | None, layer: str) -> Recognised | None:
    if made is None:
        return None
    return Recognised(
        kind=made.kind,
        evidence=Evidence(tee=made.tee, parts=made.parts),
        layers=(layer,),
        endorsements=made.endorsements,
    )


def _snp(data: bytes) -> bytes | None:
    return data if len(data) == _SNP_REPORT and _is_snp(data) else None


def _snp_answer(data: bytes) -> bytes | None:
    """The guest driver's answer: status 0, the size of a report, then the report, perhaps with room left after it."""
    if len(data) < _SNP_ANSWER + _SNP_REPORT or len(data) > 8192:
        return None
    status, size = struct.unpack_from("<II", data)
    report = data[_SNP_ANSWER : _SNP_ANSWER + _SNP_REPORT]
    zeros = data[8:_SNP_ANSWER] + data[_SNP_ANSWER + _SNP_REPORT :]
    return report if status == 0 and size == _SNP_REPORT and not any(zeros) and _is_snp(report) else None


def _is_snp(data: bytes) -> bool:
    return int.from_bytes(data[:4], "little") in _SNP_VERSIONS and data[0x34:0x38] == b"\x01\0\0\0"


def _starts(*heads: bytes) -> Callable[[bytes], bytes | None]:
    return lambda data: data if data.startswith(heads) else None


def _nitro(data: bytes) -> bytes | None:
    return data if data[:1] in (b"\x84", b"\xd2") and b"module_id" in data[:512] else None


def _spdm(data: bytes) -> bytes | None:
    """A GET_MEASUREMENTS request of SPDM 1.1, 37 bytes, and its response."""
    return data if data[:2] == b"\x11\xe0" and data[37:39] == b"\x11\x60" else None


_KINDS: tuple[tuple[str, str, str, Callable[[bytes], bytes | None]], ...] = (
    ("SNP report", "snp", "report", _snp),
    ("SNP report in the driver's answer", "snp", "report", _snp_answer),
    ("HCL report of an Azure VM", "azure", "hcl-report", _starts(b"HCLA")),
    ("Nitro attestation document", "nitro", "document", _nitro),
    ("CCA token", "cca", "token", _starts(b"\xd9\x01\x8f")),
    ("SPDM measurements of an NVIDIA device", "nvgpu", "report", _spdm),
    ("TPM quote", "tpm", "quote", _starts(b"\xff\x54\x43\x47\x80\x18")),
)
_ORDER = ("azure", "tdx", "sgx", "snp", "nitro", "cca", "nvgpu", "gcp", "tpm")


def _hexadecimal(data: bytes) -> bytes | None:
    text = _SPACE.sub(b"", data)
    if len(text) < 64 or _HEX.fullmatch(text) is None:
        return None
    digits = text[2:] if text[:2] in (b"0x", b"0X") else text
    return None if len(digits) % 2 else bytes.fromhex(digits.decode("ascii"))


def _of_base64(data: bytes) -> bytes | None:
    text = _SPACE.sub(b"", data)
    if len(text) < 64 or _BASE64.fullmatch(text) is None:
        return None
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_pem(data: bytes) -> bytes | None:
    """The first block that is no certificate."""
    for label, body in _PEM.findall(data):
        if label != b"CERTIFICATE":
            return _of_base64(body)
    return None


def _of_gzip(data: bytes) -> bytes | None:
    if data[:2] != b"\x1f\x8b":
        return None
    engine = zlib.decompressobj(wbits=31)
    try:
        out = engine.decompress(data, MAX_FILE)
    except zlib.error:
        return None
    return out if engine.eof and not engine.unused_data else None


def _of_tpm2_tools(data: bytes) -> bytes | None:
    return wrapped_text.tpm2_quote(data.decode("ascii")) if data.isascii() and b"quoted: " in data else None


_LAYERS: tuple[tuple[str, Callable[[bytes], bytes | None]], ...] = (
    ("gzip", _of_gzip),
    ("PEM", _of_pem),
    ("hexadecimal", _hexadecimal),
    ("base64", _of_base64),
    ("dstack, SCALE", wrapped.scale),
    ("what tpm2_quote prints", _of_tpm2_tools),
)
