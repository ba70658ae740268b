"""Compose files: what becomes a setting, what becomes a finding, and that nothing becomes nothing."""

from __future__ import annotations

import pytest

from strongroom.convert import compose, compose_keys, oci
from strongroom.errors import Malformed, Refused

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"registry.example/team/web@{DIGEST}"


def service(body: str, top: str = "") -> compose.Service:
    text = (
        f"services:\n  web:\n    image: {IMAGE}\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + top
    )
    return compose.parse(text.encode(), what="compose.yaml")


def found(body: str, top: str = "") -> dict[str, str]:
    """Where → severity and check."""
    return {one.where: f"{one.severity.value} {one.check}" for one in service(body, top).findings}


def test_what_becomes_a_setting():
    one = service(
        "command: [--port, '80']\nentrypoint: /bin/serve -v 'two words'\nuser: 1000\nworking_dir: /srv\n"
        "environment:\n  A: 'x'\n  B: 2\n  PRICE: '$$5'\n"
    )
    assert (one.image, one.digest) == (IMAGE, DIGEST)
    assert one.command == ("--port", "80")
    assert one.entrypoint == ("/bin/serve", "-v", "two words")
    assert (one.user, one.working_directory) == ("1000", "/srv")
    assert one.environment == {"A": "x", "B": "2", "PRICE": "$5"}
    assert one.findings == ()
    assert one.contract_options() == (
        "--argument=--port",
        "--argument=80",
        "--env=A=x",
        "--env=B=2",
        "--env=PRICE=$5",
    )


def test_environment_as_a_list():
    assert service("environment: ['A=x=y', 'B=']").environment == {"A": "x=y", "B": ""}


IMAGE_CONFIG = oci.ImageConfig(
    platform=oci.Platform(os="linux", architecture="amd64"), diff_ids=(), entrypoint=("/e",), command=("c",),
    environment={"A": "image", "Z": "z"}, working_directory="/w", user="u", ignored=(),
)  # fmt: skip


def test_an_entrypoint_drops_the_images_command_as_compose_does():
    own = service("entrypoint: [/x]\nenvironment: {A: file}")
    assert own.sealed(IMAGE_CONFIG).entrypoint == ("/x",)
    assert own.sealed(IMAGE_CONFIG).command == ()
    assert own.run(IMAGE_CONFIG).environment == {"A": "file", "Z": "z"}
    assert own.sealed(IMAGE_CONFIG).environment == IMAGE_CONFIG.environment  # the contract brings the rest
    plain = service("user: 5")
    assert plain.sealed(IMAGE_CONFIG).command == ("c",)
    assert plain.sealed(IMAGE_CONFIG).user == "5"
    assert service("command: [d]").run(IMAGE_CONFIG).command == ("d",)
    assert service("command: [d]").sealed(IMAGE_CONFIG).command == ("c",)


@pytest.mark.parametrize(
    ("body", "where", "verdict"),
    [
        ("privileged: true", "privileged", "blocks rights"),
        ("network_mode: host", "network_mode", "blocks network"),
        ("network_mode: none", "network_mode", "fine network"),
        ("devices: ['/dev/kvm:/dev/kvm']", "devices /dev/kvm", "blocks devices"),
        ("devices: ['/dev/nvidia0']", "devices /dev/nvidia0", "blocks gpu"),
        ("gpus: all", "gpus", "blocks gpu"),
        ("volumes: ['./data:/data:ro']", "volumes[0] /data", "blocks volumes"),
        ("volumes: ['cache:/var/cache']", "volumes[0] /var/cache", "warns volumes"),
        ("volumes: [{type: bind, source: /etc, target: /x}]", "volumes[0] /x", "blocks volumes"),
        ("volumes: [{type: tmpfs, target: /x}]", "volumes[0] /x", "fine volumes"),
        ("volumes: ['/var/run/docker.sock:/s']", "volumes[0] /s", "blocks volumes"),
        ("ports: ['80:80']", "ports 80:80", "warns ports"),
        ("expose: ['443']", "expose 443", "warns ports"),
        ("networks: [front]", "networks", "warns network"),
        ("cap_add: [NET_BIND_SERVICE]", "cap_add NET_BIND_SERVICE", "fine rights"),
        ("cap_add: [CAP_SYS_ADMIN]", "cap_add SYS_ADMIN", "blocks rights"),
        ("secrets: [token]", "secrets[0] token", "blocks secrets"),
        ("configs: [{source: c, target: /c}]", "configs[0] c", "blocks configs"),
        ("env_file: .env", "env_file", "blocks environment-of-host"),
        ("environment: [HOME_TOKEN]", "environment HOME_TOKEN", "blocks environment-of-host"),
        ("environment: {A: }", "environment A", "blocks environment-of-host"),
        ("environment: {A: '${B}'}", "environment.A", "blocks environment-of-host"),
        ("command: [run, $HOME]", "command", "blocks environment-of-host"),
        ("environment: {LD_PRELOAD: /x.so}", "environment LD_PRELOAD", "warns environment"),
        ("environment: {NODE_OPTIONS: '--require=x'}", "environment NODE_OPTIONS", "warns environment"),
        ("environment: {https_proxy: 'http://p'}", "environment https_proxy", "warns environment"),
        ("deploy: {resources: {limits: {memory: 512M}}}", "deploy.resources.limits.memory", "warns memory"),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
         "deploy.resources.reservations.devices", "blocks gpu"),
        ("deploy: {replicas: 3}", "deploy.replicas", "warns compose"),
        ("deploy: {resourcs: {}}", "deploy.resourcs", "warns compose"),
        ("deploy: {resources: {limit: {memory: 1g}}}", "deploy.resources.limit", "warns compose"),
        ("healthcheck: {test: [CMD, 'true']}", "healthcheck", "fine compose"),
        ("read_only: true", "read_only", "fine compose"),
        ("tmpfs: /run", "tmpfs", "fine compose"),
        ("shm_size: 1gb", "shm_size", "fine compose"),
        ("depends_on: [db]", "depends_on", "blocks compose"),
        ("sysctls: {net.ipv6.conf.all.disable_ipv6: '0'}", "sysctls net.ipv6.conf.all.disable_ipv6", "warns ipv6"),
        ("extends: {file: other.yaml, service: x}", "extends", "blocks compose"),
        ("priviledged: true", "priviledged", "warns compose"),
        ("build: .", "build", "blocks image"),
    ],
)  # fmt: skip
def test_what_each_key_means(body, where, verdict):
    assert found(body).get(f"services.web.{where}") == verdict


def test_false_and_empty_ask_for_nothing():
    assert found("privileged: false\nvolumes: []\ncap_add: []\nx-note: hello\ngpus:") == {}


def test_every_known_key_says_something_and_has_a_fix_when_it_is_bad():
    for key in compose_keys._KEYS:
        rows = list(compose_keys.service(key, "something", key))
        assert rows, key
        assert all(row.fix or row.severity.value == "fine" for row in rows), key


def test_keys_beside_the_services():
    rows = found(
        "user: a",
        "networks: {front: {enable_ipv6: true}}\nvolumes: {v: }\ninclude: [x.yaml]\nservicess: {a: 1}\nx-a: 1\nname: own\nversion: '3'\n",
    )
    assert rows["networks.front"] == "warns ipv6"
    assert rows["include"] == "blocks compose"
    assert rows["servicess"] == "warns compose"
    assert "version" not in rows


@pytest.mark.parametrize("stated", ["web", "web:latest", "web:1@sha256:12", "web@sha512:" + "a" * 64, "''"])
def test_rule_29_an_image_by_tag_blocks(stated):
    one = compose.parse(f"services: {{web: {{image: {stated}}}}}".encode(), what="f")
    assert one.image == ""
    assert [row.check for row in one.findings if row.severity.value == "blocks"] == ["image"]
    assert "@sha256" in one.findings[0].fix


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("services: {a: {image: x}, b: {image: z}}", Refused, "several-services"),
        ("services: {}", Malformed, "not-compose"),
        ("services: {a: [1]}", Malformed, "not-compose"),
        ("[1]", Malformed, "not-compose"),
        ("services: {a: {command: 5}}", Malformed, "not-compose"),
        ("services: {a: {command: [1]}}", Malformed, "not-compose"),
        ("services: {a: {command: \"it's\"}}", Malformed, "not-compose"),
        ("services: {a: {command: 'a\\\\b'}}", Malformed, "ambiguous-yaml"),
        ("services: {a: {environment: {A: true}}}", Malformed, "ambiguous-yaml"),
        ("services: {a: {environment: {A: 1.50}}}", Malformed, "ambiguous-yaml"),
        ("services: {a: {environment: ['A=1', 'A=2']}}", Malformed, "duplicate-key"),
        ("services: {a: {environment: {'A B': x}}}", Malformed, "not-compose"),
        ("services: {a: {user: [x]}}", Malformed, "not-compose"),
        ("services: {a: {image: x}, a: {image: z}}", Malformed, "duplicate-key"),
    ],
)  # fmt: skip
def test_what_is_no_compose_file_of_one_meaning(text, kind, code):
    with pytest.raises(kind) as refused:
        compose.parse(text.encode(), what="f")
    assert refused.value.code == code
