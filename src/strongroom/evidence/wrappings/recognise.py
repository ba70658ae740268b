"""From a file of whatever kind to evidence: which TEE's it is, and how it was wrapped. Nothing of it is believed.

Recognised as they stand (recognise_raw.py): SGX and TDX quotes, SNP reports, Nitro documents, CCA tokens, Azure's HCL
reports, NVIDIA's SPDM exchanges, TPM quotes; and our own JSON.
Unwrapped, also one inside another: white space, hexadecimal, base64, base64url, PEM, gzip, UTF-16; JSON (wrapped.py)
of Trustee, go-tpm-tools, Azure, NVIDIA, or of anybody, where values in it are recognised; go-tpm-tools' protocol
buffers, binary or as text; dstack's binary forms; YAML of any of these, and what tpm2_quote prints; buffers with room
left; dumps and texts of programs and people around any of these (wrapped_dump.py).

A file may hold several pieces. All are found, each with its place (as jq writes it), and none is taken for the whole:
`recognise` gives one only where there is one, or where its place was asked for. What can be read in two ways that
both give evidence is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from strongroom.encoding import canonical, fields
from strongroom.errors import Malformed
from strongroom.evidence.wrappings import dump, recognise_raw, scale, trees
from strongroom.evidence.wrappings import text as wrapped_text
from strongroom.model import evidence as evidence_model
from strongroom.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_FILE = 4 * 1024 * 1024
MAX_LAYERS = 6
MAX_PIECES = 256
MAX_WORK = 64 * 1024 * 1024  # bytes that come out of all wrappings together

KNOWN = (
    "our own JSON, SGX or TDX quote, SNP report, Nitro document, CCA token, HCL report, SPDM exchange, TPM quote; "
    "raw, hexadecimal, base64, PEM, gzip, in a hex dump, in JSON of Trustee, go-tpm-tools, NVIDIA or Azure, or by dstack"
)
_SHOWN = 8
_HEX = re.compile(rb"(?:0[xX])?[0-9a-fA-F]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_PERCENT = re.compile(rb"%(2[bBfF]|3[dD])")
_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a file, or a piece of it, is. kind: for people. layers: its wrappings, from the outside.

    evidence: in the verifier's parts, maybe not all of them. endorsements: parts of endorsements that were in the
    file beside it (`vek`). place: where in the file it was found, "" where the file is nothing else.
    """

    kind: str
    evidence: Evidence
    layers: tuple[str, ...] = ()
    endorsements: dict[str, bytes] = field(default_factory=dict)
    place: str = ""

    def to_json(self) -> dict[str, object]:
        """The object form, without the evidence itself."""
        return {
            "kind": self.kind,
            "tee": self.evidence.tee,
            "place": self.place,
            "layers": list(self.layers),
            "parts": sorted(self.evidence.parts),
            "endorsements": sorted(self.endorsements),
        }


def recognise(data: bytes, *, place: str | None = None) -> Recognised:
    """Tell what `data` is. Raises `Malformed`: nothing that this version knows, or several pieces.

    place: which of several pieces is meant. The same evidence written twice is one piece.
    """
    candidates = pieces(data)
    list_of_pieces = "; ".join(
        f"{piece.place or 'the whole'} ({piece.kind})" for piece in candidates[:_SHOWN]
    )
    more = f"; and {len(candidates) - _SHOWN} more" if len(candidates) > _SHOWN else ""
    if place is not None:
        candidates = tuple(piece for piece in candidates if piece.place == place)
        if not candidates:
            raise Malformed(
                f"evidence: no piece at {place[:200]!r}",
                code="no-such-piece",
                hint=f"there are: {list_of_pieces}{more}",
            )
    first = candidates[0]
    if any(piece.evidence != first.evidence for piece in candidates):
        raise Malformed(
            f"evidence: {len(candidates)} pieces, and none is taken for the whole: {list_of_pieces}{more}",
            code="several",
            hint="name one of them by its place with --at-place, or judge each by itself; "
            "`strongroom evidence show` shows all",
        )
    return first


def pieces(data: bytes) -> tuple[Recognised, ...]:
    """Every piece of evidence in `data`, at least one, in the file's order. Raises `Malformed`."""
    if len(data) > MAX_FILE:
        raise Malformed(f"evidence: {len(data)} bytes, at most {MAX_FILE} allowed", code="too-large")
    candidates = _distinct(_Search().pieces(data, MAX_LAYERS))
    if not candidates:
        raise Malformed(
            "evidence: of no kind that is known here", code="unknown-evidence", hint=f"known: {KNOWN}"
        )
    return tuple(candidates)


def _distinct(candidates: list[Recognised]) -> list[Recognised]:
    """The pieces but for those that stand within another: the report in an HCL report, the quote of a whole attestation."""
    return [
        candidate
        for candidate in candidates
        if not any(
            _holds(other.evidence.parts, candidate.evidence.parts)
            for other in candidates
            if other is not candidate
        )
    ]


def _holds(parts: Mapping[str, bytes], others: Mapping[str, bytes]) -> bool:
    """Whether every one of `others` stands within one of `parts`, and is less than they are."""
    return sum(map(len, others.values())) < sum(map(len, parts.values())) and all(
        any(other in part for part in parts.values()) for other in others.values()
    )


class _Search:
    """One file's search. left: how many bytes may still come out of wrappings; count: pieces so far."""

    def __init__(self) -> None:
        self.left = MAX_WORK
        self.count = 0

    def pieces(self, data: bytes, layers: int) -> list[Recognised]:
        """The pieces in `data`; none where it is nothing known."""
        if not data:
            return []
        bare = recognise_raw.recognise(data)
        if bare is not None:
            self._one_more()
            kind, evidence, room = bare
            return [Recognised(kind=kind, evidence=evidence, layers=(room,) if room else ())]
        self.left -= len(data)
        if self.left < 0:
            raise Malformed(f"evidence: more than {MAX_WORK} bytes within its wrappings", code="too-large")
        if layers == 0:
            return []
        readings = [
            [replace(piece, layers=(name, *piece.layers)) for piece in self.pieces(inner, layers - 1)]
            for name, unwrap in _LAYERS
            if (inner := unwrap(data)) is not None
        ]
        readings.append(self._structured(data, layers))
        return _one_reading(readings) or self._text(data, layers)

    def _one_more(self) -> None:
        """Count a piece, of whatever form: all are held against each other in the end."""
        self.count += 1
        if self.count > MAX_PIECES:
            raise Malformed(f"evidence: more than {MAX_PIECES} pieces", code="too-many")

    def _structured(self, data: bytes, layers: int) -> list[Recognised]:
        """The pieces of JSON, MessagePack, SCALE, YAML and protocol buffers."""
        extended = trees.extended(data)
        if extended is not None and recognise_raw.recognise(extended.parts["report"]) is not None:
            return [_composed(extended, "", "an extended report")]
        stripped = data.strip()
        if stripped[:1] in (b"{", b"["):
            return self._json(stripped, layers)
        for value, name in (
            (trees.packed(data), "MessagePack"),
            (scale.read(data), "dstack, SCALE"),
            (trees.listed(stripped), "YAML"),
        ):
            if value is not None:
                return self.tree(value, name, layers)
        for composed, name in (
            (trees.protocol_buffer(data), "protocol buffer"),
            (trees.text_form(stripped), "protocol buffer as text"),
        ):
            if composed is not None:
                return [_composed(composed, "", name)]
        return []

    def _json(self, data: bytes, layers: int) -> list[Recognised]:
        try:
            value = _loads(data)
        except Malformed:
            raise
        except (ValueError, RecursionError):
            return []
        if _is_own(value):
            strict = canonical.loads(data, what="evidence", max_bytes=MAX_FILE)
            return [_own(strict, "")]
        return self.tree(value, "JSON", layers)

    def tree(self, value: object, layer: str, layers: int) -> list[Recognised]:
        """The pieces in a value of objects and lists: in forms that are known, and anywhere else in it."""
        recognised: list[Recognised] = []
        broken: list[Malformed] = []

        def _taken(place: str, tree: dict[str, Any]) -> frozenset[str]:
            if place and _is_own(tree):
                try:
                    own = _own(tree, place, f"{layer}, {place}")
                except Malformed:
                    return frozenset()
                self._one_more()
                recognised.append(own)
                return frozenset(tree)
            try:
                composed = trees.composed(tree)
            except Malformed as cause:
                broken.append(cause)
                return frozenset()
            if composed is None:
                return frozenset()
            self._one_more()
            recognised.append(_composed(composed[0], place, f"{layer}, {place}" if place else layer))
            return composed[1]

        for place, leaf in trees.leaves(value, taken=_taken):
            layer_shown = f"{layer}, {place}" if place else layer
            recognised += [
                replace(piece, layers=(layer_shown, *piece.layers), place=place + piece.place)
                for piece in self.pieces(leaf, layers - 1)
            ]
        # The report itself beside its fields will do; the quote of a virtual TPM does not stand for the hardware's report.
        if broken and not {piece.evidence.tee for piece in recognised} - {"tpm"}:
            raise broken[0]
        return recognised

    def _text(self, data: bytes, layers: int) -> list[Recognised]:
        """The pieces that a text for people holds: in dumps, lists of numbers, escapes, and words long enough."""
        recognised: list[Recognised] = []
        for place, readings in dump.segments(data, most=MAX_FILE):
            alternatives = [
                [
                    replace(
                        piece, layers=(f"{name}, {place}", *piece.layers), place=f"[{place}]{piece.place}"
                    )
                    for piece in self.pieces(inner, layers - 1)
                ]
                for name, inner in readings
            ]
            recognised += _one_reading(alternatives)
        return recognised


def _one_reading(readings: list[list[Recognised]]) -> list[Recognised]:
    """The pieces of the one reading that gives any. Raises `Malformed` where two give different evidence."""
    recognised = [reading for reading in readings if reading]
    if not recognised:
        return []
    first = [piece.evidence for piece in recognised[0]]
    for other in recognised[1:]:
        if [piece.evidence for piece in other] != first:
            raise Malformed(
                f"evidence: can be read in two ways, as {', '.join(recognised[0][0].layers)} ({recognised[0][0].kind}) "
                f"and as {', '.join(other[0].layers)} ({other[0].kind})",
                code="ambiguous",
                hint="give the evidence itself, without what stands around it",
            )
    return recognised[0]


def _loads(data: bytes) -> Any:
    """Anybody's JSON: with fractions and large numbers, which are no evidence; a key that comes twice is refused."""

    def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise Malformed(f"evidence: duplicate key {twice[:40]!r}", code="duplicate-key")
        return document

    return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)


def _is_own(value: object) -> bool:
    return isinstance(value, dict) and value.keys() - {"devices"} == {"tee", "parts"}


def _own(value: dict[str, Any], place: str, *layers: str) -> Recognised:
    read = evidence_model.read(fields.Fields(value, "evidence"))
    attached = f" with {len(read.devices)} attached device(s)" if read.devices else ""
    return Recognised(
        kind=f"evidence of {read.tee}{attached}",
        evidence=read,
        layers=(*layers, "our own JSON"),
        place=place,
    )


def _composed(composed: trees.Composed, place: str, layer: str) -> Recognised:
    return Recognised(
        kind=composed.kind,
        evidence=Evidence(tee=composed.tee, parts=composed.parts),
        layers=(layer,),
        endorsements=composed.endorsements,
        place=place,
    )


def _hexadecimal(data: bytes) -> bytes | None:
    text = b"".join(data.split())
    if len(text) < 64 or _HEX.fullmatch(text) is None:
        return None
    digits = text[2:] if text[:2] in (b"0x", b"0X") else text
    return None if len(digits) % 2 else bytes.fromhex(digits.decode("ascii"))


def _of_base64(data: bytes) -> bytes | None:
    text = b"".join(data.split())
    if len(text) < 64 or _BASE64.fullmatch(text) is None:
        return None
    plain = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_pem(data: bytes) -> bytes | None:
    """The one block that is no certificate, where nothing but certificates stands beside it."""
    blocks = [body for label, body in _PEM.findall(data) if label != b"CERTIFICATE"]
    return _of_base64(blocks[0]) if len(blocks) == 1 and not _PEM.sub(b"", data).strip() else None


def _of_gzip(data: bytes) -> bytes | None:
    if data[:2] != b"\x1f\x8b":
        return None
    engine = zlib.decompressobj(wbits=31)
    try:
        out = engine.decompress(data, MAX_FILE)
    except zlib.error:
        return None
    return out if engine.eof and not engine.unused_data else None


def _of_marked(data: bytes) -> bytes | None:
    """Text of programs that begin files with a mark of their encoding, PowerShell's redirection among them."""
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    code = _MARKS.get(data[:2])
    try:
        return None if code is None else data[2:].decode(code).encode()
    except UnicodeError:
        return None


def _of_tpm2_tools(data: bytes) -> bytes | None:
    if not data.isascii() or b"quoted: " not in data:
        return None
    return wrapped_text.tpm2_quote(data.replace(b"\r\n", b"\n").decode("ascii"))


def _of_open_enclave(data: bytes) -> bytes | None:
    """A report of Open Enclave, EGo's too: version 1, 2 for one that leaves the machine, the size of the quote behind."""
    is_enclave_report = (
        data[:8] == b"\1\0\0\0\2\0\0\0" and int.from_bytes(data[8:16], "little") == len(data) - 16
    )
    return data[16:] if is_enclave_report else None


def _of_percents(data: bytes) -> bytes | None:
    """A form or an address, with base64's signs as they are written there."""
    is_encoded = data.isascii() and _PERCENT.search(data)
    return _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), data) if is_encoded else None


_LAYERS: tuple[tuple[str, Callable[[bytes], bytes | None]], ...] = (
    ("gzip", _of_gzip),
    ("text with a byte order mark", _of_marked),
    ("PEM", _of_pem),
    ("hexadecimal", _hexadecimal),
    ("base64", _of_base64),
    ("what tpm2_quote prints", _of_tpm2_tools),
    ("a report of Open Enclave", _of_open_enclave),
    ("a form of the web", _of_percents),
)
