"""A real registry (Debian's `docker-registry`) on loopback, and the place for tokens that it may send its clients to."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from strongroom.fetch.oci.push import Pusher
from strongroom.images import artifact
from strongroom_testing import ports
from strongroom_testing.vendors import certificate_maker as maker
from strongroom_testing.vendors.vendor_services import Reply, of_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strongroom.fetch.oci.names import OciReference
    from strongroom.fetch.oci.session import Access
    from strongroom.images.artifact import Artifact

PROGRAM = shutil.which("docker-registry") or "/usr/bin/docker-registry"
NAME, SECRET = "reader", "open sesame"
HTPASSWD = f"{NAME}:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"
ISSUER, SERVICE = "tokens on loopback", "registry on loopback"
_START_SECONDS = 20
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running registry. folder: where its blobs are."""

    host: str
    folder: Path

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        name = digest.removeprefix("sha256:")
        return self.folder / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def available() -> bool:
    """Whether the program is installed."""
    return Path(PROGRAM).exists()


def push_artifact(
    reference: OciReference, made: Artifact, contents: Mapping[str, bytes], *, access: Access
) -> str:
    """Put an artifact and its files (by digest) there, under the reference's tag if it has one. Returns its digest."""
    pusher = Pusher(reference, access=access)
    pusher.contents(made, contents)
    digest = pusher.artifact(made)
    if reference.tag is not None:
        pusher.manifest(made.encode(), artifact.MANIFEST, tag=reference.tag)
    return digest


@contextlib.contextmanager
def registry(
    folder: Path,
    *,
    htpasswd: bool = False,
    tokens: Tokens | None = None,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[Registry]:
    """Run it. tls: its certificate and key (PEM)."""
    folder.mkdir(parents=True, exist_ok=True)
    port = ports.free()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if tls is not None:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": http,
    }
    if htpasswd:
        (folder / "htpasswd").write_text(HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "loopback", "path": str(folder / "htpasswd")}}
    if tokens is not None:
        (folder / "tokens.pem").write_bytes(tokens.certificate_pem)
        settings["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(folder / "tokens.pem"),
            }
        }
    (folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [PROGRAM, "serve", str(folder / "config.yml")], stdout=log, stderr=log, env={}
        ) as child,
    ):
        try:
            _wait(child, port, folder / "log")
            yield Registry(host=f"127.0.0.1:{port}", folder=folder / "data")
        finally:
            child.terminate()


def _wait(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and child.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"docker-registry does not start: {log.read_text()[-2000:]}")


@dataclass(kw_only=True)
class Tokens:
    """Gives out the tokens (JWT, ES256) of distribution's specification. realm: its URL, once it is served.

    refresh: the one identity token that it takes for a password. asked: (method, target, Authorization, form).
    """

    realm: str = ""
    refresh: str = "refresh-me"
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: maker.new_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        """Make the certificate that the registry knows it by."""
        now = datetime.now(UTC)
        request = maker.Request(subject=ISSUER, key=self._key, begins=now - DAY, ends=now + DAY, ca=True)
        self._certificate = maker.issue(request, ISSUER, self._key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        found = x509.load_der_x509_certificate(self._certificate)
        return found.public_bytes(serialization.Encoding.PEM)

    def reply(self, method: str, target: str, authorization: str, form: str) -> Reply:
        """The answer to one who asks for a token."""
        self.asked.append((method, target, authorization, form))
        said = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query or form))
        if method == "POST":
            known = said.get("refresh_token") == self.refresh
        else:
            wanted = base64.b64encode(f"{NAME}:{SECRET}".encode()).decode()
            known = authorization == f"Basic {wanted}"
        if not known or said.get("service") != SERVICE:
            return Reply(status=401)
        body = {
            "access_token" if method == "POST" else "token": self._token(said["scope"]),
            "expires_in": 300,
        }
        return of_type("application/json", json.dumps(body).encode())

    def _token(self, scope: str) -> str:
        kind, name, actions = scope.split(":")
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": NAME,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(self._certificate).decode()]}
        message = b".".join(_base64url(json.dumps(one).encode()) for one in (header, claims))
        r, s = utils.decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
        return (message + b"." + _base64url(r.to_bytes(32) + s.to_bytes(32))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
