"""Where `connect` finds a room of the Compose file beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.errors import NotFound, Unavailable
from strongroom.model.contracts.room_terms import Restart
from strongroom.project import folder, plan
from strongroom.project.reach import reach


@pytest.fixture
def compose(tmp_path):
    state = folder.beside(tmp_path / "compose.yaml")
    state.path.mkdir()
    room = plan.PlannedRoom(
        name="web",
        contract=Path("contracts/3.json"),
        contract_digest="sha256:" + "0" * 64,
        base=Path("bases/1"),
        disks=(),
        is_job=False,
        restart=Restart.ALWAYS,
        memory_guard=True,
        depends_on={},
        published={},
        tunnels={"p80": "127.0.0.1:8080", "p81": "unix:sockets/web-p81"},
        peers={},
        room_identity="sha256:" + "1" * 64,
    )
    plan.write_plan(state, plan.Plan(broker="127.0.0.1:1", rooms=(room,)))
    return tmp_path / "compose.yaml"


def test_a_port_is_reached_where_up_put_it(compose, monkeypatch):
    with pytest.raises(Unavailable, match="nothing of it is up"):
        reach(compose, "web:p80")
    monkeypatch.setattr(folder.StateFolder, "is_supervised", lambda _folder: True)
    state = compose.parent / ".strongroom"
    tcp = reach(compose, "web:p80")
    assert (tcp.contract, tcp.at, tcp.party) == (
        state / "contracts/3.json",
        "127.0.0.1:8080",
        state / "owner.party.json",
    )
    assert reach(compose, "web:p81").at == f"unix:{state}/sockets/web-p81"


@pytest.mark.parametrize("where", ["web:p82", "db:p80", "web", ""])
def test_a_port_that_is_not_there_is_named_beside_those_that_are(compose, where):
    with pytest.raises(NotFound, match="there are: web:p80, web:p81"):
        reach(compose, where)


def test_nothing_was_brought_up(tmp_path):
    with pytest.raises(NotFound, match="nothing of it was ever brought up"):
        reach(tmp_path / "compose.yaml", "web:p80")
