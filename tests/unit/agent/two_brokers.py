"""A room's whole life beside two real brokers; its disks and its program are stood in for."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from strongroom.agent import init, room
from strongroom.agent.disks import open as disks
from strongroom.crypto import sign
from strongroom.errors import Refused
from strongroom.model import messages, record
from strongroom.model import receipt as receipt_model
from strongroom.model.room.channel import Start
from strongroom_testing import packs
from tests.unit.agent import broker_side
from tests.unit.agent.handover import StillClock
from tests.unit.agent.node_end import NodeEnd

NUMBERS = count()


class Hardware(broker_side.FakeHardware):
    def bind_contract(self, contract):
        return

    def entropy(self):
        return b""


class Mapper:
    """A device mapper whose disks are sound, or not."""

    status_text = "V"

    def status(self, name):
        if isinstance(self.status_text, Exception):
            raise self.status_text
        return self.status_text


@dataclass
class FailedRead:
    """The record of failed reads; `after` many looks at it there is one."""

    after: float = float("inf")
    looks: int = 0

    def failed(self):
        self.looks += 1
        return self.looks > self.after

    def complain(self):
        if self.failed():
            raise Refused("a read failed", code="data-corrupted")


@dataclass
class House:
    """Two owners with brokers, a node, and a room between them."""

    world: packs.World
    node: NodeEnd
    before: dict = field(default_factory=dict)  # by party: how large the ledger was when the test began
    seen: dict = field(default_factory=dict)  # by party: names of the files at the node when the receipt came
    marks: int = 0
    wall: StillClock = field(default_factory=StillClock)
    reads: FailedRead = field(default_factory=FailedRead)
    twists: dict = field(default_factory=dict)  # (party, path): what answers in the broker's place

    def answer(self, party, path, status, answer):
        if path == "/v1/receipts":
            self.seen[party] = sorted(self.node.files)
        twist = self.twists.get((party, path))
        return (status, answer.encode()) if twist is None else twist(status, answer)

    def live(self, change=lambda one: one, **hardware):
        """One room's life, to its end or its failure."""
        drawn = replace(change(self.world.agreement.contract), id=f"run-{next(NUMBERS)}", raw=b"")
        agreement = self.world.scene.agreement(lambda _one: drawn)
        manifests = {
            "image": self.world.owners["bob"].manifest,
            "data-0": self.world.owners["alice"].manifest,
        }
        start = Start(
            agreement=agreement.encode(), room="main", launch_record=b"", issuers=b"", manifests=manifests
        )
        self.node.control(**json.loads(start.encode()))
        hardware = Hardware(self.world.scene.tpm, **hardware)
        room.run(self.node.channel, hardware, None, self.reads, self.wall, find=str)

    def receipts(self):
        """This test's receipts in the brokers' ledgers, by party, each signature held."""
        found = {}
        for party, owner in self.world.owners.items():
            ledger, before = owner.broker.store.ledger, self.before[party]
            for entry in map(record.parse, ledger.leaves(before, ledger.size() - before)):
                if entry.kind is record.RecordKind.RECEIPT:
                    envelope, receipt = receipt_model.parse_envelope(
                        messages.fields.Fields(dict(entry.body), "body").data("envelope", max_bytes=1 << 20)
                    )
                    key = sign.VerifyingKey(receipt.signing_key)
                    key.verify(envelope.signatures[0].sig, envelope.pae())
                    found.setdefault(party, []).append(receipt)
        return found

    def left(self):
        """Sealed files that the node has been handed, once it has taken in everything that the room sent."""
        self.marks += 1
        self.node.channel.send_control("mark", number=self.marks)
        while {"kind": "mark", "number": self.marks} not in self.node.controls:
            time.sleep(0.005)
        return sorted(name for name in self.node.files if name.startswith(("out-", "log")))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """The two owners' brokers, who serve every test of this file, and what a test may do to their answers."""
    folder = tmp_path_factory.mktemp("brokers")
    answers = {}
    with packs.world(folder) as world, contextlib.ExitStack() as stack:
        servers = {}
        for party, owner in world.owners.items():
            (folder / party).mkdir()
            servers[party] = broker_side.serve(
                folder / party,
                owner.broker,
                owner.tls,
                lambda path, status, answer, party=party: answers["house"].answer(
                    party, path, status, answer
                ),
            )
            stack.callback(servers[party].close)
        yield world, servers, answers


@pytest.fixture
def house(tmp_path, monkeypatch, street):
    world, servers, answers = street
    monkeypatch.setattr(init, "ROOM", str(tmp_path / "room"))
    monkeypatch.setattr(init, "watch", lambda seconds: None)
    monkeypatch.setattr(init, "sealing_memory", lambda: 1 << 28)
    monkeypatch.setattr(room, "DeviceMapper", Mapper)
    monkeypatch.setattr(room, "_open", open_all)
    (tmp_path / "room/out").mkdir(parents=True)
    (tmp_path / "room/out/n").write_bytes(b"4711\n")
    node = NodeEnd({party: server.address for party, server in servers.items()})
    before = {party: owner.broker.store.ledger.size() for party, owner in world.owners.items()}
    answers["house"] = House(world=world, node=node, before=before)
    yield answers["house"]
    node.close()


def open_all(mapper, terms, released, opened, find):
    for serial, _, manifest in terms.disks():
        opened.append(disks.OpenDisk(serial=serial, manifest=manifest, folder=""))
