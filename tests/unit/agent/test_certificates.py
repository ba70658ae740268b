"""The room's key and chains, as its program finds them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from strongroom.agent import attest, init, owners
from strongroom.agent.certificates.in_room import RoomCertificates
from strongroom.agent.container import ContainerLaunch
from strongroom.model.contracts.certificate_terms import CertificateTerms, Delivery, Signal

TERMS = CertificateTerms(names=("room.flights.example",), lifetime_seconds=600)


def room_certificates(certificate, workload=None):
    terms = SimpleNamespace(
        settings=SimpleNamespace(uid=os.getuid(), gid=os.getgid()),
        contract=SimpleNamespace(id="flights"),
        room=SimpleNamespace(name="web"),
    )
    return RoomCertificates(terms, certificate, workload, run_id="run-1")


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(init, "ROOM", str(tmp_path))
    monkeypatch.setattr(init, "mount_memory", lambda folder, _size, _mode: Path(folder).mkdir(0o700))
    monkeypatch.setattr(owners, "FIRST", 0)

    def written(keys, *parties):
        released = [
            SimpleNamespace(party=party, account=None, answer=SimpleNamespace(certificates=(party.encode(), b"i", b"r"))) for party in parties
        ]  # fmt: skip
        certificates = room_certificates(TERMS)
        certificates.write(released, keys.tls)
        folder = Path(certificates.folder.folder)
        files = [path for path in (folder / "current").rglob("*") if path.is_file()]
        assert all(
            (folder / path.relative_to(folder / "current")).read_bytes() == path.read_bytes()
            for path in files
        )
        return {str(path.relative_to(folder / "current")): (path.stat(), path.read_bytes()) for path in files}

    return written


def test_a_party_called_key_leaves_the_rooms_key_where_it_is(write):
    keys = attest.make_keys()
    found = write(keys, "key", "alice", "chains", "key.pem")
    chains = {f"chains/{party}.pem" for party in ("key", "alice", "chains", "key.pem")}
    assert set(found) == {"key.pem", "certificate.pem", "combined.pem", "ca.pem", *chains}
    assert found["key.pem"][1] == keys.tls.pem()
    assert len({content for _, content in found.values()}) == 8
    assert {status.st_mode & 0o777 for status, _ in found.values()} == {0o400}


@pytest.fixture
def launched(tmp_path, monkeypatch):
    def launch(certificate, workload=None):
        monkeypatch.setattr(init, "ROOM", str(tmp_path))
        monkeypatch.setattr(init, "mount_memory", lambda *_: None)
        return room_certificates(certificate, workload).launch(a_launch())

    return launch


def test_a_launch_says_where_certificates_go_and_how_the_program_reads_later_ones(launched, tmp_path):
    usual = launched(TERMS)
    assert (usual.tls, usual.tls_place, usual.reload, usual.signal) == (
        f"{tmp_path}/tls",
        "/run/strongroom/tls",
        (),
        0,
    )
    wanted = Delivery(folder="/etc/tls", uid=0, gid=0, signal=Signal.HUP)
    told = launched(with_delivery(wanted))
    assert (told.tls_place, told.reload, told.signal) == ("/etc/tls", (), 1)
    wanted = Delivery(uid=0, gid=0, command=("nginx", "-s", "reload"))
    told = launched(with_delivery(wanted))
    assert (told.reload, told.signal) == (("nginx", "-s", "reload"), 0)


def test_a_program_finds_the_workload_api_by_its_environment(launched):
    told = launched(with_delivery(Delivery(folder="/etc/tls", uid=0, gid=0)), object())
    assert told.environment == {"SPIFFE_ENDPOINT_SOCKET": "unix:///etc/tls/spiffe.sock"}
    assert launched(TERMS).environment == {}


def with_delivery(wanted):
    return replace(TERMS, delivery=wanted)


def a_launch():
    return ContainerLaunch(
        arguments=("/bin/true",),
        environment={},
        working_directory="/",
        uid=0,
        gid=0,
        groups=(),
        image="",
        datasets={},
        out="",
        tls="",
        scratch="",
        root_bytes=4096,
        tmp_bytes=4096,
        cgroup="",
    )
