"""From files of vendors and their tools to the parts of endorsements, by what is in them. Nothing of it is believed.

Read: what AMD's Key Distribution Service and snpguest give (certificates in DER or PEM under any name, alone or in one
chain, revocation lists), the certificate table of the guest's driver; Intel's PCS and PCCS answers with or without
their HTTP head, in which chains are percent-encoded, and collateral as one JSON object; Azure's THIM; our own JSON.
A file that is named for a part is that part, in the form that its verifier reads. A part that two files give is refused.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom.crypto.pki import crl, vek, x509
from strongroom.encoding import pem
from strongroom.errors import Malformed
from strongroom.evidence.formats import dcap, dcap_collateral, dcap_quote
from strongroom.evidence.wrappings import table
from strongroom.model import endorsements as model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from strongroom.model.evidence import Evidence

MAX_FILES = 256
# `vek.der` is the part `vek`, `device-0.ocsp-1.der` that of a device.
_PART_FILE = re.compile(r"(?:device-[0-9]{1,2}\.)?[^.]+")
_OF_DEVICES = re.compile(r"(?:device-[0-9]{1,2}\.)?ocsp-[0-9]{1,2}")
_AS_NAMED = frozenset((*dcap_collateral.REQUIRED, dcap.OPTIONAL))
_IN_DER = {
    "vek": b"CERTIFICATE",
    "issuers": b"CERTIFICATE",
    "crl": b"X509 CRL",
    "platform-key": b"PUBLIC KEY",
}
_VEKS = ("SEV-VCEK", "SEV-VLEK")
_SGX = "Intel SGX "
_SIGNER, _ROOT, _PCK = f"{_SGX}TCB Signing", f"{_SGX}Root CA", f"{_SGX}PCK Certificate"
_CAS = (f"{_SGX}PCK Platform CA", f"{_SGX}PCK Processor CA")
# The documents of each TEE, by their `id`.
_IDS = {"tdx": ("TDX", "TD_QE"), "sgx": ("SGX", "QE")}
_PCCS_TEXTS = {
    "tcb_info_issuer_chain": "tcb-info-issuer-chain",
    "qe_identity_issuer_chain": "qe-identity-issuer-chain",
    "pck_crl_issuer_chain": "pck-crl-issuer-chain",
}
_PCCS_LISTS = {"root_ca_crl": "root-ca-crl", "pck_crl": "pck-crl"}
_PCCS_SIGNED = {"tcb_info": ("tcb-info", "tcbInfo"), "qe_identity": ("qe-identity", "enclaveIdentity")}


@dataclass(kw_only=True)
class _Found:
    """What lies in files: certificates by their names, lists, documents by kind, parts that were named."""

    certificates: dict[bytes, _Certificate] = field(default_factory=dict)
    lists: dict[bytes, crl.RevocationList] = field(default_factory=dict)
    documents: list[tuple[str, str, bytes]] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)

    def put(self, name: str, part: bytes) -> None:
        """Take a part. Raises `Malformed`: another file gave it too."""
        if self.parts.setdefault(name, part) != part:
            raise _two(name)


@dataclass(frozen=True, kw_only=True)
class _Certificate:
    name: str
    subject: bytes
    issuer: bytes
    der: bytes


def parts(files: Mapping[str, bytes], *, evidence: Evidence) -> dict[str, bytes]:
    """The parts in `files`, by name. evidence: what they are for. Raises `Malformed`.

    Of what vendors put into one folder for everybody, the documents of another TEE are passed over, and a platform's
    certificates where the quote carries its own.
    """
    if len(files) > MAX_FILES:
        raise Malformed(f"endorsements: more than {MAX_FILES} files", code="too-many")
    pieces = _Found()
    named: set[str] = set()
    for name, data in sorted(files.items()):
        match = _PART_FILE.match(name)
        stem = name if match is None else match[0]
        named.add(stem)
        if stem in _AS_NAMED or _OF_DEVICES.fullmatch(stem):
            pieces.put(stem, data)
        elif stem in _IN_DER and evidence.tee not in _IDS:  # Intel's parts have other names
            pieces.put(stem, in_der(data, _IN_DER[stem]))
        elif not _contents(data, pieces):
            pieces.put(stem, data)
    assembled = _assembled(pieces, evidence.tee)
    if dcap.OPTIONAL not in named and _carries_certificates(evidence):
        assembled.pop(dcap.OPTIONAL, None)
    return assembled


def _carries_certificates(evidence: Evidence) -> bool:
    quote = evidence.parts.get("quote", evidence.parts.get("td-quote", b""))
    try:
        parsed = dcap_quote.parse(quote)
        return dcap_quote.certification(parsed.version, parsed.certified).kind == dcap_quote.PCK_CHAIN
    except Malformed:
        return False


def in_der(data: bytes, label: bytes) -> bytes:
    """The contents in DER of a file that is in DER or in PEM, one after the other."""
    return b"".join(pem.find_blocks(data, label)) or data


def _contents(data: bytes, pieces: _Found) -> bool:
    """Take what a file holds, whatever it is called. False: nothing that is known."""
    text = data.strip()
    if len(text) > 64 and text.isalnum() and table.begins(digits := _hex(text)):
        return _table(digits, pieces)
    head, body = _message(data)
    has_certificates = _certificates(_unquoted(head), pieces)
    stripped = body.strip()
    if stripped[:1] == b"{":
        return _json(stripped, pieces) or has_certificates
    if _table(body, pieces) or _list(body, pieces) or _one_certificate(body, pieces):
        return True
    return _certificates(_unquoted(body), pieces) or has_certificates


def _hex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""


def _message(data: bytes) -> tuple[bytes, bytes]:
    """Head and body of an HTTP answer, as `curl -i` keeps them; no head where it is none."""
    if not re.match(rb"(?:HTTP/[0-9.]+ [0-9]{3}|[A-Za-z-]{3,60}: )", data):
        return b"", data
    for end in (b"\r\n\r\n", b"\n\n"):
        head, parted, body = data.partition(end)
        if parted:
            return head, body
    return data, b""


def _unquoted(text: bytes) -> bytes:
    """The text of a head whose chains are percent-encoded."""
    if b"BEGIN%20" not in text:
        return text
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), text)


def _json(data: bytes, pieces: _Found) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict):
        return False
    if value.keys() == {"parts"}:
        for name, part in model.parse(data).parts.items():
            pieces.put(name, part)
        return True
    for document, key in _PCCS_SIGNED.values():
        if isinstance(value.get(key), dict) and "signature" in value:
            pieces.documents.append((document, str(value[key].get("id", "")), data))
            return True
    if _PCCS_SIGNED.keys() <= value.keys():
        for name, content in _of_pccs(value).items():
            pieces.put(name, content)
        return True
    recognised = [_certificates(text.encode(), pieces) for text in value.values() if isinstance(text, str)]
    return True in recognised


def _of_pccs(value: dict[str, Any]) -> dict[str, bytes]:
    """Intel's collateral as one object: lists in hexadecimal, PEM or base64, documents with their signature or beside it."""
    for name in (*_PCCS_TEXTS, *_PCCS_LISTS, *_PCCS_SIGNED):
        if not isinstance(value.get(name), str):
            raise Malformed(f"endorsements: {name} is missing, or no text", code="missing-part")
    out = {part: value[name].encode() for name, part in _PCCS_TEXTS.items()}
    for name, part in _PCCS_LISTS.items():
        out[part] = _list_text(value[name])
    for name, (part, key) in _PCCS_SIGNED.items():
        if f'"{key}"' in value[name][:40]:
            out[part] = value[name].encode()  # the whole answer, as Intel's library keeps it
            continue
        signature = value.get(f"{name}_signature")
        if not isinstance(signature, str):
            raise Malformed(f"endorsements: {name}_signature is missing, or no text", code="missing-part")
        out[part] = f'{{"{key}":{value[name]},"signature":"{signature}"}}'.encode()
    if isinstance(value.get("pck_certificate_chain"), str):
        out[dcap.OPTIONAL] = value["pck_certificate_chain"].encode()
    return out


def _list_text(text: str) -> bytes:
    """A list as its verifier reads it: hexadecimal and PEM as they stand, base64 in DER."""
    plain = text.strip()
    if plain.startswith("-----") or re.fullmatch(r"[0-9a-fA-F]+", plain):
        return plain.encode()
    try:
        return base64.b64decode(plain, validate=True)
    except ValueError:
        return plain.encode()


def _table(data: bytes, pieces: _Found) -> bool:
    if not table.begins(data):
        return False
    for entry in table.entries(data).values():
        if not (_one_certificate(entry, pieces) or _list(entry, pieces)):
            _certificates(entry, pieces)
    return True


def _list(data: bytes, pieces: _Found) -> bool:
    text = data.strip()
    if text[:2].lower() == b"30" and text.isalnum():
        try:
            data = bytes.fromhex(text.decode())
        except ValueError:
            return False
    elif b"-----BEGIN X509 CRL" in data:
        data = b"".join(pem.find_blocks(data, b"X509 CRL")[:1])
    if data[:1] != b"\x30":
        return False
    try:
        pieces.lists[data] = crl.parse(data)
    except Malformed:
        return False
    return True


def _certificates(text: bytes, pieces: _Found) -> bool:
    """Every certificate in PEM in a text."""
    recognised = [_one_certificate(der, pieces) for der in pem.find_blocks(text, b"CERTIFICATE")]
    return True in recognised


def _one_certificate(data: bytes, pieces: _Found) -> bool:
    """A certificate in DER, or several one after the other."""
    if data[:1] != b"\x30":
        return False
    try:
        ders = x509.split(data)
    except Malformed:
        return False
    read = [_read(der) for der in ders]
    if None in read:
        return False
    pieces.certificates.update(
        {certificate.der: certificate for certificate in read if certificate is not None}
    )
    return True


def _read(data: bytes) -> _Certificate | None:
    try:
        chip = vek.parse(data)
    except Malformed:
        pass
    else:
        if chip.kind in _VEKS:
            return _Certificate(name=chip.kind, subject=b"", issuer=chip.issuer, der=data)
    try:
        certificate = x509.parse(data)
    except Malformed:
        return None
    common = next((part[3:] for part in certificate.subject.split(",") if part.startswith("CN=")), "")
    return _Certificate(name=common, subject=certificate.raw.subject, issuer=certificate.raw.issuer, der=data)


def _assembled(pieces: _Found, tee: str) -> dict[str, bytes]:
    known = tuple(pieces.certificates.values())
    assembled: dict[str, bytes] = {}
    _of_amd(known, pieces, assembled)
    _of_intel(known, pieces, assembled)
    for part, place in (("tcb-info", 0), ("qe-identity", 1)):
        ids = [identity[place] for kind, identity in _IDS.items() if tee in (kind, "azure", "gcp")]
        documents = {
            data for name, document_id, data in pieces.documents if name == part and document_id in ids
        }
        if len(documents) > 1:
            raise _two(part)
        if documents:
            assembled[part] = documents.pop()
    # What was named for a part is it.
    return {**assembled, **pieces.parts}


def _of_amd(known: tuple[_Certificate, ...], pieces: _Found, assembled: dict[str, bytes]) -> None:
    chip = _only("vek", [certificate for certificate in known if certificate.name in _VEKS])
    signers = [
        certificate
        for certificate in known
        if certificate.name.startswith("SEV-") and certificate.name not in _VEKS
    ]
    roots = [certificate for certificate in known if certificate.name.startswith("ARK-")]
    if chip is not None:
        assembled["vek"] = chip.der
        signers = [certificate for certificate in signers if certificate.subject == chip.issuer]
    signer = _only("issuers", signers)
    if signer is not None:
        roots = [certificate for certificate in roots if certificate.subject == signer.issuer]
    root = _only("issuers", roots)
    if signer is not None and root is not None:
        assembled["issuers"] = signer.der + root.der
    lists = {
        data: revocations
        for data, revocations in pieces.lists.items()
        if (revocations.issuer.startswith("CN=ARK-") and root is None)
        or (root and revocations.issuer_name == root.subject)
    }
    if len(lists) > 1:
        raise _two("crl")
    for data in lists:
        assembled["crl"] = data


def _of_intel(known: tuple[_Certificate, ...], pieces: _Found, assembled: dict[str, bytes]) -> None:
    root = next((certificate for certificate in known if certificate.name == _ROOT), None)
    signer = _only(
        "tcb-info-issuer-chain", [certificate for certificate in known if certificate.name == _SIGNER]
    )
    platform = _only(dcap.OPTIONAL, [certificate for certificate in known if certificate.name == _PCK])
    for part, names in (("root-ca-crl", (_ROOT,)), ("pck-crl", _CAS)):
        lists = [
            data
            for data, revocations in pieces.lists.items()
            if any(f"CN={name}" in revocations.issuer for name in names)
        ]
        if len(lists) > 1:
            raise _two(part)
        for data in lists:
            assembled[part] = data
    if root is None:
        return
    if signer is not None:
        assembled["tcb-info-issuer-chain"] = assembled["qe-identity-issuer-chain"] = _pem(signer, root)
    authorities = [certificate for certificate in known if certificate.name in _CAS]
    if "pck-crl" in assembled:
        issuer = pieces.lists[assembled["pck-crl"]].issuer_name
        authority = _only(
            "pck-crl-issuer-chain",
            [certificate for certificate in authorities if certificate.subject == issuer],
        )
        if authority is not None:
            assembled["pck-crl-issuer-chain"] = _pem(authority, root)
    above = (
        []
        if platform is None
        else [certificate for certificate in authorities if certificate.subject == platform.issuer]
    )
    if platform is not None and above:
        assembled[dcap.OPTIONAL] = _pem(platform, above[0], root)


def _pem(*chain: _Certificate) -> bytes:
    return b"".join(pem.encode(certificate.der, b"CERTIFICATE") for certificate in chain)


def _only(part: str, candidates: Iterable[_Certificate]) -> _Certificate | None:
    """The one certificate, None where there is none. Raises `Malformed`: several."""
    several = list(candidates)
    if len(several) > 1:
        raise _two(part)
    return several[0] if several else None


def _two(part: str) -> Malformed:
    return Malformed(
        f"endorsements: two files for the part {part!r}",
        code="two-for-one",
        hint="keep those that belong to this evidence; a file named for a part (vek.der, tcb-info.json) is that part",
    )
