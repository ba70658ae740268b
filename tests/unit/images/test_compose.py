"""Compose files: what becomes a setting, what becomes a finding, and that nothing becomes nothing."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed
from strongroom.images import oci
from strongroom.images.compose import document, keys, strict_yaml
from strongroom.images.compose.place import ComposePlace

DIGEST = "sha256:" + "ab" * 32
IMAGE = f"registry.example/team/web@{DIGEST}"


def service(body: str, top: str = "") -> document.ComposeService:
    text = (
        f"services:\n  web:\n    image: {IMAGE}\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
        + top
    )
    return document.parse(text.encode(), what="compose.yaml")


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
    platform=oci.ImagePlatform(os="linux", architecture="amd64"), diff_ids=(), entrypoint=("/e",), command=("c",),
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
        ("devices: ['/dev/kvm:/dev/kvm']", "devices[0] /dev/kvm", "blocks devices"),
        ("devices: ['/dev/nvidia0']", "devices[0] /dev/nvidia0", "blocks gpu"),
        ("gpus: all", "gpus", "blocks gpu"),
        ("volumes: ['./data:/data:ro']", "volumes[0] /data", "blocks volumes"),
        ("volumes: ['cache:/var/cache']", "volumes[0] /var/cache", "warns volumes"),
        ("volumes: [{type: bind, source: /etc, target: /x}]", "volumes[0] /x", "blocks volumes"),
        ("volumes: [{type: tmpfs, target: /x}]", "volumes[0] /x", "fine volumes"),
        ("volumes: ['/var/run/docker.sock:/s']", "volumes[0] /s", "blocks volumes"),
        ("ports: ['80:80']", "ports 80:80", "warns ports"),
        ("expose: ['443']", "expose 443", "warns ports"),
        ("networks: [front]", "networks", "warns network"),
        ("cap_add: [NET_BIND_SERVICE]", "cap_add[0] NET_BIND_SERVICE", "fine rights"),
        ("cap_add: [CAP_SYS_ADMIN]", "cap_add[0] SYS_ADMIN", "blocks rights"),
        ("secrets: [token]", "secrets[0] token", "blocks secrets"),
        ("configs: [{source: c, target: /c}]", "configs[0] c", "blocks configs"),
        ("env_file: .env", "env_file", "blocks environment-of-host"),
        ("environment: [HOME_TOKEN]", "environment[0] HOME_TOKEN", "blocks environment-of-host"),
        ("environment: {A: }", "environment.A", "blocks environment-of-host"),
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
        ("sysctls: {net.ipv6.conf.all.disable_ipv6: '0'}", "sysctls.net.ipv6.conf.all.disable_ipv6", "warns ipv6"),
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
    place = ComposePlace(document=strict_yaml.read(b"a: b", what="f"), path=("a",))
    for key in keys._KEYS:
        rows = list(keys.service(key, "something", place))
        assert rows, key
        assert all(row.fix or row.severity.value == "fine" for row in rows), key
        assert all("no key of the Compose Specification" not in row.what for row in rows), key


# compose-spec.json of compose-spec/compose-go, `definitions.service.properties`, and pre_start (2026).
SERVICE_KEYS = [
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec",
    "depends_on",
    "deploy",
    "develop",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "extends",
    "external_links",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation",
    "label_file",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "models",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_start",
    "pre_stop",
    "privileged",
    "profiles",
    "provider",
    "pull_policy",
    "pull_refresh_after",
    "read_only",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "use_api_socket",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "volumes_from",
    "working_dir",
]


def test_every_key_of_the_compose_specification_is_known_by_name():
    assert set(SERVICE_KEYS) <= {*keys._KEYS, *keys.SETTINGS}


@pytest.mark.parametrize(
    ("body", "where", "fix"),
    [
        ("enviroment: {A: b}", "enviroment", "is environment meant?"),
        ("images: x", "images", "is image meant?"),
        ("deploy: {ports: ['80:80']}", "deploy.ports", "it belongs under the service itself"),
        ("replicas: 2", "replicas", "it belongs under deploy"),
        ("include: [x]", "include", "it belongs beside services"),
        ("deploy: {resources: {limits: {memroy: 1g}}}", "deploy.resources.limits.memroy", "is memory meant?"),
        ("mem_lmit: 1g", "mem_lmit", "is mem_limit meant?"),
        ("odd: 1", "odd", "x-…"),
    ],
)
def test_a_key_of_no_specification_is_told_with_the_nearest(body, where, fix):
    (one,) = [row for row in service(body).findings if row.where == f"services.web.{where}"]
    assert "no key of the Compose Specification" in one.what
    assert fix in one.fix
    assert one.severity.value == "warns"


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
    one = document.parse(f"services: {{web: {{image: {stated}}}}}".encode(), what="f")
    assert one.image == ""
    assert [row.check for row in one.findings if row.severity.value == "blocks"] == ["image"]
    assert "@sha256" in one.findings[0].fix


@pytest.mark.parametrize("text", ["services: {}", "[1]", "services: [1]", "web: {image: x}", "services:"])
def test_what_is_no_compose_file_at_all(text):
    with pytest.raises(Malformed) as refused:
        document.parse(text.encode(), what="f")
    assert refused.value.code == "not-compose"


@pytest.mark.parametrize(
    ("text", "where", "check"),
    [
        ("services: {a: {image: x}, b: {image: z}}", "services", "several-services"),
        ("services: {a: [1]}", "services.a", "compose"),
        ("services: {a: {command: 5}}", "services.a.command", "compose"),
        ("services: {a: {command: [1]}}", "services.a.command", "compose"),
        ('services: {a: {command: "it\'s"}}', "services.a.command", "compose"),
        ("services: {a: {command: 'a\\b'}}", "services.a.command", "compose"),
        ("services: {a: {command: [" + "x, " * 300 + "]}}", "services.a.command", "compose"),
        ("services: {a: {environment: {A: true}}}", "services.a.environment.A", "yaml"),
        ("services: {a: {environment: {A: 1.50}}}", "services.a.environment.A", "yaml"),
        ("services: {a: {environment: ['A=1', 'A=2']}}", "services.a.environment[1] A", "environment"),
        ("services: {a: {environment: {'A B': x}}}", "services.a.environment.A B", "environment"),
        ("services: {a: {environment: [5]}}", "services.a.environment[0]", "environment"),
        ("services: {a: {environment: text}}", "services.a.environment", "environment"),
        ("services: {a: {user: [x]}}", "services.a.user", "compose"),
        ("services: {a: {image: x, image: z}}", "services.a.image", "yaml"),
        ("services: {a: {image: x}, a: {image: z}}", "services.a", "yaml"),
        ("services: {a: {<<: *b}}", "services.a", "yaml"),
        ("services: *b", "services", "yaml"),
    ],
)
def test_what_is_no_compose_file_of_one_meaning_blocks_and_no_setting_is_taken(text, where, check):
    one = document.parse(text.encode(), what="f")
    assert (where, check) in [
        (row.where, row.check) for row in one.findings if row.severity.value == "blocks"
    ]
    assert (one.image, one.command, one.environment, one.user) == ("", None, {}, None)


def lines(text: str) -> list[tuple[int, str]]:
    return sorted((row.line, row.check) for row in document.parse(text.encode(), what="f").findings)


def test_a_file_is_read_to_its_end_and_every_finding_has_its_line():
    text = """\
x-common: &common
  restart: always
services:
  job:
    <<: *common
    image: registry.example/team/job:2
    environment:
      MODE: off
      SHARE: 0.5
      NAME: fine
    ports:
      - 8022:22
    volumes:
      - /srv/agent.sock:/agent.sock
    pre_stop: [{command: [/bin/flush]}]
    use_api_socket: true
    entripoint: [/bin/job]
"""
    assert lines(text) == [
        (1, "yaml"), (5, "yaml"), (6, "image"), (8, "yaml"), (9, "yaml"), (12, "yaml"), (14, "volumes"),
        (15, "hooks"), (16, "rights"), (17, "compose"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "spoilt",
    [
        "environment: {A: x, B: on}", "environment: ['A=x', 22:22]", "environment: {A: x, <<: *e}", "environment: *e",
        "environment: {A: x, 1: y}", "environment: {A: x, A: y}", "environment: {A: x, B: 1.5}", "environment: !reset {A: x}",
        "command: [run, on]", "command: [run, *c]", "command: *c", "entrypoint: [/x, 0755]", "user: 1_000", "user: *u",
        "working_dir: !!str /x", "image: *i",
    ],
)  # fmt: skip
def test_nothing_of_a_setting_that_is_unclear_in_part_is_taken(spoilt):
    one = document.parse(f"services: {{web: {{{spoilt}}}}}".encode(), what="f")
    assert any(row.check == "yaml" and row.severity.value == "blocks" for row in one.findings)
    assert (one.image, one.entrypoint, one.command, one.environment, one.user, one.working_directory) == (
        "", None, None, {}, None, None,
    )  # fmt: skip


def test_an_image_that_a_merge_may_bring_is_not_called_missing():
    told = document.parse(b"services: {web: {<<: *all, user: '5'}}", what="f")
    assert [row.check for row in told.findings] == ["yaml"]
    assert told.user == "5"


# Files as public reports show them, written anew: (report, file, the lines with what blocks or is told).
REPORTS = [
    ("docker/compose#2146", "services:\n  db:\n    environment:\n      ROOT_PASSWORD_EMPTY_OK: yes\n", [(2, "image"), (4, "yaml")]),
    ("docker/compose#8097", "%YAML 1.2\n---\nservices:\n  k:\n    image: k\n    environment:\n      PLAINTEXT: yes\n", [(1, "yaml"), (5, "image"), (7, "yaml")]),
    ("docker/compose#3290", "services:\n  sftp:\n    image: sftp\n    ports:\n      - 2122:22\n      - 443:443\n", [(3, "image"), (4, "ports"), (5, "yaml")]),
    ("wodby/docker4wordpress#84", "services:\n  php:\n    image: php\n    environment:\n      MIXED: On\n      PLAIN: 'On'\n", [(3, "image"), (5, "yaml")]),
    ("docker-archive/compose-cli#1862", "services:\n  sql:\n    image: sql\n    environment:\n      ACCEPT:      Y\n      ID: Developer\n", [(3, "image"), (5, "yaml")]),
    ("kubernetes/kompose#1310", "services:\n  a:\n    image: a\n    enviroment:\n      A: b\n", [(3, "image"), (4, "compose")]),
    ("docker/docs#4303", "services:\n  a:\n    images: a\n    deploy:\n      ports: ['80:80']\n", [(2, "image"), (3, "compose"), (5, "compose")]),
    ("docker/getting-started-todo-app#22", "services:\n  a:\n    image: a\n    develop:\n      watch: [{path: ., action: sync}]\n", [(3, "image"), (4, "compose")]),
    ("docker/compose#13154", "x-a: &a\n  user: '1'\nx-b: &b\n  tty: true\nservices:\n  s:\n    <<: [*a, *b]\n", [(1, "yaml"), (3, "yaml"), (7, "yaml")]),
    ("reactive-resume/app#824", "services:\n  s:\n    environment:\n      <<: *shared\n      <<: *own\n", [(2, "image"), (4, "yaml"), (5, "yaml")]),
    ("fedora-copr/logdetective-website#26", "services:\n  s:\n    environment: {A: b}\n    tty: true\n    environment: {C: d}\n", [(2, "image"), (4, "standard-input"), (5, "yaml")]),
    ("docker/docs#20850", "services:\n  s:\n    image: s\n    secrets:\n      - source: token\n        mode: 0400\n", [(3, "image"), (5, "secrets"), (6, "yaml")]),
    ("cblp/yaml-sucks#11", "services:\n  s:\n    image: s\n    mac_address: 52:54:00:44:49:56\n", [(3, "image"), (4, "yaml")]),
    ("docker/compose#12873", "x-v: &v\n  - a:/a\nservices:\n  s:\n    image: s\n    volumes:\n      - *v\n      - ${D:-./d}:/d\n", [(1, "yaml"), (5, "image"), (7, "yaml"), (8, "volumes")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [one[1:] for one in REPORTS], ids=[one[0] for one in REPORTS])
def test_files_of_public_reports_are_told_in_one_run(text, expected):
    assert lines(text) == expected


@pytest.mark.parametrize(
    "text",
    ["run a; run b", "run a && run b", "cat x | wc", "run > /out/x", "run < x", "run 2>/out/log", "run $$(date)", "run `date`", "run --url=http://a/?b=1&c=2", "run a\\ b"],
)  # fmt: skip
def test_a_text_with_a_shells_own_signs_is_never_split(text):
    # Compose reads it to the first of them and drops the rest; a splitter without a shell makes words of them.
    for key in ("command", "entrypoint"):
        one = service(f"{key}: {text}")
        assert (one.command, one.entrypoint) == (None, None)
        assert [(found.severity.value, found.check) for found in one.findings] == [("blocks", "compose")]
        assert "split differently" in one.findings[0].what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sh -c 'run a && run b > /out/x'", ("sh", "-c", "run a && run b > /out/x")),
        ('sh -c "cat x | wc; run (y)"', ("sh", "-c", "cat x | wc; run (y)")),
        (">\n  run a\n  --b 1", ("run", "a", "--b", "1")),
        ("|\n  run a\n  --b 1", ("run", "a", "--b", "1")),
    ],
)
def test_a_text_that_all_split_alike_is_split(text, words):
    one = service(f"command: {text}")
    assert one.command == words
    assert one.findings == ()
