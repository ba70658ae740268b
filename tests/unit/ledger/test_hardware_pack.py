"""Proof packs of rooms in hardware TEEs: the endorsements that the brokers judged with are in them, and count."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strongroom.ledger import inspect, proofpack
from strongroom.model.endorsements import NONE, Endorsements
from strongroom_testing import hardware_packs, packs, simulated
from tests import verbs


@pytest.fixture(params=simulated.TEES)
def world(request, tmp_path):
    with hardware_packs.world(request.param, tmp_path) as made:
        yield made


def failed(world, pack):
    return [check.name for check in inspect.inspect(pack, anchors=world.anchors).failed]


def changed(pack, endorsements):
    return replace(pack, releases=(replace(pack.releases[0], endorsements=endorsements), *pack.releases[1:]))


def test_a_sound_pack_holds_and_no_other_endorsements_do(world):
    pack = world.pack()
    assert failed(world, pack) == []
    assert proofpack.parse(pack.encode()) == pack
    parts = pack.releases[0].endorsements.parts
    assert any(name.startswith("device-0.") for name in parts)
    # The record names them by their digest: none can be taken away, added or exchanged afterwards.
    for name, data in parts.items():
        without = {one: part for one, part in parts.items() if one != name}
        for spoiled in (without, parts | {name: data[:-1] + bytes([data[-1] ^ 1])}):
            assert "record.alice" in failed(world, changed(pack, Endorsements(parts=spoiled)))
    assert "record.alice" in failed(world, changed(pack, Endorsements(parts=parts | {"more": b"x"})))
    if parts.keys() - {name for name in parts if name.startswith("device-")}:
        assert {"record.alice", "verdict.alice"} <= set(failed(world, changed(pack, NONE)))


def test_a_runs_folder_becomes_a_pack_that_checks_offline(world, tmp_path):
    out = tmp_path / "written"
    out.mkdir()
    packs.write_run(world, out)
    assert json.loads((out / "run/release-alice.json").read_bytes())["endorsements"]["parts"]
    done = verbs.run("proof", "export", out / "run", "--out", out / "proof.json")
    assert done.returncode == 0, done.stderr
    trusted = [word for name in ("alice", "bob") for word in ("--trust", out / f"{name}.party.json")]
    done = verbs.run("proof", "verify", out / "proof.json", *trusted)
    assert (done.returncode, "the proof holds, for a SIMULATED room" in done.stdout) == (0, True), done.stdout
