"""Speaking with one registry: log-in, back-off and redirects, which its callers need not think of.

1 the place      HOST[:PORT] that the user named (registry or mirror); its address may be private, never a metadata
                 service's (docs/rules.md, 55); TLS verified, or plain HTTP to a loopback address where the caller says so
2 the log-in     asked for by a 401: Basic, or a bearer token from the place that the registry names; a credential
                 goes to its own registry and to that place, a token to its own registry
3 the redirect   within the place; elsewhere for blobs alone, which their digests judge: without any credential, with
                 the same TLS, into private networks only from a registry that is in one
4 the back-off   429, 500, 502, 503, 504 and broken connections: a few tries, after Retry-After or longer and longer
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strongroom.errors import Misuse, NotFound, Refused, Unavailable
from strongroom.fetch.http import client as web
from strongroom.fetch.http import streaming
from strongroom.fetch.http.client import Client, Service
from strongroom.fetch.http.streaming import BROKEN, OutgoingRequest, Reply
from strongroom.fetch.oci import login, names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RETRIED = (429, 500, 502, 503, 504)
MAX_HOPS = 3  # redirects that are followed, one after another
# Bytes a second. A large body has as much more time than other answers as it takes at this rate.
SLOWEST = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Access:
    """How registries are reached.

    mirrors: HOST[:PORT] each, asked in order before the registry; they are never believed. ca: a PEM file of the only
    certificates trusted, instead of the system's. plain_http_to_loopback: no TLS with loopback addresses.
    """

    keyring: login.Keyring = field(default_factory=login.Keyring)
    mirrors: tuple[str, ...] = ()
    ca: Path | None = None
    plain_http_to_loopback: bool = False
    client: Client = field(default_factory=Client)

    def places(self, reference: names.OciReference) -> tuple[str, ...]:
        """Who is asked, in order; the registry itself comes last."""
        for mirror in self.mirrors:
            if not names.is_host(mirror):
                raise Misuse(
                    f"mirror {mirror[:200]!r}: expected HOST[:PORT]",
                    code="bad-mirror",
                    hint="for example --mirror mirror.example:5000",
                )
        return tuple(dict.fromkeys((*self.mirrors, reference.place)))


class RegistrySession:
    """A conversation with `place` (HOST[:PORT]) about `repository`. actions: what a token is asked for, "pull" or "pull,push"."""

    def __init__(self, access: Access, place: str, repository: str, *, actions: str = "pull") -> None:
        self._access = access
        self._client = access.client
        self._credential = access.keyring.credential_for(place)
        self._scope = f"repository:{repository}:{actions}"
        self._authorization = ""
        plain = access.plain_http_to_loopback and _is_loopback(place)
        self.base = f"{'http' if plain else 'https'}://{place}"
        self._service = Service(base=self.base, private=True, ca=access.ca, plain=plain)
        self._place = self._service.place()
        self.prefix = f"{self.base}/v2/{repository}"

    def url(self, path: str) -> str:
        """The URL of a path below the repository."""
        return self.prefix + path

    def within(self, reply: Reply, location: str) -> str:
        """Where an answer sends us for more of the same. Raises `Refused` unless it is the registry itself."""
        target = urllib.parse.urljoin(reply.url, location)
        if not self._is_here(target):
            raise _elsewhere(reply.url, target)
        return target

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        blob: int | None = None,
        retry: bool = True,
    ) -> Iterator[Reply]:
        """The answer, after whatever log-in, waiting and following it takes; any other status is for the caller to judge.

        blob: the size of the blob that is asked for, which may lie elsewhere and take its time. retry: False for what
        may have been done though no answer came.
        Raises `Unavailable`, `Refused` or `Malformed`.
        """
        ends = time.monotonic() + self._client.total_seconds + (blob or len(body)) / SLOWEST
        request = OutgoingRequest(method=method, url=url, headers=dict(headers or {}), body=body)
        tries = self._client.tries if retry else 1
        for attempt in range(tries):
            last = attempt + 1 == tries
            with contextlib.ExitStack() as opened:
                try:
                    reply = opened.enter_context(self._logged_in(request, ends))
                    if reply.status in streaming.REDIRECTS:
                        reply = self._follow(opened, reply, request, ends, blob=blob is not None)
                except Unavailable:
                    if last:
                        raise
                    wait = web.FIRST_WAIT * 2**attempt
                else:
                    if reply.status not in RETRIED:
                        yield reply
                        return
                    wait = web.back_off(reply.header, attempt)
                    if last or wait > web.LONGEST_WAIT:
                        raise Unavailable(
                            f"{url}: HTTP {reply.status}, asks to come back in {wait:.0f} s",
                            code="registry-busy",
                            hint="the registry has too much to do, or you ask too often: try again later",
                        )
            if time.monotonic() + wait > ends:
                raise Unavailable(
                    f"{url}: no answer in time",
                    code="registry-unreachable",
                    hint="is the registry up, and the way to it open? Type the same again",
                )
            self._client.sleep(wait)
        raise Misuse("client: tries: expected at least 1, got 0", hint="make it with tries=1 or more")

    @contextlib.contextmanager
    def _logged_in(self, request: OutgoingRequest, ends: float) -> Iterator[Reply]:
        """The answer, after one log-in where a 401 asks for it."""
        for after_login in (False, True):
            with streaming.exchange(
                self._client, self._service, self._with_login(request), ends=ends
            ) as reply:
                if reply.status != 401 or after_login:
                    if reply.status in (401, 403):
                        raise self._denied(reply)
                    yield reply
                    return
                challenge = login.parse_challenge(reply.headers("www-authenticate"))
            self._authorization = self._authorize(challenge, reply, ends)

    def _with_login(self, request: OutgoingRequest) -> OutgoingRequest:
        headers = dict(request.headers)
        if self._authorization:
            headers["Authorization"] = self._authorization
        return OutgoingRequest(method=request.method, url=request.url, headers=headers, body=request.body)

    def _authorize(self, challenge: login.LoginChallenge, asks: Reply, ends: float) -> str:
        """The Authorization header that answers `challenge`, which came in `asks`; empty where there is no credential for Basic."""
        if challenge.scheme == "basic":
            return "" if self._credential is None else self._credential.basic()
        method, url, headers, body = login.token_request(challenge, self._credential, self._scope)
        service = self._service_of(url, "the place for tokens", asks)
        request = OutgoingRequest(method=method, url=url, headers=headers, body=body)
        with streaming.exchange(self._client, service, request, ends=ends) as reply:
            if reply.status in (400, 401, 403):
                raise self._denied(reply)
            if reply.status != 200:
                raise Unavailable(
                    f"{challenge.realm[:200]}: HTTP {reply.status} when asked for a token, expected 200",
                    code="registry-answer",
                    hint=BROKEN,
                )
            data = reply.whole(max_bytes=login.MAX_TOKEN_ANSWER)
        return f"Bearer {login.parse_token(data)}"

    def _follow(
        self, opened: contextlib.ExitStack, reply: Reply, request: OutgoingRequest, ends: float, *, blob: bool
    ) -> Reply:
        """The answer at the end of redirects. blob: whether it may come from elsewhere, and then without a credential."""
        for _ in range(MAX_HOPS):
            target = urllib.parse.urljoin(reply.url, reply.header("location"))
            here = self._is_here(target)
            if request.method not in ("GET", "HEAD") or not (here or blob):
                raise _elsewhere(reply.url, target)
            bare = OutgoingRequest(method=request.method, url=target, headers=request.headers)
            service = self._service if here else self._service_of(target, "a redirect", reply)
            following = self._with_login(bare) if here else bare
            reply = opened.enter_context(streaming.exchange(self._client, service, following, ends=ends))
            if reply.status not in streaming.REDIRECTS:
                return reply
        raise Refused(f"{request.url}: sends us on more than {MAX_HOPS} times", code="redirect", hint=BROKEN)

    def _is_here(self, url: str) -> bool:
        try:
            return web.place_of(url, plain=self._service.plain) == self._place
        except Misuse:
            return False

    def _service_of(self, url: str, what: str, reply: Reply) -> Service:
        """A place that an answer names, in a private network only if the answer came out of one.

        Raises `Refused` when it could not be a place.
        """
        parts = urllib.parse.urlsplit(url)
        service = Service(
            base=f"{parts.scheme}://{parts.netloc}",
            private=not ipaddress.ip_address(reply.address.partition("%")[0]).is_global,
            ca=self._access.ca,
            plain=self._service.plain and parts.scheme == "http",
        )
        try:
            web.place_of(url, plain=service.plain)
            service.place()
        except Misuse:
            raise Refused(
                f"{self.base}: {what} leads to {url[:200]!r}, which is no place to ask",
                code="redirect",
                hint=BROKEN,
            ) from None
        return service

    def _denied(self, reply: Reply) -> Refused:
        known, hint = (
            (
                "a credential for it was given, and does not do",
                "give one that may read there (to publish: write), with",
            )
            if self._credential
            else ("no credential given", "give one with")
        )
        return Refused(
            f"{reply.url}: HTTP {reply.status}: {known}",
            code="registry-denied",
            hint=f"{hint} --credentials FILE (a Docker config.json) or --credentials-fd",
        )


def expect(reply: Reply, *statuses: int) -> None:
    """Raise `NotFound` or `Unavailable` unless the answer is one of these."""
    if reply.status in statuses:
        return
    if reply.status == 404:
        raise NotFound(
            f"{reply.url}: not there",
            code="not-in-registry",
            hint="is the name right, and the digest one of that repository? Some registries say so to whom gives no --credentials",
        )
    raise Unavailable(
        f"{reply.url}: HTTP {reply.status}, expected {' or '.join(map(str, statuses))}",
        code="registry-answer",
        hint=BROKEN,
    )


def _is_loopback(place: str) -> bool:
    host = place.rpartition(":")[0] if place.count(":") == 1 or "]:" in place else place
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _elsewhere(url: str, target: str) -> Refused:
    return Refused(
        f"{url}: sends us to {target[:200]!r}, which is another place",
        code="redirect",
        hint="only blobs may lie elsewhere; name the right registry",
    )
