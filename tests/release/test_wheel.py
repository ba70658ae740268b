"""The wheel, installed where there is no repository: it is whole, it says what it needs, and it judges evidence."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata

import pytest
from packaging.utils import canonicalize_name
from tools.release import installed, python_dist

import strongroom
from strongroom import extras
from strongroom.bases import inputs
from strongroom.bases.packages import wheels
from strongroom.model import identity
from strongroom.wiring import broker
from tests.arch import sources
from tests.release import places

EPOCH = 1_700_000_000
AT = "2026-11-24T12:00:00Z"
WALK = """
import importlib, pkgutil, strongroom
assert "site-packages" in strongroom.__file__, strongroom.__file__
for one in pkgutil.walk_packages(strongroom.__path__, "strongroom."):
    if not one.name.endswith("__main__"):
        importlib.import_module(one.name)
        print(one.name)
"""
BUILDS = """
import json
from strongroom.bases import inputs
from strongroom.bases.packages import wheels
print(json.dumps([
    inputs.agent_digest(inputs.own_agent()), inputs.builder_digest(),
    *(one.digest for one in wheels.collect()),
]))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """(wheel, sdist)"""
    return python_dist.build(tmp_path_factory.mktemp("dist"), epoch=EPOCH)


@pytest.fixture(scope="module")
def bare(dist, tmp_path_factory):
    """Installed without any extra. Tests below add extras, in order: what comes first was compiled once."""
    wheel, _ = dist
    there = places.install(tmp_path_factory.mktemp("installed") / "env", wheel)
    there.add(installed.files(installed.closure(wheel, set())))
    return there


def test_the_wheel_holds_the_product_and_nothing_else(dist):
    wheel, sdist = dist
    source = python_dist.ROOT / "src"
    wanted = {
        str(path.relative_to(source))
        for path in (source / "strongroom").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {one for one in archive.namelist() if ".dist-info/" not in one} == wanted
    with tarfile.open(sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    assert {one.removeprefix("src/") for one in names if one.startswith("src/strongroom/")} == wanted
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names


def test_nothing_in_wheel_and_sdist_tells_when_or_by_whom_they_were_made(dist):
    wheel, sdist = dist
    with zipfile.ZipFile(wheel) as archive:
        told = {(one.date_time, one.external_attr, one.create_system) for one in archive.infolist()}
    assert told == {((2023, 11, 14, 22, 13, 20), 0o100644 << 16, 3)}
    with tarfile.open(sdist) as archive:
        told = {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in archive}
    assert told == {(EPOCH, 0, 0, "", 0o644), (EPOCH, 0, 0, "", 0o755)}


@pytest.mark.root
def test_evidence_is_judged_where_the_wheel_alone_is_installed(dist, bare, tmp_path):
    """In an empty folder, out of the repository's reach; what needs an extra says which until it is there."""
    done = bare.run("python", "-c", "from strongroom.evidence import roots, verify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = bare.run("strongroom", "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.splitlines() == [
        "error [missing-extra]: the Python package typer is not installed",
        "hint: pip install 'strongroom[cli]'",
    ]
    subprocess.run(
        [sys.executable, "-m", "strongroom_testing.evidence_folder", "."], cwd=tmp_path, check=True
    )
    bare.add(installed.files(installed.closure(dist[0], {"cli"})))
    assert (
        bare.run("strongroom", "--version", cwd=tmp_path).stdout == f"strongroom {strongroom.__version__}\n"
    )
    judge = (
        "evidence",
        "verify",
        "--policy",
        "policy.json",
        "--endorsements",
        "tdx.endorsements.json",
        "--at",
        AT,
    )
    done = bare.run("strongroom", *judge, "quote.bin", "--report-data", "ab" * 64, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ACCEPTED by policy test" in done.stdout
    done = bare.run("strongroom", *judge, "quote.bin", "--report-data", "ac" * 64, cwd=tmp_path)
    assert done.returncode == 3
    assert "NO   evidence.binding" in done.stdout
    bare.add(installed.files(installed.closure(dist[0], {"cli", "rooms"})))
    owner = identity.generate("alice").party()
    broker.init_broker(
        tmp_path / "broker", owner, listen="127.0.0.1:1", url="https://127.0.0.1:1", passphrase=b"x"
    )
    done = bare.run("strongroom", "broker", "status", "broker", cwd=tmp_path)
    assert "pip install 'strongroom[server]'" in done.stderr
    done = bare.run("python", "-c", BUILDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        inputs.agent_digest(inputs.own_agent()),
        inputs.builder_digest(),
        *(one.digest for one in wheels.collect()),
    ]
    assert bare.run("strongroom", "base", "build", "--help", cwd=tmp_path).returncode == 0


@pytest.mark.root
@pytest.mark.soak
def test_every_module_finds_what_it_imports(dist, bare, tmp_path):
    bare.add(installed.files(installed.closure(dist[0], {"all"})))
    done = bare.run("python", "-c", WALK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 300


def test_every_package_that_is_imported_is_of_an_extra_that_brings_it(dist):
    imported = {
        name.partition(".")[0]
        for source in sources.product()
        for name in sources.imports(source.tree)
        if name.partition(".")[0]
        not in {*sys.stdlib_module_names, "strongroom", "typing_extensions"}  # for types alone
    }
    brought = metadata.packages_distributions()
    core = installed.closure(dist[0], set())
    wanting = {
        name: extras.EXTRA.get(name)
        for name in imported | extras.EXTRA.keys()
        for extra in [extras.EXTRA.get(name)]
        for wanted in [installed.closure(dist[0], {extra}) if extra else core]
        if not {canonicalize_name(one) for one in brought.get(name, ())} & set(wanted)
    }
    assert wanting == {}
