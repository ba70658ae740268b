"""A Compose file of several services: what becomes a room's, what is refused, and that nothing becomes nothing."""

from __future__ import annotations

import pytest

from strongroom.errors import Malformed, Refused
from strongroom.images.compose import document, keys
from strongroom.model.contracts.contract import Role
from strongroom.model.contracts.network_terms import Port
from strongroom.model.contracts.room_terms import Restart
from strongroom.project import file
from strongroom.project.compose_keys import ServiceKeys
from strongroom.project.model import OutputTerms, OutsideHost, PeerPort, ProjectParty, PublishedPort, Wait
from tests.unit.project.kit import IMAGE, project, said, service


def only(parsed: file.Project, name: str = "web"):
    found = parsed.service(name)
    assert found is not None
    return found


def test_a_plain_job():
    parsed = project("command: [sum]\nuser: 1000")
    web = only(parsed)
    assert (parsed.name, parsed.contract_name) == ("shop-1", "shop-1")
    assert web.is_job
    assert (web.wall_seconds, web.renewal_seconds) == (600, 0)
    assert (web.settings.image, web.settings.command, web.settings.user) == (IMAGE, ("sum",), "1000")
    assert (web.memory_mib, web.processors, web.restart) == (512, 1, Restart.NEVER)
    assert said(parsed) == {}
    file.refuse_blocked(parsed)


def test_two_services_and_what_they_reach():
    parsed = project(
        'ports: ["8443:443", "10.0.0.1:80:8080"]\ndepends_on: [app]\nrestart: unless-stopped\ncpus: 1.5\n'
        "mem_limit: 1g\nx-strongroom: {open: [443], certificate: {names: [shop.example.org]}, logs: [bob],\n"
        "  outputs: [{path: /out/table, to: [bob], max_bytes: 5}], renewal_seconds: 60, manifest: m.json,\n"
        "  egress: [{host: api.example.org, port: 443, authority: ca.pem}]}",
        top="name: shop\nx-strongroom: {contract: deal, days: 3, runs: 7, threshold: 1, parties: {bob: {role: recipient, file: bob.json}}}",
        others=service("app", "expose: [8000]\nx-strongroom: {manifest: a.json}"),
    )
    web = only(parsed)
    assert [room.name for room in parsed.services] == ["app", "web"]
    assert (parsed.name, parsed.contract_name, parsed.days, parsed.runs, parsed.threshold) == (
        "shop",
        "deal",
        3,
        7,
        1,
    )
    assert parsed.parties == {"bob": ProjectParty(role=Role.RECIPIENT, file="bob.json", seals={})}
    assert web.ports == (
        Port(name="443", number=443, open=True),
        Port(name="8080", number=8080, open=False),
    )
    assert web.published == (
        PublishedPort(address="127.0.0.1", host_port=8443, number=443),
        PublishedPort(address="10.0.0.1", host_port=80, number=8080),
    )
    assert web.peers == (PeerPort(service="app", number=8000, wait=True),)
    assert web.egress == (OutsideHost(host="api.example.org", port=443, authority="ca.pem"),)
    assert web.outputs == (OutputTerms(path="/out/table", to=("bob",), max_bytes=5),)
    assert (web.logs, web.certificate.names, web.certificate.key) == (
        ("bob",),
        ("shop.example.org",),
        "ecdsa-p256",
    )
    assert (web.restart, web.processors, web.memory_mib, web.renewal_seconds) == (Restart.ALWAYS, 2, 1024, 60)
    assert said(parsed) == {}


def test_ports_of_the_long_form():
    web = only(
        project('ports: [{target: 443, published: "8443", host_ip: "::1", name: https, protocol: tcp}]')
    )
    assert web.ports == (Port(name="https", number=443, open=False),)
    assert web.published == (PublishedPort(address="::1", host_port=8443, number=443),)


def test_a_published_port_that_is_not_open_says_how_it_is_reached():
    warned = said(project('ports: ["8443:443"]'), "warns")
    assert "through tunnels" in warned["services.web.ports"]
    assert said(project('ports: ["8443:443"]\nx-strongroom: {open: [443]}'), "warns") == {}


def test_order_reach_and_what_is_waited_for():
    parsed = project(
        "depends_on:\n  db: {condition: service_healthy}\n  load: {condition: service_completed_successfully}",
        others=service("load", "depends_on: [db]") + service("db", "expose: ['5432', 5433]"),
    )
    assert [room.name for room in parsed.services] == ["db", "load", "web"]
    assert only(parsed).depends_on == {"db": Wait.HEALTHY, "load": Wait.COMPLETED}
    assert only(parsed).peers == (
        PeerPort(service="db", number=5432, wait=True),
        PeerPort(service="db", number=5433, wait=True),
    )
    assert said(parsed) == {}


@pytest.mark.parametrize(
    ("body", "where", "what"),
    [
        ("ports: [80]", "ports[0]", "no port of this machine"),
        ('ports: ["8000-8010:80-90"]', "ports[0]", "expected one port"),
        ('ports: ["53:53/udp"]', "ports[0]", "only TCP"),
        ('ports: ["elsewhere:80:80"]', "ports[0]", "no address"),
        ('ports: ["0:80"]', "ports[0]", "expected one port"),
        ('ports: ["70000:80"]', "ports[0]", "expected one port"),
        ('ports: ["81:80", "82:80"]', "ports[1]", "twice"),
        ("ports: [{target: 80}]", "ports[0]", "expected `published`"),
        ("ports: [{target: 80, published: 81, color: red}]", "ports[0]", "'color' is no key"),
        ("ports: [{target: 80, published: 81, protocol: udp}]", "ports[0]", "only TCP"),
        ("ports: [{target: 80, published: 81, name: 'A B'}]", "ports[0]", "`name`"),
        ("expose: ['80/udp']", "expose[0]", "one TCP port"),
        ("expose: [80.5]", "expose[0]", "one TCP port"),
        ("depends_on: [nobody]", "depends_on", "'nobody' is no other service"),
        ("depends_on: [web]", "depends_on", "'web' is no other service"),
        ("depends_on: [5]", "depends_on[0]", "expected a service's name"),
        ("depends_on: all", "depends_on", "expected a list"),
        ("depends_on: {db: {condition: service_red}}", "depends_on.db", "condition 'service_red'"),
        ("depends_on: {db: {required: false}}", "depends_on.db", "not required"),
        ("restart: sometimes", "restart", "is no policy"),
        ("restart: always:3", "restart", "is no policy"),
        ("restart: always\ndeploy: {restart_policy: {condition: none}}", "deploy.restart_policy.condition", "says otherwise"),
        ("deploy: {restart_policy: {condition: maybe}}", "deploy.restart_policy.condition", "'maybe'"),
        ("mem_limit: 1.5g", "mem_limit", "is no size"),
        ("mem_limit: 2t", "mem_limit", "is no size"),
        ("mem_limit: 9999999g", "mem_limit", "MiB"),
        ("mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}", "deploy.resources.limits.memory", "says otherwise"),
        ("cpus: 0", "cpus", "'0'"),
        ("cpus: 65", "cpus", "'65'"),
        ("cpus: 2\ndeploy: {resources: {limits: {cpus: '3'}}}", "deploy.resources.limits.cpus", "says otherwise"),
        ("deploy: {replicas: 3}", "deploy.replicas", "3 copies"),
        ("scale: 2", "scale", "2 copies"),
        ("links: ['db:database']", "links", "older word"),
        ("profiles: [debug]", "profiles", "somebody asks"),
        ("networks: {back: {aliases: [database]}}", "networks.back.aliases", "another name"),
        ("x-strongroom: {open: [443]}", "x-strongroom.open", "443 is no port"),
        ("x-strongroom: {datasets: [flights]}", "x-strongroom.datasets", "no dataset flights"),
        ("x-strongroom: {logs: [bob]}", "x-strongroom", "no party bob"),
        ("x-strongroom: {peers: ['db:5432']}", "x-strongroom.peers", "no service db"),
        ("x-strongroom: {wall_seconds: 5, renewal_seconds: 60}", "x-strongroom", "is of a job"),
        ("x-strongroom: {wall_seconds: 5}\nrestart: always", "x-strongroom.wall_seconds", "runs to its end"),
        ("x-strongroom: {manifest: m.json}", "x-strongroom.manifest", "several parties"),
        ("x-strongroom: {colour: red}", "x-strongroom.colour", "is no key here"),
        ("x-strongroom: []", "x-strongroom", "expected keys of"),
        ("x-strongroom: {wall_seconds: soon}", "x-strongroom.wall_seconds", "expected a whole number"),
        ("x-strongroom: {wall_seconds: true}", "x-strongroom.wall_seconds", "expected a whole number"),
        ("x-strongroom: {outputs: [{to: [bob]}]}", "x-strongroom.outputs[0]", "path is missing"),
        ("x-strongroom: {outputs: [{path: /etc}]}", "x-strongroom.outputs[0].path", "expected /out"),
        ("x-strongroom: {egress: [{host: A, port: 0}]}", "x-strongroom.egress[0].port", "whole number"),
        ("x-strongroom: {certificate: {names: [a.b], delivery: {signal: HUP, command: [a]}}}", "x-strongroom.certificate.delivery", "a signal and a command"),
        ("x-strongroom: {certificate: {names: [a.b], delivery: {mode: '0644'}}}", "x-strongroom.certificate.delivery.mode", "expected one of 0400"),
        ("x-strongroom: {datasets: []}", "x-strongroom.datasets", "a list of 1"),
        ("x-strongroom: {logs: [bob, bob]}", "x-strongroom.logs[1]", "twice"),
        ("build: .", "build", "no digest yet"),
        ("volumes: ['./data:/data']", "volumes[0] /data", "a folder or file of the host"),
        ("environment: &e {A: b}", "environment", "an anchor"),
        ("<<: {A: b}", "", "a merge key"),
        ("command: a\ncommand: b", "command", "a second time"),
        ("restart: no", "restart", "different things"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_blocks(body, where, what):
    parsed = project(body, others=service("db", "command: [a]"))
    place = f"services.web.{where}".rstrip(".")
    blocking = said(parsed)
    assert what in blocking.get(place, ""), blocking
    with pytest.raises(Refused) as refused:
        file.refuse_blocked(parsed)
    assert refused.value.code == "would-not-run"
    assert refused.value.hint


@pytest.mark.parametrize(
    ("body", "severity", "where", "what"),
    [
        ("healthcheck: {test: [CMD, true-ish]}", "fine", "healthcheck", "nobody asks"),
        ("networks: [back]", "fine", "networks", "are noted alone"),
        ("restart: on-failure:3", "warns", "restart", "at most 3 times"),
        ("mem_limit: 64m", "fine", "mem_limit", "256 MiB at least"),
        ("mem_limit: 536870912", "fine", "mem_limit", "512 MiB"),
        ("deploy: {restart_policy: {delay: 5s}}", "warns", "deploy.restart_policy.delay", "not kept"),
        ("deploy: {replicas: 1, labels: {a: b}}", "fine", "deploy.labels", "no meaning"),
        ("volumes: [cache:/var/cache]", "warns", "volumes[0] /var/cache", "a volume"),
        ("dns: 1.1.1.1", "warns", "dns", "no name server"),
        ("depends_on: {db: {restart: true}}", "warns", "depends_on.db", "started again"),
    ],
)
def test_what_is_left_out_is_said(body, severity, where, what):
    parsed = project(body, others=service("db", "command: [a]"))
    assert what in said(parsed, severity).get(f"services.web.{where}", ""), parsed.findings
    assert said(parsed) == {}


def test_a_circle_is_named_and_every_service_still_read():
    parsed = project("depends_on: [db]", others=service("db", "depends_on: [web]"))
    assert said(parsed) == {"services": "each waits for another of these: web, db"}
    assert len(parsed.services) == 2


def test_two_services_cannot_have_one_port_of_the_machine():
    parsed = project('ports: ["81:80"]', others=service("db", 'ports: ["81:5432"]'))
    assert "is of web already" in said(parsed)["services.db.ports"]


def test_nobody_waits_for_the_end_of_a_service():
    parsed = project(
        "depends_on: {db: {condition: service_completed_successfully}}", others=service("db", "expose: [1]")
    )
    assert "which has none" in said(parsed)["services.web.depends_on"]


def test_several_parties_sign_for_converted_images_and_named_recipients():
    parties = "x-strongroom: {parties: {alice: {role: data-owner, file: alice.party.json}}}"
    blocking = said(project("x-strongroom: {outputs: [{path: /out}]}", top=parties))
    assert "the image that its owner converted" in blocking["services.web.x-strongroom.manifest"]
    assert "for whom?" in blocking["services.web.x-strongroom.outputs"]


def test_where_the_image_lies_makes_its_name_a_name():
    text = b"services:\n  web:\n    image: nginx:1.27\n    x-strongroom: {image: ./nginx.tar}\n"
    parsed = file.parse(text, what="f")
    assert said(parsed) == {}
    assert "is a name alone" in said(parsed, "fine")["services.web.image"]
    nameless = file.parse(b"services:\n  web:\n    x-strongroom: {image: ./nginx.tar}\n", what="f")
    assert said(nameless) == {}
    assert only(nameless).image == "./nginx.tar"


def test_everything_wrong_is_said_at_once_with_its_line():
    parsed = project("ports: [80]\nprivileged: true\nx-strongroom: {wall: 5}")
    lines = {finding.where: finding.line for finding in parsed.findings if finding.severity == "blocks"}
    assert lines == {
        "services.web.ports[0]": 5,
        "services.web.privileged": 6,
        "services.web.x-strongroom.wall": 7,
    }


@pytest.mark.parametrize(
    ("name", "project_name", "blocked"),
    [("name: Shop", "Shop", True), ("name: shop", "shop", False), ("", "shop-1", False)],
)
def test_names_of_projects(name, project_name, blocked):
    parsed = project(top=name)
    assert parsed.name == project_name
    assert ("name" in said(parsed)) is blocked


def test_seventeen_services_are_too_many_for_one_contract():
    others = "".join(service(f"s{number}", "command: [a]") for number in range(16))
    assert said(project(others=others)) == {"services": "17 services"}


def test_a_service_that_names_no_room():
    assert "names no room" in said(project(others=service("Data_", "command: [a]")))["services.Data_"]


@pytest.mark.parametrize("text", [b"[]", b"a: 1", b"services: {}", b"services: [web]"])
def test_what_is_no_compose_file(text):
    with pytest.raises(Malformed) as failure:
        file.parse(text, what="f")
    assert failure.value.code == "not-compose"


def test_a_room_by_itself_reads_as_before():
    text = f"services:\n  web:\n    image: {IMAGE}\n    depends_on: [db]\n".encode()
    single = document.parse(text, what="f")
    assert [finding.check for finding in single.findings] == ["compose"]


def test_every_key_with_a_meaning_here_is_a_key_of_the_specification():
    assert set(ServiceKeys()._rules) <= set(keys._KEYS)
