"""Evidence as other programs wrap it: JSON of Trustee, Azure and go-tpm-tools, the latter's protocol buffers, dstack.

Where evidence is of several parts, they are put under the names that our verifiers read. Everything is bounded, and
whatever does not fit is not recognised, never guessed: the verifiers judge the parts strictly, and what cannot be put
together bit for bit is refused here.
Formats: Trustee (snp, tdx, az-snp-vtpm, az-tdx-vtpm, nvidia), Azure guest attestation requests, go-tpm-tools
proto/attest.proto with a TEE's report beside (wrapped_google.py), dstack's MessagePack, NVIDIA's SDKs.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.crypto.pki import x509
from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence.wrappings import dump, google, msgpack, snp, yaml
from strongroom.evidence.wrappings import table as wrapped_table
from strongroom.evidence.wrappings import text as wrapped_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_TEXT = 2 * 1024 * 1024
LEAST = 48  # bytes: nothing shorter is evidence
_TPM_QUOTE = b"\xff\x54\x43\x47\x80\x18"
_RSASSA_SHA256 = b"\x00\x14\x00\x0b"
_SHA256 = 0x000B
_PCRS = 24
_TEES = {"sev_snp": "snp", "tdx": "tdx"}  # go-tpm-tools' names
_TDX_TYPE = b"\x81\0\0\0"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
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


def composed(value: dict[str, Any]) -> tuple[Composed, frozenset[str]] | None:
    """The evidence in a decoded object whose form is known, and the names of the fields that it is made of; else None.

    Raises `Malformed` (`not-whole`) for a report written field by field that cannot be put together bit for bit.
    """
    for read, names in _READERS:
        try:
            recognised = read(value)
        except Malformed as cause:
            if cause.code == "not-whole":
                raise
            recognised = None
        except (KeyError, TypeError, ValueError, AttributeError):
            recognised = None
        if recognised is not None:
            return recognised, frozenset(names.split()) if names else frozenset(value)
    return None


def leaves(
    value: object, *, taken: Callable[[str, dict[str, Any]], frozenset[str]]
) -> Iterator[tuple[str, bytes]]:
    """(place, bytes) of every text and list of bytes in a decoded value that is long enough for evidence, in order.

    taken: called with every object and its place before what is in it; the fields that it names are not looked into.
    """
    stack: list[tuple[str, object]] = [("", value)]
    while stack:
        place, node = stack.pop()
        if isinstance(node, str):
            if LEAST <= len(node) <= MAX_TEXT:
                yield place, node.encode("utf-8", "replace")
        elif isinstance(node, bytes):
            if len(node) >= LEAST:
                yield place, node
        elif (run := dump.of_value(node)) is not None:
            yield place, run
        elif isinstance(node, dict):
            used_keys = taken(place, node)
            left = [(_below(place, key), item) for key, item in node.items() if key not in used_keys]
            stack += reversed(left)
        elif isinstance(node, list):
            stack += [(f"{place}[{index}]", item) for index, item in enumerate(node)][::-1]


def _below(place: str, key: str) -> str:
    """The place of a field, as jq writes it: a name that is none is quoted, so that no two places look alike."""
    step = f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key[:80])}]"
    return (place + step)[-200:]


def _one_of(value: dict[str, Any], *names: str) -> Any:
    """The value under the one of `names` that is there; None where none is. Raises `ValueError` where several are."""
    present = [name for name in names if name in value]
    if len(present) > 1:
        raise ValueError("a field under two names")
    return value[present[0]] if present else None


def _azure_snake(value: dict[str, Any]) -> Composed | None:
    """Trustee's attester for Azure: of each version, with texts or with lists of bytes."""
    quote = _one_of(value, "tpm_quote", "quote", "tpm_attestation")
    if isinstance(quote, dict) and "tpm_attestation" in value:  # attested-tls, in YAML
        quote = quote.get("quote")
    report = _one_of(value, "hcl_report", "hcl_report_base64", "report")
    if not isinstance(quote, dict) or report is None or not {"signature", "message", "pcrs"} <= quote.keys():
        return None
    parts = {
        "hcl-report": _bytes(report),
        "quote": _bytes(quote["message"]),
        "signature": _rsassa(_bytes(quote["signature"])),
        "pcrs": b"".join(_bytes(register) for register in quote["pcrs"][:_PCRS]),
    }
    td_quote = _one_of(value, "td_quote", "tdx_quote_base64")
    if td_quote is not None:
        parts["td-quote"] = without_room(_bytes(td_quote))
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
    for quote in value["quotes"][:8]:
        bank = quote["pcrs"]["hash"]
        values = {int(index): _bytes(text) for index, text in quote["pcrs"]["pcrs"].items()}
        quotes.append((_bytes(quote["quote"]), _bytes(quote["rawSig"]), bank in ("SHA256", _SHA256), values))
    tees = {name: value.get(f"{_camel(name)}Attestation") for name in _TEES}
    return _google(
        quotes,
        ak=_bytes(value["akCert"]),
        issuers=[_bytes(certificate) for certificate in value.get("intermediateCerts", [])[: x509.MAX_PATH]],
        log=_bytes(value["eventLog"]) if value.get("eventLog") else b"",
        tees={kind: google.of_tree(kind, report, _base64) for kind, report in _present(tees)},
    )


def _snp_fields(value: dict[str, Any]) -> Composed | None:
    """An SNP report field by field with its certificates, as Trustee's attester gives it."""
    fields = value.get("attestation_report")
    if not isinstance(fields, dict) or not snp.is_fields(fields):
        return None
    report = snp.report(fields, _bytes)
    return Composed(
        kind="SNP report, written field by field",
        tee="snp",
        parts={"report": report},
        endorsements=wrapped_table.of_chain(value.get("cert_chain"), certificate=_certificate, run=_bytes),
    )


def _snp_with_chain(value: dict[str, Any]) -> Composed | None:
    """An SNP report in bytes with certificates beside it: by name, in a list, or in the driver's table.

    As attestation-rs, Veraison, systemd and Google's Confidential Space write it.
    """
    report_text = _one_of(value, "attestation_report", "outblob", "report")
    chain = _one_of(value, "cert_chain", "auxblob", "auxBlob", "aux_blob")
    if not isinstance(report_text, str | list | bytes) or not chain:
        return None
    report = _bytes(report_text)
    if len(report) != snp.SIZE:
        return None
    endorsements = wrapped_table.of_chain(chain, certificate=_certificate, run=_bytes)
    kind = "SNP report and its certificates"
    return Composed(kind=kind, tee="snp", parts={"report": report}, endorsements=endorsements)


def extended(data: bytes) -> Composed | None:
    """An SNP report with the driver's table of certificates behind it, as tools write an extended report."""
    report, table = data[: snp.SIZE], data[snp.SIZE :]
    if not wrapped_table.begins(table):
        return None
    return Composed(
        kind="SNP report and its certificates",
        tee="snp",
        parts={"report": report},
        endorsements=wrapped_table.of_names(wrapped_table.entries(table)),
    )


def _snp_bare(value: dict[str, Any]) -> Composed | None:
    """An SNP report field by field alone."""
    return _snp_fields({"attestation_report": value})


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
    """One device of NVIDIA's SDKs or of Trustee: SPDM exchange and its certificates, PEM in base64."""
    report = _one_of(value, "evidence", "attestationReportHexStr")
    text = _one_of(value, "certificate", "certChainBase64Encoded")
    if not isinstance(report, str) or not isinstance(text, str):
        return None
    exchange = _bytes(report)
    if exchange[:1].isalnum() and exchange.isalnum():  # NVIDIA's service is sent hexadecimal in base64
        exchange = bytes.fromhex(exchange.decode())
    if exchange[:2] != b"\x11\xe0":
        return None
    chain = text.encode() if "-----BEGIN" in text else _bytes(text)
    return Composed(
        kind="evidence of an NVIDIA device",
        tee="nvgpu",
        parts={"report": exchange, "certificates": b"".join(_certificates(chain))},
    )


_READERS: tuple[tuple[Callable[[dict[str, Any]], Composed | None], str], ...] = (
    (
        _azure_snake,
        "version tpm_attestation tpm_quote quote hcl_report hcl_report_base64 report td_quote tdx_quote_base64 vcek",
    ),
    (_azure_camel, "tpmQuote hclReport pcrs tdQuote"),
    (_go_tpm_tools, "akPub quotes akCert intermediateCerts eventLog sevSnpAttestation tdxAttestation"),
    (_nvidia, "evidence certificate attestationReportHexStr certChainBase64Encoded"),
    (_snp_fields, "attestation_report cert_chain"),
    (_snp_bare, ""),
    (_snp_with_chain, "attestation_report outblob report cert_chain auxblob auxBlob aux_blob"),
    (_tdx, "quote cc_eventlog"),
)


def protocol_buffer(data: bytes) -> Composed | None:
    """go-tpm-tools' Attestation: 1 ak_pub, 2 quotes (1 quote, 2 raw_sig, 3 pcrs), 3 event_log, 6 ak_cert, 7 issuers."""
    try:
        top = _fields(data)
        if not {1, 2, 6} <= top.keys():
            return None
        quotes = []
        for quote_run in top[2][:8]:
            inner = _fields(_run(quote_run))
            pcrs = _fields(_run(inner[3][0]))
            values = {}
            for entry in pcrs.get(2, [])[:_PCRS]:
                pair = _fields(_run(entry))
                values[_number(pair.get(1, [0])[0])] = _run(pair[2][0])
            quotes.append((_run(inner[1][0]), _run(inner[2][0]), pcrs[1] == [_SHA256], values))
        return _google(
            quotes,
            ak=_run(top[6][0]),
            issuers=[_run(certificate) for certificate in top.get(7, [])[: x509.MAX_PATH]],
            log=_run(top[3][0]) if 3 in top else b"",
            tees={
                kind: google.of_binary(kind, _run(top[number][0]), _fields)
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
        for quote_fields in top["quotes"][:8]:
            (pcrs,) = quote_fields["pcrs"]
            values = {entry.get("key", [0])[0]: _run(entry["value"][0]) for entry in pcrs["pcrs"][:_PCRS]}
            wanted = pcrs["hash"][0] in ("SHA256", _SHA256)
            quotes.append((_run(quote_fields["quote"][0]), _run(quote_fields["raw_sig"][0]), wanted, values))
        return _google(
            quotes,
            ak=_run(top["ak_cert"][0]),
            issuers=[_run(certificate) for certificate in top.get("intermediate_certs", [])[: x509.MAX_PATH]],
            log=_run(top["event_log"][0]) if "event_log" in top else b"",
            tees={
                kind: google.of_tree(kind, reports[0], _run)
                for kind, reports in _present({name: top.get(f"{name}_attestation") for name in _TEES})
            },
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def packed(data: bytes) -> Any:
    """The value of dstack's attestation in MessagePack (version 1), None where it is none."""
    if not 0x80 < (data[0] if data else 0) < 0x90 or b"platform" not in data[:64]:
        return None
    try:
        value = msgpack.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "platform" in value else None


def _present(tees: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Which TEE's report is there, by its kind."""
    return ((_TEES[name], report) for name, report in tees.items() if report)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


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
    tees: dict[str, google.Plain],
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
                parts["snp-report"] = google.snp_report(tees["snp"])
                if vek := google.vek(tees["snp"]):
                    endorsements["vek"] = vek
            if "tdx" in tees:
                parts["td-quote"] = google.td_quote(tees["tdx"])
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
        if sum(len(values) for values in out.values()) > 1024:
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
        value = yaml.loads(data.decode()) if b":" in data[:200] else None
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
    """A certificate in DER, out of PEM or whatever else bytes come in."""
    if isinstance(value, str) and value.lstrip().startswith("-----BEGIN"):
        return _certificates(value.encode())[0]
    return _bytes(value)


def _certificates(text: bytes) -> list[bytes]:
    """The certificates of a text in PEM, whatever stands around them. Raises `ValueError` where there is none."""
    certificates = pem.find_blocks(text, b"CERTIFICATE")[: x509.MAX_PATH + 1]
    if not 0 < len(certificates) <= x509.MAX_PATH:
        raise ValueError("expected certificates")
    return certificates
