"""What each key of a compose file means for a room, but for those that become settings (`compose`).

Spec: the Compose Specification, as of 2026: every key of a service, of `deploy` and beside `services` is here by name.
One table has for each key a rule: a function of (value, place) that yields findings. A key of no specification is a
finding too, which names the nearest key that is in it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from strongroom.images.compose import strict_yaml
from strongroom.images.preflight import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strongroom.images.compose.place import ComposePlace
    from strongroom.images.compose.strict_yaml import Value
    from strongroom.images.preflight.findings import Finding

    Rule = Callable[[Value, ComposePlace], Iterator[Finding]]

SETTINGS = ("image", "command", "entrypoint", "environment", "user", "working_dir")
"""Keys of a service that `compose` reads itself."""

_BESIDE = ("services", "name", "version", "include", "networks", "volumes", "secrets", "configs", "models")
_DEPLOY = ("replicas", "mode", "restart_policy", "update_config", "rollback_config", "placement", "labels", "endpoint_mode")  # fmt: skip
_OUT = "let the program read /data/NAME (a dataset of the contract) and write to /out"


def top(document: Value, where: ComposePlace) -> Iterator[Finding]:
    """The keys beside `services`."""
    for key, value, place in where.entries(document):
        if key in ("services", "name", "version") or key.startswith("x-"):
            continue
        if key not in _BESIDE:
            yield _unknown(place, _BESIDE, (("under a service", (*SETTINGS, *_KEYS)),))
        elif not value:
            continue
        elif key == "include":
            yield place.blocks("compose", "it takes in other files", "write one file with one service")
        else:
            yield place.fine("compose", "counts only where the service uses it")
            if key == "networks":
                yield from _ipv6(value, place)


def service(key: str, value: Value, where: ComposePlace) -> Iterator[Finding]:
    """One key of the service."""
    if key.startswith("x-") or value is None or value in ({}, []) or value is strict_yaml.UNCLEAR:
        return
    rule = _KEYS.get(key)
    if rule is None:
        yield _unknown(where, (*SETTINGS, *_KEYS), (("beside services", _BESIDE), ("under deploy", _DEPLOY)))
        return
    yield from rule(value, where)


def _unknown(
    where: ComposePlace, names: Iterable[str], elsewhere: Iterable[tuple[str, Iterable[str]]] = ()
) -> Finding:
    """A key of no specification: nothing is done with it."""
    key = str(where.path[-1])
    near = difflib.get_close_matches(key, names, 1, 0.75)
    fix = f"is {near[0]} meant?" if near else "leave it out, or call it x-… if it is a note of your own"
    for place, others in elsewhere:
        if key in others:
            fix = f"it belongs {place}"
    return where.warns("compose", "no key of the Compose Specification here; nothing is done with it", fix)


def _ipv6(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for _, network, place in where.entries(value):
        if isinstance(network, dict) and network.get("enable_ipv6") is True:
            yield place.warns("ipv6", "IPv6 towards others; a room has ::1 and nothing else", "leave it out")


def _blocked(check: str, what: str, fix: str) -> Rule:
    def rule(value: Value, where: ComposePlace) -> Iterator[Finding]:
        if value is not False:
            yield where.blocks(check, what, fix)

    return rule


def _warned(check: str, what: str, fix: str) -> Rule:
    def rule(value: Value, where: ComposePlace) -> Iterator[Finding]:
        if value is not False:
            yield where.warns(check, what, fix)

    return rule


def _nothing(what: str) -> Rule:
    def rule(_value: Value, where: ComposePlace) -> Iterator[Finding]:
        yield where.fine("compose", what)

    return rule


def _volumes(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for volume, at in where.items(value):
        if isinstance(volume, dict):
            kind, source, target = (
                volume.get("type"),
                str(volume.get("source") or ""),
                str(volume.get("target") or ""),
            )
        else:
            parts = str(volume).split(":")
            source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
            kind = "bind" if source.startswith(("/", ".", "~", "$")) else "volume"
        place = at.part(target)
        if kind == "tmpfs":
            yield place.fine("volumes", "what is written there is in memory anyway")
        elif "docker.sock" in source or "docker.sock" in target:
            yield place.blocks(
                "volumes", "the host's container engine, which no room can reach", "do without"
            )
        elif source.endswith(".sock") or kind == "npipe":
            yield place.blocks(
                "volumes",
                f"a socket of the host ({source[:80]}); nobody listens at it in a room",
                "let the program work without asking its host",
            )
        elif kind in ("bind", "image"):
            whose = "the host" if kind == "bind" else "another image"
            yield place.blocks(
                "volumes",
                f"a folder or file of {whose} ({source[:80]}), which no room can see",
                f"seal it as a dataset if it is data to read, or put it into the image; {_OUT}",
            )
        else:
            yield place.warns(
                "volumes", "a volume: in a room it is memory, empty at the start and gone at the end", _OUT
            )


def _ports(value: Value, where: ComposePlace) -> Iterator[Finding]:
    stated = []
    for port, _ in where.items(value):
        target = port.get("target") if isinstance(port, dict) else port
        stated.append(str(target))
    yield from map(where.mark, settings.ports(tuple(stated), where.name))


def _network_mode(value: Value, where: ComposePlace) -> Iterator[Finding]:
    if value == "none":
        yield where.fine("network", "a room has a loopback and nothing else: the same")
    elif value == "bridge":
        yield where.warns(
            "network", "a room has a loopback and no other network", "let the program work without a network"
        )
    else:
        yield where.blocks(
            "network",
            f"{str(value)[:40]!r}: the network of the host or of another container",
            "leave it out: a room has a network of its own",
        )


def _sysctls(value: Value, where: ComposePlace) -> Iterator[Finding]:
    if isinstance(value, dict):
        stated = [(name, place) for name, _, place in where.entries(value)]
    else:
        names = ((str(setting).partition("=")[0], place) for setting, place in where.items(value))
        stated = [(name, place.part(name)) for name, place in names]
    for name, place in stated:
        if name == "net.ipv4.ip_unprivileged_port_start":
            yield place.fine("sysctls", "is 0 in every room")
        elif "ipv6" in name:
            yield place.warns("ipv6", "a room has ::1 and no other IPv6", "leave it out")
        else:
            yield place.blocks("sysctls", "kernel settings of a room cannot be changed", "leave it out")


def _capabilities(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for capability, at in where.items(value):
        name = str(capability).upper().removeprefix("CAP_")
        place = at.part(name[:40])
        if name == "NET_BIND_SERVICE":
            yield place.fine("rights", "not needed: every user may listen on low ports of the loopback")
        elif name in ("IPC_LOCK", "SYS_NICE", "CHOWN", "FOWNER", "DAC_OVERRIDE", "SETUID", "SETGID"):
            yield place.warns("rights", "no program has capabilities in a room", "see that it works without")
        else:
            yield place.blocks("rights", "no program has capabilities in a room", "do without what needs it")


def _devices(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for device, place in where.items(value):
        path = str(device.get("source") if isinstance(device, dict) else str(device).partition(":")[0])
        check = "gpu" if "nvidia" in path or "/dri" in path or "gpu" in path else "devices"
        yield place.part(path[:80]).blocks(
            check, "a device of the host, which no room has", "let the program work without it"
        )


def _deploy(value: Value, where: ComposePlace) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield where.warns("compose", "expected a mapping", "write deploy as keys and values, or leave it out")
        return
    for key, inner, place in where.entries(value):
        if key.startswith("x-"):
            continue
        if key == "resources" and isinstance(inner, dict):
            yield from _resources(inner, place)
        elif key == "replicas" and inner not in (0, 1):
            yield place.warns("compose", "several copies; a contract's run is one", "start several runs")
        elif key in _DEPLOY:
            yield place.fine("compose", "has no meaning in a room")
        else:
            yield _unknown(
                place, (*_DEPLOY, "resources"), (("under the service itself", (*SETTINGS, *_KEYS)),)
            )


def _resources(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for level, inner, at in where.entries(value):
        if level not in ("limits", "reservations") or not isinstance(inner, dict):
            yield _unknown(at, ("limits", "reservations"))
            continue
        for key, amount, place in at.entries(inner):
            if key in ("devices", "generic_resources"):
                yield place.blocks(
                    "gpu",
                    "it asks for a GPU or another device, and a room has none",
                    "let the program work without it",
                )
            elif key == "memory":
                yield from _memory(amount, place)
            elif key in ("cpus", "pids"):
                yield place.fine("compose", "a room has one processor and at most 4096 processes")
            else:
                yield _unknown(place, ("cpus", "memory", "pids", "devices", "generic_resources"))


def _memory(value: Value, where: ComposePlace) -> Iterator[Finding]:
    yield where.warns(
        "memory",
        f"{str(value)[:40]}: a room's memory is the contract's",
        "give it with `contract new --memory-mib`, and to preflight",
    )


def _files(kind: str) -> Rule:
    def rule(value: Value, where: ComposePlace) -> Iterator[Finding]:
        for item, place in where.items(value):
            name = item.get("source") if isinstance(item, dict) else item
            yield place.part(str(name)[:60]).blocks(
                "secrets" if kind == "secret" else "configs",
                f"a {kind} that the host would mount; a room takes nothing from its host",
                "seal it as a dataset of its owner (`strongroom seal`), at /data/NAME, and let the program read it there"
                if kind == "secret"
                else "put it into the image, or seal it as a dataset",
            )

    return rule


def _security(value: Value, where: ComposePlace) -> Iterator[Finding]:
    for option, place in where.items(value):
        if "no-new-privileges" in str(option):
            yield place.fine("rights", "no-new-privileges holds in every room")
        else:
            yield place.part(str(option)[:60]).warns(
                "rights", "a room has its own system call filter, for every program", "leave it out"
            )


_KEYS: dict[str, Rule] = {
    "build": _blocked("image", "an image that is built from this folder has no digest yet", "build and push it, then name it with image: name@sha256:…"),
    "privileged": _blocked("rights", "rights over the host, which no room gives", "do without: leave it out"),
    "network_mode": _network_mode,
    "networks": _warned("network", "a room has a loopback and no other network", "let the program work without a network"),
    "ports": _ports,
    "expose": _ports,
    "volumes": _volumes,
    "volumes_from": _blocked("volumes", "volumes of another container", _OUT),
    "devices": _devices,
    "device_cgroup_rules": _blocked("devices", "devices of the host, which no room has", "leave it out"),
    "gpus": _blocked("gpu", "a room has no GPU", "let the program work without it"),
    "runtime": _blocked("gpu", "another runtime (for a GPU, most likely)", "leave it out"),
    "cap_add": _capabilities,
    "cap_drop": _nothing("no program has capabilities in a room"),
    "security_opt": _security,
    "secrets": _files("secret"),
    "configs": _files("config"),
    "env_file": _blocked("environment-of-host", "variables from a file beside this one, which is not part of what is signed", "write them under environment:"),
    "deploy": _deploy,
    "mem_limit": _memory,
    "mem_reservation": _memory,
    "memswap_limit": _nothing("a room has no swap"),
    "cpus": _nothing("a room has one processor"),
    "pids_limit": _nothing("a room has at most 4096 processes"),
    "shm_size": _nothing("shared memory may take half of the memory"),
    "tmpfs": _nothing("what is written is in memory everywhere in a room"),
    "read_only": _nothing("the image is read-only below; what is written over it is in memory and gone at the end"),
    "healthcheck": _nothing("nobody asks in a room: it ends when the program ends"),
    "depends_on": _blocked("compose", "other services, which are not in the room", "build one image of what belongs together"),
    "links": _blocked("compose", "other containers, which are not in the room", "build one image of what belongs together"),
    "external_links": _blocked("compose", "other containers, which are not in the room", "leave it out"),
    "extends": _blocked("compose", "another file or service decides part of this service", "write it out here"),
    "pid": _blocked("rights", "processes of the host or of another container", "leave it out"),
    "ipc": _warned("rights", "a room has shared memory of its own", "leave it out"),
    "uts": _blocked("rights", "the host's name space", "leave it out"),
    "userns_mode": _warned("rights", "users are the image's own in a room", "leave it out"),
    "cgroup": _warned("rights", "a room has control groups of its own, out of sight", "leave it out"),
    "cgroup_parent": _warned("rights", "a room has control groups of its own, out of sight", "leave it out"),
    "extra_hosts": _warned("network", "hosts are reached that the contract lists, by their own names", "leave it out"),
    "dns": _warned("network", "a room has no name server: it knows the names that its contract lists", "leave it out"),
    "dns_search": _warned("network", "a room has no name server: it knows the names that its contract lists", "leave it out"),
    "hostname": _warned("network", "every room is called room", "leave it out"),
    "domainname": _warned("network", "every room is called room", "leave it out"),
    "mac_address": _warned("network", "a room has no network card", "leave it out"),
    "sysctls": _sysctls,
    "ulimits": _warned("limits", "limits are those of every room (docs/room.md)", "leave it out"),
    "group_add": _warned("user", "groups are those of the image's own /etc/group", "add the user to the group there"),
    "platform": _warned("architecture", "rooms are linux/amd64", "choose with --platform"),
    "stdin_open": _warned("standard-input", "standard input is empty in a room", "give the program arguments"),
    "tty": _warned("standard-input", "a room has no terminal", "leave it out"),
    "attach": _nothing("has no meaning in a room"),
    "container_name": _nothing("has no meaning in a room"),
    "init": _nothing("orphans are reaped in every room"),
    "labels": _nothing("has no meaning in a room"),
    "annotations": _nothing("has no meaning in a room"),
    "logging": _nothing("the contract's `logs` say who may read what it prints"),
    "oom_kill_disable": _nothing("has no meaning in a room"),
    "oom_score_adj": _nothing("has no meaning in a room"),
    "profiles": _nothing("has no meaning in a room"),
    "pull_policy": _nothing("the image is named by digest"),
    "restart": _nothing("a room ends when its program ends"),
    "scale": _warned("compose", "a contract's run is one", "start several runs"),
    "stop_grace_period": _nothing("has no meaning in a room"),
    "stop_signal": _nothing("has no meaning in a room"),
    "storage_opt": _nothing("has no meaning in a room"),
    "blkio_config": _nothing("has no meaning in a room"),
    "cpu_count": _nothing("a room has one processor"),
    "cpu_percent": _nothing("a room has one processor"),
    "cpu_period": _nothing("a room has one processor"),
    "cpu_quota": _nothing("a room has one processor"),
    "cpu_rt_period": _nothing("a room has one processor"),
    "cpu_rt_runtime": _nothing("a room has one processor"),
    "cpu_shares": _nothing("a room has one processor"),
    "cpuset": _nothing("a room has one processor"),
    "credential_spec": _warned("compose", "credentials of Windows; rooms are Linux", "leave it out"),
    "develop": _nothing("is for developing on one's own machine; nothing of it counts in a room"),
    "dns_opt": _warned("network", "a room has no name server: it knows the names that its contract lists", "leave it out"),
    "isolation": _nothing("is about Windows; a room is isolated anyway"),
    "label_file": _nothing("has no meaning in a room"),
    "mem_swappiness": _nothing("a room has no swap"),
    "models": _blocked("models", "a language model that the host serves; a room reaches nothing outside", "seal the model as a dataset, and let the program read it at /data/NAME"),
    "post_start": _warned("hooks", "commands beside the program; in a room the program alone is started", "let the program do it, or a small script that is its entrypoint"),
    "pre_start": _warned("hooks", "commands before the program; in a room the program alone is started", "let a small script, which is the entrypoint, do it first"),
    "pre_stop": _warned("hooks", "commands when it is stopped; a room ends when its program ends", "let the program do it before it ends"),
    "provider": _blocked("compose", "a service that another tool of the host provides; a room runs an image", "name an image: image: name@sha256:…"),
    "pull_refresh_after": _nothing("the image is named by digest"),
    "use_api_socket": _blocked("rights", "the host's container engine and its credentials, which no room can reach", "do without: leave it out"),
}  # fmt: skip
