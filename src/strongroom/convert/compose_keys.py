"""What each key of a compose file means for a room, but for those that become settings (`compose`).

One table: key → a function of (value, place), which says what it found. A key that is not in the table is a finding too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strongroom.convert import preflight_image
from strongroom.convert.findings import Finding, blocks, fine, warns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.convert.strict_yaml import Value

    Look = Callable[[Value, str], Iterator[Finding]]

_OUT = "let the program read /data/NAME (a dataset of the contract) and write to /out"


def top(document: dict[str, Value]) -> Iterator[Finding]:
    """The keys beside `services`."""
    for key, value in document.items():
        if key in ("services", "name", "version") or key.startswith("x-"):
            continue
        if key in ("networks", "volumes", "secrets", "configs") and not value:
            continue
        if key == "include":
            yield blocks("compose", key, "it takes in other files", "write one file with one service")
        elif key in ("networks", "volumes", "secrets", "configs"):
            yield fine("compose", key, "counts only where the service uses it")
            if key == "networks":
                yield from _ipv6(value)
        else:
            yield _unknown(key)


def service(key: str, value: Value, where: str) -> Iterator[Finding]:
    """One key of the service."""
    if key.startswith("x-") or value is None or value in ({}, []):
        return
    look = _KEYS.get(key)
    if look is None:
        yield _unknown(where)
        return
    yield from look(value, where)


def _unknown(where: str) -> Finding:
    return warns("compose", where, "an unknown key; nothing is done with it", "is it spelt right?")


def _ipv6(value: Value) -> Iterator[Finding]:
    for name, one in value.items() if isinstance(value, dict) else ():
        if isinstance(one, dict) and one.get("enable_ipv6"):
            yield warns(
                "ipv6",
                f"networks.{name}",
                "IPv6 towards others; a room has ::1 and nothing else",
                "leave it out",
            )


def _blocked(check: str, what: str, fix: str) -> Look:
    def look(value: Value, where: str) -> Iterator[Finding]:
        if value is not False:
            yield blocks(check, where, what, fix)

    return look


def _warned(check: str, what: str, fix: str) -> Look:
    def look(value: Value, where: str) -> Iterator[Finding]:
        if value is not False:
            yield warns(check, where, what, fix)

    return look


def _nothing(what: str) -> Look:
    def look(_value: Value, where: str) -> Iterator[Finding]:
        yield fine("compose", where, what)

    return look


def _volumes(value: Value, where: str) -> Iterator[Finding]:
    for number, one in enumerate(value if isinstance(value, list) else [value]):
        place = f"{where}[{number}]"
        if isinstance(one, dict):
            kind, source, target = one.get("type"), str(one.get("source") or ""), str(one.get("target") or "")
        else:
            parts = str(one).split(":")
            source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
            kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
        if kind == "tmpfs":
            yield fine("volumes", f"{place} {target}", "what is written there is in memory anyway")
        elif "docker.sock" in source or "docker.sock" in target:
            yield blocks(
                "volumes",
                f"{place} {target}",
                "the host's container engine, which no room can reach",
                "do without",
            )
        elif kind == "bind":
            yield blocks(
                "volumes", f"{place} {target}", f"a folder or file of the host ({source[:80]}), which no room can see",
                f"seal it as a dataset if it is data to read, or put it into the image; {_OUT}",
            )  # fmt: skip
        else:
            yield warns(
                "volumes",
                f"{place} {target}",
                "a volume: in a room it is memory, empty at the start and gone at the end",
                _OUT,
            )


def _ports(value: Value, where: str) -> Iterator[Finding]:
    stated = []
    for one in value if isinstance(value, list) else [value]:
        target = one.get("target") if isinstance(one, dict) else one
        stated.append(str(target))
    yield from preflight_image.ports(tuple(stated), where)


def _network_mode(value: Value, where: str) -> Iterator[Finding]:
    if value == "none":
        yield fine("network", where, "a room has a loopback and nothing else: the same")
    elif value == "bridge":
        yield warns(
            "network",
            where,
            "a room has a loopback and no other network",
            "let the program work without a network",
        )
    else:
        yield blocks(
            "network",
            where,
            f"{str(value)[:40]!r}: the network of the host or of another container",
            "leave it out: a room has a network of its own",
        )


def _sysctls(value: Value, where: str) -> Iterator[Finding]:
    listed = value if isinstance(value, list) else [value]
    names = list(value) if isinstance(value, dict) else [str(one).partition("=")[0] for one in listed]
    for name in names:
        if name == "net.ipv4.ip_unprivileged_port_start":
            yield fine("sysctls", f"{where} {name}", "is 0 in every room")
        elif "ipv6" in name:
            yield warns("ipv6", f"{where} {name}", "a room has ::1 and no other IPv6", "leave it out")
        else:
            yield blocks(
                "sysctls",
                f"{where} {name}"[:200],
                "kernel settings of a room cannot be changed",
                "leave it out",
            )


def _capabilities(value: Value, where: str) -> Iterator[Finding]:
    for one in value if isinstance(value, list) else [value]:
        name = str(one).upper().removeprefix("CAP_")
        if name == "NET_BIND_SERVICE":
            yield fine(
                "rights", f"{where} {name}", "not needed: every user may listen on low ports of the loopback"
            )
        elif name in ("IPC_LOCK", "SYS_NICE", "CHOWN", "FOWNER", "DAC_OVERRIDE", "SETUID", "SETGID"):
            yield warns(
                "rights",
                f"{where} {name}",
                "no program has capabilities in a room",
                "see that it works without",
            )
        else:
            yield blocks(
                "rights",
                f"{where} {name[:40]}",
                "no program has capabilities in a room",
                "do without what needs it",
            )


def _devices(value: Value, where: str) -> Iterator[Finding]:
    for one in value if isinstance(value, list) else [value]:
        path = one.get("source") if isinstance(one, dict) else str(one).partition(":")[0]
        check = "gpu" if "nvidia" in str(path) or "/dri" in str(path) or "gpu" in str(path) else "devices"
        yield blocks(
            check,
            f"{where} {str(path)[:80]}",
            "a device of the host, which no room has",
            "let the program work without it",
        )


def _deploy(value: Value, where: str) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield warns("compose", where, "expected a mapping", "is it spelt right?")
        return
    for key, one in value.items():
        place = f"{where}.{key}"
        if key == "resources" and isinstance(one, dict):
            yield from _resources(one, place)
        elif key == "replicas" and one not in (0, 1):
            yield warns("compose", place, "several copies; a contract's run is one", "start several runs")
        elif key in (
            "replicas",
            "mode",
            "restart_policy",
            "update_config",
            "rollback_config",
            "placement",
            "labels",
            "endpoint_mode",
        ):
            yield fine("compose", place, "has no meaning in a room")
        else:
            yield _unknown(place)


def _resources(value: dict[str, Value], where: str) -> Iterator[Finding]:
    for level, inner in value.items():
        if level not in ("limits", "reservations") or not isinstance(inner, dict):
            yield _unknown(f"{where}.{level}")
            continue
        for key, one in inner.items():
            place = f"{where}.{level}.{key}"
            if key == "devices":
                yield blocks(
                    "gpu",
                    place,
                    "it asks for a GPU or another device, and a room has none",
                    "let the program work without it",
                )
            elif key == "memory":
                yield from _memory(one, place)
            elif key in ("cpus", "pids"):
                yield fine("compose", place, "a room has one processor and at most 4096 processes")
            else:
                yield _unknown(place)


def _memory(value: Value, where: str) -> Iterator[Finding]:
    yield warns(
        "memory",
        where,
        f"{str(value)[:40]}: a room's memory is the contract's",
        "give it with `contract new --memory-mib`, and to preflight",
    )


def _files(kind: str) -> Look:
    def look(value: Value, where: str) -> Iterator[Finding]:
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            name = one.get("source") if isinstance(one, dict) else one
            yield blocks(
                "secrets" if kind == "secret" else "configs",
                f"{where}[{number}] {str(name)[:60]}",
                f"a {kind} that the host would mount; a room takes nothing from its host",
                "seal it as a dataset of its owner, at /data/NAME, and let the program read it there"
                if kind == "secret"
                else "put it into the image, or seal it as a dataset",
            )

    return look


def _security(value: Value, where: str) -> Iterator[Finding]:
    for one in value if isinstance(value, list) else [value]:
        if "no-new-privileges" in str(one):
            yield fine("rights", where, "no-new-privileges holds in every room")
        else:
            yield warns(
                "rights",
                f"{where} {str(one)[:60]}",
                "a room has its own system call filter, for every program",
                "leave it out",
            )


_KEYS: dict[str, Look] = {
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
    "extends": _blocked("compose", "another file or service decides part of this one", "write it out here"),
    "pid": _blocked("rights", "processes of the host or of another container", "leave it out"),
    "ipc": _warned("rights", "a room has shared memory of its own", "leave it out"),
    "uts": _blocked("rights", "the host's name space", "leave it out"),
    "userns_mode": _warned("rights", "users are the image's own in a room", "leave it out"),
    "cgroup": _warned("rights", "a room has control groups of its own, out of sight", "leave it out"),
    "cgroup_parent": _warned("rights", "a room has control groups of its own, out of sight", "leave it out"),
    "extra_hosts": _warned("network", "names of hosts that cannot be reached; /etc/hosts is the image's, or the loopback's", "leave it out"),
    "dns": _warned("network", "a room has no network, and so no name server", "leave it out"),
    "dns_search": _warned("network", "a room has no network, and so no name server", "leave it out"),
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
}  # fmt: skip
