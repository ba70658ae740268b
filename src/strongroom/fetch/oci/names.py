"""Names of images and artifacts in OCI registries: HOST[:PORT]/REPOSITORY[:TAG][@sha256:…].

The grammar is that of the OCI distribution specification v1.1 ("Pulling manifests"); the host is always written out,
as which registry a short name means is another machine's setting. A name counts by its digest alone (docs/rules.md, 29).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from strongroom.encoding import fields
from strongroom.errors import Misuse, Refused

MAX_NAME = 512  # characters
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
# The names of Docker's registry, and where it answers.
_ANSWERS_AT = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, kw_only=True)
class OciReference:
    """A name. `tag` and `digest` are None where they are not given; with both, the digest counts."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        return f"{self.host}/{self.repository}{tag}" + ("" if self.digest is None else f"@{self.digest}")

    @property
    def place(self) -> str:
        """HOST[:PORT] that answers for it."""
        return _ANSWERS_AT.get(self.host, self.host)

    def by(self, digest: str) -> OciReference:
        """The manifest of this digest in the same repository."""
        return replace(self, tag=None, digest=digest)

    def pinned(self) -> str:
        """The digest. Raises `Refused` where a tag is all there is."""
        if self.digest is None:
            raise Refused(
                f"{self}: a tag does not name an image for good",
                code="tag-refused",
                hint=f"name it by digest, {self.host}/{self.repository}@sha256:…",
            )
        return self.digest


def is_name(text: str) -> bool:
    """Whether `text` looks like a name in a registry: a digest at its end, or a host with a dot or a port at its beginning."""
    host, slash, _ = text.partition("/")
    return bool(slash) and "@sha256:" in text and is_host(host)


def parse(text: str, *, bare: bool = False) -> OciReference:
    """Read a name. Raises `Misuse`. bare: it may have neither digest nor tag, as what is put somewhere has none yet."""
    before_digest, at, digest = text.partition("@")
    host, slash, path = before_digest.partition("/")
    repository, colon, tag = path.partition(":")
    problem = ""
    if len(text) > MAX_NAME or not slash or not is_host(host):
        problem = "expected HOST[:PORT]/REPOSITORY@sha256:…, with the registry's host written out"
    elif _REPOSITORY.fullmatch(repository) is None or len(repository) > 255:
        problem = "its repository is no lower-case path"
    elif colon and _TAG.fullmatch(tag) is None:
        problem = "its tag has a character that no tag has"
    elif at and fields.DIGEST.fullmatch(digest) is None:
        problem = "its digest is not sha256: and 64 lower-case hexadecimal digits"
    elif not at and not colon and not bare:
        problem = "it has neither digest nor tag"
    if problem:
        raise Misuse(
            f"{text[:200]!r}: no name in a registry: {problem}",
            code="bad-reference",
            hint="for example registry.example/team/name" + ("" if bare else "@sha256:…"),
        )
    return OciReference(
        host=host.lower(), repository=repository, tag=tag if colon else None, digest=digest if at else None
    )


def is_host(text: str) -> bool:
    """Whether `text` is HOST[:PORT] of a registry: with a dot, a port or brackets, or `localhost`."""
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or 443) < 65536:
        return False
    return match["port"] is not None or "." in text or text.startswith("[") or text == "localhost"
