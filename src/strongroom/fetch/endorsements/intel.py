"""Intel's Provisioning Certification Service (PCS) v4, or a PCCS, which speaks the same: collateral of SGX and TDX.

Spec: Intel SGX and TDX Provisioning Certification Service API, version 4; Intel SGX PCCS (rootcacrl, lists in
hexadecimal). Documents are kept as they came, since signatures are over their bytes; issuers' certificates come
percent-encoded in headers.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.crypto.pki import crl, x509
from strongroom.encoding import pem
from strongroom.errors import Malformed, Refused
from strongroom.evidence.formats import dcap_pck, dcap_tcb
from strongroom.fetch.endorsements.statement import OTHER_VERSION, Mark, StatementRequest, StatementTerms
from strongroom.fetch.http.client import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from strongroom.fetch.endorsements.statement import Statement
    from strongroom.fetch.http.client import Download

STANDARD, EARLY = "standard", "early"
UPDATES = (STANDARD, EARLY)
_TEES = {"sgx": ("SGX", "QE"), "tdx": ("TDX", "TD_QE")}
_CAS = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}
_JSON = frozenset({"application/json"})
_PEM = frozenset({"application/x-pem-file", "text/plain", "text/html"})
# PCCS sends its lists by whatever type its framework has for a text or for bytes.
_LIST = frozenset(
    {
        "application/pkix-crl",
        "application/x-pkcs7-crl",
        "application/x-pem-file",
        "application/octet-stream",
        "binary/octet-stream",
        "text/plain",
        "text/html",
    }
)
_FMSPC = re.compile(r"[0-9a-f]{12}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ENCRYPTED_PPID = 384


@dataclass(frozen=True, kw_only=True)
class Pcs:
    """Where Intel's documents come from. lists: where the root's list is; None for a PCCS, which has it itself."""

    api: Service
    lists: Service | None

    def tcb_info(self, tee: str, fmspc: str, update: str) -> StatementRequest:
        """TCB info of the platforms of an FMSPC (12 hexadecimal digits, lower case)."""
        return StatementRequest(
            key=f"intel/tcb/{tee}/{fmspc}/{update}",
            service=self.api,
            path=f"/{tee}/certification/v4/tcb?fmspc={fmspc}&update={update}",
            types=_JSON,
            take=_taking("tcb-info", "TCB-Info-Issuer-Chain"),
            max_bytes=dcap_tcb.MAX_DOCUMENT,
        )

    def qe_identity(self, tee: str, update: str) -> StatementRequest:
        """Identity of the quoting enclave of `sgx` or `tdx`."""
        return StatementRequest(
            key=f"intel/qe/{tee}/{update}",
            service=self.api,
            path=f"/{tee}/certification/v4/qe/identity?update={update}",
            types=_JSON,
            take=_taking("qe-identity", "SGX-Enclave-Identity-Issuer-Chain"),
            max_bytes=dcap_tcb.MAX_DOCUMENT,
        )

    def pck_revocations(self, ca: str) -> StatementRequest:
        """The list of the PCK CA `platform` or `processor`."""
        return StatementRequest(
            key=f"intel/crl/{ca}",
            service=self.api,
            path=f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der",
            types=_LIST,
            take=_taking("pck-crl", "SGX-PCK-CRL-Issuer-Chain", chain="pck-crl-issuer-chain"),
            max_bytes=crl.MAX_BYTES,
        )

    def root_revocations(self, root: bytes) -> StatementRequest:
        """The root's own list. root: its certificate (PEM), which is kept with it."""
        return StatementRequest(
            key="intel/crl/root",
            service=self.lists or self.api,
            path="/IntelSGXRootCA.der" if self.lists is not None else "/sgx/certification/v4/rootcacrl",
            types=_LIST | {"application/x-x509-ca-cert", "application/x-x509-crl"},
            take=lambda answer: {"root-ca-crl": answer.body, "root": root},
            max_bytes=crl.MAX_BYTES,
        )

    def pck_certificates(self, named: bytes) -> StatementRequest:
        """PCK certificates of the platform that certification data of type 3 (404 bytes) name by its encrypted PPID."""
        if len(named) != _ENCRYPTED_PPID + 20:
            raise Malformed(
                f"certification data of {len(named)} bytes do not name a platform to Intel",
                code="unnamed-platform",
                hint="only an encrypted PPID of 3072 bits (type 3) does: give the quote with its certificates (type 5)",
            )
        ppid, cpu, pce = named[:_ENCRYPTED_PPID], named[_ENCRYPTED_PPID : _ENCRYPTED_PPID + 16], named[-4:]
        return StatementRequest(
            key=f"intel/pck/{hashlib.sha256(named).hexdigest()}",
            service=self.api,
            path=f"/sgx/certification/v4/pckcert?encrypted_ppid={ppid.hex()}&cpusvn={cpu.hex()}"
            f"&pcesvn={pce[:2].hex()}&pceid={pce[2:].hex()}",
            types=_PEM,
            take=_take_pck,
            max_bytes=dcap_pck.MAX_CHAIN,
        )


PCS = Pcs(
    api=Service(base="https://api.trustedservices.intel.com"),
    lists=Service(base="https://certificates.trustedservices.intel.com"),
)


def root_of(chain: bytes) -> bytes:
    """The root's certificate (PEM) of a chain that leads from a TCB signing key to it. Raises `Malformed`."""
    ders = dcap_pck.certificates(chain, what="tcb-info", count=2)
    return pem.encode(ders[-1], b"CERTIFICATE")


def judge(statement: Statement, path: list[str], *, roots: frozenset[str], now: datetime) -> StatementTerms:
    """See `validate`."""
    match path:
        case ["tcb", tee, fmspc, update] if tee in _TEES and _FMSPC.fullmatch(fmspc) and update in UPDATES:
            return _judge_tcb(statement, tee, fmspc, roots, now)
        case ["qe", tee, update] if tee in _TEES and update in UPDATES:
            return _judge_qe(statement, tee, roots, now)
        case ["crl", ca] if ca in {"root", *_CAS}:
            return _judge_list(statement, ca, roots, now)
        case ["pck", name] if _DIGEST.fullmatch(name):
            _parts(statement, "pck-certificate-chain")
            spans = dcap_pck.pck_chain(statement.parts["pck-certificate-chain"], roots=roots, now=now).spans
            return StatementTerms(
                issued=max(span.begins for span in spans), until=min(span.ends for span in spans)
            )
    raise Malformed(
        f"{statement.key[:100]!r}: no statement of Intel's", code="unknown-statement", hint=OTHER_VERSION
    )


def _judge_tcb(
    statement: Statement, tee: str, fmspc: str, roots: frozenset[str], now: datetime
) -> StatementTerms:
    inner, path = _signed(statement, "tcb-info", "tcbInfo", roots, now)
    info = dcap_tcb.parse_tcb_info(inner)
    wanted = (_TEES[tee][0], fmspc)
    if (info.kind, info.fmspc.hex()) != wanted:
        raise Refused(
            f"TCB info of another platform: expected {' '.join(wanted)}, got {info.kind} {info.fmspc.hex()}",
            code="not-the-vendors",
        )
    mark = Mark(name=f"intel/tcb/{tee}/{fmspc}@{path.root.spki_digest}", number=info.evaluation)
    return StatementTerms(issued=info.issued, until=_until(path, info.next_update), marks=(mark,))


def _judge_qe(statement: Statement, tee: str, roots: frozenset[str], now: datetime) -> StatementTerms:
    inner, path = _signed(statement, "qe-identity", "enclaveIdentity", roots, now)
    identity = dcap_tcb.parse_identity(inner)
    if identity.id != _TEES[tee][1]:
        raise Refused(
            f"identity of another enclave: expected {_TEES[tee][1]}, got {identity.id}",
            code="not-the-vendors",
        )
    mark = Mark(name=f"intel/qe/{tee}@{path.root.spki_digest}", number=identity.evaluation)
    return StatementTerms(issued=identity.issued, until=_until(path, identity.next_update), marks=(mark,))


def _judge_list(statement: Statement, ca: str, roots: frozenset[str], now: datetime) -> StatementTerms:
    part, above = ("root-ca-crl", "root") if ca == "root" else ("pck-crl", "pck-crl-issuer-chain")
    _parts(statement, part, above)
    path = dcap_pck.ca_chain(statement.parts[above], what=part, roots=roots, now=now)
    names = path.leaf.subject.split(",")
    if ca == "root":
        if path.leaf is not path.root:
            raise Refused(
                f"a revocation list of another authority: expected the root, got {path.leaf.subject}",
                code="not-the-vendors",
            )
    elif f"CN={_CAS[ca]}" not in names:
        raise Refused(
            f"a revocation list of another authority: expected {_CAS[ca]}, got {path.leaf.subject}",
            code="not-the-vendors",
        )
    listed = dcap_pck.revocation_list(statement.parts[part], what=part)
    crl.check_issued(listed, path.leaf)
    mark = Mark(name=f"{statement.key}@{path.leaf.spki_digest}", number=listed.number)
    return StatementTerms(issued=listed.this_update, until=_until(path, listed.next_update), marks=(mark,))


def _signed(
    statement: Statement, part: str, key: str, roots: frozenset[str], now: datetime
) -> tuple[bytes, x509.Path]:
    chain = f"{part}-issuer-chain"
    _parts(statement, part, chain)
    path = dcap_pck.tcb_signer(statement.parts[chain], what=part, roots=roots, now=now)
    inner, signature = dcap_tcb.split(statement.parts[part], key, what=part)
    path.leaf.key.verify_ecdsa(signature, inner)
    return inner, path


def _parts(statement: Statement, *names: str) -> None:
    if statement.parts.keys() != set(names):
        raise Malformed(
            f"{statement.key}: other parts than it has", code="unknown-statement", hint=OTHER_VERSION
        )


def _until(path: x509.Path, end: datetime) -> datetime:
    return min(end, *(certificate.not_after for certificate in path.certificates))


def _taking(part: str, header: str, *, chain: str = "") -> Callable[[Download], dict[str, bytes]]:
    return lambda answer: {part: answer.body, chain or f"{part}-issuer-chain": answer.decoded(header)}


def _take_pck(answer: Download) -> dict[str, bytes]:
    """The certificate, and its issuers from the header, as one chain."""
    leaf = pem.decode(
        answer.body, b"CERTIFICATE", what=answer.url, max_blocks=1, max_bytes=dcap_pck.MAX_CHAIN
    )
    above = pem.decode(
        answer.decoded("SGX-PCK-Certificate-Issuer-Chain"),
        b"CERTIFICATE",
        what=answer.url,
        max_blocks=2,
        max_bytes=dcap_pck.MAX_CHAIN,
    )
    return {"pck-certificate-chain": b"".join(pem.encode(der, b"CERTIFICATE") for der in (*leaf, *above))}
