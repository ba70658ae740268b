"""Evidence as other programs wrap it: JSON of Trustee, Azure and go-tpm-tools, the latter's protocol buffers, dstack.

Where evidence is of several parts, they are put under the names that our verifiers read. Everything is bounded, and
whatever does not fit is not recognised, never guessed: the verifiers judge the parts strictly, and what cannot be put
together bit for bit is refused here.
Formats: confidential-containers Trustee (snp, tdx, az-snp-vtpm, az-tdx-vtpm, nvidia), Azure guest attestation
requests, go-tpm-tools proto/attest.proto with a TEE's report beside (wrapped_google.py), dstack
(MessagePack, version 1; SCALE, version 0).
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.crypto import x509
from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence import wrapped_google, wrapped_msgpack, wrapped_snp, wrapped_text, wrapped_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LEAVES = 4096
MAX_DEPTH = 12
MAX_TEXT = 2 * 1024 * 1024
_LEAST = 48  # bytes: nothing shorter is evidence
_TPM_QUOTE = b"\xff\x54\x43\x47\x80\x18"
_RSASSA_SHA256 = b"\x00\x14\x00\x0b"
_SHA256 = 0x000B
_PCRS = 24
_TEES = {"sev_snp": "snp", "tdx": "tdx"}  # go-tpm-tools' names
_TDX_TYPE = b"\x81\0\0\0"
_SCALE_KINDS = 2  # TDX, TDX at Google, Nitro
_SCALE_HEADS = frozenset((b"\3\0", b"\4\0", b"\5\0"))
_NITRO_HEADS = frozenset((b"\x84", b"\xd2"))
# Where the size of what follows header and report stands in a quote, by version and kind: Intel SGX and TDX DCAP
# Quoting Library API, appendix A.
_QUOTE_HEAD = struct.Struct("<HHI")
_SIZE = struct.Struct("<I")
_SIZE_AT = {(3, 0): 48 + 384, (4, 0): 48 + 384, (4, 0x81): 48 + 584}


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Evidence of several parts, put together. kind: whose format it was."""

    kind: str
    tee: str
    parts: dict[str, bytes]
    endorsements: dict[str, bytes] = field(default_factory=dict)


def composed(value: object) -> Composed | None:
    """The evidence in a decoded JSON value whose form is known, else None.

    Raises `Malformed` (`not-whole`) for a report told field by field that cannot be put together bit for bit.
    """
    for inner in _objects(value, 0):
        for read in (_azure_snake, _azure_camel, _go_tpm_tools, _nvidia, _snp_fields, _tdx):
            try:
                found = read(inner)
            except Malformed as cause:
                if cause.code == "not-whole":
                    raise
                found = None
            except (KeyError, TypeError, ValueError):
                found = None
            if found is not None:
                return found
    return None


def leaves(value: object) -> Iterator[tuple[str, bytes]]:
    """(place, bytes) of every text and list of bytes in a decoded JSON value."""
    count = 0
    stack: list[tuple[str, object, int]] = [("", value, 0)]
    while stack:
        place, one, depth = stack.pop()
        count += 1
        if count > MAX_LEAVES:
            return
        if isinstance(one, str) and len(one) <= MAX_TEXT:
            yield place or ".", one.encode()
        elif isinstance(one, bytes) and len(one) >= _LEAST:
            yield place or ".", one
        elif isinstance(one, list) and _is_bytes(one):
            yield place or ".", bytes(one)
        elif depth < MAX_DEPTH and isinstance(one, dict):
            stack += [(f"{place}.{key}"[:200], item, depth + 1) for key, item in reversed(one.items())]
        elif depth < MAX_DEPTH and isinstance(one, list):
            stack += [(f"{place}[{index}]"[:200], item, depth + 1) for index, item in enumerate(one[:256])][
                ::-1
            ]


def _objects(value: object, depth: int) -> Iterator[dict[str, Any]]:
    """The object, and those below it."""
    if isinstance(value, dict) and depth < MAX_DEPTH:
        yield value
        for item in value.values():
            yield from _objects(item, depth + 1)


def _is_bytes(items: list[object]) -> bool:
    return len(items) >= _LEAST and all(type(one) is int and 0 <= one < 256 for one in items)


def _azure_snake(value: dict[str, Any]) -> Composed | None:
    """Trustee's attester for Azure: of each version, with texts or with lists of bytes."""
    attested = value.get("tpm_attestation")
    quote = value.get("tpm_quote", value.get("quote"))
    if isinstance(attested, dict):  # attested-tls, in YAML
        quote = attested.get("quote")
    report = value.get("hcl_report", value.get("hcl_report_base64", value.get("report")))
    if not isinstance(quote, dict) or report is None or not {"signature", "message", "pcrs"} <= quote.keys():
        return None
    parts = {
        "hcl-report": _bytes(report),
        "quote": _bytes(quote["message"]),
        "signature": _rsassa(_bytes(quote["signature"])),
        "pcrs": b"".join(_bytes(one) for one in quote["pcrs"][:_PCRS]),
    }
    for name in ("td_quote", "tdx_quote_base64"):
        if name in value:
            parts["td-quote"] = without_room(_bytes(value[name]))
    endorsements = {"vek": _certificate(value["vcek"])} if "vcek" in value else {}
    return Composed(
        kind="evidence of an Azure VM, by Trustee", tee="azure", parts=parts, endorsements=endorsements
    )


def _azure_camel(value: dict[str, Any]) -> Composed | None:
    """Azure's own guest attestation: `tpmQuote` is a TPM2B_ATTEST with the signature after it."""
    if not {"tpmQuote", "hclReport", "pcrs"} <= value.keys():
        return None
    both = _bytes(value["tpmQuote"])
    size = int.from_bytes(both[:2], "big")
    quote, signature = both[2 : 2 + size], both[2 + size :]
    pcrs = value["pcrs"]
    parts = {
        "hcl-report": _bytes(value["hclReport"]),
        "quote": quote,
        "signature": signature,
        "pcrs": b"".join(_bytes(pcrs[str(index)]) for index in range(_PCRS) if str(index) in pcrs),
    }
    if "tdQuote" in value:
        parts["td-quote"] = without_room(_bytes(value["tdQuote"]))
    return Composed(kind="guest attestation of an Azure VM", tee="azure", parts=parts)


def _go_tpm_tools(value: dict[str, Any]) -> Composed | None:
    """go-tpm-tools' Attestation in the JSON form of protocol buffers."""
    if "quotes" not in value or "akCert" not in value:
        return None
    quotes = []
    for one in value["quotes"][:8]:
        bank = one["pcrs"]["hash"]
        values = {int(index): _bytes(text) for index, text in one["pcrs"]["pcrs"].items()}
        quotes.append((_bytes(one["quote"]), _bytes(one["rawSig"]), bank in ("SHA256", _SHA256), values))
    tees = {name: value.get(f"{_camel(name)}Attestation") for name in _TEES}
    return _google(
        quotes,
        ak=_bytes(value["akCert"]),
        issuers=[_bytes(one) for one in value.get("intermediateCerts", [])[: x509.MAX_PATH]],
        log=_bytes(value["eventLog"]) if value.get("eventLog") else b"",
        tees={kind: wrapped_google.of_tree(kind, told, _base64) for kind, told in _told(tees)},
    )


def _snp_fields(value: dict[str, Any]) -> Composed | None:
    """An SNP report field by field, alone or with its certificates, as Trustee's attester gives it."""
    fields = value.get("attestation_report", value)
    if not isinstance(fields, dict) or not wrapped_snp.is_fields(fields):
        return None
    report = wrapped_snp.report(fields, _bytes)
    chain = value.get("cert_chain") or []
    veks = [_bytes(one["data"]) for one in chain[:16] if one.get("cert_type") in ("VCEK", "VLEK")]
    return Composed(
        kind="SNP report, told field by field",
        tee="snp",
        parts={"report": report},
        endorsements={"vek": veks[0]} if len(veks) == 1 else {},
    )


def _tdx(value: dict[str, Any]) -> Composed | None:
    """Trustee's evidence of TDX: a quote, and the event log that explains its registers."""
    if not {"quote", "cc_eventlog"} <= value.keys() or not value["cc_eventlog"]:
        return None
    quote = _bytes(value["quote"])
    if quote[4:8] != _TDX_TYPE:
        return None
    parts = {"quote": without_room(quote), "ccel": _bytes(value["cc_eventlog"])}
    return Composed(kind="TDX quote and its event log, by Trustee", tee="tdx", parts=parts)


def _nvidia(value: dict[str, Any]) -> Composed | None:
    """One device of NVIDIA's SDK or of Trustee: SPDM exchange and its certificates, PEM in base64."""
    if not {"evidence", "certificate"} <= value.keys():
        return None
    report = _bytes(value["evidence"])
    if report[:2] != b"\x11\xe0":
        return None
    text = _bytes(value["certificate"])
    return Composed(
        kind="evidence of an NVIDIA device",
        tee="nvgpu",
        parts={"report": report, "certificates": b"".join(_certificates(text))},
    )


def protocol_buffer(data: bytes) -> Composed | None:
    """go-tpm-tools' Attestation: 1 ak_pub, 2 quotes (1 quote, 2 raw_sig, 3 pcrs), 3 event_log, 6 ak_cert, 7 issuers."""
    try:
        top = _fields(data)
        if not {1, 2, 6} <= top.keys():
            return None
        quotes = []
        for one in top[2][:8]:
            inner = _fields(_run(one))
            pcrs = _fields(_run(inner[3][0]))
            values = {}
            for entry in pcrs.get(2, [])[:_PCRS]:
                pair = _fields(_run(entry))
                values[_number(pair.get(1, [0])[0])] = _run(pair[2][0])
            quotes.append((_run(inner[1][0]), _run(inner[2][0]), pcrs[1] == [_SHA256], values))
        return _google(
            quotes,
            ak=_run(top[6][0]),
            issuers=[_run(one) for one in top.get(7, [])[: x509.MAX_PATH]],
            log=_run(top[3][0]) if 3 in top else b"",
            tees={
                kind: wrapped_google.of_binary(kind, _run(top[number][0]), _fields)
                for number, kind in ((8, "snp"), (9, "tdx"))
                if number in top
            },
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def text_form(data: bytes) -> Composed | None:
    """The same Attestation as text: `gotpm attest --format textproto`."""
    if b"quotes" not in data or b"ak_cert" not in data:
        return None
    try:
        top = wrapped_text.message(data.decode())
        quotes = []
        for one in top["quotes"][:8]:
            (pcrs,) = one["pcrs"]
            values = {entry.get("key", [0])[0]: _run(entry["value"][0]) for entry in pcrs["pcrs"][:_PCRS]}
            wanted = pcrs["hash"][0] in ("SHA256", _SHA256)
            quotes.append((_run(one["quote"][0]), _run(one["raw_sig"][0]), wanted, values))
        return _google(
            quotes,
            ak=_run(top["ak_cert"][0]),
            issuers=[_run(one) for one in top.get("intermediate_certs", [])[: x509.MAX_PATH]],
            log=_run(top["event_log"][0]) if "event_log" in top else b"",
            tees={
                kind: wrapped_google.of_tree(kind, told[0], _run)
                for kind, told in _told({name: top.get(f"{name}_attestation") for name in _TEES})
            },
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def packed(data: bytes) -> Any:
    """The value of dstack's attestation in MessagePack (version 1), None where it is none."""
    if not 0x80 < (data[0] if data else 0) < 0x90 or b"platform" not in data[:64]:
        return None
    try:
        value = wrapped_msgpack.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "platform" in value else None


def scale(data: bytes) -> bytes | None:
    """The quote at the beginning of dstack's attestation in SCALE (version 0): kinds, its length in compact form.

    What stands behind it (events, report data, configuration) is dstack's own and not signed as it stands.
    """
    if len(data) < _LEAST or data[0] != 0 or data[1] > _SCALE_KINDS:
        return None
    # With Google's platform the quote is optional, and there.
    for at in (3, 2) if data[2] == 1 else (2,):
        found = _sized(data, at)
        if found is not None:
            return found
    return None


def _sized(data: bytes, at: int) -> bytes | None:
    """The bytes at `at`, after their number in SCALE's compact form; nothing where they are no quote or document."""
    mode = data[at] & 3
    start = at + (1 << mode)
    size = int.from_bytes(data[at:start], "little") >> 2
    found = data[start : start + size]
    if mode == 3 or size < (0, 1 << 6, 1 << 14)[mode] or len(found) < max(size, _LEAST):
        return None
    return found if found[:2] in _SCALE_HEADS or found[:1] in _NITRO_HEADS else None


def _told(tees: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Which TEE's report is there, by its kind."""
    return ((_TEES[name], told) for name, told in tees.items() if told)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(one.capitalize() for one in others)


def _base64(value: object) -> bytes:
    """Bytes as JSON of protocol buffers has them: base64, of either alphabet. Raises `ValueError`."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError("expected base64")
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _google(
    quotes: list[tuple[bytes, bytes, bool, dict[int, bytes]]],
    *,
    ak: bytes,
    issuers: list[bytes],
    log: bytes,
    tees: dict[str, wrapped_google.Plain],
) -> Composed | None:
    """The quote of the SHA-256 bank, and the report of the TEE that came with it."""
    for quote, signature, wanted, values in quotes:
        if wanted and quote.startswith(_TPM_QUOTE):
            parts = {
                "quote": quote,
                "signature": signature,
                "ak-certificate": ak,
                "issuers": b"".join(issuers),
                "pcrs": b"".join(values[index] for index in sorted(values)),
            }
            if log:
                parts["event-log"] = log
            endorsements = {}
            if "snp" in tees:
                parts["snp-report"] = wrapped_google.snp_report(tees["snp"])
                if found := wrapped_google.vek(tees["snp"]):
                    endorsements["vek"] = found
            if "tdx" in tees:
                parts["td-quote"] = wrapped_google.td_quote(tees["tdx"])
            kind = "vTPM attestation, by go-tpm-tools"
            return Composed(kind=kind, tee="gcp", parts=parts, endorsements=endorsements)
    return None


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer's message. Raises `ValueError`."""
    out: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            out.setdefault(number, []).append(value)
        elif wire == 2:
            size, at = _varint(data, at)
            if number == 0 or size > len(data) - at:
                raise ValueError("truncated")
            out.setdefault(number, []).append(data[at : at + size])
            at += size
        else:
            raise ValueError("a wire type that has no place here")
        if sum(len(one) for one in out.values()) > 1024:
            raise ValueError("too many")
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _run(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("expected bytes")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise TypeError("expected a number")
    return value


def listed(data: bytes) -> Any:
    """The value of a YAML mapping of at least two keys, None where it is none."""
    try:
        value = wrapped_yaml.loads(data.decode()) if b":" in data[:200] else None
    except ValueError:
        return None
    return value if isinstance(value, dict) and len(value) > 1 else None


def without_room(quote: bytes) -> bytes:
    """A quote of Intel's out of the buffer of fixed size that a driver filled it into: by its own length, before zeros.

    Whatever else follows a quote stays, and its verifier refuses it.
    """
    try:
        version, _, tee_type = _QUOTE_HEAD.unpack_from(quote)
        at = _SIZE_AT.get((version, tee_type)) or 54 + _SIZE.unpack_from(quote, 50)[0]
        end = at + 4 + _SIZE.unpack_from(quote, at)[0]
    except struct.error:
        return quote
    return quote[:end] if len(quote) > end and not any(quote[end:]) else quote


def _bytes(value: object) -> bytes:
    """Bytes from a list of them, or from hexadecimal, base64 or base64url text. Raises `ValueError`."""
    if isinstance(value, list | bytes):
        return bytes(value)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise ValueError("expected bytes")
    try:
        return bytes.fromhex(value)
    except ValueError:
        pass
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise ValueError("expected base64") from None


def _rsassa(raw: bytes) -> bytes:
    """A bare RSA signature as a TPMT_SIGNATURE of RSASSA with SHA-256, which Azure's TPMs make."""
    return _RSASSA_SHA256 + len(raw).to_bytes(2, "big") + raw


def _certificate(value: object) -> bytes:
    if isinstance(value, str) and value.lstrip().startswith("-----BEGIN"):
        return _certificates(value.encode())[0]
    return _bytes(value)


def _certificates(text: bytes) -> tuple[bytes, ...]:
    return pem.decode(
        text.strip(), b"CERTIFICATE", what="certificates", max_blocks=x509.MAX_PATH, max_bytes=128 * 1024
    )
