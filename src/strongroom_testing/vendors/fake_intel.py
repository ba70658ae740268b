"""Intel SGX and TDX in memory: a platform with its quoting enclave, and Intel's PKI and collateral for it.

Everything is signed for real: the verifiers accept it given this Intel's root key, and refuse each `Fault` by the
check that `intel_faults.REFUSED_BY` names. Fast: one quote and its collateral cost a few signatures.
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from strongroom.encoding import pem
from strongroom.model.endorsements import Endorsements
from strongroom.model.evidence import Evidence
from strongroom_testing.vendors import intel_pki
from strongroom_testing.vendors.intel_faults import OF_PCK, SERIAL_OF, WITHOUT, F, Fault
from strongroom_testing.vendors.intel_pki import (
    FMSPC,
    PCK,
    PLATFORM_CA,
    PROCESSOR_CA,
    ROOT,
    TCB_SIGNING,
    Entity,
    sgx_extension,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strongroom.model.binding import Bound

DAY = timedelta(days=1)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
COMPONENTS = bytes([7, 9, 3, 3, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
PCE_SVN = 13
TEE_TCB_SVN = bytes([6, 1, 3]) + bytes(13)
QE_SIGNER = hashlib.sha256(b"Intel's quoting enclaves").digest()
QE_SVN = 8
QE_PRODUCT = {"sgx": 1, "tdx": 2}


class FakeIntel:
    """Intel and one of its platforms. `now` is when everything is made; collateral counts for 30 days from then.

    processor: the PCK comes from the Processor CA instead of the Platform CA. components, pce_svn, ppid: what its
    PCK certificate states.
    """

    def __init__(
        self,
        *,
        now: datetime,
        processor: bool = False,
        components: bytes = COMPONENTS,
        pce_svn: int = PCE_SVN,
        ppid: bytes = b"\x11" * 16,
    ) -> None:
        self.now = now.astimezone(UTC).replace(microsecond=0)
        self._begins, self._ends = self.now - 365 * DAY, self.now + 3650 * DAY
        self.root = Entity(ROOT, None, self._begins, self._ends, ca=True, path_length=1)
        ca = PROCESSOR_CA if processor else PLATFORM_CA
        self.ca = Entity(ca, self.root, self._begins, self._ends, ca=True, path_length=0)
        self.signer = Entity(TCB_SIGNING, self.root, self._begins, self._ends)
        self._states: dict[str, Any] = {"components": components, "pce_svn": pce_svn, "ppid": ppid}
        self.pck = self._pck()
        self._attestation = ec.generate_private_key(ec.SECP256R1())

    @property
    def root_digest(self) -> str:
        """What a contract names in `platforms[].roots`: the digest of the root's key."""
        spki = self.root.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return "sha256:" + hashlib.sha256(spki).hexdigest()

    @property
    def machine(self) -> str:
        """The platform's name, as `platforms[].machines` has it."""
        return "sha256:" + hashlib.sha256(b"intel-ppid" + self._states["ppid"] + bytes(2)).hexdigest()

    def evidence(
        self,
        binding: Bound,
        *,
        tee: str = "tdx",
        version: int | None = None,
        body: Mapping[str, bytes] | None = None,
        fault: Fault | None = None,
    ) -> Evidence:
        """Evidence bound to `binding`. version: 3 for SGX, 4 or 5 for either; 5 of TDX has a TD report 1.5.

        body: fields of the report by name (see `_td_body`, `_sgx_body`) that are other than usual.
        """
        version = version or (3 if tee == "sgx" else 4)
        data = binding.value("report_data")
        if fault is F.OTHER_REPORT_DATA:
            data = hashlib.sha512(data).digest()
        fields = {"report_data": data, **_body_faults(fault), **(body or {})}
        made = _sgx_body(fields) if tee == "sgx" else _td_body(fields, newer=version == 5)
        vendor = bytes(16) if fault is F.OTHER_VENDOR else VENDOR
        kind = {"sgx": 0, "tdx": 0x81}[tee]
        if fault is F.OTHER_TEE:
            version = 4
            kind, made = (0, _sgx_body(fields)) if tee == "tdx" else (0x81, _td_body(fields, newer=False))
        signed = struct.pack("<HHIHH16s20s", version, 2, kind, 0, 0, vendor, b"\x22" * 16)
        if version == 5:
            signed += struct.pack("<HI", {384: 1, 584: 2, 648: 3}[len(made)], len(made))
        signed += made
        data = self._signature(signed, fault) + self._certified(tee, version, fault)
        quote = signed + struct.pack("<I", len(data)) + data
        if fault is F.TRAILING_BYTE:
            quote += b"\0"
        if fault is F.CUT_SHORT:
            quote = quote[:-1]
        parts = {"quote": quote}
        if fault is F.EVIDENCE_PART_ADDED:
            parts["other"] = b"x"
        return Evidence(tee=tee, parts=parts)

    def endorsements(
        self,
        *,
        tee: str = "tdx",
        tcb: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
        fault: Fault | None = None,
    ) -> Endorsements:
        """Intel's collateral for this platform. tcb, identity: keys of the inner objects that are other than usual."""
        signer = self.signer
        if fault is F.SIGNER_ENDED:
            signer = Entity(TCB_SIGNING, self.root, self._begins, self.now - DAY)
        other = {"sgx": "tdx", "tdx": "sgx"}[tee]
        info = self._tcb_info(other if fault is F.TCB_INFO_OF_OTHER_TEE else tee, fault) | dict(tcb or {})
        qe = self._identity(other if fault is F.QE_IDENTITY_OF_OTHER_TEE else tee, fault) | dict(
            identity or {}
        )
        inner, text = _compact(info), _compact(qe)
        if fault is F.DUPLICATE_KEY:
            inner = inner[:-1] + b',"version":3}'
        qe_signer = signer.key
        if fault is F.QE_IDENTITY_FORGED:
            qe_signer = ec.generate_private_key(ec.SECP256R1())
        chain = signer.chain
        if fault is F.QE_IDENTITY_WRONG_ISSUER:
            # Signed, and up to the right root: by a PCK CA, which signs other things.
            qe_signer, chain = self.ca.key, self.ca.chain
        parts = {
            "tcb-info": _document("tcbInfo", inner, signer.key),
            "tcb-info-issuer-chain": signer.chain,
            "qe-identity": _document("enclaveIdentity", text, qe_signer),
            "qe-identity-issuer-chain": chain,
            **self._lists(fault),
        }
        _spoil(parts, fault)
        return Endorsements(parts=parts)

    def _pck(self, fault: Fault | None = None) -> Entity:
        states: dict[str, Any] = dict(self._states)
        begins, ends, name, issuer = self._begins, self._ends, PCK, self.ca
        match fault:
            case F.PLATFORM_OLD:
                states["components"] = bytes(16)
            case F.PCE_OLD:
                states["pce_svn"] = 1
            case F.OTHER_FMSPC:
                states["fmspc"] = bytes(6)
            case F.PPID_ZERO:
                states["ppid"] = bytes(16)
            case F.PCK_EXPIRED:
                ends = self.now - DAY
            case F.PCK_NOT_YET_VALID:
                begins = self.now + DAY
            case F.PCK_MISNAMED:
                name = TCB_SIGNING
            case F.PCK_FORGED:
                # The right names, another key: the chain shows the true CA all the same.
                issuer = Entity(self.ca.name, self.root, begins, ends, ca=True, path_length=0)
                forged = Entity(name, issuer, begins, ends, sgx=sgx_extension(**states))
                forged.chain = pem.encode(forged.certificate, b"CERTIFICATE") + self.ca.chain
                return forged
            case F.PCK_OF_OTHER_ROOT:
                root = Entity(ROOT, None, begins, ends, ca=True, path_length=1)
                issuer = Entity(self.ca.name, root, begins, ends, ca=True, path_length=0)
        return Entity(name, issuer, begins, ends, sgx=sgx_extension(**states))

    def _signature(self, signed: bytes, fault: Fault | None) -> bytes:
        key = self._attestation
        if fault is F.OTHER_ATTESTATION_KEY:
            key = ec.derive_private_key(12345, ec.SECP256R1())
        raw = raw_signature(key, signed + b"x" if fault is F.BAD_SIGNATURE else signed)
        if fault is F.R_ZERO:
            return bytes(32) + raw[32:]
        return raw[:32] + ORDER.to_bytes(32, "big") if fault is F.S_IS_ORDER else raw

    def _certified(self, tee: str, version: int, fault: Fault | None) -> bytes:
        pck = self._pck(fault) if fault in OF_PCK else self.pck
        authentication = bytes(range(32))
        true = _point(self._attestation)
        shown = (
            _point(ec.derive_private_key(12345, ec.SECP256R1())) if fault is F.OTHER_ATTESTATION_KEY else true
        )
        qe = _sgx_body(
            {
                "attributes": struct.pack("<QQ", 0x13 if fault is F.QE_DEBUG else 0x11, 0xE7),
                "misc_select": b"\1\0\0\0" if fault is F.QE_MISC else bytes(4),
                "mr_signer": hashlib.sha256(b"other").digest() if fault is F.QE_OTHER_SIGNER else QE_SIGNER,
                "isv_prod_id": struct.pack("<H", 9 if fault is F.QE_OTHER_PRODUCT else QE_PRODUCT[tee]),
                "isv_svn": struct.pack("<H", 1 if fault is F.QE_OLD else QE_SVN),
                "report_data": hashlib.sha256(true + authentication).digest() + bytes(32),
            }
        )
        key = self.ca.key if fault is F.QE_FORGED else pck.key
        kind, certification = (3, bytes(404)) if fault is F.PCK_ABSENT else (5, pck.chain + b"\0")
        vouched = qe + raw_signature(key, qe) + struct.pack("<H", len(authentication)) + authentication
        vouched += struct.pack("<HI", kind, len(certification)) + certification
        return shown + (vouched if version == 3 else struct.pack("<HI", 6, len(vouched)) + vouched)

    def _tcb_info(self, tee: str, fault: Fault | None) -> dict[str, Any]:
        issued = self.now - DAY
        status = {F.TCB_REVOKED: "Revoked", F.UNKNOWN_STATUS: "Splendid"}.get(fault or F.R_ZERO, "UpToDate")
        current = level(COMPONENTS, PCE_SVN, TEE_TCB_SVN if tee == "tdx" else None, status)
        older = level(
            bytes([5, 5, 2, 2]) + COMPONENTS[4:],
            PCE_SVN - 2,
            bytes([3, 1, 2]) + bytes(13) if tee == "tdx" else None,
            "OutOfDate",
            "INTEL-SA-00001",
        )
        if fault is F.NO_LEVEL:
            current["tcb"]["pcesvn"] = older["tcb"]["pcesvn"] = PCE_SVN + 1
        if fault is F.FIFTEEN_COMPONENTS:
            older["tcb"]["sgxtcbcomponents"].pop()
        info: dict[str, Any] = {
            "id": tee.upper(),
            "version": 3,
            "issueDate": _time(self.now + DAY if fault is F.TCB_INFO_NOT_YET else issued),
            "nextUpdate": _time(self.now - DAY / 24 if fault is F.TCB_INFO_ENDED else issued + 30 * DAY),
            "fmspc": FMSPC.hex(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
        }
        if tee == "tdx":
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            info["tdxModule"] = module
            info["tdxModuleIdentities"] = [
                {"id": "TDX_03", **module, "tcbLevels": [svn_level(3, "UpToDate")]},
                {
                    "id": "TDX_01",
                    **module,
                    "tcbLevels": [svn_level(5, "UpToDate"), svn_level(3, "OutOfDate", "INTEL-SA-00002")],
                },
            ]
        return {**info, "tcbLevels": [current, older]}

    def _identity(self, tee: str, fault: Fault | None) -> dict[str, Any]:
        issued = self.now - DAY
        return {
            "id": {"sgx": "QE", "tdx": "TD_QE"}[tee],
            "version": 2,
            "issueDate": _time(issued),
            "nextUpdate": _time(self.now - DAY / 24 if fault is F.QE_IDENTITY_ENDED else issued + 30 * DAY),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": QE_SIGNER.hex().upper(),
            "isvprodid": QE_PRODUCT[tee],
            "tcbLevels": [
                svn_level(QE_SVN, "Revoked" if fault is F.QE_REVOKED else "UpToDate"),
                svn_level(5, "OutOfDate", "INTEL-SA-00003"),
            ],
        }

    def _lists(self, fault: Fault | None) -> dict[str, bytes]:
        forged = ec.generate_private_key(ec.SECP256R1())
        ca = self.ca
        if fault is F.PCK_CRL_OF_OTHER_CA:
            other = PLATFORM_CA if ca.name == PROCESSOR_CA else PROCESSOR_CA
            ca = Entity(other, self.root, self._begins, self._ends, ca=True, path_length=0)
        if fault is F.PCK_CRL_OF_ROOT:
            ca = self.root
        revoked = {"pck": self.pck.serial, "ca": self.ca.serial, "signer": self.signer.serial}
        serial = revoked.get(SERIAL_OF.get(fault or F.R_ZERO, ""))
        ended = self.now - DAY / 24
        return {
            "root-ca-crl": self._list(
                self.root,
                forged if fault is F.ROOT_CRL_FORGED else self.root.key,
                ended if fault is F.ROOT_CRL_ENDED else self.now + 365 * DAY,
                serial if fault is not F.PCK_REVOKED else None,
            ),
            "pck-crl": self._list(
                ca,
                forged if fault is F.PCK_CRL_FORGED else ca.key,
                ended if fault is F.PCK_CRL_ENDED else self.now + 30 * DAY,
                serial if fault is F.PCK_REVOKED else None,
                named=fault is not F.PCK_CRL_WITHOUT_AUTHORITY,
            ),
            "pck-crl-issuer-chain": ca.chain,
        }

    def _list(
        self,
        issuer: Entity,
        key: ec.EllipticCurvePrivateKey,
        ends: datetime,
        serial: int | None,
        *,
        named: bool = True,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(intel_pki.name(issuer.name))
            .last_update(self.now - DAY)
            .next_update(ends)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        if named:
            authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
            builder = builder.add_extension(authority, critical=False)
        for one in (serial, x509.random_serial_number()):
            if one is not None:
                entry = x509.RevokedCertificateBuilder().serial_number(one).revocation_date(self.now - DAY)
                builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def level(
    components: bytes, pce_svn: int, tdx: bytes | None, status: str, *advisories: str
) -> dict[str, Any]:
    """A TCB level of TCB info version 3."""
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in components], "pcesvn": pce_svn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in tdx]
    return _level(tcb, status, advisories)


def svn_level(isv_svn: int, status: str, *advisories: str) -> dict[str, Any]:
    """A TCB level of an enclave's or a TDX module's identity."""
    return _level({"isvsvn": isv_svn}, status, advisories)


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r ‖ s over SHA-256."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _level(tcb: dict[str, Any], status: str, advisories: tuple[str, ...]) -> dict[str, Any]:
    made = {"tcb": tcb, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status}
    return {**made, "advisoryIDs": list(advisories)} if advisories else made


def _td_body(fields: Mapping[str, bytes], *, newer: bool) -> bytes:
    def of(name: str, usual: bytes) -> bytes:
        value = fields.get(name, usual)
        if len(value) != len(usual):
            raise ValueError(name)
        return value

    measured = [of(name, hashlib.sha384(name.encode()).digest()) for name in ("rtmr0", "rtmr1", "rtmr2")]
    return b"".join(
        (
            of("tee_tcb_svn", TEE_TCB_SVN),
            of("mr_seam", hashlib.sha384(b"module").digest()),
            of("mr_signer_seam", bytes(48)),
            of("seam_attributes", bytes(8)),
            of("td_attributes", struct.pack("<Q", 1 << 28)),
            of("xfam", struct.pack("<Q", 0x602E7)),
            of("mr_td", hashlib.sha384(b"firmware").digest()),
            of("mr_config_id", bytes(48)),
            of("mr_owner", bytes(48)),
            of("mr_owner_config", bytes(48)),
            *measured,
            of("rtmr3", bytes(48)),
            of("report_data", bytes(64)),
            of("tee_tcb_svn2", TEE_TCB_SVN) + of("mr_service_td", bytes(48)) if newer else b"",
        )
    )


def _sgx_body(fields: Mapping[str, bytes]) -> bytes:
    usual = {
        "cpu_svn": bytes(range(16)),
        "misc_select": bytes(4),
        "reserved1": bytes(12),
        "isv_ext_prod_id": bytes(16),
        "attributes": struct.pack("<QQ", 0x5, 0xE7),
        "mr_enclave": hashlib.sha256(b"enclave").digest(),
        "reserved2": bytes(32),
        "mr_signer": hashlib.sha256(b"signer").digest(),
        "reserved3": bytes(32),
        "config_id": bytes(64),
        "isv_prod_id": struct.pack("<H", 7),
        "isv_svn": struct.pack("<H", 3),
        "config_svn": bytes(2),
        "reserved4": bytes(42),
        "isv_family_id": bytes(16),
        "report_data": bytes(64),
    }
    return b"".join(fields.get(name, value) for name, value in usual.items())


def _body_faults(fault: Fault | None) -> dict[str, bytes]:
    match fault:
        case F.MODULE_UNKNOWN:
            return {"tee_tcb_svn": bytes([6, 9, 3]) + bytes(13)}
        case F.MODULE_OLD:
            return {"tee_tcb_svn": bytes([2, 1, 3]) + bytes(13)}
        case F.MODULE_OTHER_SIGNER:
            return {"mr_signer_seam": b"\1" * 48}
        case F.MODULE_ATTRIBUTES:
            return {"seam_attributes": b"\1" + bytes(7)}
        case F.RESERVED_ATTRIBUTE:
            return {"td_attributes": struct.pack("<Q", 1 << 28 | 1 << 40)}
        case F.XFAM_WITHOUT_SSE:
            return {"xfam": struct.pack("<Q", 0x602E5)}
        case F.XFAM_UNKNOWN:
            return {"xfam": struct.pack("<Q", 1 << 40 | 0x602E7)}
        case F.NOT_INITIALISED:
            return {"attributes": struct.pack("<QQ", 0x4, 0xE7)}
        case F.RESERVED_BYTES:
            return {"reserved4": b"\1" + bytes(41)}
    return {}


def _spoil(parts: dict[str, bytes], fault: Fault | None) -> None:
    if fault in WITHOUT:
        del parts[WITHOUT[fault]]
    match fault:
        case F.PART_ADDED:
            parts["other"] = b"x"
        case F.TCB_INFO_EDITED:
            parts["tcb-info"] = parts["tcb-info"].replace(b'"OutOfDate"', b'"UpToDate"', 1)
        case F.TCB_INFO_UNSIGNED:
            cut = parts["tcb-info"].index(b',"signature"')
            parts["tcb-info"] = parts["tcb-info"][:cut] + b"}"


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _document(key: str, inner: bytes, signer: ec.EllipticCurvePrivateKey) -> bytes:
    signature = raw_signature(signer, inner).hex().encode()
    return b'{"' + key.encode() + b'":' + inner + b',"signature":"' + signature + b'"}'


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )[1:]
