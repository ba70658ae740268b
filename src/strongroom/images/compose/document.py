"""A compose file with one service: the image that it names, the settings it is run with, and what a room makes of the rest.

Spec: the Compose Specification (compose-spec), services. Read strictly (`strict_yaml`), since two readers of one
file must not see two programs. Every key ends as a setting or as a finding; none is dropped in silence, and the file is read
to its end, whatever is found on the way. What readers may take differently is a finding and never a setting.
Nothing is taken from the machine that reads it: no `.env`, no ${VARIABLE}, no variable without a value, no file beside it.

Where settings go: `entrypoint`, `user` and `working_dir` are part of the sealed image (its signed manifest);
`command` and `environment` are the contract's (`contract new --argument … --env …`), for all parties to sign.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from strongroom.errors import Malformed
from strongroom.images.compose import keys, strict_yaml
from strongroom.images.compose.place import ComposePlace, named
from strongroom.images.preflight import settings
from strongroom.images.preflight.findings import Finding, blocks, warns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strongroom.images.compose.strict_yaml import Flaw, Value
    from strongroom.images.oci import ImageConfig

    ServiceRule = Callable[[str, Value, ComposePlace], Iterable[Finding]]

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._/:-]{0,254})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_MAX_WORDS = 256  # of a command or an entrypoint
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# What a shell takes for its own outside quotes. Compose splits texts without a shell: some of these end its reading.
_SHELL_MARKS = re.compile(r"[;&|<>()`]")
_YAML = "yaml"  # the name of findings about what readers of YAML take differently


@dataclass(frozen=True, kw_only=True)
class ComposeService:
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


def parse(data: bytes, *, what: str) -> ComposeService:
    """Read a compose file to its end. Raises `Malformed` for what is no compose file at all.

    What a room cannot give, what readers take differently and what is at odds with the specification is not raised: it is in
    `findings`, all of it, each with its line. Of several services all are looked at, and none is taken.
    """
    document = strict_yaml.read(data, what=what)
    root = ComposePlace(document=document, path=())
    if not isinstance(document.value, dict):
        raise Malformed(
            f"{what}: expected a mapping with `services`",
            code="not-compose",
            hint="name a compose file; the image itself is no .yaml file",
        )
    services = document.value.get("services")
    if not document.flaws and (not isinstance(services, dict) or not services):
        raise Malformed(
            f"{what}: no services",
            code="not-compose",
            hint="write the services below a key `services:`, each with its name",
        )
    where = root.key("services")
    stated = services.items() if isinstance(services, dict) else ()
    bodies = [(name, body, where.key(name)) for name, body in stated if name != strict_yaml.MERGE]
    read = [ServiceReader(*entry).service() for entry in bodies if entry[1] is not strict_yaml.UNCLEAR]
    findings = [flawed(flaw) for flaw in document.flaws]
    findings += keys.top(document.value, root)
    findings += [finding for service in read for finding in service.findings]
    if len(bodies) > 1:
        findings.append(
            where.blocks(
                "several-services",
                f"{len(bodies)} services ({', '.join(name for name, _, _ in bodies)[:100]}); one program runs in a room",
                "keep one service in the file, or build one image that runs what belongs together",
            )
        )
    if len(bodies) == len(read) == 1:
        return replace(read[0], findings=tuple(findings))
    return _nothing(tuple(findings))


def _nothing(findings: tuple[Finding, ...]) -> ComposeService:
    """The findings alone, without settings: no service could be read, or several are there."""
    return ComposeService(
        name="", image="", digest="", entrypoint=None, command=None, environment={}, user=None,
        working_directory=None, findings=findings,
    )  # fmt: skip


def flawed(flaw: Flaw) -> Finding:
    """What readers of YAML take differently, as a finding."""
    return replace(blocks(_YAML, named(flaw.path) or "the file", flaw.what, flaw.fix), line=flaw.line)


class ServiceReader:
    """Reads one service and gathers findings on the way. A setting that is not clear as a whole is not taken.

    rule: what every other key means, as `keys.service` says it for a room by itself. elsewhere: another key says where the
    image lies, so that `image` may be a mere name.
    """

    def __init__(
        self,
        name: str,
        body: Value,
        place: ComposePlace,
        *,
        rule: ServiceRule = keys.service,
        elsewhere: bool = False,
    ) -> None:
        self._name = name
        self._place = place
        self._rule, self._elsewhere = rule, elsewhere
        # Whether all keys are here, none merged in from elsewhere: what is missing then is missing.
        self._whole = isinstance(body, dict) and strict_yaml.MERGE not in body
        self._body = dict(body) if isinstance(body, dict) else {}
        self._findings: list[Finding] = []
        if not isinstance(body, dict):
            self._findings.append(
                place.blocks("compose", "expected a mapping", "write the service's keys below its name")
            )

    def service(self) -> ComposeService:
        """What was read. It is read once."""
        image, digest = self._image()
        command = self._words("command")
        entrypoint = self._words("entrypoint")
        if entrypoint is not None and not entrypoint:
            self._findings.append(
                self._place.key("entrypoint").blocks(
                    "compose",
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
        for key in list(self._body):
            self._findings += self._rule(key, self._body.pop(key), self._place.key(key))
        return ComposeService(
            name=self._name,
            image=image,
            digest=digest,
            entrypoint=entrypoint,
            command=command,
            environment=environment,
            user=user,
            working_directory=folder,
            findings=tuple(self._findings),
        )

    def _image(self) -> tuple[str, str]:
        place = self._place.key("image")
        if self._body.get("image") is None:
            self._body.pop("image", None)
            if self._whole and not self._elsewhere and "provider" not in self._body:
                why = "it is to be built here" if "build" in self._body else "no image"
                self._findings.append(
                    place.blocks(
                        "image", why, "build it, push it, and name it by digest: image: name@sha256:…"
                    )
                )
            return "", ""
        stated = self._text("image")
        if stated is None:
            return "", ""
        match = _REFERENCE.fullmatch(stated)
        if match is None and self._elsewhere:
            return stated, ""
        if match is None:
            self._findings.append(
                place.blocks(
                    "image",
                    f"{stated[:100]!r} does not name one image for good",
                    "name it by digest: image: name@sha256:… (a tag may mean another image tomorrow)",
                )
            )
            return "", ""
        return stated, match["digest"]

    def _text(self, key: str) -> str | None:
        """The text of a key; None where the file says nothing, an empty text (the same, but of `image`), or nothing clear."""
        value = self._body.pop(key, None)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # user: 1000
        if value is None or value is strict_yaml.UNCLEAR or (value == "" and key != "image"):
            return None
        if not isinstance(value, str):
            self._findings.append(
                self._place.key(key).blocks("compose", "expected text", "write one text, in quotes")
            )
            return None
        return self._literal(value, self._place.key(key))

    def _words(self, key: str) -> tuple[str, ...] | None:
        """A list as it stands; a text as compose splits it, like a shell without expansion. None as of `_text`."""
        value, place = self._body.pop(key, None), self._place.key(key)
        if value is None or not strict_yaml.clear(value):
            return None
        words: list[str] = []
        if isinstance(value, str):
            try:
                words = shlex.split(value)
            except ValueError as cause:
                return self._no_words(place, f"a text that cannot be split into words ({cause})".lower())
            if "\\" in value or _SHELL_MARKS.search(_QUOTED.sub("", value)):
                return self._no_words(
                    place,
                    "a text that readers split differently; no shell reads it, and Compose stops at ; & | < >",
                )
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            words = [str(word) for word in value]
        else:
            return self._no_words(place, "expected text or a list of texts (quote numbers)")
        if len(words) > _MAX_WORDS:
            return self._no_words(place, f"more than {_MAX_WORDS} words")
        return tuple(self._literal(word, place) for word in words)

    def _no_words(self, place: ComposePlace, what: str) -> tuple[str, ...] | None:
        self._findings.append(place.blocks("compose", what, "write it as a list of texts"))
        return None

    def _environment(self) -> dict[str, str]:
        value, where = self._body.pop("environment", None), self._place.key("environment")
        # clear: whether every variable was read; if not, none is taken.
        clear, variables, seen = strict_yaml.clear(value), {}, set[str]()
        for name, assigned, at in self._pairs(value, where):
            place = at.part(name) if at.path[-1] != name else at  # an item of a list is at its number
            if _VARIABLE.fullmatch(name) is None:
                self._findings.append(
                    at.blocks(
                        "environment",
                        f"{name[:40]!r} is no variable's name",
                        "letters, digits and _, as in NAME=VALUE",
                    )
                )
            elif name in seen:
                self._findings.append(place.blocks("environment", f"{name} twice", "keep one of the two"))
                clear = False
            elif assigned is None:
                self._findings.append(
                    place.blocks(
                        "environment-of-host",
                        "its value is taken from the machine that reads this file, so nobody could sign for it",
                        f'write the value here: {name}: "…"',
                    )
                )
            elif (text := self._plain(assigned, place)) is None:
                clear = False
            else:
                variables[name] = self._literal(text, place)
                problems = settings.environment({name: variables[name]}, where.name)
                self._findings += [place.mark(finding) for finding in problems]
            seen.add(name)
        return variables if clear else {}

    def _pairs(self, value: Value, where: ComposePlace) -> Iterator[tuple[str, Value, ComposePlace]]:
        if isinstance(value, dict):
            yield from where.entries(value)
        elif isinstance(value, list):
            for item, place in where.items(value):
                if isinstance(item, str):
                    name, equals, text = item.partition("=")
                    yield name, text if equals else None, place
                else:
                    self._findings.append(
                        place.blocks(
                            "environment", "expected NAME=VALUE", "write each as one text, in quotes"
                        )
                    )
        elif value is not None and value is not strict_yaml.UNCLEAR:
            self._findings.append(
                where.blocks(
                    "environment", "expected NAME=VALUE in a list, or a mapping", "write NAME: VALUE below it"
                )
            )

    def _plain(self, value: Value, place: ComposePlace) -> str | None:
        """A variable's value as text; None, and a finding, where readers would not agree on the text."""
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        # Compose itself refuses booleans here; what a fraction would be as text, readers disagree on.
        self._findings.append(
            place.blocks(
                _YAML, "expected text; what this is as text, readers differ on", "put the value in quotes"
            )
        )
        return None

    def _literal(self, text: str, place: ComposePlace) -> str:
        """Undo compose's doubling of `$`; what would be filled in from the host is a finding."""
        plain = text.replace("$$", "")
        if re.search(r"\$[A-Za-z_{]", plain):
            self._findings.append(
                place.blocks(
                    "environment-of-host",
                    "a $VARIABLE that is filled in by the machine that reads this file",
                    "write the value itself, or $$ for a dollar sign that the program shall see",
                )
            )
        return text.replace("$$", "$")


def unchecked(service: ComposeService) -> Finding:
    """Said when only the file was looked at."""
    return warns(
        "image",
        service.image or "image",
        "only the compose file was looked at, not the image",
        "say where the image lies: --from an OCI layout or archive",
    )
