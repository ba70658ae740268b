"""The room's key and chains, as its program finds them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from strongroom.agent import attest, init, owners, room


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(init, "ROOM", str(tmp_path))
    monkeypatch.setattr(init, "mount_memory", lambda folder, _size, _mode: Path(folder).mkdir(0o700))
    monkeypatch.setattr(owners, "FIRST", 0)
    terms = SimpleNamespace(settings=SimpleNamespace(uid=os.getuid(), gid=os.getgid()))

    def written(keys, *parties):
        released = [
            SimpleNamespace(party=party, answer=SimpleNamespace(certificates=(party.encode(),))) for party in parties
        ]  # fmt: skip
        folder = Path(room._write_certificates(terms, released, keys))
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): (path.stat(), path.read_bytes()) for path in files}

    return written


def test_a_party_called_key_leaves_the_rooms_key_where_it_is(write):
    keys = attest.make_keys()
    found = write(keys, "key", "alice", "chains", "key.pem")
    assert set(found) == {
        "key.pem",
        *(f"chains/{party}.pem" for party in ("key", "alice", "chains", "key.pem")),
    }
    assert found["key.pem"][1] == keys.tls.pem()
    assert len({content for _, content in found.values()}) == 5
    assert {status.st_mode & 0o777 for status, _ in found.values()} == {0o400}
