"""A Compose file becomes a contract's draft: every service a room, and everything that the file says in it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from strongroom.crypto.pki import local_ca
from strongroom.errors import Malformed, Misuse, Refused
from strongroom.model.contracts.network_terms import Egress, Peer, Port
from strongroom.model.contracts.room_terms import Restart, ServiceTerms
from strongroom.parties import draft as drafts
from strongroom.project import draft, file
from tests import verbs

NOW = datetime(2026, 12, 1, tzinfo=UTC)
FILE = """\
name: deal
x-strongroom:
  parties:
    alice: {role: data-owner, file: alice.party.json}
    bob: {role: program-owner, file: bob.party.json}
  datasets: {flights: flights.manifest.json}
  platforms: {simulated: true, memory_guard: false, bases: [base], nodes: [node.json]}
  runs: 3
  days: 2
  exact_sizes: true
services:
  web:
    image: bobs
    command: [serve]
    ports: ["8443:443"]
    restart: always
    depends_on: [db]
    x-strongroom:
      manifest: query.manifest.json
      open: [443]
      certificate: {names: [web.example.org], key: ed25519, usage: server, delivery: {folder: /etc/tls, gid: 7, signal: HUP, check: 443}}
      egress: [{host: api.example.org, port: 444, authority: ca.pem}]
  db:
    image: bobs
    expose: [5432]
    cpus: 2
    x-strongroom: {manifest: query.manifest.json, datasets: [flights], renewal_seconds: 60}
  sum:
    image: bobs
    environment: {MODE: fast}
    mem_limit: 300m
    x-strongroom: {manifest: query.manifest.json, outputs: [{path: /out, to: [bob]}], logs: [bob], wall_seconds: 30}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("deal")

    def typed(*words):
        done = verbs.run(*words, cwd=place)
        assert done.returncode == 0, done.stderr

    for name in ("alice", "bob"):
        typed("identity", "new", name, "--out", ".")
    (place / "root/bin").mkdir(parents=True)
    (place / "root/bin/program").write_bytes(b"\x7fELF")
    (place / "config.json").write_text('{"config": {"Entrypoint": ["/bin/program"]}}')
    typed("convert", "root", "--config", "config.json", "-i", "bob.identity", "--name", "query", "--out", ".")
    (place / "data").mkdir()
    (place / "data/rows").write_text("1\n")
    typed("seal", "data", "-i", "alice.identity", "--name", "flights", "--out", ".")
    for name in ("alice", "bob"):
        typed("broker", "init", f"broker-{name}", "-i", f"{name}.identity", "--listen", "127.0.0.1:9")
    (place / "base").mkdir()
    digests = ", ".join(
        f'"{name}": "sha256:{"ab" * 32}"' for name in ("firmware", "kernel", "initrd", "cmdline")
    )
    (place / "base/base.json").write_text(f'{{"reference": {{{digests}, "machine": "q35"}}}}')
    (place / "node.json").write_text(f'{{"root": "sha256:{"cd" * 32}", "machine": "sha256:{"ef" * 32}"}}')
    (place / "ca.pem").write_bytes(b"DER")
    return place


def drafted(folder, text=FILE):
    (folder / "compose.yaml").write_text(text)
    project = file.load(folder / "compose.yaml")
    return drafts.draft_contract(draft.draft_for_parties(project, folder=folder), now=NOW).contract


def test_every_service_is_a_room_and_all_of_the_file_is_in_the_contract(folder):
    contract = drafted(folder)
    assert (contract.id, contract.limits.runs, contract.approvals.parties) == ("deal", 3, ("alice", "bob"))
    assert (contract.limits.not_after - NOW).days == 2
    assert contract.disclosure.output_sizes.value == "exact"
    (platform,) = contract.platforms
    assert (platform.simulated, platform.memory_guard) == (True, False)
    web, db, job = (contract.room(name) for name in ("web", "db", "sum"))
    assert web.image.arguments == ("serve",)
    assert web.ports == (Port(name="443", number=443, open=True),)
    assert web.peers == (Peer(room="db", port="5432", wait=True),)
    assert web.egress == (Egress(host="api.example.org", port=444, authority=b"DER"),)
    assert web.service == ServiceTerms(renewal_seconds=3600, restart=Restart.ALWAYS)
    assert (web.certificate.names, web.certificate.key, web.certificate.usages) == (
        ("web.example.org",),
        "ed25519",
        ("server",),
    )
    # Delivered to the image's own user, where the file does not say whose the files are.
    delivery = web.certificate.delivery
    assert (delivery.folder, delivery.uid, delivery.gid, delivery.mode) == ("/etc/tls", 0, 7, "0400")
    assert (delivery.signal, delivery.command, delivery.check) == ("HUP", None, 443)
    assert (db.processors, db.service.renewal_seconds, [data.name for data in db.datasets]) == (
        2,
        60,
        ["flights"],
    )
    assert (job.service, job.wall_seconds, job.memory_mib) == (None, 30, 300)
    assert job.image.environment == {"MODE": "fast"}
    assert (job.outputs[0].recipients, job.logs.recipients) == (("bob",), ("bob",))
    assert web.logs is None


def test_an_authority_in_pem_is_the_certificate_in_it(folder):
    key = local_ca.tls.generate()
    root = local_ca.make_root(key, name="ca", now=NOW, random=lambda count: b"\1" * count)
    from strongroom.encoding import pem

    (folder / "ca.pem").write_bytes(pem.encode(root, b"CERTIFICATE"))
    assert drafted(folder).room("web").egress[0].authority == root
    (folder / "ca.pem").write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(Malformed, match="PEM"):
        drafted(folder)
    (folder / "ca.pem").write_bytes(b"DER")


@pytest.mark.parametrize(
    ("old", "new", "kind", "code"),
    [
        ("flights.manifest.json", "flights", Misuse, "not-sealed"),
        ("    alice: {role: data-owner, file: alice.party.json}", "    alice: {role: data-owner, file: bob.party.json}", Misuse, "other-party"),
        ('ports: ["8443:443"]', "ports: [443]", Refused, "would-not-run"),
        ("port: 444", "port: 443", Malformed, "same-port"),
    ],
)  # fmt: skip
def test_what_cannot_be_drafted_is_refused(folder, old, new, kind, code):
    with pytest.raises(kind) as failure:
        drafted(folder, FILE.replace(old, new))
    assert failure.value.code == code


def test_a_file_of_one_owner_is_no_draft_for_several(folder):
    with pytest.raises(Misuse) as failure:
        drafted(folder, "services:\n  a:\n    x-strongroom: {image: a.tar}\n")
    assert failure.value.code == "no-parties"


def test_contract_new_takes_the_file_and_nothing_beside_it(folder):
    (folder / "compose.yaml").write_text(FILE)
    done = verbs.run("contract", "new", "--compose", "compose.yaml", "--out", "deal.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "contract deal version 1" in done.stdout
    assert "to be signed by alice, bob (2 needed)" in done.stdout
    both = verbs.run(
        "contract", "new", "--compose", "compose.yaml", "--out", "deal-2.json", "--runs", 4, cwd=folder
    )
    assert both.returncode == 2
    assert "--runs is given" in both.stderr
    bare = verbs.run("contract", "new", "deal", "--out", "deal-2.json", cwd=folder)
    assert (bare.returncode, "missing option '--party'" in bare.stderr) == (2, True)
