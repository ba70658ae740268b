"""A TEE's report in protocol buffers of go-sev-guest and go-tdx-guest, as go-tpm-tools puts it beside a TPM's quotes.

Both are written field by field, in each form of protocol buffers: binary by number, JSON in camelCase, text in snake_case.
They are put together bit for bit, or refused (`not-whole`): each field has its size, sizes that are written are those
that are there. Protocol buffers leave out numbers that are 0; nothing else may be missing. Layouts: AMD 56860,
ATTESTATION_REPORT; Intel TDX DCAP Quoting Library API, appendix A (quote version 4, certification of type 6).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from strongroom.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable


def _numbered(names: str) -> dict[str, tuple[int, str]]:
    """Fields of plain values, numbered from 1 in that order."""
    return {name: (number, "") for number, name in enumerate(names.split(), 1)}


# By message: each field's name, with its number and, of a message within, that message's name.
_SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "snp": {"report": (1, "report"), "certificate_chain": (2, "chain"), "product": (3, "ignored")},
    "report": _numbered(
        "version guest_svn policy family_id image_id vmpl signature_algo current_tcb platform_info signer_info "
        "report_data measurement host_data id_key_digest author_key_digest report_id report_id_ma reported_tcb "
        "chip_id committed_tcb current_build current_minor current_major committed_build committed_minor "
        "committed_major launch_tcb signature cpuid1eax_fms launch_mit_vector current_mit_vector"
    ),
    "chain": {
        "vcek_cert": (1, ""),
        "ask_cert": (2, ""),
        "ark_cert": (3, ""),
        "firmware_cert": (4, ""),
        "vlek_cert": (6, ""),
        "extras": (7, "ignored"),
    },
    "tdx": {
        "header": (1, "header"),
        "td_quote_body": (2, "body"),
        "signed_data_size": (3, ""),
        "signed_data": (4, "signed"),
        "extra_bytes": (5, ""),
    },
    "header": _numbered("version attestation_key_type tee_type qe_svn pce_svn qe_vendor_id user_data"),
    "body": _numbered(
        "tee_tcb_svn mr_seam mr_signer_seam seam_attributes td_attributes xfam mr_td mr_config_id mr_owner "
        "mr_owner_config rtmrs report_data"
    ),
    "signed": {
        "signature": (1, ""),
        "ecdsa_attestation_key": (2, ""),
        "certification_data": (3, "certification"),
    },
    "certification": {
        "certificate_data_type": (1, ""),
        "size": (2, ""),
        "qe_report_certification_data": (3, "qe"),
    },
    "qe": {
        "qe_report": (1, "enclave"),
        "qe_report_signature": (2, ""),
        "qe_auth_data": (3, "auth"),
        "pck_certificate_chain_data": (4, "pck"),
    },
    "pck": _numbered("certificate_data_type size pck_cert_chain"),
    "auth": _numbered("parsed_data_size data"),
    "enclave": _numbered(
        "cpu_svn misc_select reserved1 attributes mr_enclave reserved2 mr_signer reserved3 isv_prod_id isv_svn "
        "reserved4 report_data"
    ),
}
_CAPITAL = re.compile(r"([A-Z])")
_TYPE_QE, _TYPE_CHAIN = 6, 5
_RTMRS = 4
_SIGNATURE = 512

Plain = dict[str, list[Any]]


def of_binary(kind: str, data: bytes, fields: Callable[[bytes], dict[int, list[Any]]]) -> Plain:
    """A message's values by its fields' names. fields: reads a message in binary. Raises `ValueError`."""
    names = {number: (name, inner) for name, (number, inner) in _SCHEMA[kind].items()}
    out: Plain = {}
    for number, values in fields(data).items():
        name, inner = names.get(number, ("", "ignored"))
        if inner == "ignored":
            if not name:
                raise _not_whole(f"field {number} is not known")
            continue
        out[name] = [of_binary(inner, item, fields) if inner else item for item in values]
    return out


def of_tree(kind: str, value: object, as_bytes: Callable[[object], bytes]) -> Plain:
    """The same of JSON's object or of a message in text form. as_bytes: reads base64 or bytes."""
    if not isinstance(value, dict):
        raise _not_whole(f"{kind}: no message")
    out: Plain = {}
    for key, content in value.items():
        name = _CAPITAL.sub(r"_\1", key).lower()
        if name not in _SCHEMA[kind]:
            raise _not_whole(f"{key[:40]!r} is no field that is known")
        inner = _SCHEMA[kind][name][1]
        if inner == "ignored":
            continue
        values = content if isinstance(content, list) else [content]
        out[name] = [of_tree(inner, item, as_bytes) if inner else _scalar(item, as_bytes) for item in values]
    return out


def _scalar(value: object, as_bytes: Callable[[object], bytes]) -> int | bytes:
    if isinstance(value, int):
        return value
    # JSON gives numbers of 64 bits as text; a byte string of digits alone is longer than any of them.
    if isinstance(value, str) and value.isdigit() and len(value) <= 20:
        return int(value)
    return as_bytes(value) if value else b""


def snp_report(message: Plain) -> bytes:
    """The report's 1184 bytes. Raises `Malformed`."""
    report = _Message(_only_message(message, "report"))
    version = report.number("version", 4)
    head = version + report.number("guest_svn", 4) + report.number("policy", 8)
    head += report.run("family_id", 16) + report.run("image_id", 16) + report.number("vmpl", 4)
    head += (
        report.number("signature_algo", 4)
        + report.number("current_tcb", 8)
        + report.number("platform_info", 8)
    )
    head += report.number("signer_info", 4) + bytes(4)
    for name, size in (("report_data", 64), ("measurement", 48), ("host_data", 32), ("id_key_digest", 48)):
        head += report.run(name, size)
    head += report.run("author_key_digest", 48) + report.run("report_id", 32) + report.run("report_id_ma", 32)
    head += report.number("reported_tcb", 8) + _cpuid(
        int.from_bytes(report.number("cpuid1eax_fms", 4), "little")
    )
    head = head.ljust(0x1A0, b"\0") + report.run("chip_id", 64) + report.number("committed_tcb", 8)
    for which in ("current", "committed"):
        head += b"".join(report.number(f"{which}_{part}", 1) for part in ("build", "minor", "major")) + b"\0"
    head += report.number("launch_tcb", 8)
    head += report.number("launch_mit_vector", 8) + report.number("current_mit_vector", 8)
    return head.ljust(0x2A0, b"\0") + report.run("signature", _SIGNATURE)


def vek(message: Plain) -> bytes:
    """The certificate of the key that signed the report, empty where none or two came."""
    chain = message.get("certificate_chain", [{}])[0]
    certificates = [
        certificate
        for name in ("vcek_cert", "vlek_cert")
        for certificate in chain.get(name, [])
        if isinstance(certificate, bytes) and certificate
    ]
    return certificates[0] if len(certificates) == 1 else b""


def td_quote(message: Plain) -> bytes:
    """The quote's bytes, without what filled its buffer. Raises `Malformed`."""
    header, body = (
        _Message(_only_message(message, "header")),
        _Message(_only_message(message, "td_quote_body")),
    )
    out = (
        header.number("version", 2) + header.number("attestation_key_type", 2) + header.number("tee_type", 4)
    )
    for name, size in (("pce_svn", 2), ("qe_svn", 2), ("qe_vendor_id", 16), ("user_data", 20)):
        out += header.run(name, size)
    for name, size in (("tee_tcb_svn", 16), ("mr_seam", 48), ("mr_signer_seam", 48), ("seam_attributes", 8)):
        out += body.run(name, size)
    for name, size in (("td_attributes", 8), ("xfam", 8), ("mr_td", 48), ("mr_config_id", 48)):
        out += body.run(name, size)
    out += body.run("mr_owner", 48) + body.run("mr_owner_config", 48)
    out += b"".join(body.run("rtmrs", 48, place=place, of=_RTMRS) for place in range(_RTMRS))
    out += body.run("report_data", 64)
    signed = _signed(_Message(_only_message(message, "signed_data")))
    _same("signed_data_size", message, len(signed))
    return out + len(signed).to_bytes(4, "little") + signed


def _signed(signed: _Message) -> bytes:
    certification = _only_message(signed.values, "certification_data")
    qe = _Message(_only_message(certification, "qe_report_certification_data"))
    enclave, auth, pck = (
        _Message(_only_message(qe.values, name))
        for name in ("qe_report", "qe_auth_data", "pck_certificate_chain_data")
    )
    inner = enclave.run("cpu_svn", 16) + enclave.number("misc_select", 4)
    for name, size in (("reserved1", 28), ("attributes", 16), ("mr_enclave", 32), ("reserved2", 32)):
        inner += enclave.run(name, size)
    inner += enclave.run("mr_signer", 32) + enclave.run("reserved3", 96)
    inner += enclave.number("isv_prod_id", 2) + enclave.number("isv_svn", 2)
    inner += enclave.run("reserved4", 60) + enclave.run("report_data", 64) + qe.run("qe_report_signature", 64)
    data, chain = auth.rest("data"), pck.rest("pck_cert_chain")
    _same("parsed_data_size", auth.values, len(data))
    _same("certificate_data_type", pck.values, _TYPE_CHAIN)
    _same("size", pck.values, len(chain))
    inner += len(data).to_bytes(2, "little") + data
    inner += _TYPE_CHAIN.to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain
    _same("certificate_data_type", certification, _TYPE_QE)
    _same("size", certification, len(inner))
    out = signed.run("signature", 64) + signed.run("ecdsa_attestation_key", 64)
    return out + _TYPE_QE.to_bytes(2, "little") + len(inner).to_bytes(4, "little") + inner


def _cpuid(eax: int) -> bytes:
    """Family, model and stepping as the report has them, from CPUID's own form of them."""
    family, model = eax >> 8 & 0xF, (eax >> 16 & 0xF) << 4 | eax >> 4 & 0xF
    more = eax >> 20 & 0xFF
    if eax & ~0x0FFF0FFF or (more and family != 0xF) or family + more > 0xFF:
        raise _not_whole("cpuid1eax_fms is no family, model and stepping")
    return bytes((family + more, model, eax & 0xF))


class _Message:
    """One message's values. Nothing that has a size may be missing."""

    def __init__(self, values: Plain) -> None:
        self.values = values

    def number(self, name: str, size: int) -> bytes:
        """A number, little-endian; 0 where it is left out."""
        values = self.values.get(name, [0])
        number = values[0] if len(values) == 1 else None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << (8 * size):
            raise _not_whole(f"{name} is no number of {size} byte(s)")
        return number.to_bytes(size, "little")

    def run(self, name: str, size: int, *, place: int = 0, of: int = 1) -> bytes:
        """A run of bytes, of several the one at `place`."""
        values = self.values.get(name, [])
        run = values[place] if len(values) == of else None
        if not isinstance(run, bytes) or len(run) != size:
            raise _not_whole(f"{name} is not {size} bytes")
        return run

    def rest(self, name: str) -> bytes:
        """Bytes of whatever size; empty where they are left out."""
        values = self.values.get(name, [b""])
        run = values[0] if len(values) == 1 else None
        if not isinstance(run, bytes) or len(run) > 0xFFFF:
            raise _not_whole(f"{name} is no run of bytes")
        return run


def _only_message(values: Plain, name: str) -> Plain:
    messages = values.get(name, [])
    if len(messages) != 1 or not isinstance(messages[0], dict):
        raise _not_whole(f"{name} is missing")
    return messages[0]


def _same(name: str, values: Plain, demanded: int) -> None:
    if values.get(name, [0]) != [demanded]:
        raise _not_whole(f"{name} is not the {demanded} that it must be")


def _not_whole(why: str) -> Malformed:
    return Malformed(
        f"report as fields: {why}",
        code="not-whole",
        hint="its signature is over bits, which cannot be put together again from this; give the report itself",
    )
