"""go-tpm-tools' Attestation in each form of protocol buffers, with a TEE's report beside the TPM's quotes: whole, or refused."""

from __future__ import annotations

import base64
import json

import pytest

from strongroom.errors import Malformed
from strongroom.evidence.wrappings import google, snp, trees
from strongroom.evidence.wrappings.recognise import pieces, recognise
from tests.unit.evidence.raw_pieces import PCRS, QUOTE, TPM_QUOTE
from tests.unit.evidence.raw_pieces import number as number_field
from tests.unit.evidence.raw_pieces import run as run_field
from tests.unit.evidence.wrapped_pieces import VECTORS, made, number


def quoted(data):
    """As protobuf's printer escapes bytes."""
    special = {0x22: r"\"", 0x27: r"\'", 0x5C: r"\\", 0x0A: r"\n", 0x0D: r"\r", 0x09: r"\t"}
    return "".join(special.get(one, chr(one) if 32 <= one < 127 else f"\\{one:03o}") for one in data)


def textproto():
    entries = "".join(
        f'    pcrs: {{ key: {at} value: "{quoted(one)}" }}\n' for at, one in PCRS.items()
    ).replace("key: 0 ", "")
    return f"""# proto-file: attest.proto
ak_pub: "\\000\\001\\x0b" "more"
quotes {{
  quote: "{quoted(TPM_QUOTE)}"
  raw_sig: "sha1"
  pcrs {{ hash: SHA1 pcrs {{ key: 1 value: "x" }} }}
}}
quotes: <
  quote: "{quoted(TPM_QUOTE)}", raw_sig: '{quoted(bytes(range(256)))}';
  pcrs {{
    hash: SHA256
{entries}  }}
>
event_log: "log"
instance_info {{ zone: "us-west1-b" project_number: 12 }}
ak_cert: "leaf"
intermediate_certs: "issuer"
intermediate_certs: "root"
"""


def test_go_tpm_tools_attestation_as_text():
    found = recognise(textproto().encode())
    assert found.evidence.tee == "gcp"
    assert found.layers == ("protocol buffer as text",)
    assert found.evidence.parts == {
        "quote": TPM_QUOTE,
        "signature": bytes(range(256)),
        "ak-certificate": b"leaf",
        "issuers": b"issuerroot",
        "pcrs": b"".join(PCRS.values()),
        "event-log": b"log",
    }
    for spoilt in (
        textproto().replace("SHA256", "SHA384"),
        textproto().replace('ak_cert: "leaf"', 'ak_cert: "leaf'),
        textproto().replace('ak_cert: "leaf"', "ak_cert: 7"),
        textproto().replace(r"\000", r"\777"),
        textproto().replace(r"\000", r"\q"),
        textproto() + "}",
        textproto() + "quotes {",
        textproto() + "a { " * 20 + "} " * 20,
    ):
        # Never the attestation: at most the one quote that stands whole in the text.
        assert {one.tee for one in read(spoilt)} <= {"tpm"}


def read(text):
    try:
        return [one.evidence for one in pieces(text.encode())]
    except Malformed:
        return []


# Beside a TPM's quotes go-tpm-tools puts a TEE's report, in protocol buffers of its own, field by field.


def snp_message(report):
    """The report as go-sev-guest tells it, by names; numbers that are 0 are left out."""
    numbers = {
        "version": (0, 4), "guest_svn": (4, 4), "policy": (8, 8), "vmpl": (0x30, 4), "signature_algo": (0x34, 4),
        "current_tcb": (0x38, 8), "platform_info": (0x40, 8), "signer_info": (0x48, 4), "reported_tcb": (0x180, 8),
        "committed_tcb": (0x1E0, 8), "current_build": (0x1E8, 1), "current_minor": (0x1E9, 1),
        "current_major": (0x1EA, 1), "committed_build": (0x1EC, 1), "committed_minor": (0x1ED, 1),
        "committed_major": (0x1EE, 1), "launch_tcb": (0x1F0, 8), "launch_mit_vector": (0x1F8, 8),
        "current_mit_vector": (0x200, 8),
    }  # fmt: skip
    runs = {
        "family_id": (0x10, 16), "image_id": (0x20, 16), "report_data": (0x50, 64), "measurement": (0x90, 48),
        "host_data": (0xC0, 32), "id_key_digest": (0xE0, 48), "author_key_digest": (0x110, 48),
        "report_id": (0x140, 32), "report_id_ma": (0x160, 32), "chip_id": (0x1A0, 64), "signature": (0x2A0, 512),
    }  # fmt: skip
    made = {name: number(report, *place) for name, place in numbers.items() if number(report, *place)}
    made |= {name: report[at : at + size] for name, (at, size) in runs.items()}
    family, model, stepping = report[0x188:0x18B]
    if family:
        made["cpuid1eax_fms"] = (
            (family - 15) << 20 | (model >> 4) << 16 | 15 << 8 | (model & 15) << 4 | stepping
        )
    return {
        "report": made,
        "certificate_chain": {"vcek_cert": b"certificate", "ask_cert": b"issuer"},
        "product": {"name": 1},
    }


def cut(data, *sizes):
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size


def tdx_message(quote):
    """The quote as go-tdx-guest tells it."""
    head, body, size, signed = cut(quote, 48, 584, 4, len(quote) - 636)
    names = ("tee_tcb_svn", "mr_seam", "mr_signer_seam", "seam_attributes", "td_attributes", "xfam", "mr_td",
             "mr_config_id", "mr_owner", "mr_owner_config")  # fmt: skip
    told = dict(zip(names, cut(body, 16, 48, 48, 8, 8, 8, 48, 48, 48, 48), strict=True))
    signature, key, kind, inner_size, inner = cut(signed, 64, 64, 2, 4, len(signed) - 134)
    report, qe_signature = inner[:384], inner[384:448]
    auth_size = number(inner, 448, 2)
    rest = inner[450 + auth_size :]
    enclave_names = ("cpu_svn", "misc_select", "reserved1", "attributes", "mr_enclave", "reserved2", "mr_signer",
                     "reserved3", "isv_prod_id", "isv_svn", "reserved4", "report_data")  # fmt: skip
    enclave = dict(zip(enclave_names, cut(report, 16, 4, 28, 16, 32, 32, 32, 96, 2, 2, 60, 64), strict=True))
    for name in ("misc_select", "isv_prod_id", "isv_svn"):
        enclave[name] = int.from_bytes(enclave[name], "little")
    return {
        "header": {
            "version": number(head, 0, 2), "attestation_key_type": number(head, 2, 2), "tee_type": number(head, 4, 4),
            "pce_svn": head[8:10], "qe_svn": head[10:12], "qe_vendor_id": head[12:28], "user_data": head[28:],
        },
        "td_quote_body": {**told, "rtmrs": [body[328 + 48 * at : 376 + 48 * at] for at in range(4)], "report_data": body[520:]},
        "signed_data_size": number(size, 0, 4),
        "signed_data": {
            "signature": signature,
            "ecdsa_attestation_key": key,
            "certification_data": {
                "certificate_data_type": number(kind, 0, 2),
                "size": number(inner_size, 0, 4),
                "qe_report_certification_data": {
                    "qe_report": enclave,
                    "qe_report_signature": qe_signature,
                    "qe_auth_data": {"parsed_data_size": auth_size, "data": inner[450 : 450 + auth_size]},
                    "pck_certificate_chain_data": {
                        "certificate_data_type": number(rest, 0, 2), "size": number(rest, 2, 4), "pck_cert_chain": rest[6:],
                    },
                },
            },
        },
        "extra_bytes": bytes(70),
    }  # fmt: skip


def in_json(value):
    def camel(name):
        first, *others = name.split("_")
        return first + "".join(one.capitalize() for one in others)

    if isinstance(value, dict):
        return {camel(name): in_json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [in_json(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if value >= 1 << 32 else value


def in_text(value):
    if isinstance(value, dict):
        return (
            "{ "
            + " ".join(
                f"{name}: {in_text(item)}"
                for name, one in value.items()
                for item in (one if isinstance(one, list) else [one])
            )
            + " }"
        )
    return f'"{quoted(value)}"' if isinstance(value, bytes) else str(value)


def in_binary(kind, value):
    out = b""
    for name, one in value.items():
        tag, inner = google._SCHEMA[kind][name]
        for item in one if isinstance(one, list) else [one]:
            if isinstance(item, int):
                out += number_field(tag, item)
            else:
                data = (
                    b"\x08\x01"
                    if inner == "ignored"
                    else in_binary(inner, item)
                    if isinstance(item, dict)
                    else item
                )
                out += run_field(tag, data)
    return out


def attestation_forms(kind, name, message):
    """A whole Attestation around that message, in JSON, text and binary."""

    def text(data):
        return base64.b64encode(data).decode()

    pcrs = {str(at): text(one) for at, one in PCRS.items()}
    yield json.dumps({
        "quotes": [{"quote": text(TPM_QUOTE), "rawSig": text(b"sig"), "pcrs": {"hash": "SHA256", "pcrs": pcrs}}],
        "akCert": text(b"leaf"),
        {"snp": "sevSnpAttestation", "tdx": "tdxAttestation"}[kind]: in_json(message),
    }).encode()  # fmt: skip
    yield f"{textproto()}{name}: {in_text(message)}\n".encode()
    entries = b"".join(run_field(2, number_field(1, at) + run_field(2, one)) for at, one in PCRS.items())
    quote = run_field(1, TPM_QUOTE) + run_field(2, b"sig") + run_field(3, number_field(1, 11) + entries)
    binary = run_field(1, bytes(60)) + run_field(2, quote) + run_field(6, b"leaf")
    yield binary + run_field({"snp": 8, "tdx": 9}[kind], in_binary(kind, message))


@pytest.mark.parametrize(("line", "version"), [("Milan", 2), ("Milan", 3), ("Genoa", 5), ("Turin", 5)])
def test_go_tpm_tools_snp_report_beside_the_quotes_is_put_together(line, version):
    report = made(line, version)
    for data in attestation_forms("snp", "sev_snp_attestation", snp_message(report)):
        found = recognise(data)
        assert found.evidence.tee == "gcp"
        assert found.evidence.parts["snp-report"] == report
        assert found.evidence.parts["quote"] == TPM_QUOTE
        assert found.endorsements == {"vek": b"certificate"}


def test_go_tpm_tools_td_quote_beside_the_quotes_is_put_together():
    for data in attestation_forms("tdx", "tdx_attestation", tdx_message(QUOTE)):
        found = recognise(data)
        assert found.evidence.parts["td-quote"] == QUOTE
        assert "snp-report" not in found.evidence.parts


@pytest.mark.skipif(not VECTORS.exists(), reason="recorded evidence is not here")
def test_recorded_reports_and_quotes_survive_protocol_buffers():
    count = 0
    for file in sorted(VECTORS.glob("*/report.bin")):
        report = file.read_bytes()
        if len(report) == snp.SIZE and 2 <= number(report, 0, 4) <= 5:
            plain = google.of_tree("snp", in_json(snp_message(report)), trees._base64)
            assert google.snp_report(plain) == report, file
            count += 1
    for file in sorted(VECTORS.parent.glob("tdx/*/quote.bin")):
        quote = file.read_bytes()
        if quote[:2] == b"\4\0" and quote[764:766] == b"\6\0" and len(quote) == 636 + number(quote, 632, 4):
            plain = google.of_tree("tdx", in_json(tdx_message(quote)), trees._base64)
            assert google.td_quote(plain) == quote, file
            count += 1
    assert count > 40


@pytest.mark.parametrize("kind", ["snp", "tdx"])
def test_protocol_buffers_that_are_not_whole_are_refused_and_say_why(kind):
    whole = snp_message(made()) if kind == "snp" else tdx_message(QUOTE)
    put = google.snp_report if kind == "snp" else google.td_quote

    def refused(message):
        with pytest.raises(Malformed) as caught:
            put(google.of_tree(kind, in_json(message), trees._base64))
        assert caught.value.code == "not-whole"

    def without(message, path):
        name, *rest = path
        if not rest:
            return {key: one for key, one in message.items() if key != name}
        return {**message, name: without(message[name], rest)}

    def paths(message, at=()):
        for name, one in message.items():
            if isinstance(one, dict):
                yield from paths(one, (*at, name))
            elif isinstance(one, list) or (one and isinstance(one, bytes)):
                yield (*at, name)

    for path in paths(whole):
        if path[0] not in {"certificate_chain", "product", "extra_bytes"}:
            refused(without(whole, path))
    refused({**whole, "more": 1})
    if kind == "snp":
        refused({**whole, "report": {**whole["report"], "policy": 1 << 64}})
        refused({**whole, "report": {**whole["report"], "cpuid1eax_fms": 0x00100111}})
        refused({**whole, "report": {**whole["report"], "chip_id": bytes(63)}})
    else:
        refused({**whole, "signed_data_size": 7})
        refused({**whole, "td_quote_body": {**whole["td_quote_body"], "rtmrs": [bytes(48)] * 3}})
        refused({**whole, "header": [1]})
    for data in attestation_forms(
        kind, {"snp": "sev_snp_attestation", "tdx": "tdx_attestation"}[kind], {**whole, next(iter(whole)): {}}
    ):
        with pytest.raises(Malformed) as caught:
            recognise(data)
        assert caught.value.code == "not-whole"
