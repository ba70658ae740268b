"""A Sigstore of one's own: an authority for certificates of a moment, its certificate log, and a log of signatures.

`sign` makes what `cosign sign` attaches to an image: a bundle v0.3 with a DSSE envelope, the certificate with its signed
certificate timestamp, and the log's entry with promise, inclusion proof and signed checkpoint. `trusted_root` tells a
verifier of it; parts of another instance in it are what a verifier has to refuse.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SIGN = "https://sigstore.dev/cosign/sign/v1"
IDENTITY = "https://github.example/team/it/.github/workflows/release.yml@refs/heads/main"
ISSUER = "https://token.actions.github.example"
_ISSUER_V1, _ISSUER_V2 = "1.3.6.1.4.1.57264.1.1", "1.3.6.1.4.1.57264.1.8"
_SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
_ORIGIN = "rekor.example - 1"
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def _key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def pae(kind: str, payload: bytes) -> bytes:
    """What a DSSE signature is over."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)


def statement(digest: str, *, predicate_type: str = SIGN, subjects: int = 1) -> bytes:
    """What `cosign sign` signs."""
    subject = {"digest": {"sha256": digest.removeprefix("sha256:")}}
    return _compact(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject] * subjects,
            "predicateType": predicate_type,
            "predicate": {},
        }
    )


def keyed_bundle(payload: bytes, sign: Any) -> dict[str, Any]:
    """A bundle by a key: `sign` takes the message."""
    return {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": "any"}},
        "dsseEnvelope": _envelope(payload, sign(pae(PAYLOAD_TYPE, payload))),
    }


def _envelope(payload: bytes, signature: bytes) -> dict[str, Any]:
    return {"payload": _b64(payload), "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": _b64(signature)}]}


@dataclass(kw_only=True)
class FakeSigstore:
    """One instance. now: when things are signed."""

    now: datetime
    _root: ec.EllipticCurvePrivateKey = field(default_factory=lambda: _key(ec.SECP384R1()))
    _between: ec.EllipticCurvePrivateKey = field(default_factory=lambda: _key(ec.SECP384R1()))
    _ct: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    _rekor: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        """Make the authority's certificates."""
        self._authority = [
            self._ca("between", self._between, "root", self._root),
            self._ca("root", self._root, "root", self._root),
        ]

    def trusted_root(
        self,
        *,
        ca: FakeSigstore | None = None,
        ct: FakeSigstore | None = None,
        rekor: FakeSigstore | None = None,
    ) -> dict[str, Any]:
        """What a verifier is told: of this instance, or in parts of another."""
        begin = _time(self.now - DAY)
        authority = (ca or self)._authority  # noqa: SLF001 - another of the same
        ders = [one.public_bytes(serialization.Encoding.DER) for one in authority]
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log((rekor or self)._rekor, "https://rekor.example", begin)],  # noqa: SLF001
            "certificateAuthorities": [
                {
                    "subject": {"organization": "example", "commonName": "root"},
                    "uri": "https://fulcio.example",
                    "certChain": {"certificates": [{"rawBytes": _b64(der)} for der in ders]},
                    "validFor": {"start": begin},
                }
            ],
            "ctlogs": [_log((ct or self)._ct, "https://ct.example", begin)],  # noqa: SLF001
            "timestampAuthorities": [],
        }

    def sign(
        self,
        payload: bytes,
        *,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        with_sct: bool = True,
        lifetime: timedelta = 10 * MINUTE,
        purpose: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        logged: datetime | None = None,
    ) -> dict[str, Any]:
        """A bundle over a statement."""
        key = _key()
        certificate = self._leaf(key, identity, issuer, with_sct=with_sct, lifetime=lifetime, purpose=purpose)
        signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
        verifier = certificate.public_bytes(serialization.Encoding.PEM)
        body = _compact(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(b"envelope").hexdigest()},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [{"signature": _b64(signature), "verifier": _b64(verifier)}],
                },
            }
        )
        der = certificate.public_bytes(serialization.Encoding.DER)
        return {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "certificate": {"rawBytes": _b64(der)},
                "tlogEntries": [self._entry(body, int((logged or self.now + MINUTE).timestamp()))],
            },
            "dsseEnvelope": _envelope(payload, signature),
        }

    def _entry(self, body: bytes, at: int) -> dict[str, Any]:
        """The log's entry: third of five."""
        index, total = 2, 7002
        promise = _compact(
            {"body": _b64(body), "integratedTime": at, "logID": _id(self._rekor).hex(), "logIndex": total}
        )
        leaves = [b"zero", b"one", body, b"three", b"four"]
        root, proof = _tree([_leaf_hash(leaf) for leaf in leaves], index)
        note = f"{_ORIGIN}\n{len(leaves)}\n{_b64(root)}\n"
        signed = _id(self._rekor)[:4] + self._logged(note.encode())
        return {
            "logIndex": str(total),
            "logId": {"keyId": _b64(_id(self._rekor))},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": _b64(self._logged(promise))},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": _b64(root),
                "treeSize": str(len(leaves)),
                "hashes": [_b64(one) for one in proof],
                "checkpoint": {"envelope": f"{note}\n— {_ORIGIN.partition(' ')[0]} {_b64(signed)}\n"},
            },
            "canonicalizedBody": _b64(body),
        }

    def _logged(self, message: bytes) -> bytes:
        return self._rekor.sign(message, ec.ECDSA(hashes.SHA256()))

    def _ca(
        self, name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        builder = self._builder(key, signer, self.now - DAY, self.now + 365 * DAY)
        usage = _usage(ca=True)
        return (
            builder.subject_name(_name(name))
            .issuer_name(_name(issuer))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(signer, hashes.SHA384())
        )

    def _leaf(
        self,
        key: ec.EllipticCurvePrivateKey,
        identity: str,
        issuer: str,
        *,
        with_sct: bool,
        lifetime: timedelta,
        purpose: ObjectIdentifier,
    ) -> x509.Certificate:
        name: x509.GeneralName = (
            x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
        )
        told = issuer.encode()
        builder = (
            self._builder(key, self._between, self.now, self.now + lifetime)
            .subject_name(x509.Name([]))
            .issuer_name(_name("between"))
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.UnrecognizedExtension(ObjectIdentifier(_ISSUER_V1), told), critical=False)
            .add_extension(
                x509.UnrecognizedExtension(ObjectIdentifier(_ISSUER_V2), bytes([0x0C, len(told)]) + told),
                critical=False,
            )
        )
        bare = builder.sign(self._between, hashes.SHA384())
        if not with_sct:
            return bare
        listed = x509.UnrecognizedExtension(
            ObjectIdentifier(_SCT_LIST), self._sct(bare.tbs_certificate_bytes)
        )
        return builder.add_extension(listed, critical=False).sign(self._between, hashes.SHA384())

    def _sct(self, precertificate: bytes) -> bytes:
        """The list of one signed certificate timestamp (RFC 6962, 3.2 and 3.3), as the extension's value."""
        moment = int(self.now.timestamp() * 1000)
        entry = _id(self._between) + len(precertificate).to_bytes(3) + precertificate
        message = struct.pack("!BBQH", 0, 0, moment, 1) + entry + b"\0\0"
        signature = self._ct.sign(message, ec.ECDSA(hashes.SHA256()))
        sct = b"\0" + _id(self._ct) + struct.pack("!QH", moment, 0) + b"\4\3"
        sct += len(signature).to_bytes(2) + signature
        inner = len(sct).to_bytes(2) + sct
        listed = len(inner).to_bytes(2) + inner
        length = bytes([len(listed)]) if len(listed) < 0x80 else b"\x81" + bytes([len(listed)])
        return b"\x04" + length + listed

    def _builder(
        self,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        begins: datetime,
        ends: datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
        )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def _log(key: ec.EllipticCurvePrivateKey, url: str, begin: str) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _b64(_spki(key)),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": begin},
        },
        "logId": {"keyId": _b64(_id(key))},
    }


def _leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\0" + leaf).digest()


def _tree(hashed: list[bytes], index: int) -> tuple[bytes, list[bytes]]:
    """Root and proof for a leaf (RFC 6962, 2.1)."""
    if len(hashed) == 1:
        return hashed[0], []
    split = 1 << (len(hashed) - 1).bit_length() - 1
    left, right = hashed[:split], hashed[split:]
    if index < split:
        root, proof = _tree(left, index)
        other, _ = _tree(right, 0)
        pair = root + other
    else:
        root, proof = _tree(right, index - split)
        other, _ = _tree(left, 0)
        pair = other + root
    return hashlib.sha256(b"\1" + pair).digest(), [*proof, other]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
