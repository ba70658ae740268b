"""KeyedObject of a service that mean more among several rooms than for one by itself: ports, order, restarts, machine, networks.

Spec: the Compose Specification, services and deploy. `ServiceKeys` is the rule of a reader of one service
(`images.compose.document.ServiceReader`); what is not here is judged as for a room by itself (`images.compose.keys`).
What cannot be kept blocks; what is left out is said in words.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING

from strongroom.encoding import fields
from strongroom.images.compose import keys, strict_yaml
from strongroom.model.contracts.room_terms import Restart
from strongroom.project.model import PublishedPort, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.images.compose.place import ComposePlace
    from strongroom.images.compose.strict_yaml import Value
    from strongroom.images.preflight.findings import Finding

    Rule = Callable[[Value, ComposePlace], Iterator[Finding]]

HERE = "127.0.0.1"  # where ports are published that do not say: on this machine alone
LEAST_MIB, MOST_MIB = 256, 1 << 20
MOST_PROCESSORS = 64
_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
    "g": 1 << 30,
    "gb": 1 << 30,
}
_SIZE = re.compile(r"([0-9]{1,15})([a-z]{0,2})", re.ASCII)
_CPUS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,9})?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_RESTARTS = {
    "no": Restart.NEVER,
    "always": Restart.ALWAYS,
    "on-failure": Restart.ON_FAILURE,
    "unless-stopped": Restart.ALWAYS,
}
_CONDITIONS = {"none": Restart.NEVER, "on-failure": Restart.ON_FAILURE, "any": Restart.ALWAYS}
_FORM = 'write "HOST:CONTAINER", like "8443:443"'


class ServiceKeys:
    """Reads those keys of one service, in whatever order they stand. What was read is in its fields afterwards.

    restart: None where the file does not say. names: of ports that the file names, by number. stated: keys that were there.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.names: dict[int, str] = {}
        self.published: list[PublishedPort] = []
        self.depends_on: dict[str, Wait] = {}
        self.restart: Restart | None = None
        self.memory_mib: int | None = None
        self.processors: int | None = None
        self._rules: dict[str, Rule] = {
            "ports": self._ports,
            "expose": self._expose,
            "depends_on": self._depends_on,
            "links": _links,
            "restart": self._restart,
            "mem_limit": self._memory,
            "cpus": self._processors,
            "deploy": self._deploy,
            "scale": _replicas,
            "networks": _networks,
            "healthcheck": _healthcheck,
            "profiles": _profiles,
        }

    def rule(self, key: str, value: Value, place: ComposePlace) -> Iterator[Finding]:
        """What the key means, as findings."""
        own = self._rules.get(key)
        if own is None:
            yield from keys.service(key, value, place)
        elif value is not None and value is not strict_yaml.UNCLEAR and value not in ({}, []):
            yield from own(strict_yaml.known(value), place)

    def _ports(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        for port, place in where.items(value):
            try:
                number, published, name = _long_port(port) if isinstance(port, dict) else _short_port(port)
            except ValueError as cause:
                yield place.blocks("ports", str(cause), _FORM)
                continue
            if number in [other.number for other in self.published]:
                yield place.blocks("ports", f"port {number} is published twice", "keep one of the two")
                continue
            self._add(number, name)
            self.published.append(published)
            if published.address == HERE:
                yield place.fine(
                    "ports",
                    f"port {number}: at {HERE} of this machine alone, unless an address stands before it",
                )

    def _expose(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        for port, place in where.items(value):
            text = str(port).removesuffix("/tcp")
            if isinstance(port, bool | float) or not _is_port(text):
                yield place.blocks(
                    "ports",
                    f"{str(port)[:40]!r}: expected one TCP port",
                    "write each port by itself, like 5432",
                )
            else:
                self._add(int(text), "")

    def _add(self, number: int, name: str) -> None:
        if number not in self.numbers:
            self.numbers.append(number)
        if name:
            self.names[number] = name

    def _depends_on(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        if isinstance(value, list):
            for item, place in where.items(value):
                if isinstance(item, str):
                    self.depends_on[item] = Wait.STARTED
                else:
                    yield place.blocks("depends-on", "expected a service's name", "write its name, in quotes")
            return
        if not isinstance(value, dict):
            yield where.blocks("depends-on", "expected a list of services", "write depends_on: [NAME]")
            return
        for name, terms, place in where.entries(value):
            known = terms if isinstance(terms, dict) else {}
            condition = known.get("condition", Wait.STARTED.value)
            if not isinstance(condition, str) or condition not in {wait.value for wait in Wait}:
                yield place.blocks(
                    "depends-on",
                    f"condition {str(condition)[:40]!r}",
                    f"one of {', '.join(wait.value for wait in Wait)}",
                )
                continue
            if known.get("required") is False:
                yield place.blocks(
                    "depends-on",
                    "is not required, so that nobody could say what runs",
                    "leave it out, or require it",
                )
                continue
            if known.get("restart") is True:
                yield place.warns(
                    "depends-on",
                    f"is started again with {name}; here it stays, and connects to it again",
                    "leave `restart` out",
                )
            self.depends_on[name] = Wait(condition)
            if condition == Wait.HEALTHY:
                yield place.fine(
                    "depends-on",
                    f"waits until the ports of {name} take connections; no health check is asked",
                )

    def _restart(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        word, _, count = str(value).partition(":") if isinstance(value, str) else ("", "", "")
        if word not in _RESTARTS or (count and (word != "on-failure" or not count.isdecimal())):
            yield where.blocks(
                "restart",
                f"{str(value)[:40]!r} is no policy",
                'one of "no", always, on-failure, unless-stopped',
            )
            return
        if count:
            yield where.warns(
                "restart",
                f"at most {count[:9]} times; here as often as the contract has runs",
                "write on-failure",
            )
        yield from self._take_restart(_RESTARTS[word], where)

    def _take_restart(self, restart: Restart, where: ComposePlace) -> Iterator[Finding]:
        if self.restart is not None and self.restart is not restart:
            yield where.blocks(
                "restart", "says otherwise than the other of `restart` and `deploy`", "keep one of the two"
            )
            return
        self.restart = restart

    def _memory(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        text = str(value).lower()
        match = _SIZE.fullmatch(text)
        if match is None or isinstance(value, bool | float) or match[2] not in _UNITS:
            yield where.blocks(
                "memory", f"{str(value)[:40]!r} is no size", "a whole number and b, k, m or g, like 512m"
            )
            return
        wanted = -(-int(match[1]) * _UNITS[match[2]] >> 20)
        if wanted > MOST_MIB:
            yield where.blocks("memory", f"{wanted} MiB", f"at most {MOST_MIB} MiB")
            return
        taken = max(wanted, LEAST_MIB)
        if self.memory_mib not in (None, taken):
            yield where.blocks(
                "memory", "says otherwise than the other of `mem_limit` and `deploy`", "keep one of the two"
            )
            return
        self.memory_mib = taken
        if taken > wanted:
            yield where.fine(
                "memory", f"{wanted} MiB; a room has {LEAST_MIB} MiB at least, its own system among it"
            )
        else:
            yield where.fine("memory", f"the room's whole machine has {taken} MiB, its own system among it")

    def _processors(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        text = str(value)
        number = math.ceil(float(text)) if _CPUS.fullmatch(text) and not isinstance(value, bool) else 0
        if not 1 <= number <= MOST_PROCESSORS:
            yield where.blocks("processors", f"{text[:40]!r}", f"a number above 0, up to {MOST_PROCESSORS}")
            return
        if self.processors not in (None, number):
            yield where.blocks(
                "processors", "says otherwise than the other of `cpus` and `deploy`", "keep one of the two"
            )
            return
        self.processors = number
        if str(number) != text:
            yield where.fine("processors", f"{text}: a room has whole processors, so {number}")

    def _deploy(self, value: Value, where: ComposePlace) -> Iterator[Finding]:
        if not isinstance(value, dict):
            yield from keys.service("deploy", value, where)
            return
        rest = dict(value)
        if "replicas" in rest:
            yield from _replicas(rest.pop("replicas"), where.key("replicas"))
        policy = rest.pop("restart_policy", None)
        if isinstance(policy, dict):
            yield from self._policy(policy, where.key("restart_policy"))
        elif policy is not None:
            rest["restart_policy"] = policy
        resources = rest.get("resources")
        limits = resources.get("limits") if isinstance(resources, dict) else None
        if isinstance(resources, dict) and isinstance(limits, dict):
            at = where.key("resources").key("limits")
            if limits.get("memory") is not None:
                yield from self._memory(limits["memory"], at.key("memory"))
            if limits.get("cpus") is not None:
                yield from self._processors(limits["cpus"], at.key("cpus"))
            left = {key: amount for key, amount in limits.items() if key not in ("memory", "cpus")}
            rest["resources"] = {**resources, "limits": left}
        yield from keys.service("deploy", rest, where)

    def _policy(self, policy: dict[str, Value], where: ComposePlace) -> Iterator[Finding]:
        for key, value, place in where.entries(policy):
            if key != "condition":
                yield place.warns("restart", "how often and when is not kept", "leave it out")
            elif isinstance(value, str) and value in _CONDITIONS:
                yield from self._take_restart(_CONDITIONS[value], place)
            else:
                yield place.blocks("restart", f"{str(value)[:40]!r}", f"one of {', '.join(_CONDITIONS)}")


def _links(_value: Value, where: ComposePlace) -> Iterator[Finding]:
    yield where.blocks(
        "links",
        "Compose's older word for what it reaches",
        "write depends_on: [NAME], and let the program use the service's own name",
    )


def _replicas(value: Value, where: ComposePlace) -> Iterator[Finding]:
    if value != 1:
        yield where.blocks(
            "replicas",
            f"{str(value)[:20]} copies; a service is one room",
            "write a service for each, or leave it out",
        )


def _networks(value: Value, where: ComposePlace) -> Iterator[Finding]:
    entries = where.entries(value) if isinstance(value, dict) else iter(())
    for name, terms, place in entries:
        for key in terms if isinstance(terms, dict) else ():
            if key in ("aliases", "ipv4_address", "ipv6_address", "mac_address", "link_local_ips"):
                yield place.key(key).blocks(
                    "network",
                    f"of {name}: another name or address",
                    "let programs use the service's own name",
                )
    yield where.fine(
        "network",
        "are noted alone: a room reaches the ports of `depends_on`, of `peers` and of `egress`, and no others",
    )


def _healthcheck(_value: Value, where: ComposePlace) -> Iterator[Finding]:
    yield where.fine("healthcheck", "nobody asks in a room: it counts as started once its program runs")


def _profiles(_value: Value, where: ComposePlace) -> Iterator[Finding]:
    yield where.blocks(
        "profiles",
        "is started only where somebody asks for it, so that nobody could say what runs",
        "leave `profiles` out, or keep the service in another file",
    )


def _short_port(value: Value) -> tuple[int, PublishedPort, str]:
    """[ADDRESS:]HOST:CONTAINER[/tcp]. Raises `ValueError` with what is wrong."""
    text = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{text[:40]!r}: no port of this machine is named")  # noqa: TRY004 - a finding, like the others
    plain, slash, protocol = text.partition("/")
    if slash and protocol != "tcp":
        raise ValueError(f"{text[:40]!r}: {protocol[:8]}; only TCP reaches a room")
    rest, _, container = plain.rpartition(":")
    address, colon, host = rest.rpartition(":")
    if not _is_port(host) or not _is_port(container):
        raise ValueError(f"{text[:40]!r}: expected one port of this machine and one of the program")
    return int(container), _published(address if colon else HERE, int(host), int(container)), ""


def _long_port(value: dict[str, Value]) -> tuple[int, PublishedPort, str]:
    """The form with keys. Raises `ValueError` with what is wrong."""
    known = ("target", "published", "host_ip", "protocol", "mode", "name", "app_protocol")
    strange = [key for key in value if key not in known and not key.startswith("x-")]
    if strange:
        raise ValueError(f"{strange[0][:40]!r} is no key of a port")
    if value.get("protocol", "tcp") != "tcp":
        raise ValueError(f"{str(value['protocol'])[:8]}: only TCP reaches a room")
    host, target, name = str(value.get("published")), str(value.get("target")), value.get("name", "")
    if isinstance(value.get("published"), bool) or not _is_port(host) or not _is_port(target):
        raise ValueError("expected `published`, one port of this machine, and `target`, one of the program")
    if not isinstance(name, str) or (name and not fields.NAME.fullmatch(name)):
        raise ValueError(f"`name`: expected {fields.NAMES}")
    return int(target), _published(str(value.get("host_ip") or HERE), int(host), int(target)), name


def _published(address: str, host: int, number: int) -> PublishedPort:
    try:
        plain = ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError(f"{address[:40]!r} is no address of this machine") from None
    return PublishedPort(address=str(plain), host_port=host, number=number)


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= 65_535
