"""`strongroom reference`: signed, published to a real registry, found again, and never older than seen."""

from __future__ import annotations

import json
import sys

import pytest

from strongroom.cli import main as entry
from strongroom.fetch.oci import artifacts, names, reference_files
from strongroom.images import artifact
from strongroom.model import identity
from strongroom_testing import registry_server
from tests.unit.bases import release_kit
from tests.unit.fetch import registries
from tests.unit.fetch.registries import access

SNP = {"tee": "snp", "references": [{"measurement": "aa" * 48}, {"measurement": "bb" * 48}]}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with registries.served(tmp_path_factory.mktemp("served")) as made:
        yield made


@pytest.fixture
def one(kept):
    kept[0].heal()
    return kept[0]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Identities, which take their time to make."""
    folder = tmp_path_factory.mktemp("people")
    for name in ("maker", "stranger"):
        made = identity.generate(name)
        data = identity.lock(made, b"x", random=lambda count: b"\x01" * count)
        (folder / f"{name}.identity").write_bytes(data)
        (folder / f"{name}.party.json").write_bytes(made.party().encode())
    return folder


@pytest.fixture
def run(people, tmp_path, monkeypatch, capsys):
    """Run the verb; --trust and --state are added where it takes them."""
    monkeypatch.setenv("STRONGROOM_PASSPHRASE", "x")

    def call(verb, *words, trust="maker"):
        more = []
        if verb not in {"sign", "publish"}:
            more = [
                "--state",
                tmp_path / "state",
                *(["--trust", people / f"{trust}.party.json"] if trust else []),
            ]
        monkeypatch.setattr(sys, "argv", ["strongroom", "reference", verb, *map(str, [*words, *more])])
        with pytest.raises(SystemExit) as left:
            entry.main()
        told = capsys.readouterr()
        assert "defect" not in told.err, told.err
        return left.value.code or 0, told.out + told.err

    return call


@pytest.fixture
def bases(tmp_path):
    folders = [release_kit.base(tmp_path / "bases" / name, name) for name in ("local", "snp")]
    (tmp_path / "snp.json").write_text(json.dumps(SNP))
    return folders


@pytest.fixture
def sign(run, people, bases, tmp_path):
    def call(version=3, who="maker", only=None):
        words = [word for folder in only or bases for word in ("--base", folder)]
        words += ["--values", tmp_path / "snp.json", "--name", "base", "--version", version, "--json"]
        words += [
            "--out",
            tmp_path / who,
            "-i",
            people / f"{who}.identity",
            "--issued",
            "2026-11-01T00:00:00Z",
        ]
        code, told = run("sign", *words)
        assert code == 0, told
        return json.loads(told)["file"]

    return call


def test_what_is_signed_verifies_and_shows(run, sign, bases, tmp_path):
    file = sign()
    code, told = run("verify", file, "--base", bases[1], "--json")
    assert code == 0
    made = json.loads(told)
    assert (made["platforms"], made["provenance"], made["sbom"]) == (["local", "snp"], True, True)
    assert "snp 2: measurement bbbb" in run("show", file)[1]
    code, told = run("show", file, "--for", "snp")
    assert (
        json.loads(told) == SNP
    )  # as `measure --reference` prints it, and as `contract new --reference` takes it
    assert "NOT VERIFIED" in run("show", file, trust=None)[1]
    assert len(json.loads(run("show", file, "--json", trust=None)[1])) == 3


def test_a_contract_takes_what_is_shown(run, sign, tmp_path):
    from strongroom.parties import draft as drafts

    shown = tmp_path / "values.json"
    shown.write_text(run("show", sign(), "--for", "snp")[1])
    (platform,) = drafts.hardware_platforms([shown], any_machine=True)
    assert (platform.tee, list(platform.references)) == ("snp", SNP["references"])


def test_nothing_for_a_contract_without_a_trusted_signature(run, sign):
    file = sign()
    assert run("show", file, "--for", "snp", trust=None)[0] == 2
    code, told = run("show", file, "--for", "snp", trust="stranger")
    assert (code, "measurement" in told) == (3, False)
    assert run("show", file, "--for", "tdx")[0] == 5
    assert run("verify", file, trust="stranger")[0] == 3
    assert run("verify", file, "--at", "2030-01-01T00:00:00Z")[0] == 3


def test_signed_twice_it_is_the_same_file(sign, tmp_path):
    from pathlib import Path

    first = Path(sign()).read_bytes()
    assert Path(sign()).read_bytes() == first


def test_rule_42_an_older_version_is_refused_once_a_newer_was_seen(run, sign):
    old, new = sign(3), sign(4)
    assert run("verify", old)[0] == 0
    assert run("verify", new)[0] == 0
    code, told = run("verify", old)
    assert (code, "downgrade" in told) == (3, True)
    assert run("show", old, "--for", "snp")[0] == 3
    # Another signer's numbers are another's.
    assert run("verify", sign(1, who="stranger"), trust="stranger")[0] == 0


@registries.needs_registry
def test_published_and_pulled_by_digest_and_by_any_of_its_files(one, run, sign, bases, tmp_path):
    file = sign()
    where = f"{one.host}/refs/base"
    code, told = run("publish", file, f"{where}:v3", "--registry-ca", one.ca, "--json")
    assert code == 0, told
    made = json.loads(told)
    assert len(made["subjects"]) == 10
    out = tmp_path / "pulled"
    options = ("--registry-ca", one.ca, "--out", out)
    code, told = run("pull", made["reference"], *options, "--json")
    assert code == 0, told
    assert (out / file.rpartition("/")[2]).read_bytes() == (
        tmp_path / "maker" / file.rpartition("/")[2]
    ).read_bytes()
    disk = release_kit.digest((bases[1] / "base.disk").read_bytes())
    code, told = run("pull", f"{where}@{disk}", "--about", *options, "--json")
    assert (code, json.loads(told)["version"]) == (0, 3)
    unknown = f"{where}@sha256:{'9' * 64}"
    assert run("pull", unknown, "--about", *options)[0] == 5
    code, told = run("pull", f"{where}:v3", *options)
    assert (code, "tag-refused" in told) == (3, True)
    assert run("pull", made["reference"], *options, trust="stranger")[0] == 3
    assert run("pull", made["reference"], *options, trust=None)[0] == 2
    assert run("publish", file, made["reference"], "--registry-ca", one.ca)[0] == 2


@registries.needs_registry
def test_of_several_about_a_file_the_newest_trusted_one_is_taken(one, run, sign, bases, tmp_path):
    where = f"{one.host}/refs/several"
    snp = bases[1:]
    for file in (sign(3, only=snp), sign(5, only=snp), sign(9, who="stranger", only=snp), sign(4, only=snp)):
        assert run("publish", file, where, "--registry-ca", one.ca)[0] == 0
    kernel = release_kit.digest((bases[1] / "bzImage").read_bytes())
    options = ("--about", "--registry-ca", one.ca, "--out", tmp_path / "pulled", "--json")
    code, told = run("pull", f"{where}@{kernel}", *options)
    assert (code, json.loads(told)["version"]) == (0, 5)


@registries.needs_registry
def test_rubbish_about_a_base_does_not_hide_its_reference_values(one, run, sign, bases, tmp_path):
    """Whoever may write into the repository may list what is no file of reference values under its name."""
    where = f"{one.host}/refs/rubbish"
    assert run("publish", sign(3, only=bases[1:]), where, "--registry-ca", one.ca)[0] == 0
    kernel = release_kit.digest((bases[1] / "bzImage").read_bytes())
    subject = artifact.Part(media_type="application/octet-stream", digest=kernel, size=0)
    for kind, data in (("text/plain", b"rubbish"), (reference_files.ENVELOPE, b"{}")):
        part = artifact.part_of(data, kind)
        made = artifact.Artifact(artifact_type=reference_files.KIND, parts=(part,), subject=subject)
        place = names.parse(f"{where}@{kernel}")
        registry_server.push_artifact(place, made, {part.digest: data}, access=access(one))
    options = ("--about", "--registry-ca", one.ca, "--out", tmp_path / "pulled", "--json")
    code, told = run("pull", f"{where}@{kernel}", *options)
    assert (code, json.loads(told)["version"]) == (0, 3)


@registries.needs_registry
def test_rule_30_reference_values_of_another_base_do_not_serve(one, run, sign, bases, tmp_path):
    """Listed under a digest that they do not name: a registry could do that."""
    data = (tmp_path / "maker" / sign().rpartition("/")[2]).read_bytes()
    digest = "sha256:" + "7" * 64
    where = names.parse(f"{one.host}/refs/swapped@{digest}")
    lines = data.splitlines()
    parts = tuple(artifact.part_of(line, reference_files.ENVELOPE) for line in lines)
    subject = artifact.Part(media_type="application/octet-stream", digest=digest, size=0)
    made = artifact.Artifact(artifact_type=reference_files.KIND, parts=parts, subject=subject)
    contents = {part.digest: line for part, line in zip(parts, lines, strict=True)}
    registry_server.push_artifact(where, made, contents, access=access(one))
    options = ("--about", "--registry-ca", one.ca, "--out", tmp_path / "pulled")
    code, told = run("pull", where, *options)
    assert (code, "other-file" in told) == (3, True)


@registries.needs_registry
def test_what_is_published_is_an_artifact_that_other_tools_read(one, kept, run, sign):
    import subprocess

    _, told = run("publish", sign(), f"{one.host}/refs/skopeo", "--registry-ca", one.ca, "--json")
    made = json.loads(told)
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false"]
    source = f"docker://{kept[1].host}/refs/skopeo@{made['digest']}"
    raw = subprocess.run([*command, source], capture_output=True, check=True).stdout
    document = json.loads(raw)
    assert document["artifactType"] == reference_files.KIND
    assert [row["annotations"][reference_files.PREDICATE] for row in document["layers"]] == [
        "urn:strongroom:reference:2",
        "https://slsa.dev/provenance/v1",
        "https://cyclonedx.org/bom",
    ]
    where = names.parse(made["reference"])
    assert artifacts.pull(where, access=access(one), max_bytes=1 << 20).digest == made["digest"]


def test_files_that_are_none_are_refused(run, tmp_path):
    junk = tmp_path / "junk"
    for data in (b"", b"{}", b"\xff\n", b"{}\n" * 20):
        junk.write_bytes(data)
        for verb in ("show", "verify"):
            assert run(verb, junk)[0] == 2
        assert run("publish", junk, "127.0.0.1:1/x")[0] == 2
