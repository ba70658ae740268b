"""The services of AMD, Intel, Google and NVIDIA over real HTTPS, on loopback, with the fake vendors' own authorities.

Each path answers as the vendor documents it; `spoil` makes any of them slow, huge, lying, redirecting, or whatever a
function makes of the good reply. `asked` holds every path that was asked for, in order.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
import urllib.parse
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from strongroom.crypto.pki import x509 as product_x509
from strongroom.encoding import pem
from strongroom.fetch.endorsements.intel import Pcs
from strongroom.fetch.endorsements.issuers import Publishers
from strongroom.fetch.endorsements.resolve import Vendors
from strongroom.fetch.http.client import Service
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors.intel_pki import FMSPC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from strongroom_testing.vendors.fake_amd import FakeAmd
    from strongroom_testing.vendors.fake_intel import FakeIntel
    from strongroom_testing.vendors.intel_pki import Entity

DAY = timedelta(days=1)
GOOGLE_HOST = "privateca-content-00000000-0000-25c1-a9d7-001a114ba6e8.storage.googleapis.com"
RIM_ID = "NV_GPU_DRIVER_GH100_570.86.10"
RIM = b"<SoftwareIdentity/>"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a path answers. raw: written to the connection instead of everything else, part by part."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    raw: Iterable[bytes] | None = None

    def having(self, name: str, value: str) -> Reply:
        """The same, with a header in place of its former value."""
        rest = tuple(one for one in self.headers if one[0].lower() != name.lower())
        return replace(self, headers=(*rest, (name, value)))


def of_type(kind: str, body: bytes, *more: tuple[str, str]) -> Reply:
    """A good answer."""
    return Reply(body=body, headers=(("Content-Type", kind), *more))


@dataclass(kw_only=True)
class VendorServices:
    """What the fake vendors' services say. Answers may be replaced while they are served.

    amd: any number of chips. intel_parts: the collateral by TEE, which `again` makes anew.
    """

    now: datetime
    amd: tuple[FakeAmd, ...] = ()
    intel: FakeIntel | None = None
    intel_parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    base: str = ""
    ca: Path | None = None
    _spoilers: list[tuple[str, Callable[[Reply], Reply]]] = field(default_factory=list)
    _amd_parts: dict[int, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the documents once: like a vendor, give the same bytes to all."""
        if self.intel is not None and not self.intel_parts:
            self.again()
        for index, chip in enumerate(self.amd):
            self._amd_parts[index] = dict(chip.endorsements().parts)
        rim = {
            "id": RIM_ID,
            "last_updated": "2025-04-08T09:05:11.595000",
            "request_id": "1",
            "rim": base64.b64encode(RIM).decode(),
            "rim_format": "TCG",
            "sha256": hashlib.sha256(RIM).hexdigest(),
        }
        self.files[f"/v1/rim/{RIM_ID}"] = of_type("application/json", json.dumps(rim).encode())

    def again(self, **changed: Any) -> None:
        """Intel's collateral, signed anew. tcb, identity: keys that are other than usual."""
        if self.intel is not None:
            self.intel_parts = {
                tee: dict(self.intel.endorsements(tee=tee, **changed).parts) for tee in ("sgx", "tdx")
            }

    def amd_parts(self, index: int = 0) -> dict[str, bytes]:
        """The endorsements of a chip, to be changed in place."""
        return self._amd_parts[index]

    def spoil(self, fragment: str, spoiler: Callable[[Reply], Reply]) -> None:
        """Put the replies to paths that hold `fragment` through `spoiler`."""
        self._spoilers.append((fragment, spoiler))

    def heal(self) -> None:
        """Answer well again."""
        self._spoilers.clear()

    @property
    def service(self) -> Service:
        """Any of the services: all answer at one place here."""
        return Service(base=self.base, private=True, ca=self.ca)

    @property
    def vendors(self) -> Vendors:
        """All the services."""
        one = self.service
        return Vendors(
            kds=one, pcs=Pcs(api=one, lists=one), rims=one, publishers=Publishers(mirrors={GOOGLE_HOST: one})
        )

    def reply(self, target: str) -> Reply:
        """The reply to one request."""
        self.asked.append(target)
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query))
        found = (
            self.files.get(parts.path) or self._intel(parts.path, query) or self._amd(parts.path, parts.query)
        )
        found = found or Reply(status=404)
        for fragment, spoiler in self._spoilers:
            if fragment in target:
                found = spoiler(found)
        return found

    def _intel(self, path: str, query: dict[str, str]) -> Reply | None:
        if self.intel is None:
            return None
        for tee, parts in self.intel_parts.items():
            start = f"/{tee}/certification/v4"
            if path == f"{start}/tcb" and query.get("fmspc") == FMSPC.hex():
                return _document(parts, "tcb-info", "TCB-Info-Issuer-Chain")
            if path == f"{start}/qe/identity":
                return _document(parts, "qe-identity", "SGX-Enclave-Identity-Issuer-Chain")
        parts = self.intel_parts["sgx"]
        kind = "platform" if self.intel.ca.name.endswith("Platform CA") else "processor"
        match path:
            case "/sgx/certification/v4/pckcrl" if query.get("ca") == kind:
                chain = ("SGX-PCK-CRL-Issuer-Chain", urllib.parse.quote(parts["pck-crl-issuer-chain"]))
                return of_type("application/pkix-crl", parts["pck-crl"], chain)
            case "/sgx/certification/v4/rootcacrl":
                return of_type("text/html; charset=utf-8", parts["root-ca-crl"].hex().encode())
            case "/IntelSGXRootCA.der":
                return of_type("application/x-x509-ca-cert", parts["root-ca-crl"])
            case "/sgx/certification/v4/pckcert" if len(query.get("encrypted_ppid", "")) == 768:
                leaf = pem.encode(self.intel.pck.certificate, b"CERTIFICATE")
                above = ("SGX-PCK-Certificate-Issuer-Chain", urllib.parse.quote(self.intel.ca.chain))
                return of_type("application/x-pem-file", leaf, above)
        return None

    def _amd(self, path: str, query: str) -> Reply | None:
        for index, chip in enumerate(self.amd):
            parts = self._amd_parts[index]
            start = f"/{'vlek' if chip.vlek else 'vcek'}/v1/{chip.line}"
            if path == f"{start}/cert_chain":
                ders = product_x509.split(parts["issuers"])
                chain = b"".join(pem.encode(der, b"CERTIFICATE") for der in ders)
                return of_type("application/x-pem-file", chain)
            if path == f"{start}/crl":
                return of_type("application/octet-stream", parts["crl"])
            if (
                path == f"{start}/{_hwid(chip)}"
                and not chip.vlek
                and sorted(query.split("&")) == _levels(chip)
            ):
                return of_type("application/octet-stream", parts["vek"])
        return None


@contextlib.contextmanager
def serve(
    folder: Path,
    *,
    now: datetime | None = None,
    amd: tuple[FakeAmd, ...] = (),
    intel: FakeIntel | None = None,
    tls: bool = True,
) -> Iterator[VendorServices]:
    """The services, answering. folder: where the server's key and certificate go."""
    made = VendorServices(now=now or datetime.now(UTC), amd=amd, intel=intel)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                reply = made.reply(self.path)
                if reply.raw is not None:
                    for part in reply.raw:
                        self.wfile.write(part)
                        self.wfile.flush()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                if not any(name.lower() in _LENGTHS for name, _ in reply.headers):
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            pass

        def get_request(self) -> tuple[Any, Any]:
            sock, address = super().get_request()
            sock.settimeout(30)
            # The handshake is the connection's own thread's to do: one that stalls holds up nobody else.
            return (
                context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) if tls else sock
            ), address

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.ca = certify(folder, context)
    server = Server(("127.0.0.1", 0), Handler)
    made.base = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def revocation_list(issuer: Entity, *, number: int, now: datetime, days: int = 30) -> bytes:
    """A list of a fake Intel's authority with that number."""
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_der_x509_certificate(issuer.certificate).subject)
        .last_update(now - DAY)
        .next_update(now + days * DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False
        )
        .sign(issuer.key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


@dataclass(kw_only=True)
class FakeIssuers:
    """An attestation key's certificate whose issuers are to be had where it says. first: the leaf's own URL."""

    now: datetime
    first: str = f"http://{GOOGLE_HOST}/a/ca.crt"
    keys: tuple[ec.EllipticCurvePrivateKey, ...] = field(
        default_factory=lambda: tuple(maker.new_key() for _ in range(3))
    )

    @property
    def root(self) -> str:
        """The digest of the root's key."""
        return maker.key_digest(self.keys[0])

    def leaf(self) -> bytes:
        """The attestation key's certificate."""
        return self._issue("ak", 2, 1, url=self.first)

    def files(self) -> dict[str, Reply]:
        """What is published, by path."""
        kind = "application/pkix-cert"
        above = self._issue("issuer", 1, 0, url=f"https://{GOOGLE_HOST}/b/ca.crt", ca=True)
        root = self._issue("root", 0, 0, ca=True)
        return {"/a/ca.crt": of_type(kind, above), "/b/ca.crt": of_type(kind, root)}

    def _issue(self, name: str, key: int, signer: int, *, url: str = "", ca: bool = False) -> bytes:
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url)
        )
        request = maker.Request(
            subject=name,
            key=self.keys[key],
            begins=self.now - DAY,
            ends=self.now + 30 * DAY,
            ca=ca,
            extensions=(x509.AuthorityInformationAccess([access]),) if url else (),
        )
        return maker.issue(request, ("root", "issuer")[signer], self.keys[signer])


_LENGTHS = {"content-length", "transfer-encoding"}


def _document(parts: dict[str, bytes], part: str, header: str) -> Reply:
    chain = urllib.parse.quote(parts[f"{part}-issuer-chain"])
    return of_type("application/json", parts[part], (header, chain))


def _hwid(chip: FakeAmd) -> str:
    return (chip.chip_id[:8] if chip.line == "Turin" else chip.chip_id).hex()


def _levels(chip: FakeAmd) -> list[str]:
    """The query for the chip's TCB, as AMD documents it, sorted."""
    tcb = chip.tcb
    if chip.line == "Turin":
        named = {"fmcSPL": tcb[0], "blSPL": tcb[1], "teeSPL": tcb[2], "snpSPL": tcb[3], "ucodeSPL": tcb[7]}
    else:
        named = {"blSPL": tcb[0], "teeSPL": tcb[1], "snpSPL": tcb[6], "ucodeSPL": tcb[7]}
    return sorted(f"{name}={level:02d}" for name, level in named.items())


def certify(folder: Path, context: ssl.SSLContext) -> Path:
    """Give the server a certificate for loopback; the file of the one CA to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vendors on loopback")])
    now = datetime.now(UTC)
    places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName(places), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.key").write_bytes(private)
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return folder / "server.pem"
