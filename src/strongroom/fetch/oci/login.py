"""Credentials for registries, and the tokens that they are changed into.

Credentials come from a file in the form of Docker's config.json (`auths`), or as NAME:SECRET for one registry; they are
never looked for, never taken from arguments, and never shown. Programs that such a file names (`credHelpers`,
`credsStore`) are not run. Each counts for the host that it is filed under, and for no other.

Token authentication: https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/. The place that gives
tokens is the registry's to name; it is asked over verified TLS as the registry is, and sends us nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from strongroom import files
from strongroom.encoding import canonical
from strongroom.errors import Malformed, Refused
from strongroom.fetch.http.streaming import BROKEN
from strongroom.fetch.oci import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_FILE = 256 * 1024
MAX_ENTRIES = 256
_SUCH = 'give a Docker config.json with {"auths": {HOST: {"auth": …}}}, or one line NAME:SECRET'
MAX_SECRET = 16 * 1024
MAX_TOKEN_ANSWER = 128 * 1024
MAX_CHALLENGES = 4
_CHALLENGE = re.compile(r'([A-Za-z]{1,32})="([^"\\]{0,1024})"', re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,65536}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A name and its secret; or an identity token (OAuth's refresh token) instead of the secret."""

    name: str
    secret: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The Authorization header of RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.secret}".encode()).decode()


@dataclass(frozen=True, kw_only=True)
class Keyring:
    """Credentials by HOST[:PORT]."""

    by_host: Mapping[str, Credential] = field(default_factory=dict)

    def credential_for(self, host: str) -> Credential | None:
        """What is filed under exactly that host."""
        return self.by_host.get(host)


@dataclass(frozen=True, kw_only=True)
class LoginChallenge:
    """What a registry wants: `scheme` is "basic" or "bearer"; the rest is the latter's."""

    scheme: str
    realm: str = ""
    service: str = ""


def load(path: Path, *, host: str) -> Keyring:
    """The credentials in a file, for `host` where it is one line NAME:SECRET. Raises `Malformed`, which never tells what was read."""
    return files.parsed(path, lambda data: parse(data, host=host), max_bytes=MAX_FILE)


def parse(data: bytes, *, host: str) -> Keyring:
    """Read a config.json, or one line NAME:SECRET for `host`. Raises `Malformed`, which never tells what was read."""
    if data.lstrip()[:1] == b"{":
        return _config(data)
    try:
        line = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise Malformed("credentials: no text in UTF-8", code="bad-credentials", hint=_SUCH) from None
    name, colon, secret = line.partition(":")
    return Keyring(by_host={host: _credential(name, secret, "", f"of {host}", bool(colon))})


def _config(data: bytes) -> Keyring:
    try:
        document = canonical.loads(data, what="credentials", max_bytes=MAX_FILE)
    except Malformed as cause:
        raise Malformed("credentials: no strict JSON", code=cause.code, hint=_SUCH) from None
    auths = document.get("auths", {})
    if not isinstance(auths, dict) or len(auths) > MAX_ENTRIES:
        raise Malformed(
            f"credentials.auths: expected an object of at most {MAX_ENTRIES} registries",
            code="bad-credentials",
            hint=_SUCH,
        )
    credentials: dict[str, Credential] = {}
    for place, entry in auths.items():
        host = _host(place)
        if isinstance(entry, dict) and entry and names.is_host(host):
            credentials[host] = _entry(entry, host)
    if not credentials and (document.get("credsStore") or document.get("credHelpers")):
        raise Refused(
            "credentials: the file says that another program keeps them (credsStore, credHelpers), which is not run here",
            code="credential-helper",
            hint="give one line NAME:SECRET: --credentials-fd 3 3<FILE",
        )
    return Keyring(by_host=credentials)


def _host(place: str) -> str:
    """Docker files its own registry under a URL, and others under host names."""
    host = place.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()
    return names.OciReference(host=host, repository="").place


def _entry(entry: dict[str, Any], host: str) -> Credential:
    texts = {key: entry.get(key, "") for key in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(text, str) and len(text) <= 2 * MAX_SECRET for text in texts.values()):
        raise Malformed(
            f"credentials of {host}: expected texts of at most {2 * MAX_SECRET} characters for auth, username, password and identitytoken",
            code="bad-credentials",
            hint=_SUCH,
        )
    name, secret, colon = texts["username"], texts["password"], True
    if texts["auth"]:
        try:
            plain = base64.b64decode(texts["auth"], validate=True).decode()
        except (binascii.Error, ValueError):
            raise Malformed(
                f"credentials of {host}: auth is no base64", code="bad-credentials", hint=_SUCH
            ) from None
        name, separator, secret = plain.partition(":")
        colon, secret = bool(separator), secret.rstrip("\x00")
    return _credential(name, secret, texts["identitytoken"], f"of {host}", colon)


def _credential(name: str, secret: str, token: str, what: str, complete: bool) -> Credential:  # noqa: FBT001
    good = (
        complete and name and (secret or token) and len(secret) <= MAX_SECRET and len(token) <= 2 * MAX_SECRET
    )
    if not good or not (name + secret + token).isprintable():
        raise Malformed(f"credentials {what}: expected NAME:SECRET", code="bad-credentials", hint=_SUCH)
    return Credential(name=name, secret=secret, identity_token=token)


def parse_challenge(headers: Sequence[str]) -> LoginChallenge:
    """The WWW-Authenticate headers of a 401; of several, tokens come first. Raises `Malformed`."""
    basic = None
    for header in headers[:MAX_CHALLENGES]:
        scheme, _, parameter_text = header.partition(" ")
        parameters = {name.lower(): value for name, value in _CHALLENGE.findall(parameter_text[:4096])}
        match scheme.lower():
            case "basic":
                basic = LoginChallenge(scheme="basic")
            case "bearer" if parameters.get("realm"):
                return LoginChallenge(
                    scheme="bearer", realm=parameters["realm"], service=parameters.get("service", "")
                )
    if basic is None:
        schemes = ", ".join(text.partition(" ")[0][:40] for text in headers[:MAX_CHALLENGES])
        raise Malformed(
            f"registry: asks for a log-in of an unknown kind, {schemes!r}: expected Basic or Bearer",
            code="registry-answer",
            hint="take the image from another registry, or as a file",
        )
    return basic


def token_request(
    challenge: LoginChallenge, credential: Credential | None, scope: str
) -> tuple[str, str, dict[str, str], bytes]:
    """How a token is asked for: method, URL, headers, body."""
    query_fields = {"service": challenge.service, "scope": scope}
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "client_id": "strongroom",
            "refresh_token": credential.identity_token,
        }
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return "POST", challenge.realm, kind, urllib.parse.urlencode({**query_fields, **form}).encode()
    joint = "&" if urllib.parse.urlsplit(challenge.realm).query else "?"
    query = urllib.parse.urlencode({name: value for name, value in query_fields.items() if value})
    headers = {} if credential is None else {"Authorization": credential.basic()}
    return "GET", f"{challenge.realm}{joint}{query}", headers, b""


def parse_token(data: bytes) -> str:
    """The token of an answer. Raises `Malformed`, which never tells what was read."""
    try:
        document = canonical.loads(data, what="token", max_bytes=MAX_TOKEN_ANSWER)
    except Malformed as cause:
        raise Malformed(
            "registry: its answer with a token is no strict JSON", code=cause.code, hint=BROKEN
        ) from None
    for key in ("token", "access_token"):
        value = document.get(key) if isinstance(document, dict) else None
        if isinstance(value, str) and _TOKEN.fullmatch(value) is not None:
            return value
    raise Malformed("registry: its answer holds no token", code="registry-answer", hint=BROKEN)
