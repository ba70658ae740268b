"""AMD's Key Distribution Service (KDS): certificates of chips, of their issuers, and what AMD took back.

Spec: AMD 57230, VCEK Certificate and KDS Interface Specification, section 4.
A VLEK certificate is not published: the provider's host hands it to its guests with the report.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strongroom.crypto.pki import crl, vek, x509
from strongroom.encoding import pem
from strongroom.errors import Malformed, Refused
from strongroom.evidence.formats import snp_product
from strongroom.fetch.endorsements.statement import OTHER_VERSION, Mark, StatementRequest, StatementTerms
from strongroom.fetch.http.client import Service

if TYPE_CHECKING:
    from datetime import datetime

    from strongroom.fetch.endorsements.statement import Statement
    from strongroom.fetch.http.client import Download

KDS = Service(base="https://kdsintf.amd.com")
KINDS = {"vcek": "SEV-", "vlek": "SEV-VLEK-"}
MAX_CHAIN = 32 * 1024
# The query's name for each component of a TCB version.
_SPL = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
_DER = frozenset(
    {"application/octet-stream", "binary/octet-stream", "application/x-x509-ca-cert", "application/pkix-cert"}
)
_LIST = _DER | {"application/pkix-crl", "application/x-pkcs7-crl"}
_PEM = frozenset(
    {
        "application/x-pem-file",
        "application/pem-certificate-chain",
        "application/octet-stream",
        "binary/octet-stream",
        "text/plain",
    }
)
_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII)


def chain(service: Service, kind: str, line: str) -> StatementRequest:
    """ASK (of `vcek`) or ASVK (of `vlek`), and ARK, of a line of processors."""
    return StatementRequest(
        key=f"amd/chain/{kind}/{line}",
        service=service,
        path=f"/{kind}/v1/{line}/cert_chain",
        types=_PEM,
        take=_take_chain,
        max_bytes=MAX_CHAIN,
    )


def revocations(service: Service, kind: str, line: str, issuers: bytes) -> StatementRequest:
    """The ARK's list. issuers: DER of the chain, which is kept with it."""
    return StatementRequest(
        key=f"amd/crl/{kind}/{line}",
        service=service,
        path=f"/{kind}/v1/{line}/crl",
        types=_LIST,
        take=lambda answer: {"crl": answer.body, "issuers": issuers},
        max_bytes=crl.MAX_BYTES,
    )


def vcek(
    service: Service, line: snp_product.Line, chip_id: bytes, tcb: bytes, issuers: bytes
) -> StatementRequest:
    """The certificate of a chip (64 bytes, as the report has it) at a TCB version (8 bytes, likewise)."""
    hwid = chip_id[: line.hwid].hex()
    levels = {_SPL[name]: level for name, level in line.tcb(tcb).items()}
    query = "&".join(f"{name}={level:02d}" for name, level in levels.items())
    return StatementRequest(
        key=f"amd/vcek/{line.name}/{hwid}/{tcb.hex()}",
        service=service,
        path=f"/vcek/v1/{line.name}/{hwid}?{query}",
        types=_DER,
        take=lambda answer: {"vek": answer.body, "issuers": issuers},
        max_bytes=vek.MAX_BYTES,
    )


def judge(statement: Statement, path: list[str], *, roots: frozenset[str], now: datetime) -> StatementTerms:
    """See `validate`."""
    match path:
        case ["chain", kind, line] if kind in KINDS and line in snp_product.LINES:
            chain = _issuers(statement, kind, line, roots, now, others=())
            return StatementTerms(
                issued=max(certificate.not_before for certificate in chain.certificates), until=_until(chain)
            )
        case ["crl", kind, line] if kind in KINDS and line in snp_product.LINES:
            chain = _issuers(statement, kind, line, roots, now, others=("crl",))
            listed = crl.parse(statement.parts["crl"])
            crl.check_issued(listed, chain.root)
            mark = Mark(name=f"{statement.key}@{chain.root.spki_digest}", number=listed.number)
            return StatementTerms(issued=listed.this_update, until=listed.next_update, marks=(mark,))
        case ["vcek", line, hwid, tcb] if (
            line in snp_product.LINES and _HEX.fullmatch(hwid) and _HEX.fullmatch(tcb)
        ):
            chain = _issuers(statement, "vcek", line, roots, now, others=("vek",))
            return _judge_vcek(statement.parts["vek"], line, hwid, tcb, chain)
    raise Malformed(
        f"{statement.key[:100]!r}: no statement of AMD's", code="unknown-statement", hint=OTHER_VERSION
    )


def _judge_vcek(der: bytes, line: str, hwid: str, tcb: str, issuers: x509.Path) -> StatementTerms:
    product = snp_product.read(der)
    if product is None or (product.line.name, product.hwid.hex(), product.tcb.hex()) != (
        line,
        hwid,
        tcb,
    ):
        got = "none" if product is None else f"{product.line.name} {product.hwid.hex()} {product.tcb.hex()}"
        raise Refused(
            f"a certificate of another chip or TCB: expected {line} {hwid} {tcb}, got {got}",
            code="not-the-vendors",
        )
    vek.check_issued(product.certificate, issuers.leaf)
    return StatementTerms(issued=product.certificate.not_before, until=product.certificate.not_after)


def _take_chain(answer: Download) -> dict[str, bytes]:
    ders = pem.decode(answer.body, b"CERTIFICATE", what=answer.url, max_blocks=2, max_bytes=MAX_CHAIN)
    return {"issuers": b"".join(ders)}


def _issuers(
    statement: Statement,
    kind: str,
    line: str,
    roots: frozenset[str],
    now: datetime,
    *,
    others: tuple[str, ...],
) -> x509.Path:
    if statement.parts.keys() != {"issuers", *others}:
        raise Malformed(
            f"{statement.key}: other parts than it has", code="unknown-statement", hint=OTHER_VERSION
        )
    path = x509.verify_ca_path(x509.split(statement.parts["issuers"]), roots=roots, now=now)
    names = [f"CN={KINDS[kind]}{line},", f"CN=ARK-{line},"]
    subjects = [certificate.subject for certificate in path.certificates]
    if len(subjects) != len(names) or not all(map(str.startswith, subjects, names)):
        raise Refused(
            f"certificates of another line of processors: expected {line}, got {'; '.join(subjects)}",
            code="not-the-vendors",
        )
    for certificate in path.certificates:
        vek.check_authority(certificate)
    return path


def _until(path: x509.Path) -> datetime:
    return min(certificate.not_after for certificate in path.certificates)
