"""A compose file with one service: the image that it names, the settings it is run with, and what a room makes of the rest.

Spec: the Compose Specification (compose-spec), services. Read strictly (`strict_yaml`), since two readers of one
file must not see two programs. Every key ends as a setting or as a finding; none is dropped in silence.
Nothing is taken from the machine that reads it: no `.env`, no ${VARIABLE}, no variable without a value, no file beside it.

Where settings go: `entrypoint`, `user` and `working_dir` are part of the sealed image (its signed manifest);
`command` and `environment` are the contract's (`contract new --argument … --env …`), for all parties to sign.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.convert import compose_keys, preflight_image, strict_yaml
from strongroom.convert.findings import Finding, blocks, warns
from strongroom.errors import Malformed, Refused

if TYPE_CHECKING:
    from strongroom.convert.oci import ImageConfig
    from strongroom.convert.strict_yaml import Value

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/:-]{0,254})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_MAX_WORDS = 256


@dataclass(frozen=True, kw_only=True)
class Service:
    """The one service. None means that the file says nothing and the image's own setting stays.

    `image` is a reference with a digest, like registry.example/name@sha256:…; `digest` its second half, and both are
    empty where the file names none. `findings` is what else the file says.
    """

    name: str
    image: str
    digest: str
    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    environment: dict[str, str]
    user: str | None
    working_directory: str | None
    findings: tuple[Finding, ...]

    def contract_options(self) -> tuple[str, ...]:
        """What `contract new` takes for this service: words of a command line."""
        words = [f"--argument={word}" for word in self.command or ()]
        words += [f"--env={name}={value}" for name, value in sorted(self.environment.items())]
        return tuple(words)

    def sealed(self, config: ImageConfig) -> ImageConfig:
        """The image's settings with those of the file that become part of the sealed image."""
        return replace(
            config,
            entrypoint=config.entrypoint if self.entrypoint is None else self.entrypoint,
            command=config.command if self.entrypoint is None else (),
            user=config.user if self.user is None else self.user,
            working_directory=config.working_directory
            if self.working_directory is None
            else self.working_directory,
        )

    def run(self, config: ImageConfig) -> ImageConfig:
        """The settings that the program meets in the end, the contract's among them."""
        sealed = self.sealed(config)
        return replace(
            sealed,
            command=sealed.command if self.command is None else self.command,
            environment=sealed.environment | self.environment,
        )


def is_compose(name: str) -> bool:
    """Whether a file of that name is meant as a compose file."""
    return name.endswith((".yaml", ".yml"))


def parse(data: bytes, *, what: str) -> Service:
    """Read a compose file. Raises `Malformed` for what is no sound compose file, `Refused` for several services.

    What a room cannot give is not raised: it is in `findings`.
    """
    top = strict_yaml.loads(data, what=what)
    if not isinstance(top, dict):
        raise Malformed(f"{what}: expected a mapping with `services`", code="not-compose")
    services = top.get("services")
    if not isinstance(services, dict) or not services:
        raise Malformed(f"{what}: no services", code="not-compose")
    if len(services) > 1:
        raise Refused(
            f"{what}: {len(services)} services; one program runs in a room",
            code="several-services",
            hint="keep one service in the file, or build one image that runs what belongs together",
        )
    name, body = next(iter(services.items()))
    if not isinstance(body, dict):
        raise Malformed(f"{what}: services.{name}: expected a mapping", code="not-compose")
    return _Reader(what, name, body, top).service()


class _Reader:
    """One service being read; findings are gathered on the way."""

    def __init__(self, what: str, name: str, body: dict[str, Value], top: dict[str, Value]) -> None:
        self._what = what
        self._name = name
        self._body = dict(body)
        self._top = top
        self._found: list[Finding] = []

    def service(self) -> Service:
        image, digest = self._image()
        command = self._words("command")
        entrypoint = self._words("entrypoint")
        if entrypoint is not None and not entrypoint:
            self._found.append(
                blocks(
                    "compose",
                    self._at("entrypoint"),
                    "an empty entrypoint, which takes the image's away",
                    "leave it out, or name a program",
                )
            )
            entrypoint = None
        if entrypoint is not None and command is None:
            command = ()  # compose-spec: another entrypoint drops the image's CMD
        environment = self._environment()
        user = self._text("user")
        folder = self._text("working_dir")
        self._found += compose_keys.top(self._top)
        for key in list(self._body):
            self._found += compose_keys.service(key, self._body.pop(key), self._at(key))
        self._found += preflight_image.environment(environment, self._at("environment"))
        return Service(
            name=self._name,
            image=image,
            digest=digest,
            entrypoint=entrypoint,
            command=command,
            environment=environment,
            user=user,
            working_directory=folder,
            findings=tuple(self._found),
        )

    def _at(self, key: str) -> str:
        return f"services.{self._name}.{key}"

    def _image(self) -> tuple[str, str]:
        stated = self._text("image")
        if stated is None:
            why = "it is to be built here" if "build" in self._body else "no image"
            self._found.append(
                blocks(
                    "image",
                    self._at("image"),
                    why,
                    "build it, push it, and name it by digest: image: name@sha256:…",
                )
            )
            return "", ""
        match = _REFERENCE.fullmatch(stated)
        if match is None:
            self._found.append(
                blocks(
                    "image", self._at("image"), f"{stated[:100]!r} does not name one image for good",
                    "name it by digest: image: name@sha256:… (a tag may mean another image tomorrow)",
                )
            )  # fmt: skip
            return "", ""
        return stated, match["digest"]

    def _text(self, key: str) -> str | None:
        value = self._body.pop(key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # user: 1000
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise Malformed(f"{self._what}: {self._at(key)}: expected text", code="not-compose")
        return self._literal(value, key)

    def _words(self, key: str) -> tuple[str, ...] | None:
        """A list as it stands; a text as compose splits it, like a shell without expansion."""
        value = self._body.pop(key, None)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                words = shlex.split(value)
            except ValueError as cause:
                raise Malformed(f"{self._what}: {self._at(key)}: {cause}", code="not-compose") from None
            if "\\" in value or "\n" in value:
                raise Malformed(
                    f"{self._what}: {self._at(key)}: a text that readers split differently",
                    code="ambiguous-yaml",
                    hint="write it as a list",
                )
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            words = [str(word) for word in value]
        else:
            raise Malformed(
                f"{self._what}: {self._at(key)}: expected text or a list of texts (quote numbers)",
                code="not-compose",
            )
        if len(words) > _MAX_WORDS:
            raise Malformed(f"{self._what}: {self._at(key)}: more than {_MAX_WORDS} words", code="too-large")
        return tuple(self._literal(word, key) for word in words)

    def _environment(self) -> dict[str, str]:
        value = self._body.pop("environment", None)
        if value is None:
            return {}
        found: dict[str, str] = {}
        for name, given in self._pairs(value):
            if _VARIABLE.fullmatch(name) is None:
                raise Malformed(
                    f"{self._what}: {self._at('environment')}: {name[:40]!r} is no variable's name",
                    code="not-compose",
                )
            if name in found:
                raise Malformed(
                    f"{self._what}: {self._at('environment')}: {name} twice", code="duplicate-key"
                )
            if given is None:
                self._found.append(
                    blocks("environment-of-host", f"{self._at('environment')} {name}",
                           "its value is taken from the machine that reads this file, so nobody could sign for it",
                           f'write the value here: {name}: "…"')
                )  # fmt: skip
                continue
            found[name] = self._literal(given, f"environment.{name}")
        return found

    def _pairs(self, value: Value) -> list[tuple[str, str | None]]:
        if isinstance(value, dict):
            return [(name, self._plain(one, name)) for name, one in value.items()]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise Malformed(
                f"{self._what}: {self._at('environment')}: expected a list of NAME=VALUE, or a mapping",
                code="not-compose",
            )
        pairs = []
        for one in value:
            name, equals, text = str(one).partition("=")
            pairs.append((name, text if equals else None))
        return pairs

    def _plain(self, value: Value, name: str) -> str | None:
        if value is None:
            return None
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        # Compose itself refuses booleans here; what a fraction would be as text, readers disagree on.
        raise Malformed(
            f"{self._what}: {self._at('environment')} {name[:60]}: expected text",
            code="ambiguous-yaml",
            hint="put the value in quotes",
        )

    def _literal(self, text: str, key: str) -> str:
        """Undo compose's doubling of `$`; what would be filled in from the host is a finding."""
        plain = text.replace("$$", "")
        if re.search(r"\$[A-Za-z_{]", plain):
            self._found.append(
                blocks("environment-of-host", self._at(key),
                       "a $VARIABLE that is filled in by the machine that reads this file",
                       "write the value itself, or $$ for a dollar sign that the program shall see")
            )  # fmt: skip
        return text.replace("$$", "$")


def unchecked(service: Service) -> Finding:
    """Said when only the file was looked at."""
    return warns(
        "image",
        service.image or "image",
        "only the compose file was looked at, not the image",
        "say where the image lies: --from an OCI layout or archive",
    )
